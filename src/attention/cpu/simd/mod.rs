//! Thin instruction-set layers: the vector operations that the algorithm in [`strip`](super::strip) is written with.
//!
//! A value of a type that implements [`Simd`] proves that the CPU has its instructions: the only constructors are the
//! `detect` functions. All methods are `#[inline(always)]`, so that they become part of the `#[target_feature]` function
//! that runs the algorithm.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod avx512_bf16;
mod level;
#[cfg(target_arch = "aarch64")]
mod neon;
mod scalar;

#[cfg(target_arch = "x86_64")]
pub(super) use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
pub(super) use avx512::Avx512;
#[cfg(target_arch = "x86_64")]
pub(super) use avx512_bf16::Avx512Bf16;
pub use level::{SimdLevel, UnknownSimdLevel};
#[cfg(target_arch = "aarch64")]
pub(super) use neon::Neon;
pub(super) use scalar::Scalar;

/// Coefficients of the polynomial that [`Simd::exp2`] uses for `2^f` on `[-1/2, 1/2]`, constant term first.
///
/// Minimax in the relative error, found by iteratively reweighted least squares: 7.5e-8 in exact arithmetic, 2.2e-7 when
/// evaluated in f32 with fused multiply-adds (measured on 400,001 points; `exp2_stays_within_its_bound` checks it).
const EXP2: [f32; 6] = [1.000_000_1, 0.693_146_94, 0.240_221_2, 0.055_507_13, 0.009_675_541, 0.001_327_647_2];

/// `1.5 * 2^23`: adding and subtracting it rounds to an integer, whose low bits then stand in the mantissa.
const ROUND: f32 = 12_582_912.0;

/// Below this [`Simd::exp2`] is 0: the polynomial could round to a number that is not normal.
const EXP2_MIN: f32 = -125.0;

/// Vector operations on f32.
pub(super) trait Simd: Copy + Send + Sync {
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

    /// Writes `LANES` numbers.
    ///
    /// # Safety
    /// `target` is valid for writes of `LANES` numbers.
    unsafe fn store(self, target: *mut f32, value: Self::Vector);

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

    /// `value * 2^n` for `rounded = ROUND + n`, by adding to the exponent.
    fn scale_exponent(self, value: Self::Vector, rounded: Self::Vector) -> Self::Vector;

    /// 0 in the lanes where `x < limit`, `value` in the others and where `x` is NaN.
    fn zero_below(self, value: Self::Vector, x: Self::Vector, limit: Self::Vector) -> Self::Vector;

    /// Transposes `LANES × LANES` numbers: row `i` of `target` is column `i` of `source`. Strides are in numbers.
    ///
    /// # Safety
    /// `source` is valid for reads and `target` for writes of `LANES` rows of `LANES` numbers at these strides.
    unsafe fn transpose(self, source: *const f32, source_stride: usize, target: *mut f32, target_stride: usize);

    /// `2^x` for `x <= 126`, with a relative error below 2.5e-7 down to `x = -125`; 0 below that, so that a key without
    /// weight adds nothing, however large its value is. NaN stays NaN.
    #[inline(always)]
    fn exp2(self, x: Self::Vector) -> Self::Vector {
        let rounded = self.add(x, self.splat(ROUND));
        let fraction = self.sub(x, self.sub(rounded, self.splat(ROUND)));
        let mut value = self.splat(EXP2[5]);
        for coefficient in EXP2[..5].iter().rev() {
            value = self.mul_add(value, fraction, self.splat(*coefficient));
        }
        self.zero_below(self.scale_exponent(value, rounded), x, self.splat(EXP2_MIN))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_exp2<S: Simd>(simd: S) {
        let mut worst = 0f64;
        let mut x = vec![0f32; S::LANES];
        let mut y = vec![0f32; S::LANES];
        for step in 0..300_000usize {
            for (lane, x) in x.iter_mut().enumerate() {
                *x = -125.0 + (step * S::LANES + lane) as f32 * (131.0 / (300_000 * S::LANES) as f32);
            }
            // SAFETY: both vectors hold LANES numbers.
            unsafe { simd.store(y.as_mut_ptr(), simd.exp2(simd.load(x.as_ptr()))) };
            for (x, y) in x.iter().zip(&y) {
                let want = f64::from(*x).exp2();
                let error = ((f64::from(*y) - want) / want).abs();
                assert!(error <= 2.5e-7, "2^{x} = {y}, error {error}");
                worst = worst.max(error);
            }
        }
        assert!(worst > 1e-8, "the sweep has not measured anything: {worst}");
        let exact =
            [(f32::NEG_INFINITY, 0.0, 0.0), (-1e30, 0.0, 0.0), (-125.000_01, 0.0, 0.0), (0.0, 1.0, 1.000_000_2)];
        for (x, low, high) in exact {
            // SAFETY: `y` holds LANES numbers.
            unsafe { simd.store(y.as_mut_ptr(), simd.exp2(simd.splat(x))) };
            assert!(y.iter().all(|y| (low..=high).contains(y)), "2^{x} = {y:?}");
        }
        // SAFETY: `y` holds LANES numbers.
        unsafe { simd.store(y.as_mut_ptr(), simd.exp2(simd.splat(f32::NAN))) };
        assert!(y.iter().all(|y| y.is_nan()), "2^NaN = {y:?}");
    }

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
        }};
    }

    #[test]
    fn exp2_stays_within_its_bound() {
        on_every_level!(check_exp2);
    }

    #[test]
    fn transpose_swaps_rows_and_columns() {
        on_every_level!(check_transpose);
    }
}
