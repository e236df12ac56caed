//! Statistics under flat keys, as the PyTorch package keeps them beside its data.

use serde_json::{Map, Value};

use super::Predictor;
use crate::models::ab_upt::config::AbUptConfig;
use crate::models::ab_upt::error::AbUptError;
use crate::models::{ConditionStatistics, FieldStatistics, Normalisation, NormalisationError, PositionStatistics};

/// The box of the positions is mapped onto numbers from 0 to here.
const POSITION_SCALE: f64 = 1000.0;

const MIN: &str = "raw_pos_min";
const MAX: &str = "raw_pos_max";

impl Predictor {
    /// The statistics of a network from flat keys: `<domain>_<field>_mean` and `<domain>_<field>_std` of every field, a
    /// number or a list of one per component; `raw_pos_min` and `raw_pos_max`, a number for all coordinates or a list.
    /// Conditions are `<condition>_mean` and `<condition>_std`. Other keys are left out.
    ///
    /// Positions from `raw_pos_min` to `raw_pos_max` become 0 to 1000. The keys cannot say that a field was learned on a
    /// logarithmic scale: [`FieldStatistics::with_logscale`] does.
    ///
    /// ```
    /// # use candle_mixed_attention::models::ab_upt::{AbUptConfig, Predictor};
    /// # let config = AbUptConfig::read("predict/data/ellipsoid.json")?;
    /// let keys = serde_json::json!({
    ///     "raw_pos_min": -40, "raw_pos_max": [80, 40, 40],
    ///     "alpha_mean": 0, "alpha_std": 11.5, "beta_mean": 0, "beta_std": 11.5,
    ///     "surface_pressure_mean": -0.5, "surface_pressure_std": 0.8,
    ///     "volume_pressure_mean": -0.1, "volume_pressure_std": 0.4,
    ///     "volume_velocity_mean": [1, 0, 0], "volume_velocity_std": [0.2, 0.3, 0.3],
    /// });
    /// let statistics = Predictor::statistics_from_keys(&config, keys.as_object().unwrap())?;
    /// assert_eq!(statistics.position.normalise("body", &[80.0, 0.0, -40.0])?, [1000.0, 500.0, 0.0]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// A key that is missing or holds something else; numbers that are impossible, or another count than the network has
    /// components.
    pub fn statistics_from_keys(config: &AbUptConfig, keys: &Map<String, Value>) -> Result<Normalisation, AbUptError> {
        let corner = |key: &str| {
            let numbers = numbers(keys, key)?;
            Ok::<_, NormalisationError>(match numbers[..] {
                [all] => vec![all; config.position_dim],
                _ => numbers,
            })
        };
        let position = PositionStatistics::stretched(corner(MIN)?, corner(MAX)?, POSITION_SCALE)?;
        let pair = |name: &str| {
            let [mean, std] = ["mean", "std"].map(|what| numbers(keys, &format!("{name}_{what}")));
            Ok::<_, NormalisationError>((mean?, std?))
        };
        let mut conditions = Vec::with_capacity(config.condition.len());
        for condition in &config.condition {
            let (mean, std) = pair(&condition.name)?;
            conditions.push(ConditionStatistics::new(condition.name.clone(), None, mean, std)?);
        }
        let mut fields = Vec::new();
        for domain in &config.domains {
            for field in &domain.fields {
                let (mean, std) = pair(&format!("{}_{}", domain.name, field.name))?;
                fields.push(FieldStatistics::new(domain.name.clone(), field.name.clone(), mean, std)?);
            }
        }
        Self::statistics_of(config, &Normalisation::new(position, conditions, fields)?)
    }
}

/// A number, or a list of them.
fn numbers(keys: &Map<String, Value>, key: &str) -> Result<Vec<f64>, NormalisationError> {
    let found = keys.get(key);
    let list = match found {
        Some(Value::Array(list)) => list.iter().map(Value::as_f64).collect(),
        other => other.and_then(Value::as_f64).map(|number| vec![number]),
    };
    list.ok_or_else(|| NormalisationError::Key {
        key: key.to_string(),
        got: found.map_or_else(|| "nothing".to_string(), Value::to_string),
    })
}
