//! Conditions of a whole sample, such as an angle of attack: given by name, never by order.

use serde::{Deserialize, Serialize};

use super::error::{NormalisationError, check};
use super::field::PerComponent;
use crate::models::input_error::{InputError, check_condition_names};

/// Mean and standard deviation of one condition.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Entry", into = "Entry")]
pub struct ConditionStatistics {
    name: String,
    unit: Option<String>,
    mean: Vec<f64>,
    std: Vec<f64>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    unit: Option<String>,
    mean: PerComponent,
    std: PerComponent,
}

impl TryFrom<Entry> for ConditionStatistics {
    type Error = NormalisationError;

    fn try_from(entry: Entry) -> Result<Self, NormalisationError> {
        Self::new(entry.name, entry.unit, entry.mean.into(), entry.std.into())
    }
}

impl From<ConditionStatistics> for Entry {
    fn from(statistics: ConditionStatistics) -> Self {
        let ConditionStatistics { name, unit, mean, std } = statistics;
        Self { name, unit, mean: mean.into(), std: std.into() }
    }
}

impl ConditionStatistics {
    /// Statistics with one mean and one standard deviation per component.
    ///
    /// # Errors
    /// Lists of different length, or a standard deviation that is not positive.
    pub fn new(name: String, unit: Option<String>, mean: Vec<f64>, std: Vec<f64>) -> Result<Self, NormalisationError> {
        check(|| format!("mean of condition '{name}'"), &mean, mean.len(), "", |_| true)?;
        check(|| format!("std of condition '{name}'"), &std, mean.len(), " above 0", |value| value > 0.0)?;
        Ok(Self { name, unit, mean, std })
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The physical unit, if the statistics name one.
    pub fn unit(&self) -> Option<&str> {
        self.unit.as_deref()
    }

    /// Number of components.
    pub fn width(&self) -> usize {
        self.mean.len()
    }

    fn normalise(&self, values: &[f64]) -> Result<impl Iterator<Item = f32>, NormalisationError> {
        if values.len() != self.width() {
            let argument = format!("condition '{}'", self.name);
            let (expected, got) = (self.width(), values.len().to_string());
            return Err(NormalisationError::Width { argument, row: "sample", expected, got });
        }
        if let Some(component) = values.iter().position(|value| !value.is_finite()) {
            let (argument, value) = (format!("condition '{}'", self.name), values[component]);
            let component = format!("component {component}");
            return Err(InputError::NotFinite { argument, component, point: None, value }.into());
        }
        let scaled = values.iter().zip(&self.mean).zip(&self.std);
        Ok(scaled.map(|((value, mean), std)| ((value - mean) / std) as f32))
    }
}

/// Normalises the conditions that were given by name, in the order of the statistics.
pub(super) fn normalise_all<N: AsRef<str>, V: AsRef<[f64]>>(
    statistics: &[ConditionStatistics],
    given: &[(N, V)],
) -> Result<Vec<f32>, NormalisationError> {
    let known = statistics.iter().map(|condition| condition.name.as_str());
    check_condition_names(known, given.iter().map(|(name, _)| name.as_ref()))?;
    let mut normalised = Vec::new();
    for condition in statistics {
        let mut all = given.iter().filter(|(name, _)| name.as_ref() == condition.name);
        if let Some((_, values)) = all.next() {
            normalised.extend(condition.normalise(values.as_ref())?);
        }
        if all.next().is_some() {
            return Err(NormalisationError::Duplicate { what: format!("condition '{}'", condition.name) });
        }
    }
    Ok(normalised)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statistics() -> Vec<ConditionStatistics> {
        let design = ConditionStatistics::new("design".into(), None, vec![1.0, 2.0], vec![2.0, 4.0]);
        let speed = ConditionStatistics::new("speed".into(), Some("m/s".into()), vec![30.0], vec![5.0]);
        vec![design.unwrap(), speed.unwrap()]
    }

    #[test]
    fn order_does_not_matter() {
        let given = [("speed", vec![40.0]), ("design", vec![5.0, 2.0])];
        assert_eq!(normalise_all(&statistics(), &given).unwrap(), [2.0, 0.0, 2.0]);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let design = || ("design", vec![0.0, 0.0]);
        let cases = [
            (vec![design()], "condition 'speed' is missing"),
            (vec![design(), ("sped", vec![1.0])], "condition 'sped' is unknown"),
            (vec![design(), design(), ("speed", vec![1.0])], "condition 'design' is given twice"),
            (vec![design(), ("speed", vec![1.0, 2.0])], "condition 'speed' must have 1 components"),
            (vec![design(), ("speed", vec![f64::NAN])], "condition 'speed' must be finite, got NaN"),
        ];
        for (given, expected) in cases {
            let message = normalise_all(&statistics(), &given).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }
}
