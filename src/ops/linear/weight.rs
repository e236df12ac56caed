//! The weight of a linear layer, packed for the kernel: outputs across the lanes, strip by strip.

use rayon::prelude::*;

use super::operands::Matrix;
use crate::element::Element;
use crate::scratch::{self, Buffer, Purpose};
use crate::simd::{Simd, SimdLevel, Task, Words, dispatch, lay_across, strips};

/// A packed weight: for each strip of outputs the words of its inputs, `[words, width of the strip]`; an output or input that
/// is missing is 0.
pub(super) struct PackedWeight<'a> {
    words: &'a [f32],
    /// Words of the inputs, up to a multiple of the lanes.
    stride: usize,
}

/// Below this many numbers a weight is packed on the calling thread.
const SEQUENTIAL_BELOW: usize = 1 << 18;

/// The sizes of the kernel at a level.
struct Sizes {
    lanes: usize,
    /// Vectors of a strip at most.
    vectors: usize,
    /// Numbers in a word.
    numbers: usize,
}

/// Asks for the sizes.
struct AskSizes;

impl Task for AskSizes {
    type Output = Sizes;

    #[inline(always)]
    fn run<W: Words, const ROWS: usize, const VECTORS: usize>(self, _: W) -> Sizes {
        Sizes { lanes: <W::Simd as Simd>::LANES, vectors: VECTORS, numbers: W::NUMBERS }
    }
}

impl<'a> PackedWeight<'a> {
    /// Packs a weight into the buffer.
    pub(super) fn new<T: Element>(level: SimdLevel, weight: &Matrix<'_, T>, buffer: &'a mut Buffer) -> Self {
        let Sizes { lanes, vectors, numbers } = dispatch(level, T::DTYPE, AskSizes);
        let stride = weight.columns.div_ceil(numbers).next_multiple_of(lanes);
        let words = buffer.of(weight.rows.next_multiple_of(lanes) * stride);
        let mut rest = &mut *words;
        let mut pieces = Vec::new();
        for (first, vectors) in strips(weight.rows, lanes, vectors) {
            let (strip, after) = std::mem::take(&mut rest).split_at_mut(vectors * lanes * stride);
            pieces.push((first, strip));
            rest = after;
        }
        let pack = |(first, strip): (usize, &mut [f32])| {
            scratch::with(Purpose::Rows, |buffer| {
                dispatch(level, T::DTYPE, PackStrip { weight, first, stride, strip, buffer });
            });
        };
        if weight.rows * weight.columns < SEQUENTIAL_BELOW {
            pieces.into_iter().for_each(pack);
        } else {
            pieces.into_par_iter().for_each(pack);
        }
        Self { words, stride }
    }

    /// The words of the strip that begins at output `first` and is `width` wide.
    #[inline(always)]
    pub(super) fn strip(&self, first: usize, width: usize) -> &[f32] {
        &self.words[first * self.stride..][..width * self.stride]
    }
}

/// One strip, from output `first` on.
struct PackStrip<'a, T> {
    weight: &'a Matrix<'a, T>,
    first: usize,
    stride: usize,
    strip: &'a mut [f32],
    buffer: &'a mut Buffer,
}

impl<T: Element> Task for PackStrip<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<W: Words, const ROWS: usize, const VECTORS: usize>(self, words: W) {
        let width = self.strip.len() / self.stride;
        let rows = self.buffer.of(self.strip.len());
        let used = self.weight.columns.div_ceil(W::NUMBERS);
        for (row, target) in rows.chunks_exact_mut(self.stride).enumerate() {
            let (target, padding) = target.split_at_mut(used);
            match self.weight.row(self.first + row) {
                Some(row) => words.pack_row(&row, target),
                None => target.fill(0.0),
            }
            padding.fill(0.0);
        }
        lay_across(words.simd(), rows, self.stride, width, self.strip);
    }
}
