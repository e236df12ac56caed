//! Conversion of tensors of any size.

use candle_core::{DType, Result, Tensor};

use crate::error::AttentionError;

/// `tensor.to_dtype(dtype)`, also without elements: candle's GPU kernels divide by their number.
///
/// # Errors
/// 8-bit floats as f64: candle's conversion calls itself without end.
pub(crate) fn to_dtype(tensor: &Tensor, dtype: DType) -> Result<Tensor> {
    if tensor.elem_count() == 0 {
        return Tensor::zeros(tensor.shape(), dtype, tensor.device());
    }
    if (tensor.dtype(), dtype) == (DType::F8E4M3, DType::F64) {
        let expected = "a dtype that can be read as f64";
        return Err(AttentionError::dtype("tensor", expected, tensor.dtype()).into());
    }
    tensor.to_dtype(dtype)
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn what_candle_cannot_convert_is_refused() {
        let small = Tensor::new(&[1f32, 2.], &Device::Cpu).unwrap().to_dtype(DType::F8E4M3).unwrap();
        let message = to_dtype(&small, DType::F64).unwrap_err().to_string();
        assert!(message.contains("F8E4M3") && message.contains("f64"), "{message}");
        assert_eq!(to_dtype(&small, DType::F32).unwrap().to_vec1::<f32>().unwrap(), [1.0, 2.0]);
    }
}
