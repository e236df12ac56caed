//! The dtypes of the fused CPU kernel: how a row becomes f32 and back.

use candle_core::{CpuStorage, WithDType};
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

/// A dtype of queries, keys, values and outputs.
pub(super) trait Element: WithDType {
    /// The zero that pads and that a query without keys gets.
    const ZERO: Self;

    /// Converts a row to f32.
    fn widen(source: &[Self], target: &mut [f32]);

    /// `factor` times a row, in f32.
    #[inline(always)]
    fn widen_times(source: &[Self], factor: f32, target: &mut [f32]) {
        Self::widen(source, target);
        target.iter_mut().for_each(|number| *number *= factor);
    }

    /// `factor` times a row, rounded to this dtype, to nearest even.
    fn narrow_times(source: &[f32], factor: f32, target: &mut [Self]);

    /// The bits of this number rounded to bf16, to nearest even.
    fn bf16_bits(self) -> u16;

    /// Wraps an output.
    fn storage(data: Vec<Self>) -> CpuStorage;
}

impl Element for f32 {
    const ZERO: Self = 0.0;

    #[inline(always)]
    fn widen(source: &[Self], target: &mut [f32]) {
        target.copy_from_slice(source);
    }

    // In one loop: a copy would be a call per row.
    #[inline(always)]
    fn widen_times(source: &[Self], factor: f32, target: &mut [f32]) {
        target.iter_mut().zip(source).for_each(|(target, source)| *target = source * factor);
    }

    #[inline(always)]
    fn narrow_times(source: &[f32], factor: f32, target: &mut [Self]) {
        Self::widen_times(source, factor, target);
    }

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
        source.convert_to_f32_slice(target);
    }

    #[inline(always)]
    fn narrow_times(source: &[f32], factor: f32, target: &mut [Self]) {
        let mut product = [0.0; 64];
        for (target, source) in target.chunks_mut(product.len()).zip(source.chunks(product.len())) {
            let product = &mut product[..source.len()];
            f32::widen_times(source, factor, product);
            target.convert_from_f32_slice(product);
        }
    }

    #[inline(always)]
    fn bf16_bits(self) -> u16 {
        bf16::from_f32(self.to_f32()).to_bits()
    }

    fn storage(data: Vec<Self>) -> CpuStorage {
        CpuStorage::F16(data)
    }
}
