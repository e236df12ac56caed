//! Errors of predicted fields against true ones.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

/// Running sums over the values of one field; the field itself is never held.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct FieldError {
    values: u64,
    squared_error: f64,
    squared_truth: f64,
    absolute_error: f64,
    absolute_truth: f64,
    largest_error: f64,
    /// The sums once more, each value with the length, area or volume that its point stands for.
    weighted: Option<Weighted>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Weighted {
    weight: f64,
    squared_error: f64,
    squared_truth: f64,
    absolute_error: f64,
    absolute_truth: f64,
}

/// The errors of one field, over all points and components.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct FieldMetrics {
    /// Number of values.
    pub values: u64,
    /// `√(Σ (predicted − true)² / Σ true²)`
    pub relative_l2: f64,
    /// `Σ |predicted − true| / Σ |true|`
    pub relative_l1: f64,
    /// `Σ |predicted − true| / values`
    pub mean_absolute: f64,
    /// `max |predicted − true|`
    pub max_absolute: f64,
    /// `√(Σ w (predicted − true)² / Σ w true²)` with the length, area or volume `w` that each point or cell of a mesh
    /// stands for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weighted_relative_l2: Option<f64>,
    /// `Σ w |predicted − true| / Σ w |true|`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weighted_relative_l1: Option<f64>,
    /// `Σ w |predicted − true| / Σ w`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weighted_mean_absolute: Option<f64>,
}

impl fmt::Display for FieldMetrics {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "relative L2 error {:.5}, largest error {:.5}", self.relative_l2, self.max_absolute)
    }
}

/// The errors of all fields, by `<domain>_<field>`: the contents of `metrics.json`.
pub(crate) type Metrics = BTreeMap<String, FieldMetrics>;

impl FieldError {
    /// Adds values of a field.
    ///
    /// # Errors
    /// The lists differ in length.
    pub(crate) fn add(&mut self, predicted: &[f32], truth: &[f32]) -> Result<()> {
        let (got, expected) = (predicted.len(), truth.len());
        ensure!(got == expected, "metrics: {got} predicted values for {expected} true ones");
        for (&predicted, &truth) in predicted.iter().zip(truth) {
            let (truth, error) = (f64::from(truth), f64::from(predicted) - f64::from(truth));
            self.squared_error += error * error;
            self.squared_truth += truth * truth;
            self.absolute_error += error.abs();
            self.absolute_truth += truth.abs();
            // A NaN must show: max() would drop it.
            if error.abs() > self.largest_error || error.is_nan() {
                self.largest_error = error.abs();
            }
        }
        self.values += predicted.len() as u64;
        Ok(())
    }

    /// Adds values of a field with a weight for each of their points.
    ///
    /// # Errors
    /// The lists differ in length.
    pub(crate) fn add_weighted(&mut self, predicted: &[f32], truth: &[f32], weights: &[f64]) -> Result<()> {
        self.add(predicted, truth)?;
        let (points, values) = (weights.len(), predicted.len());
        ensure!(points > 0 && values.is_multiple_of(points), "metrics: {points} weights for {values} values");
        let components = values / points;
        let sums = self.weighted.get_or_insert_default();
        for (at, (&predicted, &truth)) in predicted.iter().zip(truth).enumerate() {
            let weight = weights[at / components];
            let (truth, error) = (f64::from(truth), f64::from(predicted) - f64::from(truth));
            sums.weight += weight;
            sums.squared_error += weight * error * error;
            sums.squared_truth += weight * truth * truth;
            sums.absolute_error += weight * error.abs();
            sums.absolute_truth += weight * truth.abs();
        }
        Ok(())
    }

