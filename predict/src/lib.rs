//! Predicts the flow around a body.
//!
//! ```text
//! predict                                                  # the demo: an ellipsoid in a potential flow
//! predict --semi-axes 1.1,0.6,0.8 --alpha 10 --beta 5
//! predict --weights model.safetensors --config model.json --geometry body.stl --condition speed=30
//! predict --weights model.th --config model.json --geometry car.stl --surface boundary.vtp --volume volume.vtu
//! predict --help
//! ```
//!
//! Results lie in `prediction/`: meshes for ParaView, tensors for code, pictures, forces, and the errors against the truth.
//!
//! | folder | idea |
//! |---|---|
//! | `args.rs`, `device.rs` | the command line; devices by name |
//! | `allocator.rs` | freed memory is kept |
//! | `session.rs`, `launcher.rs`, `ranks/` | processes that were started together; what launchers tell; MPI |
//! | `demo/`, `ellipsoid/` | the job of the demo; its exact flow |
//! | `own/` | the job of a network and files of the user's own; anchors as in training |
//! | `sweep.rs` | many jobs of one network |
//! | `job/` | from inputs to the report, whoever gave the inputs |
//! | `input/` | what is read |
//! | `output/` | what is written: known places, kills and resumption, processes that share a run |
//! | `mesh.rs`, `solid.rs`, `forces.rs`, `metrics.rs`, `vector.rs` | faces; the inside of a body; forces; errors; vectors in space |
//! | `picture/` | figures |
//! | `live.rs` | a prediction in memory, for programs that draw it themselves |
//! | `inspect/` | the program that looks into checkpoints |

#![deny(missing_debug_implementations, unreachable_pub)]

mod allocator;
mod args;
#[cfg(test)]
#[path = "../../fuzz/src/counting.rs"]
mod counting;
mod demo;
mod device;
mod ellipsoid;
mod forces;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod input;
pub mod inspect;
mod interrupt;
mod job;
mod launcher;
pub mod live;
mod mesh;
mod metrics;
mod output;
mod own;
mod picture;
mod plan;
mod progress;
#[cfg(feature = "mpi")]
mod ranks;
mod session;
mod solid;
mod sweep;
mod terminal;
mod vector;

use std::process::ExitCode;

use anyhow::Result;
use clap::{CommandFactory, Parser};

use args::Arguments;
use session::Session;
use terminal::complain;

/// The program: reads the command line, predicts, and reports an error in a line.
pub fn main() -> ExitCode {
    allocator::keep_freed_memory();
    let arguments = Arguments::parse();
    let session = match Session::start(&arguments.output) {
        Ok(session) => session,
        Err(error) => {
            complain(format_args!("error: {error:#}"));
            return ExitCode::FAILURE;
        }
    };
    match run(&arguments, &session) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            session.fail(&error);
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments, session: &Session) -> Result<()> {
    if let Some(shell) = arguments.completions {
        terminal::completions(shell, &mut Arguments::command(), "predict");
        return Ok(());
    }
    if arguments.output.dry_run && !session.leads() {
        return Ok(());
    }
    if let Some(table) = &arguments.sweep {
        return sweep::run(arguments, table, session);
    }
    let mut crew = session.crew(arguments)?;
    let own = arguments.model.weights.is_some();
    let mut job = if own { own::job(arguments, None, crew.as_mut())? } else { demo::job(arguments, crew.leads())? };
    job.run(&arguments.settings(), crew).map(|_| ())
}
