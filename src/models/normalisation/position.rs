//! Positions: an affine map per coordinate, and the box it was made for.

use serde::{Deserialize, Serialize};

use super::error::{NormalisationError, check};
use crate::models::input_error::InputError;

/// How far outside the box a position may lie, as a fraction of the box: rounding of f32 input, not more.
pub const BOX_TOLERANCE: f64 = 1e-6;

/// Length of the normalised box when the statistics do not say otherwise.
const DEFAULT_SCALE: f64 = 1000.0;

/// An axis-aligned box in physical units.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PositionBox {
    /// Smallest coordinates.
    pub min: Vec<f64>,
    /// Largest coordinates.
    pub max: Vec<f64>,
}

/// `x_model = (x − shift) · scale`, and the box that positions must lie in.
///
/// In JSON either `{"shift": […], "scale": […]}` with an optional `"box": {"min": […], "max": […]}`, or
/// `{"min": […], "max": […], "scale": 1000}`, which maps the box onto `[0, scale]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Form", into = "Affine")]
pub struct PositionStatistics {
    shift: Vec<f64>,
    scale: Vec<f64>,
    bounds: Option<PositionBox>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "position needs {shift, scale} with an optional {box}, or {min, max} with a scale")]
enum Form {
    Affine(Affine),
    Box(Stretched),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Affine {
    shift: Vec<f64>,
    scale: Vec<f64>,
    #[serde(rename = "box", default, skip_serializing_if = "Option::is_none")]
    bounds: Option<PositionBox>,
    #[serde(default, skip_serializing)]
    #[allow(dead_code, reason = "a remark for people, which files may hold")]
    formula: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Stretched {
    min: Vec<f64>,
    max: Vec<f64>,
    #[serde(default = "default_scale")]
    scale: f64,
}

fn default_scale() -> f64 {
    DEFAULT_SCALE
}

impl TryFrom<Form> for PositionStatistics {
    type Error = NormalisationError;

    fn try_from(form: Form) -> Result<Self, NormalisationError> {
        match form {
            Form::Affine(affine) => Self::affine(affine.shift, affine.scale, affine.bounds),
            Form::Box(stretched) => Self::stretched(stretched.min, stretched.max, stretched.scale),
        }
    }
}

impl From<PositionStatistics> for Affine {
    fn from(statistics: PositionStatistics) -> Self {
        let PositionStatistics { shift, scale, bounds } = statistics;
        Self { shift, scale, bounds, formula: None }
    }
}

impl PositionStatistics {
    /// `x_model = (x − shift) · scale`, with the box that positions must lie in, if it is known.
    ///
    /// # Errors
    /// Lists of different length, a scale that is not positive, an empty box.
    pub fn affine(shift: Vec<f64>, scale: Vec<f64>, bounds: Option<PositionBox>) -> Result<Self, NormalisationError> {
        let width = shift.len();
        check(|| "shift of the positions".into(), &shift, width, "", |_| true)?;
        check(|| "scale of the positions".into(), &scale, width, " above 0", |value| value > 0.0)?;
        if let Some(PositionBox { min, max }) = &bounds {
            check(|| "min of the box of the positions".into(), min, width, "", |_| true)?;
            check(|| "max of the box of the positions".into(), max, width, "", |_| true)?;
            let is_box = |(min, max): (&f64, &f64)| min < max && (max - min).is_finite();
            if !min.iter().zip(max).all(is_box) {
                let expected = "min < max along every coordinate, no wider than f64 holds".to_string();
                let (what, got) = ("box of the positions".to_string(), format!("{min:?} to {max:?}"));
                return Err(NormalisationError::Statistics { what, expected, got });
            }
        }
        Ok(Self { shift, scale, bounds })
    }

    /// Maps the box from `min` to `max` onto `[0, length]` along every coordinate.
    ///
    /// # Errors
    /// Lists of different length, an empty box, a length that is not positive.
    pub fn stretched(min: Vec<f64>, max: Vec<f64>, length: f64) -> Result<Self, NormalisationError> {
        check(|| "scale of the positions".into(), &[length], 1, " above 0", |value| value > 0.0)?;
        let unit = vec![1.0; min.len()];
        // Checks the box before it is divided by.
        let checked = Self::affine(min.clone(), unit, Some(PositionBox { min: min.clone(), max: max.clone() }))?;
        let scale = min.iter().zip(&max).map(|(min, max)| length / (max - min)).collect();
        Self::affine(min, scale, checked.bounds)
    }

    /// Coordinates of a position.
    pub fn dimensions(&self) -> usize {
        self.shift.len()
    }

    /// The box that positions must lie in, if the statistics know it.
    pub fn bounds(&self) -> Option<&PositionBox> {
        self.bounds.as_ref()
    }

    /// Carries positions, point after point, into the units of the network.
    ///
    /// `argument` names them in errors. Computed in f64 and rounded once.
    ///
    /// # Errors
    /// A list that does not hold whole points, a coordinate that is not finite, a point outside the box.
    pub fn normalise<T: Copy + Into<f64>>(
        &self,
        argument: &str,
        positions: &[T],
    ) -> Result<Vec<f32>, NormalisationError> {
        let width = self.whole_points(argument, positions.len())?;
        let mut normalised = Vec::with_capacity(positions.len());
        for (point, coordinates) in positions.chunks_exact(width).enumerate() {
            for (axis, &value) in coordinates.iter().enumerate() {
                let value = value.into();
                self.check(argument, point as u64, axis, value)?;
                normalised.push(((value - self.shift[axis]) * self.scale[axis]) as f32);
            }
        }
        Ok(normalised)
    }

    /// Carries positions back into physical units.
    ///
    /// # Errors
    /// A list that does not hold whole points.
    pub fn denormalise(&self, argument: &str, positions: &[f32]) -> Result<Vec<f64>, NormalisationError> {
        let width = self.whole_points(argument, positions.len())?;
        let back = |(at, &value): (usize, &f32)| f64::from(value) / self.scale[at % width] + self.shift[at % width];
        Ok(positions.iter().enumerate().map(back).collect())
    }

    /// The width of a point, if that many numbers are whole points.
    fn whole_points(&self, argument: &str, numbers: usize) -> Result<usize, NormalisationError> {
        let width = self.dimensions();
        if numbers.is_multiple_of(width) {
            return Ok(width);
        }
        let (argument, got) = (argument.to_string(), format!("{numbers} numbers, not a multiple of {width}"));
        Err(NormalisationError::Width { argument, row: "point", expected: width, got })
    }

    fn check(&self, argument: &str, point: u64, axis: usize, value: f64) -> Result<(), NormalisationError> {
        let argument = || argument.to_string();
        let coordinate = || match (self.dimensions(), axis) {
            (1..=3, _) => ["x", "y", "z"][axis].to_string(),
            _ => format!("coordinate {axis}"),
        };
        if !value.is_finite() {
            let (argument, component) = (argument(), coordinate());
            return Err(InputError::NotFinite { argument, component, point: Some(point), value }.into());
        }
        if let Some(PositionBox { min, max }) = &self.bounds {
            let (min, max) = (min[axis], max[axis]);
            let slack = (max - min) * BOX_TOLERANCE;
            if value < min - slack || value > max + slack {
                let (argument, coordinate) = (argument(), coordinate());
                return Err(NormalisationError::OutsideBox { argument, point, coordinate, value, min, max });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wing_tunnel() -> PositionStatistics {
        PositionStatistics::stretched(vec![-40.0, -22.0, 0.0], vec![80.0, 22.0, 20.0], 1000.0).unwrap()
    }

    #[test]
    fn the_box_becomes_zero_to_scale() {
        let corners = wing_tunnel().normalise("volume", &[-40.0, -22.0, 0.0, 80.0, 22.0, 20.0]).unwrap();
        assert_eq!(corners, [0.0, 0.0, 0.0, 1000.0, 1000.0, 1000.0]);
    }

    #[test]
    fn there_and_back() {
        let positions = [3.0, -1.5, 0.25, 79.0, 21.0, 19.0];
        let normalised = wing_tunnel().normalise("volume", &positions).unwrap();
        for (back, position) in wing_tunnel().denormalise("volume", &normalised).unwrap().iter().zip(positions) {
            assert!((back - position).abs() <= 1e-5, "{back} for {position}");
        }
    }

    #[test]
    fn a_point_outside_is_named() {
        let error = wing_tunnel().normalise("volume", &[0f32, 0.0, 1.0, 0.0, -23.0, 1.0]).unwrap_err();
        let expected = NormalisationError::OutsideBox {
            argument: "volume".into(),
            point: 1,
            coordinate: "y".into(),
            value: -23.0,
            min: -22.0,
            max: 22.0,
        };
        assert_eq!(error, expected);
    }

    #[test]
    fn a_value_is_shown_as_it_was_given() {
        for message in [
            wing_tunnel().normalise("volume", &[0.0, 0.0, 20.1f32]).unwrap_err().to_string(),
            wing_tunnel().normalise("volume", &[0.0, 0.0, 20.1f64]).unwrap_err().to_string(),
        ] {
            assert_eq!(message, "volume: point 0 has z = 20.1, outside the box [0, 20] of the statistics");
        }
    }

    #[test]
    fn rounding_to_f32_does_not_push_a_point_out_of_the_box() {
        let statistics = PositionStatistics::stretched(vec![0.1], vec![0.3], 1.0).unwrap();
        assert!(statistics.normalise("volume", &[0.1f32, 0.3f32]).is_ok());
    }

    #[test]
    fn nan_and_infinity_are_refused_with_and_without_a_box() {
        let unbounded = PositionStatistics::affine(vec![0.0; 3], vec![1.0; 3], None).unwrap();
        for statistics in [wing_tunnel(), unbounded] {
            for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
                let message = statistics.normalise("surface", &[0.0, 0.0, value]).unwrap_err().to_string();
                assert!(message.starts_with("surface must be finite, got "), "{message}");
                assert!(message.ends_with(" as z of point 0"), "{message}");
            }
        }
    }

    #[test]
    fn half_a_point_is_refused() {
        let message = wing_tunnel().normalise("surface", &[0.0; 4]).unwrap_err().to_string();
        assert_eq!(message, "surface must have 3 components per point, got 4 numbers, not a multiple of 3");
    }
}
