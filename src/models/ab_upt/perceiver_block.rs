//! A pre-norm block whose tokens attend to an encoded source.
//!
//! As [`TransformerBlock`](super::TransformerBlock), with cross attention: the source goes through a norm, modulation and
//! projection of its own, once, and its keys and values serve every later pass.

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;
use serde::{Deserialize, Serialize};

use super::branch::{BlockShape, Branch, BranchModulation, FeedForwardBranch};
use super::config::check_block;
use super::norm::{LayerNorm, Modulation, ScaleShift, modulate};
use crate::attention::options::AttentionOptions;
use crate::cache::KvCache;
use crate::checks::check_input;
use crate::modules::{PerceiverAttention, PerceiverAttentionConfig, WeightSharing};
use crate::plan::TokenSpec;
use crate::rope::RopeFrequencies;

/// Configuration of a [`PerceiverBlock`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PerceiverBlockConfig {
    /// Width of the tokens.
    pub hidden_dim: usize,
    /// Number of heads; divides `hidden_dim`.
    pub num_heads: usize,
    /// Hidden width of the feed-forward layer.
    pub mlp_hidden_dim: usize,
    /// Width of the source tokens; `hidden_dim` if not set.
    #[serde(default)]
    pub kv_dim: Option<usize>,
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

/// A pre-norm block: cross attention to a source and a feed-forward layer.
#[derive(Debug, Clone)]
pub struct PerceiverBlock {
    /// scale_q shift_q scale_kv shift_kv gate₁ scale₂ shift₂ gate₂
    modulation: Option<Modulation<8>>,
    branch: Branch,
    /// Width of the source tokens.
    source_dim: usize,
    norm_source: LayerNorm,
    attention: PerceiverAttention,
    feed_forward: FeedForwardBranch,
}

impl PerceiverBlock {
    /// Loads the block. Weights of `sharing` are those of the asking tokens; the source always has one set.
    ///
    /// # Errors
    /// A configuration that cannot work; a tensor is missing or has another shape.
    pub fn new(config: &PerceiverBlockConfig, sharing: &WeightSharing, vb: VarBuilder) -> Result<Self> {
        let &PerceiverBlockConfig { hidden_dim: width, num_heads, kv_dim, bias, eps, use_rope, .. } = config;
        let source = kv_dim.unwrap_or(width);
        check_block(config.mlp_hidden_dim, config.condition_dim, eps)?;
        let (modulated, layer_scale) = (config.condition_dim.is_some(), config.layer_scale);
        let shape = BlockShape { width, eps, bias, modulated, layer_scale };
        let modulation = match config.condition_dim {
            Some(dim) => {
                let widths = [width, width, source, source, width, width, width, width];
                Some(Modulation::new(dim, widths, vb.pp("modulation"))?)
            }
            None => None,
        };
        let attention =
            PerceiverAttentionConfig { hidden_dim: width, num_heads, num_kv_heads: None, kv_dim, bias, use_rope };
        Ok(Self {
            modulation,
            branch: Branch::load(&shape, "norm1q", "ls1", &vb)?,
            source_dim: source,
            norm_source: shape.norm(source, vb.pp("norm1kv"))?,
            attention: PerceiverAttention::with_sharing(&attention, sharing, vb.pp("attn"))?,
            feed_forward: FeedForwardBranch::load(&shape, config.mlp_hidden_dim, sharing, &vb)?,
        })
    }

    /// Norm, modulation and projection of a source `[batch, tokens, kv_dim]` to keys, which are rotated, and values.
    ///
    /// # Errors
    /// A condition that is missing, not expected or of another shape; as [`PerceiverAttention::encode`].
    pub fn encode(
        &self,
        source: &Tensor,
        frequencies: Option<&RopeFrequencies>,
        condition: Option<&Tensor>,
    ) -> Result<KvCache> {
        let (batch, _) = check_input("source", source, self.source_dim)?;
        let modulation = modulate(self.modulation.as_ref(), condition, batch)?
            .map(|[_, _, scale, shift, _, _, _, _]| ScaleShift { scale, shift });
        self.attention.encode(&self.norm_source.forward(source, modulation.as_ref())?, frequencies, None)
    }

    /// `x [batch, tokens, hidden_dim]`, the input groups of `tokens`, to the same shape. `options.rope` rotates the
    /// queries. `x` may be f32 where the block is f16 or bf16: its sums are then f32 too.
    ///
    /// # Errors
    /// A condition that is missing, not expected or of another shape; as [`PerceiverAttention::forward_groups`].
    pub fn forward(
        &self,
        x: &Tensor,
        tokens: &[TokenSpec],
        source: &KvCache,
        condition: Option<&Tensor>,
        options: &AttentionOptions,
    ) -> Result<Tensor> {
        let (batch, _) = check_input("x", x, self.attention.config().hidden_dim)?;
        let (first, second) = match modulate(self.modulation.as_ref(), condition, batch)? {
            Some([scale1, shift1, _, _, gate1, scale2, shift2, gate2]) => {
                (Some(BranchModulation::new(scale1, shift1, gate1)), Some(BranchModulation::new(scale2, shift2, gate2)))
            }
            None => (None, None),
        };
        let normed = self.branch.begin(x, first.as_ref())?;
        let attended = self.attention.forward_groups(&normed, tokens, source, options)?;
        let x = self.branch.end(x, &attended, first.as_ref())?;
        self.feed_forward.forward(&x, tokens, second.as_ref())
    }
}
