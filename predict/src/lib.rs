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
mod input;
pub mod inspect;
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
use serde_json::json;

use args::{Arguments, ComputeArguments};
use demo::{Demo, Network, Options, Resolution};

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
    let folder = &arguments.output.out;
    if arguments.model.weights.is_some() {
        return own::run(arguments);
    }

    let case = arguments.demo.case()?;
    let ComputeArguments { anchors, seed, chunk, device, dtype } = arguments.compute;
    let (anchors, chunk) = (anchors.get(), chunk.get());
    for warning in case.warnings().into_iter().chain(demo::warning(anchors)) {
        eprintln!("warning: {warning}; expect larger errors");
    }
    let demo = Demo::new(case, Resolution::FINE);
    let device_of_network = device.open()?;
    let inputs = json!({
        "model": "ellipsoid",
        "version": env!("CARGO_PKG_VERSION"),
        "anchors": anchors,
        "seed": seed,
        "device": device.to_string(),
        "dtype": dtype.to_string(),
    });
    let options = Options {
        folder,
        existing: arguments.output.existing(),
        chunk,
        npz: arguments.output.npz,
        inputs: inputs.as_object().cloned().unwrap_or_default(),
    };
    let space = demo.rehearse(&options)?;
    if arguments.output.dry_run {
        plan::print(&demo.parts(options.npz), space);
        return Ok(());
    }
    let mut network = Network::new(&case, anchors, seed, dtype.0, &device_of_network)?;
    let metrics = demo.run(&mut network, options)?;
    for (field, error) in metrics {
        println!("{field:18} {error}");
    }
    println!("results in {}", folder.display());
    Ok(())
}
