//! Velocity and pressure of the exact flow.
//!
//! With the confocal coordinate `λ(x)`, the largest root of `Σ x_i²/(a_i² + λ) = 1`, and
//!
//! ```text
//! χ_i(λ) = abc ∫_λ^∞ ds / ((a_i² + s) Δ(s)),     Δ(s) = √((a² + s)(b² + s)(c² + s))
//!        = ⅔ abc R_D(a_j² + λ, a_k² + λ, a_i² + λ)
//! ```
//!
//! the potential is `φ = Σ U_i x_i (1 + χ_i(λ) / (2 − χ_i(0)))`, the velocity `u = ∇φ` and the pressure coefficient
//! `Cp = 1 − |u|²/|U|²`. On the surface, `u` is the tangential part of the constant vector `W_i = 2 U_i / (2 − χ_i(0))`.

use super::carlson::rd;
use super::{Case, normal};
use crate::vector::{Vec3, dot};

/// Newton steps at most; it converges in about ten.
const NEWTON_STEPS: usize = 60;

/// Last change of `λ` at which Newton's method stops.
const NEWTON_TOLERANCE: f64 = 1e-14;

/// The flow past one body; what does not depend on the point is computed once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Flow {
    semi_axes: Vec3,
    free_stream: Vec3,
    /// `U_i / (2 − χ_i(0))`
    strength: Vec3,
}

/// The flow at a point.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct FlowAt {
    /// Velocity over the speed of the free stream.
    pub velocity: Vec3,
    /// Pressure coefficient.
    pub pressure: f64,
}

impl Flow {
    /// The flow of a case.
    pub(crate) fn new(case: &Case) -> Self {
        let (semi_axes, free_stream) = (case.semi_axes, case.free_stream());
        let at_surface = chi(semi_axes, 0.0);
        let strength = std::array::from_fn(|i| free_stream[i] / (2.0 - at_surface[i]));
        Self { semi_axes, free_stream, strength }
    }

    /// Velocity and pressure at a point on or outside the body.
    pub(crate) fn at(&self, point: Vec3) -> FlowAt {
        let lambda = confocal(self.semi_axes, point);
        let chi = chi(self.semi_axes, lambda);
        let shifted = self.semi_axes.map(|axis| axis.powi(2) + lambda);
        let delta = shifted.iter().product::<f64>().sqrt();
        let volume = self.semi_axes.iter().product::<f64>();

        // ∂λ/∂x_i = 2 x_i / (a_i² + λ) / Σ x_j²/(a_j² + λ)²  and  dχ_i/dλ = −abc / ((a_i² + λ) Δ).
        let slope: f64 = (0..3).map(|i| (point[i] / shifted[i]).powi(2)).sum();
        let by_lambda: f64 = (0..3).map(|i| self.strength[i] * point[i] * -volume / (shifted[i] * delta)).sum();
        let velocity: Vec3 = std::array::from_fn(|i| {
            let lambda_by_x = 2.0 * point[i] / shifted[i] / slope;
            self.free_stream[i] + self.strength[i] * chi[i] + by_lambda * lambda_by_x
        });
        FlowAt { velocity, pressure: self.pressure(velocity) }
    }

    /// Pressure coefficient at a point of the surface, by the short form.
    pub(crate) fn surface_pressure(&self, point: Vec3) -> f64 {
        let normal = normal(self.semi_axes, point);
        let constant = self.strength.map(|strength| 2.0 * strength);
        let through = dot(constant, normal);
        self.pressure(std::array::from_fn(|i| constant[i] - through * normal[i]))
    }

    fn pressure(&self, velocity: Vec3) -> f64 {
        1.0 - dot(velocity, velocity) / dot(self.free_stream, self.free_stream)
    }
}

/// `χ_i(λ)`
fn chi(semi_axes: Vec3, lambda: f64) -> Vec3 {
    let [x, y, z] = semi_axes.map(|axis| axis.powi(2) + lambda);
    let factor = 2.0 / 3.0 * semi_axes.iter().product::<f64>();
    [rd(y, z, x), rd(z, x, y), rd(x, y, z)].map(|integral| factor * integral)
}

