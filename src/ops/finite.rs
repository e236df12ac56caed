//! NaN and infinity: found where they come in or out, because in between they spread to every point.

use candle_core::{DType, Result, Tensor};

use super::to_dtype;

/// The first number that is NaN or infinite, with its index in row-major order.
pub(crate) fn first_not_finite(tensor: &Tensor) -> Result<Option<(usize, f32)>> {
    if is_finite(tensor)? {
        return Ok(None);
    }
    let numbers = tensor.flatten_all()?.to_dtype(DType::F32)?.to_vec1::<f32>()?;
    Ok(numbers.into_iter().enumerate().find(|(_, number)| !number.is_finite()))
}

/// Whether a tensor holds neither NaN nor infinity. One number is all that a GPU hands over.
pub(crate) fn is_finite(tensor: &Tensor) -> Result<bool> {
    if tensor.elem_count() == 0 {
        return Ok(true);
    }
    // 0 · x is 0 for finite x, else NaN, which a sum keeps.
    let sum = (to_dtype(tensor, DType::F32)? * 0.0)?.sum_all()?.to_scalar::<f32>()?;
    Ok(sum == 0.0)
}
