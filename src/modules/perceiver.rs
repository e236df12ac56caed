//! Cross attention from tokens to another sequence: a plan whose keys are all cached.

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;
use serde::{Deserialize, Serialize};

use super::domains::DomainRuns;
#[cfg(doc)]
use super::mixed::MixedAttentionConfig;
use super::mixed::{check_rope, yes};
use super::projection::{self, FusedLinear, OutputProjection, Projection};
use super::sharing::WeightSharing;
use crate::attention::options::AttentionOptions;
use crate::attention::{Inputs, run};
use crate::cache::KvCache;
use crate::checks::{check_input, check_tokens};
use crate::error::PlanError;
use crate::padding::KeyPadding;
use crate::plan::{AttentionPattern, AttentionPlan, RecentPlans, TokenSpec};
use crate::rope::RopeFrequencies;

/// Name of the group that holds the encoded source in the cache.
const SOURCE: &str = "source";

/// Configuration of a [`PerceiverAttention`] layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PerceiverAttentionConfig {
    /// Width of the asking tokens.
    pub hidden_dim: usize,
    /// Number of heads; divides `hidden_dim`.
    pub num_heads: usize,
    /// Number of heads of keys and values, as [`MixedAttentionConfig::num_kv_heads`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub num_kv_heads: Option<usize>,
    /// Width of the source tokens; `hidden_dim` if not set.
    #[serde(default)]
    pub kv_dim: Option<usize>,
    /// Whether the projections have a bias. Default: true.
    #[serde(default = "yes")]
    pub bias: bool,
    /// Whether queries and keys are rotated. Default: false.
    #[serde(default)]
    pub use_rope: bool,
}

/// Every token of `x` attends to every token of a source, which is encoded once.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use candle_mixed_attention::{AttentionOptions, PerceiverAttention, PerceiverAttentionConfig};
/// use candle_nn::{VarBuilder, VarMap};
///
/// let config: PerceiverAttentionConfig = serde_json::from_str(r#"{"hidden_dim": 48, "num_heads": 3}"#).unwrap();
/// let vars = VarMap::new();
/// let layer = PerceiverAttention::new(&config, VarBuilder::from_varmap(&vars, DType::F32, &Device::Cpu))?;
/// let source = layer.encode(&Tensor::randn(0f32, 1., (1, 20, 48), &Device::Cpu)?, None, None)?;
/// let x = Tensor::randn(0f32, 1., (1, 7, 48), &Device::Cpu)?;
/// assert_eq!(layer.forward(&x, &source, &AttentionOptions::default())?.dims(), &[1, 7, 48]);
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct PerceiverAttention {
    config: PerceiverAttentionConfig,
    /// Heads of keys and values.
    kv_heads: usize,
    query: FusedLinear,
    key_value: FusedLinear,
    output: OutputProjection,
    /// Of the asking tokens; the source has one set of weights.
    sharing: WeightSharing,
    plans: RecentPlans<usize>,
}

impl PerceiverAttention {
    /// Loads `q`, `k` and `v` (or one fused `kv`) and `proj`.
    ///
    /// # Errors
    /// `hidden_dim` is not divisible by `num_heads`, or that by `num_kv_heads`; a tensor is missing or has another shape.
    pub fn new(config: &PerceiverAttentionConfig, vb: VarBuilder) -> Result<Self> {
        Self::with_sharing(config, &WeightSharing::Shared, vb)
    }