/// `λ(x)` of a point on or outside the body. The function is convex and falls, so Newton from below is monotone.
fn confocal(semi_axes: Vec3, point: Vec3) -> f64 {
    let longest = semi_axes.into_iter().fold(0.0, f64::max);
    let mut lambda = (dot(point, point) - longest.powi(2)).max(0.0);
    for _ in 0..NEWTON_STEPS {
        let (mut excess, mut slope) = (-1.0, 0.0);
        for i in 0..3 {
            let shifted = semi_axes[i].powi(2) + lambda;
            excess += point[i].powi(2) / shifted;
            slope += (point[i] / shifted).powi(2);
        }
        let step = excess / slope.max(f64::MIN_POSITIVE);
        lambda = (lambda + step).max(0.0);
        if step.abs() < NEWTON_TOLERANCE {
            break;
        }
    }
    lambda
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device, Tensor};
    use candle_mixed_attention::candle_core;

    use super::*;
    use crate::ellipsoid::{level, sample_surface, sample_volume};

    /// The data holds f32 and the fields move by about as much as the points do.
    const F32_ROUNDING: f64 = 3e-7;

    fn flow() -> (Case, Flow) {
        let case = Case::new([1.1, 0.6, 0.8], 10.0, 5.0).unwrap();
        (case, Flow::new(&case))
    }

    fn sample() -> std::collections::HashMap<String, Tensor> {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/data/sample.safetensors");
        candle_core::safetensors::load(path, &Device::Cpu).unwrap()
    }

    fn points(tensor: &Tensor) -> Vec<Vec3> {
        let rows = tensor.to_dtype(DType::F64).unwrap().to_vec2::<f64>().unwrap();
        rows.into_iter().map(|row| [row[0], row[1], row[2]]).collect()
    }

    fn scalars(tensor: &Tensor) -> Vec<f64> {
        tensor.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
    }

    #[test]
    fn the_sample_is_met() {
        let sample = sample();
        let case = Case::new([1.15, 0.62, 0.81], 12.0, -7.0).unwrap();
        let flow = Flow::new(&case);
        for (ours, theirs) in case.free_stream().iter().zip(scalars(&sample["free_stream"])) {
            assert!((ours - theirs).abs() <= F32_ROUNDING);
        }
        for part in ["anchors", "queries"] {
            let pressure = scalars(&sample[&format!("exact.{part}.surface_pressure")]);
            for (point, expected) in points(&sample[&format!("surface.{part}")]).into_iter().zip(pressure) {
                let (short, long) = (flow.surface_pressure(point), flow.at(point).pressure);
                assert!((short - expected).abs() <= 4.0 * F32_ROUNDING, "{point:?}: {short} for {expected}");
                assert!((long - expected).abs() <= 4.0 * F32_ROUNDING, "{point:?}: {long} for {expected}");
            }
            let velocity = points(&sample[&format!("exact.{part}.volume_velocity")]);
            let pressure = scalars(&sample[&format!("exact.{part}.volume_pressure")]);
            let places = points(&sample[&format!("volume.{part}")]);
            for ((point, velocity), pressure) in places.into_iter().zip(velocity).zip(pressure) {
                let ours = flow.at(point);
                assert!((ours.pressure - pressure).abs() <= 4.0 * F32_ROUNDING, "{point:?}: {ours:?}");
                for (ours, expected) in ours.velocity.iter().zip(velocity) {
                    assert!((ours - expected).abs() <= 4.0 * F32_ROUNDING, "{point:?}: {ours} for {expected}");
                }
            }
        }
    }

    #[test]
    fn nothing_flows_through_the_surface() {
        let (case, flow) = flow();
        for point in sample_surface(case.semi_axes, 500, 1) {
            let through = dot(flow.at(point).velocity, normal(case.semi_axes, point));
            assert!(through.abs() < 1e-13, "{through}");
        }
    }

    #[test]
    fn divergence_and_curl_vanish() {
        let (case, flow) = flow();
        let step = 1e-4;
        for point in sample_volume(case.semi_axes, 100, 2) {
            if level(case.semi_axes, point) < 1.01 {
                continue; // A difference would reach into the body.
            }
            // gradient[j][i] = ∂u_i/∂x_j
            let gradient: [Vec3; 3] = std::array::from_fn(|j| {
                let at = |shift: f64| {
                    let mut moved = point;
                    moved[j] += shift;
                    flow.at(moved).velocity
                };
                let (behind, ahead) = (at(-step), at(step));
                std::array::from_fn(|i| (ahead[i] - behind[i]) / (2.0 * step))
            });
            let divergence = gradient[0][0] + gradient[1][1] + gradient[2][2];
            assert!(divergence.abs() < 1e-5, "{divergence} at {point:?}");
            for (i, j) in [(0, 1), (1, 2), (2, 0)] {
                assert!((gradient[i][j] - gradient[j][i]).abs() < 1e-5, "curl at {point:?}");
            }
        }
    }

    #[test]
    fn a_sphere_is_the_classical_solution() {
        let flow = Flow::new(&Case::new([1.0; 3], 0.0, 0.0).unwrap());
        for angle in [0.0f64, 0.4, 1.1, 2.0, 3.0] {
            let point = [angle.cos(), angle.sin(), 0.0];
            let expected = 1.0 - 2.25 * angle.sin().powi(2);
            assert!((flow.surface_pressure(point) - expected).abs() < 1e-14);
        }
        // u_x = 1 − 1/r³ ahead of a unit sphere.
        assert!((flow.at([-2.0, 0.0, 0.0]).velocity[0] - 0.875).abs() < 1e-14);
    }

    #[test]
    fn the_stream_is_undisturbed_far_away() {
        let (case, flow) = flow();
        let far = flow.at([300.0, -200.0, 100.0]);
        for i in 0..3 {
            assert!((far.velocity[i] - case.free_stream()[i]).abs() < 1e-7);
        }
    }
}
