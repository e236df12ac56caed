//! Conversion of tensors of any size, vectorised on the CPU between f32 and the dtypes of two bytes.

use std::mem::MaybeUninit;

use candle_core::{CpuStorage, CustomOp1, DType, Layout, Result, Shape, Tensor, bail};
use half::{bf16, f16};

use super::rows::make_rows;
use super::vectorised::vectorised;
use crate::element::Element;
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
    let two_bytes = |dtype| matches!(dtype, DType::F16 | DType::BF16);
    let known = match (tensor.dtype(), dtype) {
        (DType::F32, target) => two_bytes(target),
        (source, DType::F32) => two_bytes(source),
        _ => false,
    };
    if known && tensor.device().is_cpu() && !tensor.track_op() {
        return tensor.contiguous()?.apply_op1_no_bwd(&Convert(dtype));
    }
    tensor.to_dtype(dtype)
}

/// To this dtype.
struct Convert(DType);

impl CustomOp1 for Convert {
    fn name(&self) -> &'static str {
        "convert"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let Some((start, end)) = layout.contiguous_offsets() else {
            bail!("numbers that are converted must be contiguous, got {layout:?}");
        };
        let converted = match (storage, self.0) {
            (CpuStorage::F16(source), DType::F32) => widened(&source[start..end]),
            (CpuStorage::BF16(source), DType::F32) => widened(&source[start..end]),
            (CpuStorage::F32(source), DType::F16) => narrowed::<f16>(&source[start..end]),
            (CpuStorage::F32(source), DType::BF16) => narrowed::<bf16>(&source[start..end]),
            (_, dtype) => bail!("no conversion to {dtype:?}"),
        };
        Ok((converted, layout.shape().clone()))
    }
}

fn widened<T: Element>(source: &[T]) -> CpuStorage {
    let fill = |first: usize, block: &mut [MaybeUninit<f32>]| {
        vectorised(Widen { source: &source[first..][..block.len()], target: block });
    };
    // SAFETY: `Widen` writes as many numbers as its source has.
    f32::storage(unsafe { make_rows(source.len(), 1, 1, fill) })
}

fn narrowed<T: Element>(source: &[f32]) -> CpuStorage {
    let fill = |first: usize, block: &mut [MaybeUninit<T>]| {
        vectorised(Narrow { source: &source[first..][..block.len()], target: block });
    };
    // SAFETY: `Narrow` writes as many numbers as its source has.
    T::storage(unsafe { make_rows(source.len(), 1, 1, fill) })
}

/// Numbers that are converted in registers before they are written.
const STEP: usize = 64;

/// Conversion to f32, compiled once for every instruction set that [`vectorised`] may find.
struct Widen<'a, T> {
    source: &'a [T],
    target: &'a mut [MaybeUninit<f32>],
}

impl<T: Element> pulp::NullaryFnOnce for Widen<'_, T> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        for (source, target) in self.source.chunks(STEP).zip(self.target.chunks_mut(STEP)) {
            let mut wide = [0.0; STEP];
            T::widen(source, &mut wide[..source.len()]);
            target.iter_mut().zip(wide).for_each(|(target, number)| {
                target.write(number);
            });
        }
    }
}

/// Conversion from f32, rounded to nearest even; compiled once for every instruction set that [`vectorised`] may find.
pub(super) struct Narrow<'a, T> {
    pub source: &'a [f32],
    /// As long as the source.
    pub target: &'a mut [MaybeUninit<T>],
}

impl<T: Element> pulp::NullaryFnOnce for Narrow<'_, T> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        for (source, target) in self.source.chunks(STEP).zip(self.target.chunks_mut(STEP)) {
            let mut narrow = [T::ZERO; STEP];
            T::narrow_times(source, 1.0, &mut narrow[..source.len()]);
            target.iter_mut().zip(narrow).for_each(|(target, number)| {
                target.write(number);
            });
        }
    }
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

    #[test]
    fn every_number_of_two_bytes_is_widened_as_candle_does() -> Result<()> {
        let bits = || 0..=u16::MAX;
        let of_f16 = Tensor::from_iter(bits().map(f16::from_bits), &Device::Cpu)?;
        let of_bf16 = Tensor::from_iter(bits().map(bf16::from_bits), &Device::Cpu)?;
        for narrow in [of_f16, of_bf16] {
            let (got, want) = (to_dtype(&narrow, DType::F32)?, narrow.to_dtype(DType::F32)?);
            for (got, want) in got.to_vec1::<f32>()?.into_iter().zip(want.to_vec1::<f32>()?) {
                assert!(got.to_bits() == want.to_bits() || got.is_nan() && want.is_nan(), "{got}, expected {want}");
            }
        }
        Ok(())
    }

    #[test]
    fn f32_is_rounded_to_nearest_even_at_any_length() -> Result<()> {
        for len in [1, 63, 64, 65, 1000, 300_001] {
            // All magnitudes, ties among them, both signs, infinity, NaN and subnormals.
            let numbers = (0..len as u32).map(|i| f32::from_bits(i.wrapping_mul(0x9e37_9000) ^ i << 12));
            let wide =
                Tensor::from_iter(numbers.chain([f32::NAN, f32::INFINITY, 1e-41, -0.0, 65_520.0]), &Device::Cpu)?;
            let view = wide.narrow(0, 1, len)?;
            let (got, want) =
                (to_dtype(&view, DType::F16)?.to_vec1::<f16>()?, view.to_dtype(DType::F16)?.to_vec1::<f16>()?);
            let same = |got: &f16, want: &f16| got.to_bits() == want.to_bits() || got.is_nan() && want.is_nan();
            assert!(got.iter().zip(&want).all(|(got, want)| same(got, want)), "f16, {len} numbers");
            let (got, want) =
                (to_dtype(&view, DType::BF16)?.to_vec1::<bf16>()?, view.to_dtype(DType::BF16)?.to_vec1::<bf16>()?);
            let same = |got: &bf16, want: &bf16| got.to_bits() == want.to_bits() || got.is_nan() && want.is_nan();
            assert!(got.iter().zip(&want).all(|(got, want)| same(got, want)), "bf16, {len} numbers");
        }
        Ok(())
    }

    #[test]
    fn gradients_go_through_candles_conversion() -> Result<()> {
        let x = candle_core::Var::new(&[1f32, 2.], &Device::Cpu)?;
        let sum = to_dtype(&to_dtype(x.as_tensor(), DType::BF16)?, DType::F32)?.sum_all()?;
        assert!(sum.backward()?.get(&x).is_some());
        Ok(())
    }
}
