//! Conversion of tensors of any size.

use candle_core::{DType, Result, Tensor};

/// `tensor.to_dtype(dtype)`, also without elements: candle's GPU kernels divide by their number.
pub(crate) fn to_dtype(tensor: &Tensor, dtype: DType) -> Result<Tensor> {
    if tensor.elem_count() == 0 {
        return Tensor::zeros(tensor.shape(), dtype, tensor.device());
    }
    tensor.to_dtype(dtype)
}
