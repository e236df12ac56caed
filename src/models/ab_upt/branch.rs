//! A residual branch of a block: `x ← x + gate · γ · f(modulate(norm x))`.
//!
//! Gate and modulation (scale and shift) are linear in the condition and exist only where there is one, the layer scale γ
//! only where configured.

use candle_core::{DType, Result, Tensor};
use candle_nn::{Init, VarBuilder};

use super::feed_forward::FeedForward;
use super::norm::{Affine, LayerNorm, ScaleShift};
use crate::modules::WeightSharing;
use crate::ops::residual;
use crate::plan::TokenSpec;

/// What all branches of a block have in common.
#[derive(Debug, Clone, Copy)]
pub(super) struct BlockShape {
    /// Width of the tokens.
    pub width: usize,
    /// Added to the variance by the layer norms.
    pub eps: f64,
    /// Whether norms and layers have biases.
    pub bias: bool,
    /// Whether norms have no parameters, because the condition scales and shifts.
    pub modulated: bool,
    /// Whether branches have learned factors.
    pub layer_scale: bool,
}

impl BlockShape {
    /// A layer norm of the block for tokens of this width.
    pub(super) fn norm(&self, width: usize, vb: VarBuilder) -> Result<LayerNorm> {
        let affine = match (self.modulated, self.bias) {
            (true, _) => Affine::None,
            (false, false) => Affine::Scale,
            (false, true) => Affine::ScaleAndShift,
        };
        LayerNorm::new(width, self.eps, affine, vb)
    }
}

/// Modulation of one branch for the condition of a batch.
#[derive(Debug, Clone)]
pub(super) struct BranchModulation {
    scale_shift: ScaleShift,
    /// `[batch or 1, 1, width]`
    gate: Tensor,
}

impl BranchModulation {
    /// From the parts of a block's modulation, `[batch or 1, 1, width]` each.
    pub(super) fn new(scale: Tensor, shift: Tensor, gate: Tensor) -> Self {
        Self { scale_shift: ScaleShift { scale, shift }, gate }
    }
}

/// The norm that begins a branch, and the sum that ends it.
#[derive(Debug, Clone)]
pub(super) struct Branch {
    norm: LayerNorm,
    /// γ, `[width]`, f32.
    layer_scale: Option<Tensor>,
}

impl Branch {
    /// Loads the norm and, if configured, `gamma` of the layer scale, under these names.
    pub(super) fn load(shape: &BlockShape, norm: &str, layer_scale: &str, vb: &VarBuilder) -> Result<Self> {
        let gamma = || {
            let vb = vb.pp(layer_scale);
            vb.get_with_hints_dtype(shape.width, "gamma", Init::default(), DType::F32)
        };
        Ok(Self {
            norm: shape.norm(shape.width, vb.pp(norm))?,
            layer_scale: if shape.layer_scale { Some(gamma()?) } else { None },
        })
    }

    /// What the branch computes on: `x [batch, tokens, width]` after norm and modulation, in the dtype of the layers.
    pub(super) fn begin(&self, x: &Tensor, modulation: Option<&BranchModulation>) -> Result<Tensor> {
        self.norm.forward(x, modulation.map(|modulation| &modulation.scale_shift))
    }

    /// `x` plus the output of the branch, in the dtype of `x`; computed in f32.
    pub(super) fn end(&self, x: &Tensor, output: &Tensor, modulation: Option<&BranchModulation>) -> Result<Tensor> {
        let gate = modulation.map(|modulation| &modulation.gate);
        match (gate, &self.layer_scale) {
            (Some(gate), Some(layer_scale)) => residual(x, output, Some(&gate.broadcast_mul(layer_scale)?)),
            (gate, layer_scale) => residual(x, output, gate.or(layer_scale.as_ref())),
        }
    }
}

/// The second branch of every block.
#[derive(Debug, Clone)]
pub(super) struct FeedForwardBranch {
    branch: Branch,
    layers: FeedForward,
    sharing: WeightSharing,
}

impl FeedForwardBranch {
    /// Loads `norm2`, `mlp` and, if configured, `ls2`.
    pub(super) fn load(
        shape: &BlockShape,
        hidden_dim: usize,
        sharing: &WeightSharing,
        vb: &VarBuilder,
    ) -> Result<Self> {
        Ok(Self {
            branch: Branch::load(shape, "norm2", "ls2", vb)?,
            layers: FeedForward::new((shape.width, hidden_dim), shape.bias, sharing, vb.pp("mlp"))?,
            sharing: sharing.clone(),
        })
    }

    /// `x [batch, tokens, width]`, the input groups of `tokens`, to the same shape.
    pub(super) fn forward(
        &self,
        x: &Tensor,
        tokens: &[TokenSpec],
        modulation: Option<&BranchModulation>,
    ) -> Result<Tensor> {
        let runs = self.sharing.runs(tokens)?;
        let widened = self.layers.forward(&self.branch.begin(x, modulation)?, &runs)?;
        self.branch.end(x, &widened, modulation)
    }
}
