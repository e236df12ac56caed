//! The file that `predict` takes as `--config`: a configuration, and statistics for people to fill in.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use candle_mixed_attention::models::ab_upt::AbUptConfig;
use serde_json::{Value, json};

/// The configuration with null for every number of the statistics, which no reader takes for a number.
pub(super) fn template(config: &AbUptConfig) -> Value {
    let corner = vec![Value::Null; config.position_dim];
    let pair = |dim: usize| vec![Value::Null; dim];
    let condition =
        config.condition.iter().map(|it| json!({"name": it.name, "mean": pair(it.dim), "std": pair(it.dim)}));
    let fields = config.domains.iter().flat_map(|domain| {
        domain.fields.iter().map(
            |field| json!({"domain": domain.name, "name": field.name, "mean": pair(field.dim), "std": pair(field.dim)}),
        )
    });
    json!({
        "model": config,
        "normalisation": {
            "position": {"min": corner, "max": corner, "scale": 1000},
            "condition": condition.collect::<Vec<_>>(),
            "fields": fields.collect::<Vec<_>>(),
        },
    })
}

/// Writes it into a file that does not exist yet.
pub(super) fn write(config: &AbUptConfig, path: &Path) -> Result<()> {
    let text = serde_json::to_string_pretty(&template(config))? + "\n";
    let file = File::create_new(path).and_then(|mut file| file.write_all(text.as_bytes()));
    file.with_context(|| format!("--write-config: cannot write {}", path.display()))
}
