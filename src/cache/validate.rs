//! What every cache must be made of, wherever its tensors come from.

use candle_core::{D, Tensor};

use crate::checks::{check_float, check_heads, check_same};
use crate::error::AttentionError;
use crate::ops::is_finite;
use crate::padding::KeyPadding;

/// Checks keys and values: `[batch, heads ≥ 1, tokens, head_dim ≥ 1]`, alike, in a dtype that attention computes in.
pub(super) fn check_shapes(keys: &Tensor, values: &Tensor) -> Result<(), AttentionError> {
    let (_, heads, _, head_dim) = check_heads("cache keys", keys)?;
    check_float("cache keys", keys)?;
    if heads == 0 || head_dim == 0 {
        return Err(AttentionError::shape("cache keys", "[batch, heads ≥ 1, tokens, head_dim ≥ 1]", keys.dims()));
    }
    if values.dims() != keys.dims() {
        return Err(AttentionError::shape("cache values", format!("{:?} as the keys", keys.dims()), values.dims()));
    }
    check_same("cache values", ("keys", keys), values)
}

/// The error for a cache without groups.
pub(super) fn check_groups(count: usize) -> Result<(), AttentionError> {
    match count {
        0 => Err(AttentionError::value("cache groups", "at least one group", "none")),
        _ => Ok(()),
    }
}

/// Checks that the real tokens of keys or values hold neither NaN nor infinity; padding may hold anything.
pub(super) fn check_finite(
    argument: &'static str,
    tensor: &Tensor,
    padding: Option<&KeyPadding>,
) -> candle_core::Result<()> {
    let refuse = || AttentionError::value(argument, "finite", "NaN or infinity");
    if is_finite(tensor)? {
        return Ok(());
    }
    let Some(padding) = padding else { return Err(refuse().into()) };
    let real = padding.to_mask(tensor.device())?.unsqueeze(1)?.unsqueeze(D::Minus1)?.broadcast_as(tensor.shape())?;
    match is_finite(&real.where_cond(tensor, &tensor.zeros_like()?)?)? {
        true => Ok(()),
        false => Err(refuse().into()),
    }
}

/// Checks that the bias `[batch or 1, heads or 1, tokens]` of the real tokens is finite or −∞; that of padding may be anything.
pub(super) fn check_bias(
    argument: &'static str,
    bias: &Tensor,
    padding: Option<&KeyPadding>,
) -> candle_core::Result<()> {
    let mut is_right = bias.lt(f64::INFINITY)?;
    if let Some(padding) = padding {
        let is_padding = padding.to_mask(bias.device())?.eq(0u8)?.unsqueeze(1)?;
        is_right = is_right.broadcast_maximum(&is_padding)?;
    }
    match is_right.elem_count() == 0 || is_right.min_all()?.to_scalar::<u8>()? == 1 {
        true => Ok(()),
        false => Err(AttentionError::value(argument, "finite or −∞", "NaN or +∞").into()),
    }
}
