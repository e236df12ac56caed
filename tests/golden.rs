//! Runs every case of a fixture folder on every backend, SIMD level and dtype: one test each.
//!
//! The folder is `tests/golden`, or the one that the environment variable `MIXED_ATTENTION_GOLDEN` names. Its format:
//! `index.json` lists cases `{kind, name, file, config, passes, tolerance, output_scale}`; each file holds weights
//! (`w.*`), inputs (`in.*`) and expected outputs (`out.*`) in f32, the latter computed in f64 and rounded. Optional:
//! `half_errors.json`, the errors of the PyTorch package in f16 and bf16, of which three times as much is allowed here
//! (without it, 0.004 and 0.03 of the case's `output_scale`); and `invalid.json`, calls that must be refused.

mod golden_kinds;
mod support;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use candle_core::DType;
use libtest_mimic::{Arguments, Failed, Trial};
use serde::Deserialize;
use serde_json::Value;

use golden_kinds::{Case, Setting};
use support::backends::{DTYPES, missing, runners};

#[derive(Deserialize)]
struct Index {
    cases: Vec<CaseEntry>,
}

#[derive(Deserialize)]
struct CaseEntry {
    kind: String,
    name: String,
    file: String,
    config: Value,
    #[serde(default)]
    passes: Vec<Value>,
    tolerance: f64,
    output_scale: f64,
}

#[derive(Deserialize, Default)]
struct HalfErrors {
    cases: HashMap<String, HashMap<String, f64>>,
}

/// Times the error of the PyTorch package that f16 and bf16 may show.
const HALF_MARGIN: f64 = 3.0;

fn folder() -> PathBuf {
    match std::env::var_os("MIXED_ATTENTION_GOLDEN") {
        Some(folder) => PathBuf::from(folder),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden"),
    }
}

fn read<T: for<'a> Deserialize<'a>>(path: &Path) -> Result<T> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    serde_json::from_str(&text).with_context(|| path.display().to_string())
}

fn tolerance(entry: &CaseEntry, half_errors: &HalfErrors, dtype: DType) -> f64 {
    let (key, fallback) = match dtype {
        DType::F16 => ("f16", 0.004),
        DType::BF16 => ("bf16", 0.03),
        _ => return entry.tolerance,
    };
    let measured = half_errors.cases.get(&format!("{}/{}", entry.kind, entry.name)).and_then(|errors| errors.get(key));
    measured.map_or(fallback * entry.output_scale, |error| HALF_MARGIN * error)
}

fn main() -> Result<()> {
    let arguments = Arguments::from_args();
    let folder = folder();
    let index: Index = read(&folder.join("index.json"))?;
    let half_errors = match folder.join("half_errors.json") {
        path if path.exists() => read(&path)?,
        _ => HalfErrors::default(),
    };

    let mut trials = Vec::new();
    for entry in &index.cases {
        let title = format!("{}/{}", entry.kind, entry.name);
        let run = golden_kinds::runner(&entry.kind)?;
        let case = Arc::new(Case {
            path: folder.join(&entry.file),
            config: entry.config.clone(),
            passes: entry.passes.clone(),
        });
        for runner in runners() {
            for dtype in DTYPES {
                let tolerance = tolerance(entry, &half_errors, dtype);
                let setting = Setting { runner: runner.clone(), dtype, tolerance };
                let case = case.clone();
                let name = format!("{title} [{} {}]", runner.name, dtype.as_str());
                trials
                    .push(Trial::test(name, move || run(&case, &setting).map_err(|e| Failed::from(format!("{e:#}")))));
            }
        }
    }
    let invalid = folder.join("invalid.json");
    if invalid.exists() {
        trials.extend(golden_kinds::invalid::trials(&read(&invalid)?)?);
    }
    println!("{}: {} cases", folder.display(), index.cases.len());
    missing().iter().for_each(|reason| println!("{reason}"));
    libtest_mimic::run(&arguments, trials).exit()
}
