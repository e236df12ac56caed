//! The loop that everything here spends its time in: broadcasts of the left operand times vectors of the right one, summed
//! in registers; and how rows come to lie across the lanes for it.

use super::{Simd, Vector, Words};

/// `Σ_i left(i, row) · right[i, :]` over `count` words: broadcasts of the left times vectors of the right.
///
/// `ROWS × VECTORS` sums stay in registers, and a step loads `ROWS` broadcasts and `VECTORS` vectors: 11 loads for 24
/// multiply-adds with AVX-512 (8 × 3), 6 + 2 for 12 with AVX2 (6 × 2).
///
/// # Safety
/// `left` may be called for every `i < count` and `row < ROWS`; `right` has `count` rows of `VECTORS · LANES` words.
#[inline(always)]
pub(crate) unsafe fn product<W: Words, const ROWS: usize, const VECTORS: usize>(
    words: W,
    count: usize,
    left: impl Fn(usize, usize) -> f32,
    right: *const f32,
) -> [[Vector<W>; VECTORS]; ROWS] {
    let simd = words.simd();
    let mut sums = [[simd.splat(0.0); VECTORS]; ROWS];
    for i in 0..count {
        // A loop: in a closure, a call would stay wherever the compiler inlines it too late.
        let mut vectors = [simd.splat(0.0); VECTORS];
        for (vector, value) in vectors.iter_mut().enumerate() {
            // SAFETY: row `i` of `right` has VECTORS vectors.
            *value = unsafe { simd.load(right.add((i * VECTORS + vector) * <W::Simd as Simd>::LANES)) };
        }
        for (row, sums) in sums.iter_mut().enumerate() {
            let broadcast = simd.splat(left(i, row));
            for vector in 0..VECTORS {
                sums[vector] = words.multiply_add(broadcast, vectors[vector], sums[vector]);
            }
        }
    }
    sums
}

/// Cuts `numbers` that will lie across the lanes into strips of at most `most` vectors, as even as can be: the first number
/// of each strip and its vectors.
#[inline(always)]
pub(crate) fn strips(numbers: usize, lanes: usize, most: usize) -> impl Iterator<Item = (usize, usize)> {
    let vectors = numbers.div_ceil(lanes);
    let count = vectors.div_ceil(most);
    (0..count).map(move |strip| {
        let (first, end) = (vectors * strip / count, vectors * (strip + 1) / count);
        (first * lanes, end - first)
    })
}

/// Lays `width` rows of `words` words across the lanes: row `i` of `target`, of `width` words, is column `i` of `rows`. Both
/// are multiples of the lanes.
#[inline(always)]
pub(crate) fn lay_across<S: Simd>(simd: S, rows: &[f32], words: usize, width: usize, target: &mut [f32]) {
    for row in (0..width).step_by(S::LANES) {
        for word in (0..words).step_by(S::LANES) {
            let source = &rows[row * words + word..][..(S::LANES - 1) * words + S::LANES];
            let target = &mut target[word * width + row..][..(S::LANES - 1) * width + S::LANES];
            // SAFETY: both slices hold LANES rows of LANES numbers at these strides.
            unsafe { simd.transpose(source.as_ptr(), words, target.as_mut_ptr(), width) };
        }
    }
}
