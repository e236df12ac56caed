//! Says what a checkpoint holds, which model it fits, and how much memory that model takes.
//!
//! ```text
//! cargo run --release -p predict --bin inspect -- predict/data/ellipsoid.safetensors
//! cargo run --release -p predict --bin inspect -- model.th --points 150000000
//! cargo run --release -p predict --bin inspect -- model.safetensors.index.json --config model.json
//! ```
//!
//! | file | idea |
//! |---|---|
//! | `args.rs` | the command line |
//! | `listing.rs` | names, shapes, dtypes, numbers of parameters |
//! | `fit.rs` | does the checkpoint fit a configuration |
//! | `outline.rs` | what the names tell about an AB-UPT without a configuration |
//! | `layer.rs` | attention layers in a file that is no AB-UPT |
//! | `memory.rs` | weights, cache and activations in bytes |
//! | `template.rs` | a description to fill in |
//! | `units.rs` | numbers for people |

mod args;
mod fit;
mod layer;
mod listing;
mod memory;
mod outline;
mod template;
#[cfg(test)]
mod tests;
mod units;

use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use candle_mixed_attention::models::ab_upt::{AbUptConfig, Checkpoint};
use clap::{CommandFactory, Parser};

use crate::terminal::{completions, remark, say};
use args::Arguments;
use fit::Fit;
use listing::Listing;
use memory::Memory;
use outline::Outline;

/// The program.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(shell) = arguments.completions {
        completions(shell, &mut Arguments::command(), "inspect");
        return ExitCode::SUCCESS;
    }
    match inspect(&arguments) {
        Ok((report, fits)) => {
            say(report);
            if fits { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            remark(format_args!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// The report on a file without any option.
#[cfg(any(test, fuzzing))]
pub fn report_on(file: &std::path::Path) -> Result<String> {
    let arguments = Arguments::try_parse_from([std::ffi::OsStr::new("inspect"), file.as_os_str()])?;
    Ok(inspect(&arguments)?.0)
}

/// The report, and whether the checkpoint fits its configuration, where there is one.
fn inspect(arguments: &Arguments) -> Result<(String, bool)> {
    let file = arguments.file.as_deref().context("the file of the checkpoint is missing")?;
    let checkpoint = match &arguments.weights_key {
        Some(key) => Checkpoint::open_key(file, key),
        None => Checkpoint::open(file),
    }?;
    let mut report = Listing::new(&checkpoint).to_string();
    if let Some(key) = checkpoint.weights_key() {
        report.push_str(&format!("\nthe weights are those under '{key}'\n"));
    }
    let mut section = |title: &str, text: String| report.push_str(&format!("\n== {title}\n{}\n", text.trim_end()));

    let config = match &arguments.config {
        Some(path) => Some(AbUptConfig::read(path).context("--config")?),
        None => checkpoint.config()?,
    };
    let Some(mut config) = config else {
        let needs = "needs a configuration: the file has no model_config, and --config is missing";
        ensure!(arguments.write_config.is_none(), "--write-config: {needs}; predict/data/ellipsoid.json shows one");
        ensure!(arguments.square_banks.is_none(), "--square-banks: {needs}");
        match Outline::of(&checkpoint) {
            Some(outline) => section("AB-UPT, by its names", outline.to_string()),
            None => section("attention layers, by their names", layer::describe(&checkpoint)),
        }
        if arguments.points.is_some() {
            section("memory", "needs a configuration: --config".to_string());
        }
        return Ok((report, true));
    };

    if arguments.square_banks.is_some() {
        ensure!(config.untied_square_banks.is_some(), "--square-banks: the network has no untied blocks");
        config.untied_square_banks = arguments.square_banks;
    }
    let fit = Fit::new(&checkpoint, &config)?;
    section(
        if arguments.config.is_some() { "AB-UPT of --config" } else { "AB-UPT of the file's model_config" },
        fit.to_string(),
    );
    if let Some(points) = arguments.points {
        section("memory", Memory::new(&checkpoint, &config, &arguments.sizes, points).to_string());
    }
    if let Some(path) = &arguments.write_config {
        template::write(&config, path)?;
        let what = "the configuration, with null for the statistics that only you know";
        section("description", format!("{}: {what}", path.display()));
    }
    Ok((report, fit.fits()))
}
