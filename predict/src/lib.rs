//! Predicts the flow around a body.
//!
//! ```text
//! cargo run --release -p predict                          # the demo: an ellipsoid in a potential flow
//! cargo run --release -p predict -- --semi-axes 1.1,0.6,0.8 --alpha 10 --beta 5
//! cargo run --release -p predict -- --weights model.safetensors --config model.json --geometry body.stl \
//!     --volume points.npy --condition speed=30
//! cargo run --release -p predict -- --help
//! ```
//!
//! Results lie in `prediction/`: meshes for ParaView, tensors for code, pictures, and the errors against the exact
//! solution.

mod args;
mod demo;
mod ellipsoid;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod input;
pub mod inspect;
mod interrupt;
mod job;
mod mesh;
mod metrics;
mod output;
mod own;
mod picture;
mod plan;
mod progress;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

use args::Arguments;
use job::Settings;

/// The program: reads the command line, predicts, and reports an error in a line.
pub fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let mut job = if arguments.model.weights.is_some() { own::job(arguments)? } else { demo::job(arguments)? };
    let output = &arguments.output;
    if !output.dry_run {
        interrupt::explain(&output.out)?;
    }
    job.run(&Settings {
        folder: &output.out,
        existing: output.existing(),
        chunk: arguments.compute.chunk.get(),
        npz: output.npz,
        dry_run: output.dry_run,
    })
}
