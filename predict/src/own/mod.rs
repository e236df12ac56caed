//! Predicting with a model and files of the user's own.
//!
//! ```text
//! Setup: open and check everything → encode the body → Run: open the folder → predict part after part → summary
//! ```

mod domains;
mod pictures;
mod scan;
mod setup;
mod statistics;
mod summary;
#[cfg(test)]
mod tests;
mod truth;

use anyhow::Result;

pub use setup::Setup;

use crate::args::Arguments;
use crate::output::{LocalDisk, Run};
use crate::plan;
use crate::progress::Progress;

/// Checks all input, predicts, writes the results and sums them up.
pub fn run(arguments: &Arguments) -> Result<()> {
    let (compute, output) = (&arguments.compute, &arguments.output);
    let mut setup = Setup::read(arguments)?;
    let predictor = setup.load(arguments)?;
    let input = setup.draw(arguments)?;
    let (inputs, chunk) = (setup.identity(arguments)?, compute.chunk.get());
    let parts = setup.parts(output.npz);
    let points = parts.iter().map(|part| part.points).sum();
    let space =
        Run::rehearse(&LocalDisk, &output.out, inputs.clone(), chunk, setup.parts(output.npz), output.existing())?;
    if output.dry_run {
        plan::print(&parts, space);
        return Ok(());
    }
    // A body that cannot be encoded leaves the folder as it is.
    let body = predictor.encode(&input)?;
    let mut run = Run::open(LocalDisk, &output.out, inputs, chunk, parts, output.existing())?;

    let progress = Progress::new(points, run.done());
    for place in &mut setup.places {
        progress.begin(&place.domain.name);
        let name = place.domain.name.clone();
        run.write_part(&name, &mut |range| place.predict(&body, range), &mut |points| progress.add(points))?;
    }
    progress.finish();
    run.finish()?;
    let (metrics, made) = summary::write(&mut setup, &body, arguments)?;
    run.conclude(made)?;
    for (field, error) in metrics {
        println!("{field:18} {error}");
    }
    println!("results in {}", output.out.display());
    Ok(())
}
