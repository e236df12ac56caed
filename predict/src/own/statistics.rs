//! Files of statistics: the JSON of this crate, or the flat keys that the PyTorch package keeps beside its data.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use candle_mixed_attention::models::Normalisation;
use candle_mixed_attention::models::ab_upt::{AbUptConfig, Predictor};
use serde_json::{Map, Value};

use crate::terminal::remark;

/// A key that only files of flat keys have.
const FLAT_KEY: &str = "raw_pos_min";

/// Reads the statistics of a network.
pub fn read(path: &Path, config: &AbUptConfig) -> Result<Normalisation> {
    let statistics = read_any(path, config)?;
    // The library takes a field that never changed in the data; to predict one is a mistake.
    for (field, stored) in statistics.fields.iter().zip(&deviations(&statistics)) {
        let flat = stored.iter().any(|std| *std == 0.0);
        let (domain, name) = (field.domain(), field.name());
        ensure!(!flat, "{}: std of field '{domain}_{name}' must be above 0, got {stored:?}", path.display());
    }
    Ok(statistics)
}

/// The standard deviations of all fields, in their order.
fn deviations(statistics: &Normalisation) -> Vec<Vec<f64>> {
    let stored = serde_json::to_value(statistics).unwrap_or_default();
    let numbers = |std: &Value| match std {
        Value::Array(numbers) => numbers.iter().filter_map(Value::as_f64).collect(),
        number => number.as_f64().into_iter().collect(),
    };
    stored["fields"].as_array().into_iter().flatten().map(|field| numbers(&field["std"])).collect()
}

fn read_any(path: &Path, config: &AbUptConfig) -> Result<Normalisation> {
    let Some(keys) = flat_keys(path)? else {
        return Ok(Predictor::statistics_of(config, &Normalisation::read(path)?)?);
    };
    let statistics = Predictor::statistics_from_keys(config, &keys);
    let statistics = statistics.with_context(|| path.display().to_string())?;
    remark(format_args!(
        "note: {} cannot tell of fields on a logarithmic scale; all are taken as linear",
        path.display()
    ));
    Ok(statistics)
}

/// The keys of a file that is flat: YAML always, JSON by what it holds.
fn flat_keys(path: &Path) -> Result<Option<Map<String, Value>>> {
    let name = || path.display().to_string();
    let yaml = path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml");
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot open {}", name()))?;
    if yaml {
        let keys = serde_norway::from_str(&text).with_context(|| format!("{} is no YAML of plain keys", name()))?;
        return Ok(Some(keys));
    }
    // What is no JSON gets its error from the reader of the other form.
    let object = serde_json::from_str::<Map<String, Value>>(&text).ok();
    Ok(object.filter(|object| object.contains_key(FLAT_KEY)))
}
