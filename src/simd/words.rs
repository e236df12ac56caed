//! The operands of products in 32-bit words: one f32 each, or two bf16 that one instruction multiplies and adds.
//!
//! Products sum over an axis: `K Qᵀ` over channels, `Vᵀ P` over keys, `X Wᵀ` over inputs. A word holds [`Words::NUMBERS`]
//! neighbours along that axis, so that a word of the left times a word of the right operand is a piece of the sum and the
//! algorithms read the same for both. Words travel as f32; only the methods below look into them.

use std::mem::MaybeUninit;

use candle_core::DType;

use super::{Exponent, Simd};
use crate::element::Element;

/// What a word holds and how words are multiplied.
pub(crate) trait Words: Copy + Send + Sync {
    /// Vector operations.
    type Simd: Simd;

    /// Numbers in a word, 1 or 2.
    const NUMBERS: usize;

    /// Vector operations.
    fn simd(self) -> Self::Simd;

    /// `sum + left · right`, where `·` sums over the numbers of a word.
    fn multiply_add(self, left: Vector<Self>, right: Vector<Self>, sum: Vector<Self>) -> Vector<Self>;

    /// `2^(factor · x − shift)`, as exact as numbers of a word are.
    fn weight(self, x: Vector<Self>, exponent: Exponent) -> Vector<Self>;

    /// The first NUMBERS of two vectors of neighbours, as one vector of words.
    fn pack(self, first: Vector<Self>, second: Vector<Self>) -> Vector<Self>;

    /// A row whose channels are neighbours: `⌈channels / NUMBERS⌉` words. A missing number is 0.
    fn pack_row<T: Element>(self, row: &[T], words: &mut [f32]);

    /// A row whose neighbours are in other rows: number `nth` of as many words as it has channels. Number 0 comes first
    /// and sets the others to 0.
    fn pack_across<T: Element>(self, nth: usize, row: &[T], words: &mut [f32]);

    /// Writes `source` rounded to the dtype, to nearest even. Both are of one length.
    fn narrow<T: Element>(self, source: &[f32], target: &mut [MaybeUninit<T>]);
}

/// [`Words::narrow`], for words that have no instruction of their own for it.
#[inline(always)]
pub(super) fn narrow<S: Simd, T: Element>(simd: S, source: &[f32], target: &mut [MaybeUninit<T>]) {
    /// Numbers that are rounded in registers before they are written, a multiple of the lanes of every level.
    const STEP: usize = 16;
    let (sources, rest) = source.as_chunks::<STEP>();
    let (targets, rest_of_target) = target.as_chunks_mut::<STEP>();
    for (index, source) in sources.iter().enumerate() {
        let target = &mut targets[index];
        if T::DTYPE == DType::F16 {
            for lane in (0..STEP).step_by(S::LANES) {
                // SAFETY: both hold STEP numbers, those of the target are f16.
                unsafe { simd.store_f16(target.as_mut_ptr().add(lane).cast(), simd.load(source.as_ptr().add(lane))) };
            }
        } else {
            let mut narrow = [T::ZERO; STEP];
            T::narrow_times(source, 1.0, &mut narrow);
            target.write_copy_of_slice(&narrow);
        }
    }
    let mut narrow = [T::ZERO; STEP];
    T::narrow_times(rest, 1.0, &mut narrow[..rest.len()]);
    rest_of_target.write_copy_of_slice(&narrow[..rest.len()]);
}

/// A vector of words or of f32 numbers.
pub(crate) type Vector<W> = <<W as Words>::Simd as Simd>::Vector;

/// One f32 in a word.
#[derive(Clone, Copy)]
pub(crate) struct Floats<S>(pub S);

impl<S: Simd> Words for Floats<S> {
    type Simd = S;
    const NUMBERS: usize = 1;

    #[inline(always)]
    fn simd(self) -> S {
        self.0
    }

    #[inline(always)]
    fn multiply_add(self, left: S::Vector, right: S::Vector, sum: S::Vector) -> S::Vector {
        self.0.mul_add(left, right, sum)
    }

    #[inline(always)]
    fn weight(self, x: S::Vector, exponent: Exponent) -> S::Vector {
        self.0.exp2(x, exponent)
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

    #[inline(always)]
    fn narrow<T: Element>(self, source: &[f32], target: &mut [MaybeUninit<T>]) {
        narrow(self.0, source, target);
    }
}

#[cfg(test)]
mod tests {
    use half::bf16;

    use super::super::Scalar;
    #[cfg(target_arch = "x86_64")]
    use super::super::{Avx512, Avx512Bf16, Bf16Pairs};
    #[cfg(target_arch = "aarch64")]
    use super::super::{Bf16Pairs, Neon, NeonBf16};
    use super::*;

    /// Numbers of many magnitudes and signs, so that rounding, order and sign mistakes show.
    fn row(len: usize, seed: usize) -> Vec<bf16> {
        let number = |i: usize| ((i * 37 + seed * 101) % 97) as f32 - 48.0;
        (0..len).map(|i| bf16::from_f32(number(i) * 0.37 * 2f32.powi((i % 7) as i32 - 3))).collect()
    }

