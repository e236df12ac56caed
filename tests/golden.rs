//! Runs every case of a fixture folder on every backend, SIMD level and dtype: one test each.
//!
//! The folder is `tests/golden`, or the one that the environment variable `MIXED_ATTENTION_GOLDEN` names. Its format:
//! `index.json` lists cases `{kind, name, file, config, passes, tolerance, output_scale}`; each file holds weights
//! (`w.*`), inputs (`in.*`) and expected outputs (`out.*`) in f32, the latter computed in f64 and rounded. Optional:
//! `half_errors.json`, the errors of the PyTorch package in f16 and bf16, of which three times as much is allowed here
//! (without it, 0.004 and 0.03 of the case's `output_scale`); and `invalid.json`, calls that must be refused.

mod golden_kinds;
mod support;

use std::collections::{BTreeMap, HashMap};
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

impl CaseEntry {
    /// Whether its positions have any influence.
    fn rotates(&self) -> bool {
        self.config.get("position_dim").is_some() && self.config.get("use_rope") != Some(&Value::Bool(false))
    }

    fn case(&self, folder: &Path) -> Case {
        Case { path: folder.join(&self.file), config: self.config.clone(), passes: self.passes.clone() }
    }
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

/// A config that says more than its runner reads is refused, and so is one that says something else about positions.
fn every_key_is_read(run: golden_kinds::Run, mut case: Case, rotates: bool) -> Result<(), Failed> {
    let setting = Setting { runner: runners().remove(0), dtype: DType::F32, tolerance: f64::INFINITY };
    let known = case.config.clone();
    case.config["unread"] = 1.into();
    let message = match run(&case, &setting) {
        Ok(()) => return Err("accepted".into()),
        Err(error) => format!("{error:#}"),
    };
    if !message.contains("unread") {
        return Err(format!("the message does not name the key: {message}").into());
    }
    if rotates {
        case.config = known;
        case.config["position_dim"] = 1.into();
        if run(&case, &setting).is_ok() {
            return Err("position_dim is not read".into());
        }
    }
    Ok(())
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
    // One case of each kind, with positions where some case of the kind has them.
    let (still, rotated): (Vec<_>, Vec<_>) = index.cases.iter().partition(|entry| !entry.rotates());
    let by_kind = still.into_iter().chain(rotated).map(|entry| (entry.kind.as_str(), entry));
    for (kind, entry) in by_kind.collect::<BTreeMap<_, _>>() {
        let run = golden_kinds::runner(kind)?;
        let case = entry.case(&folder);
        let rotates = entry.rotates();
        trials.push(Trial::test(format!("{kind}: every key is read"), move || every_key_is_read(run, case, rotates)));
    }
    for entry in &index.cases {
        let title = format!("{}/{}", entry.kind, entry.name);
        let run = golden_kinds::runner(&entry.kind)?;
        let case = Arc::new(entry.case(&folder));
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
