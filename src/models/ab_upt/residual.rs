//! The sum that ends a branch of a block.

use candle_core::{DType, Result, Tensor};
use candle_nn::{Init, VarBuilder};

use crate::convert::to_dtype;

/// The learned factors `gamma [width]` of a branch, in f32.
pub(super) fn load_layer_scale(width: usize, vb: VarBuilder) -> Result<Tensor> {
    vb.get_with_hints_dtype(width, "gamma", Init::default(), DType::F32)
}

/// `x + gate · layer_scale · branch` in the dtype of `x`, computed in f32 where there is a factor; `gate [batch or 1, 1,
/// width]`.
pub(super) fn add_branch(
    x: &Tensor,
    branch: &Tensor,
    gate: Option<&Tensor>,
    layer_scale: Option<&Tensor>,
) -> Result<Tensor> {
    let factor = match (gate, layer_scale) {
        (None, None) => return x + to_dtype(branch, x.dtype())?,
        (Some(factor), None) | (None, Some(factor)) => factor.clone(),
        (Some(gate), Some(layer_scale)) => gate.broadcast_mul(layer_scale)?,
    };
    let sum = (to_dtype(x, DType::F32)? + to_dtype(branch, DType::F32)?.broadcast_mul(&factor)?)?;
    to_dtype(&sum, x.dtype())
}
