//! Statistics that carry physical quantities into the numbers a network was trained on, and back.
//!
//! ```text
//! positions    x_model = (x − shift) · scale                 per coordinate; geometry, anchors and queries alike
//! conditions   c_model = (c − mean) / std                    per component
//! fields       y = y_model · std + mean                      per component
//!              then y = sign(y) (e^|y| − 1)                  where the field was learned on a logarithmic scale
//! ```
//!
//! A checkpoint does not hold them: they belong to the data. In JSON they are one object,
//!
//! ```
//! use candle_mixed_attention::models::Normalisation;
//!
//! let statistics: Normalisation = serde_json::from_str(r#"{
//!     "position":  {"min": [-2.5, -2.5, -2.5], "max": [2.5, 2.5, 2.5], "scale": 1000},
//!     "condition": [{"name": "alpha", "unit": "degree", "mean": 0.0, "std": 11.5}],
//!     "fields":    [{"domain": "surface", "name": "pressure", "mean": [-0.53], "std": [0.79]},
//!                   {"domain": "volume", "name": "viscosity", "mean": [2.1], "std": [0.4], "logscale": true}]
//! }"#)?;
//! assert_eq!(statistics.position.normalise("geometry", &[0.0, 0.0, 2.5])?, [500.0, 500.0, 1000.0]);
//!
//! let outside = statistics.position.normalise("geometry", &[0.0, 0.0, 2.6]).unwrap_err();
//! assert_eq!(outside.to_string(), "geometry: point 0 has z = 2.6, outside the box [-2.5, 2.5] of the statistics");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! and the file is checked as a whole when it is read: a value of this type holds no NaN, no empty box and no name twice.

mod condition;
mod error;
mod field;
mod position;

use std::collections::HashSet;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::files::{UniqueKeys, read_text};

pub use condition::ConditionStatistics;
pub use error::NormalisationError;
pub use field::FieldStatistics;
pub use position::{BOX_TOLERANCE, PositionBox, PositionStatistics};

/// All statistics of one trained network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "File", into = "File")]
pub struct Normalisation {
    /// Of the positions.
    pub position: PositionStatistics,
    /// Of the conditions, in the order in which the network takes them.
    pub conditions: Vec<ConditionStatistics>,
    /// Of the fields of every domain.
    pub fields: Vec<FieldStatistics>,
}

/// The JSON form. Unknown keys are refused, so that a misspelt `logscale` cannot pass unnoticed.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    position: PositionStatistics,
    #[serde(default)]
    condition: Vec<ConditionStatistics>,
    #[serde(default, skip_serializing)]
    #[allow(dead_code, reason = "a remark for people, which files may hold")]
    condition_formula: Option<String>,
    fields: Vec<FieldStatistics>,
    #[serde(default, skip_serializing)]
    #[allow(dead_code, reason = "a remark for people, which files may hold")]
    field_formula: Option<String>,
}

impl TryFrom<File> for Normalisation {
    type Error = NormalisationError;

    fn try_from(file: File) -> Result<Self, NormalisationError> {
        Self::new(file.position, file.condition, file.fields)
    }
}

impl From<Normalisation> for File {
    fn from(statistics: Normalisation) -> Self {
        let Normalisation { position, conditions, fields } = statistics;
        Self { position, condition: conditions, condition_formula: None, fields, field_formula: None }
    }
}

impl Normalisation {
    /// Puts checked parts together.
    ///
    /// # Errors
    /// Two conditions of one name, or two fields of one name in one domain.
    pub fn new(
        position: PositionStatistics,
        conditions: Vec<ConditionStatistics>,
        fields: Vec<FieldStatistics>,
    ) -> Result<Self, NormalisationError> {
        let mut names = HashSet::new();
        if let Some(twice) = conditions.iter().find(|condition| !names.insert(condition.name())) {
            return Err(NormalisationError::Duplicate { what: format!("condition '{}'", twice.name()) });
        }
        let mut names = HashSet::new();
        if let Some(twice) = fields.iter().find(|field| !names.insert((field.domain(), field.name()))) {
            return Err(NormalisationError::Duplicate { what: format!("field '{}_{}'", twice.domain(), twice.name()) });
        }
        Ok(Self { position, conditions, fields })
    }

    /// Reads a JSON file that holds statistics, at the top or as the entry `normalisation` of a larger description.
    ///
    /// # Errors
    /// A file that cannot be read, names a key twice or does not hold statistics; statistics that are impossible.
    pub fn read(path: impl AsRef<Path>) -> Result<Self, NormalisationError> {
        let path = path.as_ref();
        let refuse = |reason: String| NormalisationError::File { path: path.display().to_string(), reason };
        let text = read_text(path).map_err(|error| refuse(error.to_string()))?;
        serde_json::from_str::<UniqueKeys>(&text).map_err(|error| refuse(error.to_string()))?;
        let mut value: serde_json::Value = serde_json::from_str(&text).map_err(|error| refuse(error.to_string()))?;
        if let Some(statistics) = value.get_mut("normalisation") {
            value = statistics.take();
        }
        Self::deserialize(value).map_err(|error| refuse(error.to_string()))
    }

