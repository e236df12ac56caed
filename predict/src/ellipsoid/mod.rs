//! Exact incompressible potential flow past an ellipsoid, the truth that the demo model was trained on.
//!
//! The body `x²/a² + y²/b² + z²/c² = 1` rests at the origin in a free stream of unit speed. Angle of attack `α` turns the
//! stream in the x-z plane, sideslip `β` out of it: `U = (cos α cos β, sin β, sin α cos β)`.

mod carlson;
mod flow;
mod sampling;
mod slice;
mod surface;

use anyhow::{Result, ensure};

use crate::vector::{Vec3, normalised};

pub(crate) use flow::Flow;
pub(crate) use sampling::{sample_surface, sample_volume};
pub(crate) use slice::Slice;
pub(crate) use surface::surface_mesh;

/// Half the edge of the cube around the body in which the demo model knows the flow.
pub(crate) const BOX: f64 = 2.5;

/// Semi-axes that the demo model has seen.
const TRAINED_SEMI_AXES: [f64; 2] = [0.5, 1.25];

/// Largest angle of attack or sideslip that the demo model has seen, in degrees.
const TRAINED_ANGLE: f64 = 20.0;

/// A body and the direction it meets the stream from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Case {
    /// Semi-axes along x, y and z.
    pub semi_axes: Vec3,
    /// Angle of attack in degrees.
    pub alpha: f64,
    /// Sideslip in degrees.
    pub beta: f64,
}

impl Case {
    /// # Errors
    /// A semi-axis that is not positive, a body that does not fit the box, an angle that is not finite.
    pub(crate) fn new(semi_axes: Vec3, alpha: f64, beta: f64) -> Result<Self> {
        for axis in semi_axes {
            ensure!(axis > 0.0 && axis < BOX, "--semi-axes must be above 0 and below {BOX}, got {semi_axes:?}");
        }
        ensure!(alpha.is_finite(), "--alpha must be a finite number of degrees, got {alpha}");
        ensure!(beta.is_finite(), "--beta must be a finite number of degrees, got {beta}");
        Ok(Self { semi_axes, alpha, beta })
    }

    /// The unit vector of the free stream.
    pub(crate) fn free_stream(&self) -> Vec3 {
        let (alpha, beta) = (self.alpha.to_radians(), self.beta.to_radians());
        [alpha.cos() * beta.cos(), beta.sin(), alpha.sin() * beta.cos()]
    }

    /// The unit vector across the free stream that has most of z.
    pub(crate) fn lift_axis(&self) -> Vec3 {
        let stream = self.free_stream();
        // A stream along z has none, and takes x.
        let across: Vec3 = match stream[2].abs() < 0.999 {
            true => std::array::from_fn(|i| f64::from(u8::from(i == 2)) - stream[2] * stream[i]),
            false => std::array::from_fn(|i| f64::from(u8::from(i == 0)) - stream[0] * stream[i]),
        };
        normalised(across)
    }

    /// What lies outside the range that the demo model was trained on, one sentence each.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let [low, high] = TRAINED_SEMI_AXES;
        let mut warnings = Vec::new();
        for (name, axis) in ["x", "y", "z"].iter().zip(self.semi_axes) {
            if !(low..=high).contains(&axis) {
                warnings.push(format!("semi-axis {axis} along {name} is outside the trained range {low} to {high}"));
            }
        }
        for (name, angle) in [("alpha", self.alpha), ("beta", self.beta)] {
            if angle.abs() > TRAINED_ANGLE {
                let range = format!("-{TRAINED_ANGLE}° to {TRAINED_ANGLE}°");
                warnings.push(format!("{name} = {angle}° is outside the trained range {range}"));
            }
        }
        warnings
    }
}

/// `Σ x_i²/a_i²`: 1 on the surface, more outside.
fn level(semi_axes: Vec3, point: Vec3) -> f64 {
    (0..3).map(|i| (point[i] / semi_axes[i]).powi(2)).sum()
}

/// The outward unit normal at a point of the surface.
fn normal(semi_axes: Vec3, point: Vec3) -> Vec3 {
    let gradient: Vec3 = std::array::from_fn(|i| point[i] / semi_axes[i].powi(2));
    normalised(gradient)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_trained_range_gives_no_warning() {
        for case in [Case::new([0.5, 1.25, 0.8], 20.0, -20.0), Case::new([1.0; 3], 0.0, 0.0)] {
            assert!(case.unwrap().warnings().is_empty());
        }
    }

    #[test]
    fn everything_outside_the_trained_range_is_named() {
        let warnings = Case::new([0.49, 1.0, 1.26], 21.0, -45.0).unwrap().warnings().join("\n");
        for expected in ["0.49 along x", "1.26 along z", "alpha = 21°", "beta = -45°"] {
            assert!(warnings.contains(expected), "{warnings}");
        }
        assert!(!warnings.contains("along y"), "{warnings}");
    }

    #[test]
    fn impossible_bodies_are_refused() {
        for axes in [[0.0, 1.0, 1.0], [1.0, -1.0, 1.0], [1.0, 1.0, f64::NAN], [1.0, 1.0, 2.5]] {
            assert!(Case::new(axes, 0.0, 0.0).is_err(), "{axes:?}");
        }
        assert!(Case::new([1.0; 3], f64::NAN, 0.0).is_err());
    }
}
