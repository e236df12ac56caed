//! Thin instruction-set layers: the vector operations that attention and linear layers are written with, the loop that both
//! spend their time in ([`product`]), and the choice of an instruction set at run time ([`dispatch`]).
//!
//! A value of a type that implements [`Simd`] proves that the CPU has its instructions: the only constructors are the
//! `detect` functions, but for the levels that any CPU has which the crate was compiled for. All methods are
//! `#[inline(always)]`, so that they become part of the `#[target_feature]` function that runs the algorithm.

use std::mem::MaybeUninit;

use half::f16;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod avx512_bf16;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod bf16_pairs;
mod dispatch;
mod exp2;
mod level;
#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(target_arch = "aarch64")]
mod neon_bf16;
mod product;
mod scalar;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
mod simd128;
mod words;

#[cfg(target_arch = "x86_64")]
pub(crate) use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) use avx512::Avx512;
#[cfg(target_arch = "x86_64")]
pub(crate) use avx512_bf16::Avx512Bf16;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub(crate) use bf16_pairs::{Bf16Pairs, DotProducts};
pub(crate) use dispatch::{Task, dispatch};
pub(crate) use exp2::Exponent;
pub use level::{SimdLevel, UnknownSimdLevel};
#[cfg(target_arch = "aarch64")]
pub(crate) use neon::Neon;
#[cfg(target_arch = "aarch64")]
pub(crate) use neon_bf16::NeonBf16;
pub(crate) use product::{lay_across, product, strips};
pub(crate) use scalar::Scalar;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
pub(crate) use simd128::Simd128;
pub(crate) use words::{Floats, Vector, Words};

/// Numbers in a vector at most.
const MOST_LANES: usize = 16;

/// Vector operations on f32.
pub(crate) trait Simd: Copy + Send + Sync {
    /// `LANES` numbers.
    type Vector: Copy;

    /// Numbers in a vector.
    const LANES: usize;

    /// All lanes equal.
    fn splat(self, value: f32) -> Self::Vector;

    /// Reads `LANES` numbers.
    ///
    /// # Safety
    /// `source` is valid for reads of `LANES` numbers.
    unsafe fn load(self, source: *const f32) -> Self::Vector;

    /// Asks for the cache line at this address before it is read, into the second-level cache. Nothing where a CPU is not asked.
    #[inline(always)]
    fn prefetch(self, _address: *const u8) {}

    /// Writes `LANES` numbers.
    ///
    /// # Safety
    /// `target` is valid for writes of `LANES` numbers.
    unsafe fn store(self, target: *mut f32, value: Self::Vector);

    /// Writes `LANES` numbers rounded to f16, to nearest even.
    ///
    /// # Safety
    /// `target` is valid for writes of `LANES` numbers.
    #[inline(always)]
    unsafe fn store_f16(self, target: *mut f16, value: Self::Vector) {
        let mut numbers = [0f32; MOST_LANES];
        // SAFETY: there are at most MOST_LANES numbers; the caller vouches for the target.
        unsafe {
            self.store(numbers.as_mut_ptr(), value);
            let target = std::slice::from_raw_parts_mut(target.cast::<MaybeUninit<f16>>(), Self::LANES);
            target.iter_mut().zip(numbers).for_each(|(target, number)| {
                target.write(f16::from_f32(number));
            });
        }
    }

    /// `a + b`
    fn add(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;

    /// `a - b`
    fn sub(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;

    /// `a * b`
    fn mul(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;

    /// `a * b + c`, rounded once where the hardware can.
    fn mul_add(self, a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector;

    /// `a * b - c`, rounded once where the hardware can.
    fn mul_sub(self, a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector;

    /// The larger of the two, lane by lane; `b` where either is NaN.
    fn max(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;

    /// `value * 2^n` for `rounded = ROUND + n`, by adding to the exponent; 0 in the lanes where `x < limit`, and not where `x`
    /// is NaN.
    fn scale_exponent(
        self,
        value: Self::Vector,
        rounded: Self::Vector,
        x: Self::Vector,
        limit: Self::Vector,
    ) -> Self::Vector;

    /// Transposes `LANES × LANES` numbers: row `i` of `target` is column `i` of `source`. Strides are in numbers.
    ///
    /// # Safety
    /// `source` is valid for reads and `target` for writes of `LANES` rows of `LANES` numbers at these strides.
    unsafe fn transpose(self, source: *const f32, source_stride: usize, target: *mut f32, target_stride: usize);

    /// `2^(factor · x − shift)` for powers up to 2^126, with a relative error below 8e-8 down to 2^−125; 0 below that, so
    /// that a key without weight adds nothing, however large its value is. Exact for x = 0; NaN stays NaN.
    #[inline(always)]
    fn exp2(self, x: Self::Vector, exponent: Exponent) -> Self::Vector {
        exp2::exp2(self, x, exponent, exp2::COEFFICIENTS)
    }

    /// The same with a relative error below 3e-6, for weights that will be rounded to bf16.
    #[cfg(any(test, target_arch = "x86_64", target_arch = "aarch64"))]
    #[inline(always)]
    fn exp2_for_bf16(self, x: Self::Vector, exponent: Exponent) -> Self::Vector {
        exp2::exp2(self, x, exponent, exp2::COEFFICIENTS_FOR_BF16)
    }
}

/// Runs a check on every level that the CPU has.
#[cfg(test)]
macro_rules! on_every_level {
    ($check:ident) => {{
        $check(Scalar);
        #[cfg(target_arch = "x86_64")]
        {
            Avx2::detect().map($check);
            Avx512::detect().map($check);
        }
        #[cfg(target_arch = "aarch64")]
        Neon::detect().map($check);
        #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
        $check(Simd128);
    }};
}
#[cfg(test)]
use on_every_level;

#[cfg(test)]
mod tests {
    use super::*;

    fn check_transpose<S: Simd>(simd: S) {
        let (rows, source_stride, target_stride) = (S::LANES, S::LANES + 3, S::LANES + 5);
        let source: Vec<f32> = (0..rows * source_stride).map(|i| i as f32).collect();
        let mut target = vec![f32::NAN; rows * target_stride];
        // SAFETY: both buffers hold LANES rows of their stride.
        unsafe { simd.transpose(source.as_ptr(), source_stride, target.as_mut_ptr(), target_stride) };
        for row in 0..rows {
            for column in 0..rows {
                assert_eq!(target[row * target_stride + column], source[column * source_stride + row]);
            }
        }
    }

    #[test]
    fn transpose_swaps_rows_and_columns() {
        on_every_level!(check_transpose);
    }
}
