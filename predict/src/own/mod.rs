//! Predicting with a model and files of the user's own: everything is opened and checked before anything is computed.

mod domains;
mod pictures;
mod setup;
mod statistics;
#[cfg(test)]
mod tests;

use anyhow::Result;
#[cfg(any(test, fuzzing))]
pub use statistics::flat_keys;

use crate::args::Arguments;
use crate::job::Job;

/// The prediction that the command line asks for.
pub fn job(arguments: &Arguments) -> Result<Job> {
    setup::Setup::read(arguments)?.into_job(arguments)
}
