//! How a score becomes a weight: `2^(factor · x − shift)`, vectorised.

use super::Simd;

/// Coefficients of `(2^f − 1) / f` on `[-1/2, 1/2]`, constant term first. With the 1 exact, `2^0` is exactly 1: what was
/// summed before a tile of keys keeps its weight where the maximum does not change.
///
/// Minimax in the relative error of `2^f`, found by iteratively reweighted least squares: 2.0e-9 in exact arithmetic,
/// 6.8e-8 when evaluated in f32 with fused multiply-adds (measured on 400,001 points).
pub(super) const COEFFICIENTS: [f32; 6] =
    [std::f32::consts::LN_2, 0.240_226_45, 0.055_503_324, 0.009_618_437, 0.001_339_887_4, 0.000_153_533_62];

/// The same for weights that will be rounded to bf16: 2.8e-6 in exact arithmetic and 2.9e-6 in f32, a thousandth of that
/// rounding.
pub(super) const COEFFICIENTS_FOR_BF16: [f32; 4] = [0.693_124_2, 0.240_241, 0.055_906_426, 0.009_582_853];

/// `1.5 * 2^23`: adding and subtracting it rounds to an integer, whose low bits then stand in the mantissa.
const ROUND: f32 = 12_582_912.0;

/// Below this a power is 0: the polynomial could round to a number that is not normal.
const LOWEST: f32 = -125.0;

/// The constants of `2^(factor · x − shift)`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Exponent {
    /// Factor of x, positive and finite.
    pub factor: f32,
    /// [`ROUND`]` − shift`, exact.
    round: f32,
    /// Powers of smaller x are 0.
    limit: f32,
}

impl Exponent {
    /// `factor` is positive; `shift` is at most 64.
    pub(crate) fn new(factor: f32, shift: u32) -> Self {
        let (factor, shift) = (factor.min(f32::MAX), shift as f32);
        // Finite, so that −∞ lies below whatever the factor.
        Self { factor, round: ROUND - shift, limit: ((LOWEST + shift) / factor).max(f32::MIN) }
    }

    /// Natural logarithm of a sum of `2^(factor · (x − maximum) − shift)`, times 2^(factor · maximum + shift); −∞ for 0.
    pub(crate) fn log_sum_exp(self, maximum: f32, sum: f64) -> f32 {
        let shift = f64::from(ROUND - self.round);
        ((f64::from(maximum) * f64::from(self.factor) + sum.log2() + shift) * std::f64::consts::LN_2) as f32
    }

    /// The same without the shift.
    pub(crate) fn unshifted(self) -> Self {
        Self::new(self.factor, 0)
    }
}

/// See [`Simd::exp2`].
#[inline(always)]
pub(super) fn exp2<S: Simd, const DEGREE: usize>(
    simd: S,
    x: S::Vector,
    exponent: Exponent,
    coefficients: [f32; DEGREE],
) -> S::Vector {
    let (factor, round) = (simd.splat(exponent.factor), simd.splat(exponent.round));
    // The product is never rounded: the fraction is exact in one instruction, also where x is large.
    let rounded = simd.mul_add(x, factor, round);
    let fraction = simd.mul_sub(x, factor, simd.sub(rounded, round));
    let mut value = simd.splat(coefficients[DEGREE - 1]);
    for coefficient in coefficients.iter().rev().skip(1) {
        value = simd.mul_add(value, fraction, simd.splat(*coefficient));
    }
    value = simd.mul_add(value, fraction, simd.splat(1.0));
    // The low bits of `rounded` are the integer part less the shift.
    simd.scale_exponent(value, rounded, x, simd.splat(exponent.limit))
}

#[cfg(test)]
mod tests {
    use super::super::*;
    use super::*;

    /// How a test asks for powers.
    type Powers<S> = fn(S, <S as Simd>::Vector, Exponent) -> <S as Simd>::Vector;

