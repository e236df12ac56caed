//! The dtypes of the CPU kernels: how a row becomes f32 and back.

use candle_core::{CpuStorage, DType, WithDType};
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

/// The dtype in which the reference computes: at least f32.
pub(crate) fn wide_dtype(dtype: DType) -> DType {
    if dtype == DType::F64 { DType::F64 } else { DType::F32 }
}

/// A dtype of operands and outputs; what is computed on them is f32.
pub(crate) trait Element: WithDType {
    /// The zero that pads and that a query without keys gets.
    const ZERO: Self;

    /// Converts a row to f32.
    fn widen(source: &[Self], target: &mut [f32]);

    /// `factor` times a row, rounded to this dtype, to nearest even.
    fn narrow_times(source: &[f32], factor: f32, target: &mut [Self]);

    /// The bits of this number rounded to bf16, to nearest even.
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    fn bf16_bits(self) -> u16;

    /// Wraps an output.
    fn storage(data: Vec<Self>) -> CpuStorage;
}

impl Element for f32 {
    const ZERO: Self = 0.0;

    #[inline(always)]
    fn widen(source: &[Self], target: &mut [f32]) {
        // Pieces of a known size are copied without a call, which takes as long as a short row.
        let (sources, rest) = source.as_chunks::<64>();
        let (targets, rest_of_target) = target.as_chunks_mut::<64>();
        sources.iter().zip(targets).for_each(|(source, target)| *target = *source);
        if !rest.is_empty() {
            rest_of_target.copy_from_slice(rest);
        }
    }

    #[inline(always)]
    fn narrow_times(source: &[f32], factor: f32, target: &mut [Self]) {
        target.iter_mut().zip(source).for_each(|(target, source)| *target = source * factor);
    }

    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    #[inline(always)]
    fn bf16_bits(self) -> u16 {
        bf16::from_f32(self).to_bits()
    }

    fn storage(data: Vec<Self>) -> CpuStorage {
        CpuStorage::F32(data)
    }
}

impl Element for bf16 {
    const ZERO: Self = bf16::ZERO;

    #[inline(always)]
    fn widen(source: &[Self], target: &mut [f32]) {
        // Without `bf16::to_f32`, whose quieting of signalling NaNs costs a branch per number.
        for (target, source) in target.iter_mut().zip(source) {
            *target = f32::from_bits(u32::from(source.to_bits()) << 16);
        }
    }

    #[inline(always)]
    fn narrow_times(source: &[f32], factor: f32, target: &mut [Self]) {
        for (target, source) in target.iter_mut().zip(source) {
            *target = bf16::from_f32(source * factor);
        }
    }

    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    #[inline(always)]
    fn bf16_bits(self) -> u16 {
        self.to_bits()
    }

    fn storage(data: Vec<Self>) -> CpuStorage {
        CpuStorage::BF16(data)
    }
}

impl Element for f16 {
    const ZERO: Self = f16::ZERO;

    #[inline(always)]
    fn widen(source: &[Self], target: &mut [f32]) {
        target.iter_mut().zip(source).for_each(|(target, source)| *target = widen_f16(*source));
    }

    #[inline(always)]
    fn narrow_times(source: &[f32], factor: f32, target: &mut [Self]) {
        let mut product = [0.0; 64];
        for (target, source) in target.chunks_mut(product.len()).zip(source.chunks(product.len())) {
            let product = &mut product[..source.len()];
            f32::narrow_times(source, factor, product);
            target.convert_from_f32_slice(product);
        }
    }

    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    #[inline(always)]
    fn bf16_bits(self) -> u16 {
        bf16::from_f32(self.to_f32()).to_bits()
    }

    fn storage(data: Vec<Self>) -> CpuStorage {
        CpuStorage::F16(data)
    }
}

/// f16 to f32, exact. In integers and one multiplication, which loops vectorise on every instruction set; the conversion
/// of `half` is a call per eight numbers.
#[inline(always)]
fn widen_f16(number: f16) -> f32 {
    /// `2^112`: the difference of the exponents' biases.
    const REBIAS: f32 = f32::from_bits((127 + 112) << 23);
    let bits = u32::from(number.to_bits());
    let magnitude = f32::from_bits((bits & 0x7fff) << 13) * REBIAS;
    // Infinity and NaN have all exponent bits set.
    let exponent = if bits & 0x7c00 == 0x7c00 { 0x7f80_0000 } else { 0 };
    f32::from_bits(magnitude.to_bits() | exponent | (bits & 0x8000) << 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_f16_widens_exactly() {
        for bits in 0..=u16::MAX {
            let number = f16::from_bits(bits);
            let (got, want) = (widen_f16(number), number.to_f32());
            assert!(got.to_bits() == want.to_bits() || got.is_nan() && want.is_nan(), "{bits:#x}: {got}, not {want}");
        }
    }
}
