//! Predicting with a model and files of the user's own: everything is opened and checked before anything is computed.

mod anchors;
mod beside;
mod description;
mod domains;
mod extents;
mod grid;
mod pictures;
mod setup;
mod solids;
mod statistics;
#[cfg(test)]
mod tests;

use anyhow::Result;
use candle_mixed_attention::models::ab_upt::Predictor;
pub(crate) use pictures::is_velocity;
#[cfg(any(test, fuzzing))]
pub(crate) use statistics::flat_keys;

use crate::args::Arguments;
use crate::job::{Job, Scans};
use crate::output::{Crew, LocalDisk};

/// The description of a model, read and dropped.
#[cfg(any(test, fuzzing))]
pub(crate) fn read_description(path: &std::path::Path) -> Result<()> {
    description::Description::read(path).map(drop)
}

/// The name of what the process that leads a crew found in the inputs.
const SCANS: &str = "scans.json";

/// The prediction that the command line asks for; by a network that was loaded before on each device, if it is given. Of a
/// crew, one process reads all inputs.
pub(crate) fn job(
    arguments: &Arguments,
    networks: Option<Vec<Predictor>>,
    crew: &mut dyn Crew<LocalDisk>,
) -> Result<Job> {
    let scans = match crew.receive(SCANS)? {
        Some(bytes) => Scans::of_another_process(&bytes)?,
        None => Scans::default(),
    };
    let setup = setup::Setup::read(arguments, &scans)?;
    crew.publish(&LocalDisk, SCANS, &mut || scans.to_bytes())?;
    setup.into_job(arguments, networks, crew.leads())
}
