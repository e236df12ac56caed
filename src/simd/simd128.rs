//! WebAssembly's `simd128`: 4 lanes. With `relaxed-simd`, multiply-adds are single instructions, fused where the host can.
//!
//! WebAssembly cannot ask what the host has: a module with these instructions is refused as a whole by a host without them.
//! So the level exists where the crate is compiled with `-C target-feature=+simd128`.

use std::arch::wasm32::*;

use super::Simd;

/// The instructions that the module was compiled for.
#[derive(Clone, Copy)]
pub(crate) struct Simd128;

impl Simd for Simd128 {
    type Vector = v128;

    const LANES: usize = 4;

    #[inline(always)]
    fn splat(self, value: f32) -> v128 {
        f32x4_splat(value)
    }

    #[inline(always)]
    unsafe fn load(self, source: *const f32) -> v128 {
        // SAFETY: the caller vouches for 4 numbers; vectors are read unaligned.
        unsafe { v128_load(source.cast()) }
    }

    #[inline(always)]
    unsafe fn store(self, target: *mut f32, value: v128) {
        // SAFETY: the caller vouches for 4 numbers; vectors are written unaligned.
        unsafe { v128_store(target.cast(), value) }
    }

    #[inline(always)]
    fn add(self, a: v128, b: v128) -> v128 {
        f32x4_add(a, b)
    }

    #[inline(always)]
    fn sub(self, a: v128, b: v128) -> v128 {
        f32x4_sub(a, b)
    }

    #[inline(always)]
    fn mul(self, a: v128, b: v128) -> v128 {
        f32x4_mul(a, b)
    }

    #[inline(always)]
    fn mul_add(self, a: v128, b: v128, c: v128) -> v128 {
        #[cfg(target_feature = "relaxed-simd")]
        return f32x4_relaxed_madd(a, b, c);
        #[cfg(not(target_feature = "relaxed-simd"))]
        f32x4_add(f32x4_mul(a, b), c)
    }

    #[inline(always)]
    fn mul_sub(self, a: v128, b: v128, c: v128) -> v128 {
        self.mul_add(a, b, f32x4_neg(c))
    }

    #[inline(always)]
    fn max(self, a: v128, b: v128) -> v128 {
        // `b < a ? a : b`; the plain maximum returns NaN where either is.
        f32x4_pmax(b, a)
    }

    #[inline(always)]
    fn scale_exponent(self, value: v128, rounded: v128, x: v128, limit: v128) -> v128 {
        v128_andnot(i32x4_add(value, i32x4_shl(rounded, 23)), f32x4_lt(x, limit))
    }

    #[inline(always)]
    unsafe fn transpose(self, source: *const f32, source_stride: usize, target: *mut f32, target_stride: usize) {
        // SAFETY: the caller vouches for 4 rows of 4 numbers at both strides.
        unsafe {
            let row = |i: usize| self.load(source.add(i * source_stride));
            let (a, b, c, d) = (row(0), row(1), row(2), row(3));
            let (low_ab, high_ab) = (i32x4_shuffle::<0, 4, 1, 5>(a, b), i32x4_shuffle::<2, 6, 3, 7>(a, b));
            let (low_cd, high_cd) = (i32x4_shuffle::<0, 4, 1, 5>(c, d), i32x4_shuffle::<2, 6, 3, 7>(c, d));
            let columns = [
                i64x2_shuffle::<0, 2>(low_ab, low_cd),
                i64x2_shuffle::<1, 3>(low_ab, low_cd),
                i64x2_shuffle::<0, 2>(high_ab, high_cd),
                i64x2_shuffle::<1, 3>(high_ab, high_cd),
            ];
            for (i, value) in columns.into_iter().enumerate() {
                self.store(target.add(i * target_stride), value);
            }
        }
    }
}
