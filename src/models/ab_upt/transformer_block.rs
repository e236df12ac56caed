//! A pre-norm transformer block around mixed attention.
//!
//! ```text
//! x ← x + gate₁ · γ₁ · attention(modulate₁(norm₁ x))
//! x ← x + gate₂ · γ₂ · feed_forward(modulate₂(norm₂ x))
//! ```
//!
//! Gates and modulation (scale and shift) are linear in the condition and exist only where there is one, the layer scales
//! γ only where configured.

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;
use serde::{Deserialize, Serialize};

use super::config::check_block;
use super::feed_forward::FeedForward;
use super::norm::{Affine, LayerNorm, Modulation, ScaleShift, modulate};
use super::residual::{add_branch, load_layer_scale};
use crate::modules::projection::check_input;
use crate::{AttentionOptions, AttentionPlan, KvCache, MixedAttention, MixedAttentionConfig, WeightSharing};

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

/// Where the keys of a block come from, and whether they are kept.
#[derive(Debug, Clone, Copy)]
pub enum KeySource<'a> {
    /// All from the input.
    Input,
    /// All from the input; the block returns those that the options name.
    Keep,
    /// From this cache, where the plan says so.
    Cache(&'a KvCache),
}

/// A pre-norm transformer block: mixed attention and a feed-forward layer.
#[derive(Debug, Clone)]
pub struct TransformerBlock {
    /// scale₁ shift₁ gate₁ scale₂ shift₂ gate₂
    modulation: Option<Modulation<6>>,
    norm1: LayerNorm,
    attention: MixedAttention,
    layer_scale1: Option<Tensor>,
    norm2: LayerNorm,
    feed_forward: FeedForward,
    layer_scale2: Option<Tensor>,
    sharing: WeightSharing,
}

impl TransformerBlock {
    /// Loads a block whose attention is stored as `attention_block`, as in the geometry branch.
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
        let affine = match (config.condition_dim, bias) {
            (Some(_), _) => Affine::None,
            (None, false) => Affine::Scale,
            (None, true) => Affine::ScaleAndShift,
        };
        let modulation = match config.condition_dim {
            Some(dim) => Some(Modulation::new(dim, [width; 6], vb.pp("modulation"))?),
            None => None,
        };
        let layer_scale = |name: &str| match config.layer_scale {
            true => load_layer_scale(width, vb.pp(name)).map(Some),
            false => Ok(None),
        };
        let attention_config = MixedAttentionConfig { hidden_dim: width, num_heads, bias, use_rope };
        Ok(Self {
            modulation,
            norm1: LayerNorm::new(width, eps, affine, vb.pp("norm1"))?,
            attention: MixedAttention::with_sharing(&attention_config, sharing, attention)?,
            layer_scale1: layer_scale("ls1")?,
            norm2: LayerNorm::new(width, eps, affine, vb.pp("norm2"))?,
            feed_forward: FeedForward::new((width, config.mlp_hidden_dim), bias, sharing, vb.pp("mlp"))?,
            layer_scale2: layer_scale("ls2")?,
            sharing: sharing.clone(),
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
        keys: KeySource<'_>,
        condition: Option<&Tensor>,
        options: &AttentionOptions,
    ) -> Result<(Tensor, Option<KvCache>)> {
        let (batch, _) = check_input("x", x, self.attention.config().hidden_dim)?;
        let (modulation1, gate1, modulation2, gate2) = match modulate(self.modulation.as_ref(), condition, batch)? {
            Some([scale1, shift1, gate1, scale2, shift2, gate2]) => (
                Some(ScaleShift { scale: scale1, shift: shift1 }),
                Some(gate1),
                Some(ScaleShift { scale: scale2, shift: shift2 }),
                Some(gate2),
            ),
            None => (None, None, None, None),
        };
        let normed = self.norm1.forward(x, modulation1.as_ref())?;
        let (attended, cache) = match keys {
            KeySource::Input => (self.attention.forward(&normed, plan, options)?, None),
            KeySource::Keep => {
                let (attended, cache) = self.attention.forward_with_cache(&normed, plan, options)?;
                (attended, Some(cache))
            }
            KeySource::Cache(cache) => (self.attention.forward_cached(&normed, plan, cache, options)?, None),
        };
        let x = add_branch(x, &attended, gate1.as_ref(), self.layer_scale1.as_ref())?;
        let runs = self.sharing.runs(plan.tokens())?;
        let widened = self.feed_forward.forward(&self.norm2.forward(&x, modulation2.as_ref())?, &runs)?;
        Ok((add_branch(&x, &widened, gate2.as_ref(), self.layer_scale2.as_ref())?, cache))
    }
}
