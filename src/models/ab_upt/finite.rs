//! NaN and infinity: found where they come in or out, because in between they spread to every point.

use candle_core::{DType, Result, Tensor};

use super::error::AbUptError;
use crate::models::InputError;
use crate::ops::to_dtype;

/// Checks that a tensor holds neither NaN nor infinity.
pub(super) fn check_finite(argument: &str, tensor: &Tensor) -> Result<()> {
    let Some((index, value)) = first_not_finite(tensor)? else { return Ok(()) };
    let component = format!("element {:?}", indices(index, tensor.dims()));
    let (argument, value) = (argument.to_string(), f64::from(value));
    Err(AbUptError::from(InputError::NotFinite { argument, component, point: None, value }).into())
}

/// The first number that is NaN or infinite, with its index in row-major order.
pub(super) fn first_not_finite(tensor: &Tensor) -> Result<Option<(usize, f32)>> {
    if is_finite(tensor)? {
        return Ok(None);
    }
    let numbers = tensor.flatten_all()?.to_dtype(DType::F32)?.to_vec1::<f32>()?;
    Ok(numbers.into_iter().enumerate().find(|(_, number)| !number.is_finite()))
}

/// The index along every axis of a number in row-major order.
fn indices(mut index: usize, dims: &[usize]) -> Vec<usize> {
    let mut indices = vec![0; dims.len()];
    for (place, &len) in indices.iter_mut().zip(dims).rev() {
        (*place, index) = (index % len, index / len);
    }
    indices
}

/// One number is all that a GPU hands over.
fn is_finite(tensor: &Tensor) -> Result<bool> {
    if tensor.elem_count() == 0 {
        return Ok(true);
    }
    // 0 · x is 0 for finite x, else NaN, which a sum keeps.
    let sum = (to_dtype(tensor, DType::F32)? * 0.0)?.sum_all()?.to_scalar::<f32>()?;
    Ok(sum == 0.0)
}