    /// The statistics of one condition.
    ///
    /// # Errors
    /// There are none; the error lists the conditions that have some.
    pub fn condition(&self, name: &str) -> Result<&ConditionStatistics, NormalisationError> {
        let found = self.conditions.iter().find(|condition| condition.name() == name);
        found.ok_or_else(|| NormalisationError::UnknownCondition {
            condition: name.to_string(),
            known: self.conditions.iter().map(|condition| condition.name().to_string()).collect(),
        })
    }

    /// The statistics of one field.
    ///
    /// # Errors
    /// There are none; the error lists the fields that have some.
    pub fn field(&self, domain: &str, name: &str) -> Result<&FieldStatistics, NormalisationError> {
        let found = self.fields.iter().find(|field| (field.domain(), field.name()) == (domain, name));
        found.ok_or_else(|| NormalisationError::UnknownField {
            field: format!("{domain}_{name}"),
            known: self.fields.iter().map(|field| format!("{}_{}", field.domain(), field.name())).collect(),
        })
    }

    /// Normalises conditions given by name, and concatenates them in the order in which the network takes them.
    ///
    /// # Errors
    /// A condition that is unknown, missing, given twice, of another width, or not finite.
    pub fn normalise_conditions<N: AsRef<str>, V: AsRef<[f64]>>(
        &self,
        given: &[(N, V)],
    ) -> Result<Vec<f32>, NormalisationError> {
        condition::normalise_all(&self.conditions, given)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEMO: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/predict/data/ellipsoid.json"));

    fn demo() -> Normalisation {
        let description: serde_json::Value = serde_json::from_str(DEMO).unwrap();
        serde_json::from_value(description["normalisation"].clone()).unwrap()
    }

    #[test]
    fn the_demo_model_is_read() {
        let statistics = demo();
        assert_eq!(statistics.position.normalise("queries", &[0.5, -1.0, 2.0]).unwrap(), [2.5, -5.0, 10.0]);
        let condition = statistics.normalise_conditions(&[("beta", [11.547]), ("alpha", [0.0])]).unwrap();
        assert_eq!(condition, [0.0, 1.0]);
        assert_eq!(statistics.field("volume", "velocity").unwrap().width(), 3);
    }

    #[test]
    fn json_carries_over() {
        let statistics = demo();
        let text = serde_json::to_string(&statistics).unwrap();
        assert_eq!(serde_json::from_str::<Normalisation>(&text).unwrap(), statistics);
    }

    #[test]
    fn an_unknown_field_is_named_with_the_known_ones() {
        let message = demo().field("volume", "temperature").unwrap_err().to_string();
        assert!(message.contains("volume_temperature") && message.contains("volume_velocity"), "{message}");
    }

    #[test]
    fn bad_files_are_refused() {
        let position = r#""position": {"shift": [0, 0], "scale": [1, 1]}"#;
        let field = |body: &str| format!(r#"{{{position}, "fields": [{{"domain": "s", "name": "p", {body}}}]}}"#);
        let cases = [
            (field(r#""mean": [0], "std": [1], "logscal": true"#), "logscal"),
            (field(r#""mean": [0, 1], "std": [1]"#), "std of field 's_p'"),
            (field(r#""mean": [0], "std": [-1]"#), "std of field 's_p'"),
            (field(r#""mean": [], "std": []"#), "mean of field 's_p'"),
            (r#"{"position": {"shift": [0, 0], "scale": [1]}, "fields": []}"#.into(), "scale of the positions"),
            (r#"{"position": {"shift": [0], "scale": [0]}, "fields": []}"#.into(), "scale of the positions"),
            (r#"{"position": {"min": [1], "max": [1]}, "fields": []}"#.into(), "box of the positions"),
            (r#"{"position": {"min": [0]}, "fields": []}"#.into(), "position"),
            (format!(r#"{{{position}, "condition": [{{"name": "a", "mean": 0, "std": 0}}], "fields": []}}"#), "'a'"),
            (
                format!(
                    r#"{{{position}, "fields": [{{"domain": "s", "name": "p", "mean": 0, "std": 1}},
                                                {{"domain": "s", "name": "p", "mean": 0, "std": 1}}]}}"#
                ),
                "field 's_p'",
            ),
        ];
        for (text, expected) in cases {
            let message = serde_json::from_str::<Normalisation>(&text).unwrap_err().to_string();
            assert!(message.contains(expected), "{text}: {message}");
        }
    }
}
