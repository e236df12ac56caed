//! NaN and infinity: found where they come in or out, because in between they spread to every point.

use candle_core::{DType, Result, Storage, Tensor};

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
    if let (DType::F32, Some((start, end))) = (tensor.dtype(), tensor.layout().contiguous_offsets())
        && let Storage::Cpu(numbers) = &*tensor.storage_and_layout().0
    {
        // Without an early end, so that it vectorises.
        return Ok(numbers.as_slice::<f32>()?[start..end].iter().fold(true, |all, number| all & number.is_finite()));
    }
    // 0 · x is 0 for finite x, else NaN, which a sum keeps.
    let sum = (to_dtype(tensor, DType::F32)? * 0.0)?.sum_all()?.to_scalar::<f32>()?;
    Ok(sum == 0.0)
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn the_first_is_found_in_any_dtype_and_view() -> Result<()> {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut numbers = vec![1e4f32; 101];
            numbers[7] = bad;
            let all = Tensor::new(&*numbers, &Device::Cpu)?;
            for dtype in [DType::F32, DType::F16, DType::BF16, DType::F64] {
                let all = all.to_dtype(dtype)?;
                let (index, number) = first_not_finite(&all)?.unwrap();
                assert!(index == 7 && (number == bad || number.is_nan() && bad.is_nan()), "{dtype:?}: {number}");
                assert!(is_finite(&all.narrow(0, 8, 93)?)? && is_finite(&all.narrow(0, 0, 0)?)?);
                assert!(!is_finite(&all.narrow(0, 1, 100)?.reshape((10, 10))?.t()?)?, "{dtype:?}");
            }
        }
        Ok(())
    }
}