    /// `Σ_c left[c] · right[c]` through rows packed along the summed axis, for every length.
    fn check_rows<W: Words>(words: W) {
        for len in 1..40 {
            let (left, right) = (row(len, 1), row(len, 2));
            let want: f64 = left.iter().zip(&right).map(|(l, r)| f64::from(l.to_f32()) * f64::from(r.to_f32())).sum();
            // NaN in the missing number of the last word would show.
            let pack = |row: &[bf16]| {
                let mut packed = vec![f32::NAN; len.div_ceil(W::NUMBERS)];
                words.pack_row(row, &mut packed);
                packed
            };
            let got = multiply(words, &pack(&left), &pack(&right));
            assert!((got - want).abs() <= 1e-5 * want.abs().max(1.0), "{len} channels: {got}, expected {want}");
        }
    }

    /// The same with rows across the summed axis: `Σ_key left[key, c] · right[key, c]` for each channel.
    fn check_across<W: Words>(words: W) {
        let channels = 19;
        for keys in 1..6 {
            let (left, right): (Vec<_>, Vec<_>) =
                (0..keys).map(|key| (row(channels, key), row(channels, key + 50))).unzip();
            let pack = |rows: &[Vec<bf16>]| {
                let mut packed = vec![vec![f32::NAN; channels]; keys.div_ceil(W::NUMBERS)];
                for (key, row) in rows.iter().enumerate() {
                    words.pack_across(key % W::NUMBERS, row, &mut packed[key / W::NUMBERS]);
                }
                packed
            };
            let (packed_left, packed_right) = (pack(&left), pack(&right));
            for channel in 0..channels {
                let column = |rows: &[Vec<f32>]| rows.iter().map(|row| row[channel]).collect::<Vec<_>>();
                let product =
                    |key: usize| f64::from(left[key][channel].to_f32()) * f64::from(right[key][channel].to_f32());
                let want: f64 = (0..keys).map(product).sum();
                let got = multiply(words, &column(&packed_left), &column(&packed_right));
                assert!((got - want).abs() <= 1e-5 * want.abs().max(1.0), "{keys} keys: {got}, expected {want}");
            }
        }
    }

    /// Packing vectors gives what packing rows gives, rounding included.
    fn check_vectors<W: Words>(words: W) {
        let lanes = <W::Simd as Simd>::LANES;
        let numbers = |seed: usize| (0..lanes).map(|i| 1.0 / ((i + seed) as f32 + 1.37)).collect::<Vec<f32>>();
        let rows = [numbers(0), numbers(7)];
        let mut want = vec![0.0; lanes];
        let mut got = vec![0.0; lanes];
        for (nth, row) in rows.iter().enumerate().take(W::NUMBERS) {
            words.pack_across(nth, row, &mut want);
        }
        // SAFETY: all vectors hold LANES numbers.
        unsafe {
            let simd = words.simd();
            let packed = words.pack(simd.load(rows[0].as_ptr()), simd.load(rows[1].as_ptr()));
            simd.store(got.as_mut_ptr(), packed);
        }
        let bits = |words: &[f32]| words.iter().map(|word| word.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&got), bits(&want));
    }

    /// Sums products of words with `multiply_add`; all lanes must agree.
    fn multiply<W: Words>(words: W, left: &[f32], right: &[f32]) -> f64 {
        let simd = words.simd();
        let mut sum = simd.splat(0.0);
        for (left, right) in left.iter().zip(right) {
            sum = words.multiply_add(simd.splat(*left), simd.splat(*right), sum);
        }
        let mut lanes = vec![0f32; <W::Simd as Simd>::LANES];
        // SAFETY: `lanes` holds a vector.
        unsafe { simd.store(lanes.as_mut_ptr(), sum) };
        assert!(lanes.iter().all(|lane| lane.to_bits() == lanes[0].to_bits()), "{lanes:?}");
        f64::from(lanes[0])
    }

    macro_rules! on_all_words {
        ($check:ident) => {{
            $check(Floats(Scalar));
            #[cfg(target_arch = "x86_64")]
            {
                Avx512::detect().map(|simd| $check(Floats(simd)));
                Avx512Bf16::detect().map(|simd| $check(Bf16Pairs(simd)));
            }
            #[cfg(target_arch = "aarch64")]
            {
                Neon::detect().map(|simd| $check(Floats(simd)));
                NeonBf16::detect().map(|simd| $check(Bf16Pairs(simd)));
            }
        }};
    }

    #[test]
    fn rows_multiply_to_the_dot_product() {
        on_all_words!(check_rows);
    }

    #[test]
    fn rows_across_multiply_to_the_dot_product() {
        on_all_words!(check_across);
    }

    #[test]
    fn vectors_pack_as_rows_do() {
        on_all_words!(check_vectors);
    }
}