    fn powers_by<S: Simd>(simd: S, exp2: Powers<S>, x: &[f32], exponent: Exponent) -> Vec<f32> {
        assert_eq!(x.len() % S::LANES, 0);
        let mut y = vec![0f32; x.len()];
        for (x, y) in x.chunks(S::LANES).zip(y.chunks_mut(S::LANES)) {
            // SAFETY: both hold LANES numbers.
            unsafe { simd.store(y.as_mut_ptr(), exp2(simd, simd.load(x.as_ptr()), exponent)) };
        }
        y
    }

    fn check_bound<S: Simd>(simd: S) {
        check_bound_of(simd, S::exp2, if simd_is_fused(simd) { 8e-8 } else { 1.6e-7 });
        check_bound_of(simd, S::exp2_for_bf16, 3e-6);
    }

    fn check_bound_of<S: Simd>(simd: S, exp2: Powers<S>, bound: f64) {
        // Where multiply-adds round twice (the scalar level), the product adds its own error.
        let fused = simd_is_fused(simd);
        for (factor, shift) in [(1.0, 0), (0.180_336_88, 0), (0.180_336_88, 21), (37.5, 7)] {
            let exponent = Exponent::new(factor, shift);
            let (low, high) = ((-125.0 + shift as f32) / factor, 6.0 / factor);
            let count = 600_000 / S::LANES * S::LANES;
            let x: Vec<f32> = (0..count).map(|i| low + i as f32 * ((high - low) / count as f32)).collect();
            let mut worst = 0f64;
            for (x, y) in x.iter().zip(powers_by(simd, exp2, &x, exponent)) {
                let want = (f64::from(*x) * f64::from(factor) - f64::from(shift)).exp2();
                let error = ((f64::from(y) - want) / want).abs();
                let product = if fused { 0.0 } else { 4.5e-8 * f64::from(x * factor).abs() };
                assert!(error <= bound + product, "2^({x} · {factor} − {shift}) = {y}, error {error:e}");
                worst = worst.max(error);
            }
            assert!(worst > 1e-8, "the sweep has not measured anything: {worst}");
        }
    }

    fn simd_is_fused<S: Simd>(simd: S) -> bool {
        let mut square = vec![0f32; S::LANES];
        let number = simd.splat(1.0 + f32::EPSILON);
        // SAFETY: `square` holds LANES numbers.
        unsafe { simd.store(square.as_mut_ptr(), simd.mul_sub(number, number, simd.splat(1.0 + 2.0 * f32::EPSILON))) };
        square[0] != 0.0
    }

    fn check_ends<S: Simd>(simd: S) {
        check_ends_of(simd, S::exp2);
        check_ends_of(simd, S::exp2_for_bf16);
    }

    fn check_ends_of<S: Simd>(simd: S, exp2: Powers<S>) {
        let of = |x: f32, factor: f32, shift: u32| {
            let y = powers_by(simd, exp2, &vec![x; S::LANES], Exponent::new(factor, shift));
            assert!(y.iter().all(|lane| lane.to_bits() == y[0].to_bits()), "{y:?}");
            y[0]
        };
        for factor in [1e-38, 0.18, 1.0, 3e5, f32::MAX, f32::INFINITY] {
            // 1 to the last bit, and a power of two with a shift.
            assert_eq!((of(0.0, factor, 0), of(0.0, factor, 20)), (1.0, 1.0 / 1_048_576.0));
            assert_eq!(of(f32::NEG_INFINITY, factor, 0), 0.0);
            assert_eq!(of(f32::NEG_INFINITY, factor, 30), 0.0);
            assert!(of(f32::NAN, factor, 0).is_nan());
        }
        assert_eq!((of(-1e30, 1.0, 0), of(-125.000_01, 1.0, 0), of(-105.1, 1.0, 20)), (0.0, 0.0, 0.0));
        assert_eq!((of(f32::MIN, 1.5, 0), of(-3.0, 1.0, 0), of(2.0, 1.0, 0)), (0.0, 0.125, 4.0));
    }

    #[test]
    fn stays_within_its_bound() {
        on_every_level!(check_bound);
    }

    #[test]
    fn ends_of_the_line() {
        on_every_level!(check_ends);
    }
}
