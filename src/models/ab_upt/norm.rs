//! Layer norm, and its modulation by a condition.

use candle_core::{D, DType, Result, Tensor};
use candle_nn::{Init, Linear, Module, VarBuilder};

use super::error::AbUptError;
use crate::ops::{layer_norm, to_dtype};

/// `(x − mean) / √(variance + eps)` over the channels, then a scale and a shift where there are any. Computed in f32.
#[derive(Debug, Clone)]
pub(super) struct LayerNorm {
    /// `[width]`, f32.
    scale: Option<Tensor>,
    /// `[width]`, f32.
    shift: Option<Tensor>,
    eps: f64,
    /// Of the result.
    dtype: DType,
}

/// Which parameters a layer norm has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Affine {
    /// None: the modulation scales and shifts.
    None,
    /// `weight`
    Scale,
    /// `weight` and `bias`
    ScaleAndShift,
}

impl LayerNorm {
    pub(super) fn new(width: usize, eps: f64, affine: Affine, vb: VarBuilder) -> Result<Self> {
        let load = |name: &str, start| vb.get_with_hints_dtype(width, name, Init::Const(start), DType::F32);
        let scale = if affine == Affine::None { None } else { Some(load("weight", 1.0)?) };
        let shift = if affine == Affine::ScaleAndShift { Some(load("bias", 0.0)?) } else { None };
        Ok(Self { scale, shift, eps, dtype: vb.dtype() })
    }

    /// `x [batch, tokens, width]` of any dtype to the same shape in the dtype of the layers; `modulation` scales by 1 + its
    /// scale, then shifts.
    pub(super) fn forward(&self, x: &Tensor, modulation: Option<&ScaleShift>) -> Result<Tensor> {
        let (factor, offset) = match (&self.scale, &self.shift, modulation) {
            (scale, shift, None) => (scale.clone(), shift.clone()),
            (None, None, Some(ScaleShift { scale, shift })) => (Some((scale + 1.0)?), Some(shift.clone())),
            (own_scale, own_shift, Some(ScaleShift { scale, shift })) => {
                let factor = (scale + 1.0)?;
                let offset = match own_shift {
                    Some(own) => (factor.broadcast_mul(own)? + shift)?,
                    None => shift.clone(),
                };
                (
                    own_scale.as_ref().map_or(Ok(factor.clone()), |own| factor.broadcast_mul(own)).map(Some)?,
                    Some(offset),
                )
            }
        };
        let normal = layer_norm(&to_dtype(x, DType::F32)?, factor.as_ref(), offset.as_ref(), self.eps)?;
        to_dtype(&normal, self.dtype)
    }
}

/// How a condition changes the output of a layer norm: `[batch or 1, 1, width]` each, f32.
#[derive(Debug, Clone)]
pub(super) struct ScaleShift {
    pub scale: Tensor,
    pub shift: Tensor,
}

/// A linear layer from a condition to the `N` scales, shifts and gates of a block. Computed in f32.
#[derive(Debug, Clone)]
pub(super) struct Modulation<const N: usize> {
    linear: Linear,
    /// Widths of the parts of the output.
    widths: [usize; N],
}

impl<const N: usize> Modulation<N> {
    /// Loads `project.weight` and `project.bias`.
    pub(super) fn new(condition_dim: usize, widths: [usize; N], vb: VarBuilder) -> Result<Self> {
        let (vb, output) = (vb.pp("project"), widths.iter().sum::<usize>());
        let weight = vb.get_with_hints_dtype((output, condition_dim), "weight", Init::default(), DType::F32)?;
        let bias = vb.get_with_hints_dtype(output, "bias", Init::default(), DType::F32)?;
        Ok(Self { linear: Linear::new(weight, Some(bias)), widths })
    }

    /// `condition [batch or 1, condition_dim]` to the parts, `[batch or 1, 1, width]` each.
    fn forward(&self, condition: &Tensor, batch: usize) -> Result<[Tensor; N]> {
        let width = self.linear.weight().dim(1)?;
        if !matches!(condition.dims(), &[rows, dim] if dim == width && (rows == batch || rows == 1)) {
            let expected = format!("[{batch}, {width}] or [1, {width}]");
            return Err(AbUptError::shape("condition", expected, condition.dims()).into());
        }
        let all = self.linear.forward(&condition.to_dtype(DType::F32)?.contiguous()?)?.unsqueeze(1)?;
        let mut start = 0;
        let mut parts = Vec::with_capacity(N);
        for width in self.widths {
            parts.push(all.narrow(D::Minus1, start, width)?);
            start += width;
        }
        <[Tensor; N]>::try_from(parts).map_err(|_| candle_core::Error::UnwrapNone)
    }
}

/// The parts of a block's modulation for the condition of a batch. A block has both or neither.
pub(super) fn modulate<const N: usize>(
    modulation: Option<&Modulation<N>>,
    condition: Option<&Tensor>,
    batch: usize,
) -> Result<Option<[Tensor; N]>> {
    let error = |expected, got| Err(AbUptError::Modulation { expected, got }.into());
    match (modulation, condition) {
        (Some(modulation), Some(condition)) => modulation.forward(condition, batch).map(Some),
        (None, None) => Ok(None),
        (Some(_), None) => error("with a", "without"),
        (None, Some(_)) => error("without a", "with"),
    }
}
