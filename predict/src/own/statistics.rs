//! Files of statistics: the JSON of this crate, or the flat keys that the PyTorch package keeps beside its data.

use std::path::Path;

use anyhow::{Context, Result};
use candle_mixed_attention::models::Normalisation;
use candle_mixed_attention::models::ab_upt::{AbUptConfig, Predictor};
use serde_json::{Map, Value};

/// A key that only files of flat keys have.
const FLAT_KEY: &str = "raw_pos_min";

/// Reads the statistics of a network.
pub fn read(path: &Path, config: &AbUptConfig) -> Result<Normalisation> {
    let Some(keys) = flat_keys(path)? else {
        return Ok(Predictor::statistics_of(config, &Normalisation::read(path)?)?);
    };
    let statistics = Predictor::statistics_from_keys(config, &keys);
    let statistics = statistics.with_context(|| path.display().to_string())?;
    eprintln!("note: {} cannot tell of fields on a logarithmic scale; all are taken as linear", path.display());
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
