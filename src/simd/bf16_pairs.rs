//! Words of two bf16, for CPUs that multiply and add such pairs in one instruction.

use std::mem::MaybeUninit;

use candle_core::DType;
use half::bf16;

use super::words::narrow;
use super::{Exponent, Simd, Vector, Words};
use crate::element::Element;

/// Instructions for pairs of bf16. A value proves that the CPU has them.
pub(crate) trait DotProducts: Copy + Send + Sync {
    /// What every CPU with these instructions has too.
    type Simd: Simd;

    /// What every CPU with these instructions has too.
    fn simd(self) -> Self::Simd;

    /// `sum + left₀ right₀ + left₁ right₁` for pairs of bf16 in the lanes of `left` and `right`; sums are f32.
    /// Subnormal numbers count as 0.
    fn dot_add(
        self,
        left: <Self::Simd as Simd>::Vector,
        right: <Self::Simd as Simd>::Vector,
        sum: <Self::Simd as Simd>::Vector,
    ) -> <Self::Simd as Simd>::Vector;

    /// Lane by lane, `first` and `second` rounded to bf16, `first` in the low half.
    fn pairs(
        self,
        first: <Self::Simd as Simd>::Vector,
        second: <Self::Simd as Simd>::Vector,
    ) -> <Self::Simd as Simd>::Vector;

    /// Writes a vector of numbers rounded to bf16. Subnormal numbers may become 0.
    ///
    /// # Safety
    /// `target` is valid for writes of `LANES` numbers.
    unsafe fn store_bf16(self, target: *mut bf16, numbers: <Self::Simd as Simd>::Vector);
}

/// Two bf16 in a word, the first in the low half.
#[derive(Clone, Copy)]
pub(crate) struct Bf16Pairs<D>(pub D);

impl<D: DotProducts> Words for Bf16Pairs<D> {
    type Simd = D::Simd;
    const NUMBERS: usize = 2;

    #[inline(always)]
    fn simd(self) -> D::Simd {
        self.0.simd()
    }

    #[inline(always)]
    fn multiply_add(self, left: Vector<Self>, right: Vector<Self>, sum: Vector<Self>) -> Vector<Self> {
        self.0.dot_add(left, right, sum)
    }

    #[inline(always)]
    fn weight(self, x: Vector<Self>, exponent: Exponent) -> Vector<Self> {
        self.simd().exp2_for_bf16(x, exponent)
    }

    #[inline(always)]
    fn pack(self, first: Vector<Self>, second: Vector<Self>) -> Vector<Self> {
        self.0.pairs(first, second)
    }

    #[inline(always)]
    fn pack_row<T: Element>(self, row: &[T], words: &mut [f32]) {
        let halves: &mut [u16] = bytemuck::cast_slice_mut(&mut words[..row.len().div_ceil(2)]);
        let (channels, padding) = halves.split_at_mut(row.len());
        channels.iter_mut().zip(row).for_each(|(half, number)| *half = number.bf16_bits());
        padding.fill(0);
    }

    #[inline(always)]
    fn pack_across<T: Element>(self, nth: usize, row: &[T], words: &mut [f32]) {
        let words: &mut [u32] = bytemuck::cast_slice_mut(&mut words[..row.len()]);
        if nth == 0 {
            words.iter_mut().zip(row).for_each(|(word, number)| *word = u32::from(number.bf16_bits()));
        } else {
            words.iter_mut().zip(row).for_each(|(word, number)| *word |= u32::from(number.bf16_bits()) << 16);
        }
    }

    #[inline(always)]
    fn narrow<T: Element>(self, source: &[f32], target: &mut [MaybeUninit<T>]) {
        if T::DTYPE != DType::BF16 {
            return narrow(self.simd(), source, target);
        }
        let lanes = D::Simd::LANES;
        let whole = source.len() / lanes * lanes;
        let (sources, rest) = source.split_at(whole);
        let (targets, rest_of_target) = target.split_at_mut(whole);
        for (source, target) in sources.chunks_exact(lanes).zip(targets.chunks_exact_mut(lanes)) {
            // SAFETY: both hold LANES numbers, those of the target are bf16.
            unsafe { self.0.store_bf16(target.as_mut_ptr().cast(), self.simd().load(source.as_ptr())) };
        }
        narrow(self.simd(), rest, rest_of_target);
    }
}
