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
#[cfg(any(test, fuzzing))]
pub(crate) use statistics::flat_keys;

use crate::args::Arguments;
use crate::job::Job;

/// The description of a model, read and dropped.
#[cfg(any(test, fuzzing))]
pub(crate) fn read_description(path: &std::path::Path) -> Result<()> {
    description::Description::read(path).map(drop)
}

/// The prediction that the command line asks for; by a network that was loaded before, if it is given.
pub(crate) fn job(arguments: &Arguments, network: Option<Predictor>) -> Result<Job> {
    setup::Setup::read(arguments)?.into_job(arguments, network)
}
