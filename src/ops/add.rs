//! Sums of two tensors of one shape, rounded once.

use candle_core::{DType, Result, Tensor};

use super::convert::to_dtype;

/// `x + y` in the dtype of `x`; f16 and bf16 are added in f32, which candle does not do on every CPU (see
/// `docs/half-precision-on-arm.md`).
///
/// # Errors
/// Shapes that differ.
pub(crate) fn add(x: &Tensor, y: &Tensor) -> Result<Tensor> {
    match x.dtype() {
        DType::F16 | DType::BF16 if x.device().is_cpu() => {
            to_dtype(&(to_dtype(x, DType::F32)? + to_dtype(y, DType::F32)?)?, x.dtype())
        }
        dtype => x + to_dtype(y, dtype)?,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;
    use half::bf16;

    #[test]
    fn two_byte_numbers_are_rounded_to_nearest() -> Result<()> {
        // 1 + 3 · 2⁻⁹ lies between 1 and its neighbour 1 + 2⁻⁷, nearer to the latter.
        let x = Tensor::full(bf16::ONE, 100, &Device::Cpu)?;
        let y = Tensor::full(bf16::from_f32(3.0 / 512.0), 100, &Device::Cpu)?;
        let sums = add(&x, &y)?.to_dtype(DType::F32)?.to_vec1::<f32>()?;
        assert!(sums.iter().all(|sum| *sum == 1.0 + 1.0 / 128.0), "{sums:?}");
        Ok(())
    }
}
