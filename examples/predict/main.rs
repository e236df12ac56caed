//! Predicts the flow around a body.
//!
//! ```text
//! cargo run --release --example predict                          # the demo: an ellipsoid in a potential flow
//! cargo run --release --example predict -- --semi-axes 1.1,0.6,0.8 --alpha 10 --beta 5
//! cargo run --release --example predict -- --help
//! ```
//!
//! Results lie in `prediction/`: meshes for ParaView, tensors for code, pictures, and the errors against the exact
//! solution.

mod args;
mod demo;
mod ellipsoid;
mod input;
mod mesh;
mod metrics;
mod output;
mod picture;
mod plan;
mod progress;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use serde_json::{Map, json};

use args::Arguments;
use demo::{Demo, Options, Resolution};
use ellipsoid::Flow;

fn main() -> ExitCode {
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
        return plan::print(&plan::check_model(arguments)?, folder);
    }

    let case = arguments.demo.case()?;
    for warning in case.warnings() {
        eprintln!("warning: {warning}; expect larger errors");
    }
    let demo = Demo::new(case, Resolution::FINE);
    if arguments.output.dry_run {
        return plan::print(&demo.parts(), folder);
    }
    let options = Options {
        folder,
        existing: arguments.output.existing(),
        chunk: arguments.compute.chunk,
        npz: arguments.output.npz,
        inputs: Map::from_iter([("model".to_string(), json!("exact solution"))]),
    };
    let metrics = demo.run(&mut Flow::new(&case), options)?;
    for (field, error) in metrics {
        println!("{field:18} relative L2 error {:.5}, largest error {:.5}", error.relative_l2, error.max_absolute);
    }
    println!("results in {}", folder.display());
    Ok(())
}
