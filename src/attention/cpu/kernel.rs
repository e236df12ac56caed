//! The tile operations that differ between kernels: plain f32 on every instruction set, bf16 dot products on some.

use super::simd::Simd;
use super::strip::{self, StagedKeys, Strip};

/// A kernel for strips of queries.
pub(super) trait StripKernel: Copy + Send + Sync {
    /// Its vector operations.
    type Simd: Simd;

    /// Keys and channels that it computes at a time; staged rows are padded to a multiple.
    const ROWS: usize;

    /// Vectors of queries in a full strip, at most 3.
    const VECTORS: usize;

    /// Keys of a staged tile.
    const KEYS: usize;

    /// Its vector operations.
    fn simd(self) -> Self::Simd;

    /// Room for packed operands, in f32 numbers, for a tile of `keys` rows of `stride` channels and `queries` queries
    /// of `channels` channels.
    fn packed_len(keys: usize, stride: usize, queries: usize, channels: usize) -> usize;

    /// Packs all strips of Qᵀ, if the kernel needs them in another form.
    fn pack_queries(self, queries: &[f32], count: usize, channels: usize, packed: &mut [f32]);

    /// See [`strip::attend`].
    ///
    /// # Safety
    /// As there.
    unsafe fn attend<const VECTORS: usize>(self, keys: &StagedKeys, strip: &Strip, first: bool);
}

/// f32 multiply-adds, `ROWS × VECTORS` accumulators.
#[derive(Clone, Copy)]
pub(super) struct Float<S, const ROWS: usize, const VECTORS: usize>(pub S);

impl<S: Simd, const ROWS: usize, const WIDEST: usize> StripKernel for Float<S, ROWS, WIDEST> {
    type Simd = S;
    const ROWS: usize = ROWS;
    const VECTORS: usize = WIDEST;
    // Measured with AVX-512 at head_dim 64, fraction of the FMA peak by keys per tile:
    // 32: 0.91, 64: 0.92, 128: 0.94, 256: 0.93.
    const KEYS: usize = 128 / ROWS * ROWS;

    #[inline(always)]
    fn simd(self) -> S {
        self.0
    }

    fn packed_len(_: usize, _: usize, _: usize, _: usize) -> usize {
        0
    }

    #[inline(always)]
    fn pack_queries(self, _: &[f32], _: usize, _: usize, _: &mut [f32]) {}

    #[inline(always)]
    unsafe fn attend<const VECTORS: usize>(self, keys: &StagedKeys, strip: &Strip, first: bool) {
        // SAFETY: passed on from the caller.
        unsafe { strip::attend::<S, ROWS, VECTORS>(self.0, keys, strip, first) }
    }
}
