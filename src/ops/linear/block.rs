//! The kernel: `f(x Wᵀ + b)` for a block of rows.
//!
//! Outputs lie across the lanes and are stored as they come. Rows are packed as [`words`](crate::simd) once per block, so that
//! strides, odd widths and f16 end there; a step of the loop then reads broadcasts of `ROWS` rows, from the first-level cache,
//! and vectors of the packed weight, which streams by from the second-level one.

use std::mem::MaybeUninit;

use super::Epilogue;
use super::operands::Rows;
use super::weight::PackedWeight;
use crate::element::Element;
use crate::ops::gelu::gelu;
use crate::scratch::Buffer;
use crate::simd::{Simd, Task, Vector, Words, product, strips};

/// Words of rows that are packed at a time: 128 KiB.
const PIECE: usize = 1 << 15;

/// Words that are summed from zero before they join the older ones: rounding errors grow with this and with their number, not
/// with the product.
const STEP: usize = 256;

/// Tiles of rows that a strip of the weight is used for before the next one: the outputs of a row are written soon one after
/// another, so that memory is met in its order.
const GROUP: usize = 4;

/// Rows from `first` on, as many as `target` has; a block may reach over samples.
pub(super) struct Block<'a, T> {
    pub x: &'a Rows<'a, T>,
    pub first: usize,
    pub weight: &'a PackedWeight<'a>,
    /// Of all outputs, if any.
    pub bias: Option<&'a [f32]>,
    pub outputs: usize,
    pub epilogue: Epilogue,
    pub target: &'a mut [MaybeUninit<T>],
    pub buffer: &'a mut Buffer,
}

impl<T: Element> Task for Block<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<W: Words, const ROWS: usize, const VECTORS: usize>(self, words: W) {
        let Self { x, first, weight, bias, outputs, epilogue, target, buffer } = self;
        let lanes = <W::Simd as Simd>::LANES;
        let count = x.width.div_ceil(W::NUMBERS);
        let most = (PIECE / count).max(1).next_multiple_of(ROWS);
        for (piece, target) in target.chunks_mut(most * outputs).enumerate() {
            let (first, rows) = (first + piece * most, target.len() / outputs);
            let padded = rows.next_multiple_of(ROWS);
            let (tile, rest) = buffer.of(ROWS * VECTORS * lanes + padded * count).split_at_mut(ROWS * VECTORS * lanes);
            let (packed, padding) = rest.split_at_mut(rows * count);
            for (row, target) in packed.chunks_exact_mut(count).enumerate() {
                words.pack_row(x.row(first + row), target);
            }
            padding.fill(0.0);
            let group = GROUP * ROWS;
            for (rows, target) in rest.chunks(group * count).zip(target.chunks_mut(group * outputs)) {
                for (output, vectors) in strips(outputs, lanes, VECTORS) {
                    let width = vectors * lanes;
                    let mut strip = Strip {
                        rows,
                        count,
                        weight: weight.strip(output, width),
                        bias: bias.map(|bias| &bias[output..outputs.min(output + width)]),
                        epilogue,
                        tile: &mut *tile,
                        target: &mut *target,
                        outputs,
                        first: output,
                    };
                    match vectors {
                        1 => strip.run::<W, ROWS, 1>(words),
                        2 => strip.run::<W, ROWS, 2>(words),
                        _ => strip.run::<W, ROWS, 3>(words),
                    }
                }
            }
        }
    }
}

/// Some outputs of packed rows.
struct Strip<'a, T> {
    /// `[rows up to a multiple of ROWS, count]`
    rows: &'a [f32],
    /// Words of a row.
    count: usize,
    /// `[at least count, VECTORS · LANES]`
    weight: &'a [f32],
    /// Of the outputs that there are.
    bias: Option<&'a [f32]>,
    epilogue: Epilogue,
    /// Room for `ROWS` rows of the strip.
    tile: &'a mut [f32],
    /// `[rows, outputs]`
    target: &'a mut [MaybeUninit<T>],
    outputs: usize,
    /// The first output of the strip.
    first: usize,
}

impl<T: Element> Strip<'_, T> {
    #[inline(always)]
    fn run<W: Words, const ROWS: usize, const VECTORS: usize>(&mut self, words: W) {
        let (simd, lanes) = (words.simd(), <W::Simd as Simd>::LANES);
        let width = VECTORS * lanes;
        let tile = &mut self.tile[..ROWS * width];
        // Zeros beyond the bias.
        let mut bias = [simd.splat(0.0); VECTORS];
        if let Some(given) = self.bias {
            let padded = &mut tile[..width];
            padded.fill(0.0);
            padded[..given.len()].copy_from_slice(given);
            for (vector, bias) in bias.iter_mut().enumerate() {
                // SAFETY: `padded` holds VECTORS vectors.
                *bias = unsafe { simd.load(padded.as_ptr().add(vector * lanes)) };
            }
        }
        let present = width.min(self.outputs - self.first);
        for (rows, target) in self.rows.chunks_exact(ROWS * self.count).zip(self.target.chunks_mut(ROWS * self.outputs))
        {
            // SAFETY: `rows` holds ROWS rows of `count` words, and the weight as many rows of VECTORS vectors or more.
            let sums = unsafe { sums::<W, ROWS, VECTORS>(words, rows, self.count, self.weight) };
            // Loops without `zip`, whose beginning is a call where the crate is built without LTO.
            for (row, sums) in sums.iter().enumerate() {
                for (vector, sum) in sums.iter().enumerate() {
                    let target = tile[row * width + vector * lanes..][..lanes].as_mut_ptr();
                    // SAFETY: `target` holds a vector.
                    unsafe { simd.store(target, simd.add(*sum, bias[vector])) };
                }
            }
            if self.epilogue == Epilogue::Gelu {
                gelu(tile);
            }
            for (row, target) in target.chunks_exact_mut(self.outputs).enumerate() {
                words.narrow(&tile[row * width..][..present], &mut target[self.first..][..present]);
            }
        }
    }
}

/// `rows Wᵀ`
///
/// # Safety
/// `rows` holds `ROWS` rows of `count` words, `weight` at least `count` rows of `VECTORS · LANES`.
#[inline(always)]
unsafe fn sums<W: Words, const ROWS: usize, const VECTORS: usize>(
    words: W,
    rows: &[f32],
    count: usize,
    weight: &[f32],
) -> [[Vector<W>; VECTORS]; ROWS] {
    let simd = words.simd();
    let mut sums = [[simd.splat(0.0); VECTORS]; ROWS];
    let mut start = 0;
    while start < count {
        // SAFETY: passed on from the caller; `start < count`.
        let more = unsafe {
            let (rows, weight) =
                (rows.as_ptr().add(start), weight.as_ptr().add(start * VECTORS * <W::Simd as Simd>::LANES));
            let left = |word, row| *rows.add(row * count + word);
            product::<W, ROWS, VECTORS>(words, STEP.min(count - start), left, weight)
        };
        if start == 0 {
            sums = more;
        } else {
            for (row, sums) in sums.iter_mut().enumerate() {
                for (vector, sum) in sums.iter_mut().enumerate() {
                    *sum = simd.add(*sum, more[row][vector]);
                }
            }
        }
        start += STEP;
    }
    sums
}