    /// As [`new`](Self::new), with weights of `q` and `proj` that may differ from domain to domain. The keys and values
    /// of the source always have one set of weights.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_sharing(config: &PerceiverAttentionConfig, sharing: &WeightSharing, vb: VarBuilder) -> Result<Self> {
        let head_dim = projection::head_dim(config.hidden_dim, config.num_heads)?;
        let kv_heads = projection::kv_heads(config.num_heads, config.num_kv_heads)?;
        let (width, kv_width) = (config.hidden_dim, config.kv_dim.unwrap_or(config.hidden_dim));
        projection::check_width("kv_dim", kv_width)?;
        Ok(Self {
            config: *config,
            kv_heads,
            query: FusedLinear::load(&vb, "q", &[("q", config.num_heads)], (width, head_dim), config.bias, sharing)?,
            key_value: FusedLinear::load(
                &vb,
                "kv",
                &[("k", kv_heads), ("v", kv_heads)],
                (kv_width, head_dim),
                config.bias,
                &WeightSharing::Shared,
            )?,
            output: OutputProjection::Weights(Projection::load((width, width), config.bias, sharing, vb.pp("proj"))?),
            sharing: sharing.clone(),
            plans: RecentPlans::default(),
        })
    }

    /// The configuration.
    pub fn config(&self) -> &PerceiverAttentionConfig {
        &self.config
    }

    /// Projects a source `[batch, tokens, kv_dim]` to keys, which are rotated, and values.
    ///
    /// # Errors
    /// Another width; frequencies that do not agree with `use_rope` or do not fit; padding that does not fit.
    pub fn encode(
        &self,
        source: &Tensor,
        frequencies: Option<&RopeFrequencies>,
        padding: Option<KeyPadding>,
    ) -> Result<KvCache> {
        check_rope(self.config.use_rope, frequencies, "the source")?;
        let width = self.config.kv_dim.unwrap_or(self.config.hidden_dim);
        let tokens = self.key_value.check_input("source", source, width)?;
        let runs = DomainRuns::from_sizes(&[tokens]);
        let mut parts = self.key_value.heads(source, &runs)?;
        let (values, keys) = (parts.remove(1), parts.remove(0));
        let keys = frequencies.map_or(Ok(keys.clone()), |frequencies| frequencies.rotate(&keys))?;
        KvCache::from_groups([(SOURCE, keys, values)], padding)
    }

    /// The plan for this number of asking tokens.
    ///
    /// # Errors
    /// None in practice: one group that attends to a cached one is a valid plan.
    pub fn plan(tokens: usize) -> std::result::Result<AttentionPlan, PlanError> {
        AttentionPlan::new(
            [TokenSpec::new("queries", tokens), TokenSpec::cached(SOURCE)],
            [AttentionPattern::queries(["queries"]).attend_to([SOURCE])],
        )
    }

    /// `x [batch, tokens, hidden_dim]` to the same shape. `options.rope` rotates the queries. The plans of the last few
    /// numbers of tokens are kept.
    ///
    /// # Errors
    /// Another width; frequencies that do not agree with `use_rope`; a source that another layer encoded; weights that
    /// differ from domain to domain (see [`forward_groups`](Self::forward_groups)).
    pub fn forward(&self, x: &Tensor, source: &KvCache, options: &AttentionOptions) -> Result<Tensor> {
        let (_, tokens) = check_input("x", x, self.config.hidden_dim)?;
        self.forward_groups(x, &[TokenSpec::new("queries", tokens)], source, options)
    }

    /// As [`forward`](Self::forward), for the input groups of `tokens` one after another, whose names tell the domain of
    /// each token.
    ///
    /// # Errors
    /// As [`forward`](Self::forward); groups that hold another number of tokens than `x` or belong to no domain.
    pub fn forward_groups(
        &self,
        x: &Tensor,
        tokens: &[TokenSpec],
        source: &KvCache,
        options: &AttentionOptions,
    ) -> Result<Tensor> {
        let len = self.query.check_input("x", x, self.config.hidden_dim)?;
        check_rope(self.config.use_rope, options.rope.as_ref(), "x")?;
        let runs = self.sharing.runs(tokens)?;
        check_tokens("x", runs.tokens(), len, || {
            tokens.iter().map(|token| format!("{} {:?}", token.name, token.size)).collect::<Vec<_>>().join(", ")
        })?;
        source.check_heads(self.kv_heads)?;
        let queries = self.query.heads(x, &runs)?.remove(0);
        let inputs = Inputs { queries: &queries, keys_values: None, cache: Some(source) };
        let plan = self.plans.get(&len, || Self::plan(len))?;
        self.output.join_heads(&run(inputs, &plan, options)?, &runs)
    }
}
