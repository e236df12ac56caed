//! Sums over very many keys: every [`TILES`] tiles, what a strip has accumulated moves into a compensated total.
//!
//! A chain of additions loses about as many ulps as the square root of its length, and more where the terms are alike. A
//! total is two numbers, the rounded sum and what rounding cut off (Knuth's TwoSum, Dekker's product by multiply-add), so
//! that its error does not depend on the number of groups. It costs some ten instructions per number and group, against
//! thousands of multiply-adds of the group itself.

use crate::simd::{Exponent, Simd};

/// Staged tiles of a group.
pub(super) const TILES: usize = 16;

/// What a strip of queries has accumulated, and its total. All pointers are to rows of `vectors · LANES` queries.
#[derive(Clone, Copy)]
pub(super) struct Total {
    /// Running maximum.
    pub maximum: *const f32,
    /// Maximum to which the total is scaled.
    pub total_maximum: *mut f32,
    /// Running sum of the weights, and its total.
    pub sum: Compensated,
    /// Oᵀ `[channels, queries]`, and its total.
    pub output: Compensated,
    /// Vectors of queries.
    pub vectors: usize,
    /// Rows of Oᵀ.
    pub channels: usize,
}

/// A running sum and its total `high + low`.
#[derive(Clone, Copy)]
pub(super) struct Compensated {
    pub running: *mut f32,
    pub high: *mut f32,
    pub low: *mut f32,
}

impl Total {
    /// Moves the running sums into the total and leaves zeros.
    ///
    /// # Safety
    /// The pointers are valid for the documented shapes, and nothing else writes there.
    #[inline(always)]
    pub(super) unsafe fn add<S: Simd>(&self, simd: S, exponent: Exponent) {
        // SAFETY: passed on from the caller; every offset is inside the documented shapes.
        unsafe {
            for vector in 0..self.vectors {
                let offset = vector * S::LANES;
                let (now, before) = (simd.load(self.maximum.add(offset)), simd.load(self.total_maximum.add(offset)));
                let correction = simd.exp2(simd.sub(before, now), exponent.unshifted());
                simd.store(self.total_maximum.add(offset), now);
                self.sum.add(simd, offset, correction);
                for channel in 0..self.channels {
                    self.output.add(simd, channel * self.vectors * S::LANES + offset, correction);
                }
            }
        }
    }

    /// Puts the totals in the place of the running sums.
    ///
    /// # Safety
    /// As [`add`](Self::add).
    #[inline(always)]
    pub(super) unsafe fn finish<S: Simd>(&self, simd: S) {
        // SAFETY: as above.
        unsafe {
            for vector in 0..self.vectors {
                let offset = vector * S::LANES;
                self.sum.finish(simd, offset);
                for channel in 0..self.channels {
                    self.output.finish(simd, channel * self.vectors * S::LANES + offset);
                }
            }
        }
    }
}

impl Compensated {
    /// `total = total · correction + running; running = 0` for the vector at `offset`.
    ///
    /// # Safety
    /// The three hold a vector there.
    #[inline(always)]
    unsafe fn add<S: Simd>(&self, simd: S, offset: usize, correction: S::Vector) {
        // SAFETY: the caller vouches for the vectors.
        unsafe {
            let (high, low) = (simd.load(self.high.add(offset)), simd.load(self.low.add(offset)));
            let running = simd.load(self.running.add(offset));
            let old = simd.mul(high, correction);
            let cut_off_by_product = simd.mul_sub(high, correction, old);
            let sum = simd.add(old, running);
            let added = simd.sub(sum, old);
            let cut_off_by_sum = simd.add(simd.sub(old, simd.sub(sum, added)), simd.sub(running, added));
            let cut_off = simd.add(cut_off_by_product, cut_off_by_sum);
            simd.store(self.high.add(offset), sum);
            simd.store(self.low.add(offset), simd.mul_add(low, correction, cut_off));
            simd.store(self.running.add(offset), simd.splat(0.0));
        }
    }

    /// `running = total` for the vector at `offset`.
    ///
    /// # Safety
    /// As [`add`](Self::add).
    #[inline(always)]
    unsafe fn finish<S: Simd>(&self, simd: S, offset: usize) {
        // SAFETY: the caller vouches for the vectors.
        unsafe {
            let low = simd.load(self.low.add(offset));
            // Where the sum is infinite, what was cut off is NaN: that counts as 0.
            let zero = simd.splat(0.0);
            let (above, below) = (simd.max(low, zero), simd.max(simd.sub(zero, low), zero));
            let low = simd.sub(above, below);
            simd.store(self.running.add(offset), simd.add(simd.load(self.high.add(offset)), low));
        }
    }
}
