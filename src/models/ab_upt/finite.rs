//! Refuses NaN and infinity in what comes in or goes out.

use candle_core::{Result, Tensor};

use super::error::AbUptError;
use crate::models::InputError;
use crate::ops::first_not_finite;

/// Checks that a tensor holds neither NaN nor infinity.
pub(super) fn check_finite(argument: &str, tensor: &Tensor) -> Result<()> {
    let Some((index, value)) = first_not_finite(tensor)? else { return Ok(()) };
    let component = format!("element {:?}", indices(index, tensor.dims()));
    let (argument, value) = (argument.to_string(), f64::from(value));
    Err(AbUptError::from(InputError::NotFinite { argument, component, point: None, value }).into())
}

/// The index along every axis of a number in row-major order.
fn indices(mut index: usize, dims: &[usize]) -> Vec<usize> {
    let mut indices = vec![0; dims.len()];
    for (place, &len) in indices.iter_mut().zip(dims).rev() {
        (*place, index) = (index % len, index / len);
    }
    indices
}
