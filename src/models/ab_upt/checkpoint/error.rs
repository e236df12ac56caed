//! Why a checkpoint cannot be read or does not fit a network.

use std::fmt;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::error::without_backtrace;
use crate::models::ab_upt::error::AbUptError;

/// Why a checkpoint cannot be read or does not fit a network. Converts into [`candle_core::Error`].
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// A file cannot be opened or read.
    #[error("'{path}': {reason}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why not. It is a part of the message, and so no source of its own.
        reason: std::io::Error,
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
    Candle(candle_core::Error),
}

impl From<candle_core::Error> for CheckpointError {
    fn from(error: candle_core::Error) -> Self {
        Self::Candle(without_backtrace(error))
    }
}

impl From<CheckpointError> for candle_core::Error {
    fn from(error: CheckpointError) -> Self {
        crate::error::wrap(error)
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
    /// Its numbers are of a kind that weights do not have.
    #[error("dtype: {name} must be of a floating type, got {got}")]
    Dtype {
        /// Its name.
        name: String,
        /// Its dtype in the file.
        got: String,
    },
    /// It holds NaN or infinity, or numbers that are too large for the dtype of the network.
    #[error("not finite: {name} holds {got} in {dtype}, first as number {index}")]
    NotFinite {
        /// Its name.
        name: String,
        /// `"NaN"`, `"inf"` or `"-inf"`.
        got: String,
        /// Place of the first such number, in row-major order.
        index: usize,
        /// The dtype that the network was to be loaded in.
        dtype: String,
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
    move |reason| CheckpointError::Io { path: path.clone(), reason }
}
