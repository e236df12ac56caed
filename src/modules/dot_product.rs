//! Plain multi-head self attention: a plan of one group that attends to itself.

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;
use serde::{Deserialize, Serialize};

use super::mixed::{MixedAttention, MixedAttentionConfig};
use crate::attention::options::AttentionOptions;
use crate::error::PlanError;
use crate::plan::{AttentionPattern, AttentionPlan, RecentPlans, TokenSpec};

/// Configuration of a [`DotProductAttention`] layer; the same fields as [`MixedAttentionConfig`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DotProductAttentionConfig(pub MixedAttentionConfig);

/// Every token attends to every token.
#[derive(Debug, Clone)]
pub struct DotProductAttention {
    attention: MixedAttention,
    plans: RecentPlans<usize>,
}

impl DotProductAttention {
    /// Loads `q`, `k`, `v` (or `qkv`) and `proj`.
    ///
    /// # Errors
    /// As [`MixedAttention::new`].
    pub fn new(config: &DotProductAttentionConfig, vb: VarBuilder) -> Result<Self> {
        Ok(Self { attention: MixedAttention::new(&config.0, vb)?, plans: RecentPlans::default() })
    }

    /// The plan for this number of tokens.
    ///
    /// # Errors
    /// None in practice: one group that attends to itself is a valid plan.
    pub fn plan(tokens: usize) -> std::result::Result<AttentionPlan, PlanError> {
        AttentionPlan::new(
            [TokenSpec::new("tokens", tokens)],
            [AttentionPattern::queries(["tokens"]).attend_to(["tokens"])],
        )
    }

    /// `x [batch, tokens, hidden_dim]` to the same shape. The plans of the last few numbers of tokens are kept.
    ///
    /// # Errors
    /// As [`MixedAttention::forward`].
    pub fn forward(&self, x: &Tensor, options: &AttentionOptions) -> Result<Tensor> {
        let tokens = x.dims().get(1).copied().unwrap_or(0);
        let plan = self.plans.get(&tokens, || Self::plan(tokens))?;
        self.attention.forward(x, &plan, options)
    }
}