    /// The errors of all values so far. Relative to a field that is zero everywhere they are infinite or, without any
    /// error, 0.
    pub(crate) fn metrics(&self) -> FieldMetrics {
        let ratio = |error: f64, truth: f64| if error == 0.0 { 0.0 } else { error / truth };
        FieldMetrics {
            values: self.values,
            relative_l2: ratio(self.squared_error, self.squared_truth).sqrt(),
            relative_l1: ratio(self.absolute_error, self.absolute_truth),
            mean_absolute: ratio(self.absolute_error, self.values as f64),
            max_absolute: self.largest_error,
            weighted_relative_l2: self.weighted.map(|sums| ratio(sums.squared_error, sums.squared_truth).sqrt()),
            weighted_relative_l1: self.weighted.map(|sums| ratio(sums.absolute_error, sums.absolute_truth)),
            weighted_mean_absolute: self.weighted.map(|sums| ratio(sums.absolute_error, sums.weight)),
        }
    }
}

#[cfg(test)]
mod tests {
    use candle_mixed_attention::candle_core::{Device, safetensors};

    use super::*;

    fn error(predicted: &[f32], truth: &[f32]) -> FieldMetrics {
        let mut error = FieldError::default();
        error.add(predicted, truth).unwrap();
        error.metrics()
    }

    #[test]
    fn the_formulas_are_met() {
        let metrics = error(&[1.0, 2.0, -1.0], &[1.0, 4.0, -2.0]);
        assert!((metrics.relative_l2 - (5.0f64 / 21.0).sqrt()).abs() < 1e-15);
        assert!((metrics.relative_l1 - 3.0 / 7.0).abs() < 1e-15);
        assert_eq!((metrics.mean_absolute, metrics.max_absolute, metrics.values), (1.0, 2.0, 3));
    }

    #[test]
    fn pieces_add_up_to_the_whole() {
        let mut pieces = FieldError::default();
        pieces.add(&[1.0, 2.0], &[0.5, 2.5]).unwrap();
        pieces.add(&[3.0], &[5.0]).unwrap();
        assert_eq!(pieces.metrics(), error(&[1.0, 2.0, 3.0], &[0.5, 2.5, 5.0]));
    }

    #[test]
    fn weights_count_points_by_their_share() {
        let mut error = FieldError::default();
        error.add_weighted(&[1.0, 0.0, 2.0, 0.0], &[1.0, 1.0, 1.0, 0.0], &[3.0, 1.0]).unwrap();
        // The first point has the error (0, −1) thrice, the second (1, 0) once.
        let expected = (4.0f64 / 7.0).sqrt();
        let metrics = error.metrics();
        assert!((metrics.weighted_relative_l2.unwrap() - expected).abs() < 1e-15);
        assert!((metrics.weighted_relative_l1.unwrap() - 4.0 / 7.0).abs() < 1e-15);
        assert!((metrics.weighted_mean_absolute.unwrap() - 4.0 / 8.0).abs() < 1e-15);
        assert!(error.add_weighted(&[1.0, 2.0, 3.0], &[0.0; 3], &[1.0, 1.0]).is_err());
        assert_eq!(FieldError::default().metrics().weighted_relative_l2, None);
    }

    #[test]
    fn nan_shows_in_every_error() {
        let metrics = error(&[f32::NAN, 1.0], &[1.0, 1.0]);
        for value in [metrics.relative_l2, metrics.relative_l1, metrics.mean_absolute] {
            assert!(value.is_nan());
        }
    }

    #[test]
    fn lists_of_different_length_are_refused() {
        assert!(FieldError::default().add(&[1.0], &[1.0, 2.0]).is_err());
    }

    #[test]
    fn the_published_errors_of_the_demo_model_are_reproduced() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/data");
        let sample = safetensors::load(format!("{folder}/sample.safetensors"), &Device::Cpu).unwrap();
        let text = std::fs::read_to_string(format!("{folder}/ellipsoid.json")).unwrap();
        let description: serde_json::Value = serde_json::from_str(&text).unwrap();
        for (name, published) in description["sample"]["errors"].as_object().unwrap() {
            let (field, part) = name.rsplit_once('_').unwrap();
            let values = |what: &str| {
                let tensor = &sample[&format!("{what}.{part}.{field}")];
                tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap()
            };
            let ours = error(&values("predicted"), &values("exact")).relative_l2;
            assert!((ours - published.as_f64().unwrap()).abs() < 1e-5, "{name}: {ours}");
        }
    }
}
