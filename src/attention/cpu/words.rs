//! The operands of both products in 32-bit words: one f32 each, or two bf16 that one instruction multiplies and adds.
//!
//! Both products sum over an axis, `K Qᵀ` over channels and `Vᵀ P` over keys. A word holds [`Words::NUMBERS`]
//! neighbours along that axis, so that a word of the left times a word of the right operand is a piece of the sum and
//! the algorithm in [`strip`](super::strip) reads the same for both. Words travel as f32; only the methods below look
//! into them.

use super::element::Element;
use super::simd::Simd;
#[cfg(target_arch = "x86_64")]
use super::simd::{Avx512, Avx512Bf16};

/// What a word holds and how words are multiplied.
pub(super) trait Words: Copy + Send + Sync {
    /// Vector operations.
    type Simd: Simd;

    /// Numbers in a word, 1 or 2.
    const NUMBERS: usize;

    /// Whether queries carry the factor of the scores: one multiplication per query channel instead of one per score, but
    /// it would round bf16 queries once more.
    const SCALED_QUERIES: bool;

    /// Vector operations.
    fn simd(self) -> Self::Simd;

    /// `sum + left · right`, where `·` sums over the numbers of a word.
    fn multiply_add(self, left: Vector<Self>, right: Vector<Self>, sum: Vector<Self>) -> Vector<Self>;

    /// The first NUMBERS of two vectors of neighbours, as one vector of words.
    fn pack(self, first: Vector<Self>, second: Vector<Self>) -> Vector<Self>;

    /// A row whose channels are neighbours: `⌈channels / NUMBERS⌉` words. A missing number is 0.
    fn pack_row<T: Element>(self, row: &[T], words: &mut [f32]);

    /// A row whose neighbours are in other rows: number `nth` of as many words as it has channels. Number 0 comes first
    /// and sets the others to 0.
    fn pack_across<T: Element>(self, nth: usize, row: &[T], words: &mut [f32]);
}

/// A vector of words or of f32 numbers.
pub(super) type Vector<W> = <<W as Words>::Simd as Simd>::Vector;

/// One f32 in a word.
#[derive(Clone, Copy)]
pub(super) struct Floats<S>(pub S);

impl<S: Simd> Words for Floats<S> {
    type Simd = S;
    const NUMBERS: usize = 1;
    const SCALED_QUERIES: bool = true;

    #[inline(always)]
    fn simd(self) -> S {
        self.0
    }

    #[inline(always)]
    fn multiply_add(self, left: S::Vector, right: S::Vector, sum: S::Vector) -> S::Vector {
        self.0.mul_add(left, right, sum)
    }

    #[inline(always)]
    fn pack(self, first: S::Vector, _: S::Vector) -> S::Vector {
        first
    }

    #[inline(always)]
    fn pack_row<T: Element>(self, row: &[T], words: &mut [f32]) {
        T::widen(row, words);
    }

    #[inline(always)]
    fn pack_across<T: Element>(self, _: usize, row: &[T], words: &mut [f32]) {
        T::widen(row, words);
    }
}

/// Two bf16 in a word, the first in the low half.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub(super) struct Bf16Pairs(pub Avx512Bf16);

#[cfg(target_arch = "x86_64")]
impl Words for Bf16Pairs {
    type Simd = Avx512;
    const NUMBERS: usize = 2;
    const SCALED_QUERIES: bool = false;

    #[inline(always)]
    fn simd(self) -> Avx512 {
        self.0.avx512()
    }

    #[inline(always)]
    fn multiply_add(self, left: Vector<Self>, right: Vector<Self>, sum: Vector<Self>) -> Vector<Self> {
        self.0.dot_add(left, right, sum)
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
}
