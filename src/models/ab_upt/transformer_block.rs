//! A pre-norm transformer block around mixed attention.
//!
//! ```text
//! x ← x + gate₁ · γ₁ · attention(modulate₁(norm₁ x))
//! x ← x + gate₂ · γ₂ · feed_forward(modulate₂(norm₂ x))
//! ```

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;
use serde::{Deserialize, Serialize};

use super::branch::{BlockShape, Branch, BranchModulation, FeedForwardBranch};
use super::config::check_block;
use super::norm::{Modulation, modulate};
use crate::attention::options::AttentionOptions;
use crate::cache::KvCache;
use crate::checks::check_input;
use crate::modules::{KeyExchange, MixedAttention, MixedAttentionConfig, WeightSharing};
use crate::plan::AttentionPlan;

/// Configuration of a [`TransformerBlock`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct TransformerBlockConfig {
    /// Width of the tokens.
    pub hidden_dim: usize,
    /// Number of heads; divides `hidden_dim`.
    pub num_heads: usize,
    /// Hidden width of the feed-forward layer.
    pub mlp_hidden_dim: usize,
    /// Width of the condition; no modulation if not set.
    #[serde(default)]
    pub condition_dim: Option<usize>,
    /// Whether the branches have learned factors.
    #[serde(default)]
    pub layer_scale: bool,
    /// Whether norms, projections and shared feed-forward layers have biases.
    pub bias: bool,
    /// Added to the variance by the layer norms.
    pub eps: f64,
    /// Whether queries and keys are rotated.
    pub use_rope: bool,
}

/// Where the keys of a block come from, and whether they are kept. Keys that are kept, or were, may lie in shares on
/// several processes; one that has them all says so by [`AllKeys`](crate::AllKeys).
#[derive(Debug, Clone, Copy)]
pub enum BlockKeys<'a> {
    /// All from the input.
    Input,
    /// All from the input; the block returns those that the options name, as many of each group as are this process's share.
    Keep(&'a dyn KeyExchange),
    /// From this cache, where the plan says so, and from those of the other processes.
    Cache(&'a KvCache, &'a dyn KeyExchange),
}

/// A pre-norm transformer block: mixed attention and a feed-forward layer.
#[derive(Debug, Clone)]
pub struct TransformerBlock {
    /// scale₁ shift₁ gate₁ scale₂ shift₂ gate₂
    modulation: Option<Modulation<6>>,
    branch: Branch,
    attention: MixedAttention,
    feed_forward: FeedForwardBranch,
}

impl TransformerBlock {
    /// Loads a block whose attention is stored as `attention_block`, as in the geometry encoder.
    ///
    /// # Errors
    /// A configuration that cannot work; a tensor is missing or has another shape.
    pub fn new(config: &TransformerBlockConfig, vb: VarBuilder) -> Result<Self> {
        let attention = vb.pp("attention_block");
        Self::load(config, &WeightSharing::Shared, attention, vb)
    }

    /// Loads a block whose attention is stored as `attention_block.mixed_attention`, as in the physics blocks and the
    /// decoders.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn anchored(config: &TransformerBlockConfig, sharing: &WeightSharing, vb: VarBuilder) -> Result<Self> {
        let attention = vb.pp("attention_block").pp("mixed_attention");
        Self::load(config, sharing, attention, vb)
    }

    fn load(
        config: &TransformerBlockConfig,
        sharing: &WeightSharing,
        attention: VarBuilder,
        vb: VarBuilder,
    ) -> Result<Self> {
        let &TransformerBlockConfig { hidden_dim: width, num_heads, bias, eps, use_rope, .. } = config;
        check_block(config.mlp_hidden_dim, config.condition_dim, eps)?;
        let (modulated, layer_scale) = (config.condition_dim.is_some(), config.layer_scale);
        let shape = BlockShape { width, eps, bias, modulated, layer_scale };
        let modulation = match config.condition_dim {
            Some(dim) => Some(Modulation::new(dim, [width; 6], vb.pp("modulation"))?),
            None => None,
        };
        let attention_config =
            MixedAttentionConfig { hidden_dim: width, num_heads, num_kv_heads: None, bias, use_rope };
        Ok(Self {
            modulation,
            branch: Branch::load(&shape, "norm1", "ls1", &vb)?,
            attention: MixedAttention::with_sharing(&attention_config, sharing, attention)?,
            feed_forward: FeedForwardBranch::load(&shape, config.mlp_hidden_dim, sharing, &vb)?,
        })
    }

    /// `x [batch, tokens, hidden_dim]`, the input groups of the plan, to the same shape; with the cache if it is to be
    /// kept. `x` may be f32 where the block is f16 or bf16: its sums are then f32 too.
    ///
    /// `condition` is `[batch or 1, condition_dim]`.
    ///
    /// # Errors
    /// A condition that is missing, not expected or of another shape; as [`MixedAttention::forward`].
    pub fn forward(
        &self,
        x: &Tensor,
        plan: &AttentionPlan,
        keys: BlockKeys<'_>,
        condition: Option<&Tensor>,
        options: &AttentionOptions,
    ) -> Result<(Tensor, Option<KvCache>)> {
        let (batch, _) = check_input("x", x, self.attention.config().hidden_dim)?;
        let (first, second) = match modulate(self.modulation.as_ref(), condition, batch)? {
            Some([scale1, shift1, gate1, scale2, shift2, gate2]) => {
                (Some(BranchModulation::new(scale1, shift1, gate1)), Some(BranchModulation::new(scale2, shift2, gate2)))
            }
            None => (None, None),
        };
        let normed = self.branch.begin(x, first.as_ref())?;
        let (attended, cache) = match keys {
            BlockKeys::Input => (self.attention.forward(&normed, plan, options)?, None),
            BlockKeys::Keep(exchange) => {
                let (attended, cache) = self.attention.forward_and_shard(&normed, plan, options, exchange)?;
                (attended, Some(cache))
            }
            BlockKeys::Cache(cache, exchange) => {
                (self.attention.forward_from_shard(&normed, plan, cache, options, exchange)?, None)
            }
        };
        let x = self.branch.end(x, &attended, first.as_ref())?;
        Ok((self.feed_forward.forward(&x, plan.tokens(), second.as_ref())?, cache))
    }
}
