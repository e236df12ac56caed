//! Files of statistics: the JSON of this crate, or the flat keys that the PyTorch package keeps beside its data.

use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use candle_mixed_attention::models::ab_upt::{AbUptConfig, Predictor};
use candle_mixed_attention::models::{Normalisation, UniqueKeys, open_regular};
use serde_json::{Map, Value};

use crate::terminal::remark;

/// Bytes of a file at most; they hold a few numbers for each field.
const LONGEST_TEXT: u64 = 64 << 20;

/// Bytes and brackets of YAML at most.
const LONGEST_YAML: u64 = 256 << 10;
const MOST_BRACKETS: usize = 1024;

/// A key that only files of flat keys have.
const FLAT_KEY: &str = "raw_pos_min";

/// Reads the statistics of a network.
pub(super) fn read(path: &Path, config: &AbUptConfig) -> Result<Normalisation> {
    let statistics = read_any(path, config)?;
    // The library takes a field that never changed in the data; to predict one is a mistake.
    for (field, stored) in statistics.fields.iter().zip(&deviations(&statistics)) {
        let flat = stored.contains(&0.0);
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
pub(crate) fn flat_keys(path: &Path) -> Result<Option<Map<String, Value>>> {
    let name = || path.display().to_string();
    let yaml = path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml");
    let text = read_text(path).with_context(|| format!("cannot read {}", name()))?;
    if yaml {
        let keys = parse_yaml(&text).with_context(|| format!("{} is no YAML of plain keys", name()))?;
        return Ok(Some(keys));
    }
    // What is no JSON gets its error from the reader of the other form, and so does a key that stands twice.
    let object = serde_json::from_str::<Map<String, Value>>(&text).ok().filter(|object| object.contains_key(FLAT_KEY));
    if object.is_some() {
        serde_json::from_str::<UniqueKeys>(&text).with_context(name)?;
    }
    Ok(object)
}

fn read_text(path: &Path) -> Result<String> {
    let mut bytes = Vec::new();
    open_regular(path)?.take(LONGEST_TEXT + 1).read_to_end(&mut bytes)?;
    ensure!(bytes.len() as u64 <= LONGEST_TEXT, "it has more than {LONGEST_TEXT} bytes");
    String::from_utf8(bytes).map_err(|error| {
        anyhow::Error::msg(format!("it is not UTF-8 from byte {} on", error.utf8_error().valid_up_to()))
    })
}

fn parse_yaml(text: &str) -> Result<Map<String, Value>> {
    // The reader takes time that grows with depth times length.
    let brackets = text.bytes().filter(|byte| matches!(byte, b'[' | b'{')).count();
    ensure!(brackets <= MOST_BRACKETS, "it opens {brackets} brackets, more than {MOST_BRACKETS}");
    ensure!(text.len() as u64 <= LONGEST_YAML, "it has {} bytes, more than {LONGEST_YAML}", text.len());
    serde_norway::from_str::<UniqueKeys>(text)?;
    Ok(serde_norway::from_str(text)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn yaml_is_plain_and_small() {
        let table: Vec<(&str, String, &str)> = vec![
            ("plain", "a: 1\nb: [1, 2]".to_string(), ""),
            ("a key twice", "a: 1\nb: 2\na: 3".to_string(), "'a' stands there twice"),
            ("a nested key twice", "a: {b: 1, b: 2}".to_string(), "'b' stands there twice"),
            ("nesting", "a: ".to_string() + &"[".repeat(100_000), "100000 brackets"),
            ("nesting in pairs", "a: ".to_string() + &"[{".repeat(500), ""),
            ("length", format!("a: {}", "x".repeat(300_000)), "more than 262144"),
            (
                "laughs",
                (0..40).fold("a0: &a0 [x]\n".to_string(), |text, n| {
                    text + &format!("a{}: &a{} [*a{n}, *a{n}, *a{n}, *a{n}]\n", n + 1, n + 1)
                }),
                "",
            ),
            ("levels of lists", format!("a:\n  {}1", "- ".repeat(100_000)), ""),
        ];
        for (case, text, expected) in table {
            let start = std::time::Instant::now();
            let message = parse_yaml(&text).err().map(|error| format!("{error:#}")).unwrap_or_default();
            assert!(message.contains(expected), "{case}: {message}");
            assert_eq!(message.is_empty(), case == "plain", "{case}: {message}");
            assert!(start.elapsed().as_secs() < 5, "{case} took {:?}", start.elapsed());
        }
    }

    #[test]
    fn what_is_no_text_has_its_own_words() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("statistics.yaml");
        std::fs::write(&path, b"a: \xff").unwrap();
        assert_eq!(read_text(&path).unwrap_err().to_string(), "it is not UTF-8 from byte 3 on");
    }
}
