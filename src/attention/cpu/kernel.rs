//! The sizes of a kernel: how many sums it keeps in registers, and how many keys it stages at a time.

use super::strip::{self, Seeing, StagedKeys, Strip};
use crate::simd::Words;

/// A kernel for strips of queries.
pub(super) trait StripKernel: Copy + Send + Sync {
    /// Its operands.
    type Words: Words;

    /// Keys, and channels of the output, that it computes at a time.
    const ROWS: usize;

    /// Vectors of queries in a full strip, at most 3.
    const VECTORS: usize;

    /// Keys of a staged tile, a multiple of `ROWS` and of the numbers in a word.
    const KEYS: usize;

    /// Its operands.
    fn words(self) -> Self::Words;

    /// See [`strip::attend`].
    ///
    /// # Safety
    /// As there.
    unsafe fn attend<const VECTORS: usize>(self, keys: &StagedKeys, strip: &Strip, seeing: &[Seeing], first: bool);
}

/// `ROWS × VECTORS` accumulators.
#[derive(Clone, Copy)]
pub(super) struct Blocked<W, const ROWS: usize, const VECTORS: usize>(pub W);

impl<W: Words, const ROWS: usize, const WIDEST: usize> StripKernel for Blocked<W, ROWS, WIDEST> {
    type Words = W;
    const ROWS: usize = ROWS;
    const VECTORS: usize = WIDEST;
    // Measured with AVX-512 at head_dim 64, fraction of the FMA peak by keys per tile:
    // 32: 0.91, 64: 0.92, 128: 0.94, 256: 0.93.
    const KEYS: usize = 128 / (ROWS * W::NUMBERS) * (ROWS * W::NUMBERS);

    #[inline(always)]
    fn words(self) -> W {
        self.0
    }

    #[inline(always)]
    unsafe fn attend<const VECTORS: usize>(self, keys: &StagedKeys, strip: &Strip, seeing: &[Seeing], first: bool) {
        // SAFETY: passed on from the caller.
        unsafe { strip::attend::<W, ROWS, VECTORS>(self.0, keys, strip, seeing, first) }
    }
}
