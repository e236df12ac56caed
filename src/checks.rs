//! Checks that several arguments share.

use candle_core::{DType, Tensor};

use crate::error::AttentionError;

/// The dims of queries, keys or values, `[batch, heads, tokens, head_dim]`.
pub(crate) fn check_heads(
    argument: &'static str,
    tensor: &Tensor,
) -> Result<(usize, usize, usize, usize), AttentionError> {
    match tensor.dims() {
        &[batch, heads, tokens, head_dim] => Ok((batch, heads, tokens, head_dim)),
        dims => Err(AttentionError::shape(argument, "[batch, heads, tokens, head_dim]", dims)),
    }
}

/// Checks the shape of the input of a layer, `[batch, tokens, width]`, and returns batch and tokens.
pub(crate) fn check_input(argument: &'static str, x: &Tensor, width: usize) -> Result<(usize, usize), AttentionError> {
    match x.dims() {
        &[batch, tokens, got] if got == width => Ok((batch, tokens)),
        dims => Err(AttentionError::shape(argument, format!("[batch, tokens, {width}]"), dims)),
    }
}

/// Checks that a tensor has a float dtype that candle computes in.
pub(crate) fn check_float(argument: &'static str, tensor: &Tensor) -> Result<(), AttentionError> {
    match tensor.dtype() {
        DType::F16 | DType::BF16 | DType::F32 | DType::F64 => Ok(()),
        other => Err(AttentionError::dtype(argument, "a float dtype of 16 bits or more", other)),
    }
}

/// Checks that a tensor shares dtype and device with another one, whose name is for the error.
pub(crate) fn check_same(
    argument: &'static str,
    (name, expected): (&'static str, &Tensor),
    got: &Tensor,
) -> Result<(), AttentionError> {
    if expected.dtype() != got.dtype() {
        let expected = format!("{:?}, the dtype of the {name}", expected.dtype());
        return Err(AttentionError::dtype(argument, expected, got.dtype()));
    }
    if !expected.device().same_device(got.device()) {
        return Err(AttentionError::device(argument, expected.device(), got.device()));
    }
    Ok(())
}

/// Checks that an argument has one row or as many as the input.
pub(crate) fn check_batch(argument: &'static str, expected: usize, got: usize) -> Result<(), AttentionError> {
    match got == expected || got == 1 {
        true => Ok(()),
        false => Err(AttentionError::Batch { argument, expected, got }),
    }
}

/// Checks the token axis of an argument against groups, which are named for the error.
pub(crate) fn check_tokens(
    argument: &'static str,
    expected: usize,
    got: usize,
    groups: impl FnOnce() -> String,
) -> Result<(), AttentionError> {
    match got == expected {
        true => Ok(()),
        false => Err(AttentionError::token_count(argument, expected, got, groups())),
    }
}
