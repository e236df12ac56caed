//! What every cache must be made of, wherever its tensors come from.

use candle_core::{D, DType, Tensor};

use super::{check_same, dims4};
use crate::ops::is_finite;
use crate::{AttentionError, KeyPadding};

/// Checks keys and values: `[batch, heads ≥ 1, tokens, head_dim ≥ 1]`, alike, in a dtype that attention computes in.
pub(super) fn check_shapes(keys: &Tensor, values: &Tensor) -> Result<(), AttentionError> {
    let (_, heads, _, head_dim) = dims4("cache keys", keys)?;
    if !matches!(keys.dtype(), DType::F16 | DType::BF16 | DType::F32 | DType::F64) {
        let (expected, got) = ("f16, bf16, f32 or f64".to_string(), keys.dtype());
        return Err(AttentionError::DType { argument: "cache keys", expected, got });
    }
    if heads == 0 || head_dim == 0 {
        let expected = "[batch, heads ≥ 1, tokens, head_dim ≥ 1]".to_string();
        return Err(AttentionError::Shape { argument: "cache keys", expected, got: keys.dims().to_vec() });
    }
    if values.dims() != keys.dims() {
        let expected = format!("{:?} as the keys", keys.dims());
        return Err(AttentionError::Shape { argument: "cache values", expected, got: values.dims().to_vec() });
    }
    check_same("cache values", ("keys", keys), values)
}

/// The error for a cache without groups.
pub(super) fn check_groups(count: usize) -> Result<(), AttentionError> {
    match count {
        0 => {
            Err(AttentionError::Value { argument: "cache groups", expected: "at least one group", got: "none".into() })
        }
        _ => Ok(()),
    }
}

/// Checks that the real tokens of keys or values hold neither NaN nor infinity; padding may hold anything.
pub(super) fn check_finite(
    argument: &'static str,
    tensor: &Tensor,
    padding: Option<&KeyPadding>,
) -> candle_core::Result<()> {
    let refuse = || AttentionError::Value { argument, expected: "finite", got: "NaN or infinity".to_string() };
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
