//! The GELU (Hendrycks and Gimpel, 2016, arXiv:1606.08415) in its exact form, `x/2 · (1 + erf(x/√2))`, vectorised.
//!
//! `erf(x/√2) = x · p(x²)` for `|x| < LIMIT`, with a polynomial `p` of degree 15 in `u = 2x²/LIMIT² − 1`, which runs over
//! `[−1, 1]`; beyond, ±1. The coefficients are minimax in the error of erf, found by iteratively reweighted least squares:
//! 2e-8 in exact arithmetic, below 2.4e-7 when evaluated in f32 (`stays_within_its_bound` checks it). A scalar erf takes
//! longer than the matrix product before it.

use super::vectorised::{multiply_add, vectorised};

/// From here on erf is 1 to the last bit but one: 3.9 · √2.
const LIMIT: f32 = 5.515_433;

/// `2 / LIMIT²`
const TO_UNIT: f32 = 0.065_746_22;

/// Coefficients of `p`, constant term first.
const ERF: [f32; 16] = [
    0.256_385_6,
    -0.127_994_16,
    0.095_240_85,
    -0.077_451_095,
    0.064_115_725,
    -0.052_186_906,
    0.040_929_38,
    -0.030_248_586,
    0.020_654_084,
    -0.013_827_829,
    0.009_517_026,
    -0.005_022_459,
    0.001_416_594_4,
    -0.001_044_003_1,
    0.001_337_718_3,
    -0.000_512_507_34,
];

/// Applies the GELU to every number. NaN stays NaN.
pub(super) fn gelu(values: &mut [f32]) {
    vectorised(Gelu { values });
}

/// The loop, compiled once for every instruction set that [`vectorised`] may find.
struct Gelu<'a> {
    values: &'a mut [f32],
}

impl pulp::NullaryFnOnce for Gelu<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        for value in self.values {
            *value = gelu_of(*value);
        }
    }
}

/// The GELU of one number; vectorises inside a function that is compiled for an instruction set.
#[inline(always)]
pub(super) fn gelu_of(x: f32) -> f32 {
    let u = multiply_add(x * x, TO_UNIT, -1.0);
    let mut p = ERF[15];
    for coefficient in ERF[..15].iter().rev() {
        p = multiply_add(p, u, *coefficient);
    }
    let erf = if x.abs() < LIMIT { x * p } else { 1f32.copysign(x) };
    0.5 * x * (1.0 + erf)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Tensor};

    #[test]
    fn stays_within_its_bound() -> candle_core::Result<()> {
        let mut got: Vec<f32> = (-1_000_000..=1_000_000).map(|i| i as f32 * 1e-5).collect();
        let exact =
            Tensor::new(&*got, &Device::Cpu)?.to_dtype(candle_core::DType::F64)?.gelu_erf()?.to_vec1::<f64>()?;
        let inputs = got.clone();
        gelu(&mut got);
        for ((x, got), exact) in inputs.iter().zip(got).zip(exact) {
            // The error of erf counts |x|/2 times; the rest is rounding.
            let bound = f64::from(x.abs()) * 1.2e-7 + exact.abs() * 1.2e-7;
            let error = (f64::from(got) - exact).abs();
            assert!(error <= bound, "gelu({x}) = {got}, expected {exact}: off by {error:e}, allowed {bound:e}");
        }
        Ok(())
    }

    #[test]
    fn ends_of_the_line() {
        let mut values = [f32::INFINITY, 1e30, -1e30, f32::NAN, 0.0, -100.0];
        gelu(&mut values);
        assert_eq!((values[0], values[1], values[2], values[4], values[5]), (f32::INFINITY, 1e30, 0.0, 0.0, 0.0));
        assert!(values[3].is_nan());
    }
}
