//! Why a checkpoint cannot be read or does not fit a network.

use std::fmt;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::models::ab_upt::AbUptError;

/// Why a checkpoint cannot be read or does not fit a network. Converts into [`candle_core::Error`].
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// A file cannot be opened or read.
    #[error("'{path}': {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A file is truncated, corrupt, or not a checkpoint.
    #[error("'{path}' is not a readable {format} file: {reason}")]
    Format {
        /// The file.
        path: PathBuf,
        /// `"safetensors"`, `"safetensors index"`, `"PyTorch"` or `"configuration"`.
        format: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The tensors of the file are not those of the network.
    #[error("'{path}' does not fit the network:{}", list(problems))]
    Tensors {
        /// The file.
        path: PathBuf,
        /// Every tensor that does not fit, sorted by name.
        problems: Vec<TensorProblem>,
    },
    /// The configuration cannot work.
    #[error(transparent)]
    Config(#[from] AbUptError),
    /// The network cannot be made for another reason, such as too little memory.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}

impl From<CheckpointError> for candle_core::Error {
    fn from(error: CheckpointError) -> Self {
        candle_core::Error::wrap(error)
    }
}

/// A tensor that does not fit the network.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Error)]
#[non_exhaustive]
pub enum TensorProblem {
    /// The network has it, the file does not.
    #[error("missing: {name} {expected:?}")]
    Missing {
        /// Its name.
        name: String,
        /// Its shape in the network.
        expected: Vec<usize>,
    },
    /// It has another shape in the file.
    #[error("shape: {name} must be {expected:?}, got {got:?}")]
    Shape {
        /// Its name.
        name: String,
        /// Its shape in the network.
        expected: Vec<usize>,
        /// Its shape in the file.
        got: Vec<usize>,
    },
    /// The file has it, the network does not.
    #[error("unexpected: {name} {got:?}")]
    Unexpected {
        /// Its name.
        name: String,
        /// Its shape in the file.
        got: Vec<usize>,
    },
}

fn list(problems: &[TensorProblem]) -> impl fmt::Display {
    problems.iter().map(|problem| format!("\n  {problem}")).collect::<String>()
}

/// The error for a file of this format.
pub(super) fn not_readable(path: &Path, format: &'static str, reason: impl fmt::Display) -> CheckpointError {
    CheckpointError::Format { path: path.to_path_buf(), format, reason: reason.to_string() }
}

/// The error for a file that the system cannot read.
pub(super) fn io_error(path: &Path) -> impl Fn(std::io::Error) -> CheckpointError {
    let path = path.to_path_buf();
    move |source| CheckpointError::Io { path: path.clone(), source }
}
