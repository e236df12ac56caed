//! Why a network cannot be made, does not take its input, or cannot predict.

use std::fmt::{self, Display};
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::error::AttentionError;
use crate::models::{InputError, NormalisationError};
use crate::through_candle::{carry, downcast, without_backtrace};

/// Why an AB-UPT, its [`Checkpoint`](super::Checkpoint) or its [`Predictor`](super::Predictor) cannot be made or does not
/// take its input.
///
/// Converts into [`candle_core::Error`], which the network returns as all layers do, and from it: there, the error of this
/// crate that it may hold comes out again.
///
/// ```
/// # use candle_core::{DType, Device};
/// # use candle_mixed_attention::models::ab_upt::{AbUpt, AbUptConfig, AbUptError, AbUptInput};
/// # use candle_nn::VarBuilder;
/// # let config: AbUptConfig = serde_json::from_str(r#"{"hidden_dim": 12, "num_heads": 1, "mlp_hidden_dim": 12,
/// #     "physics_blocks": [], "domains": [{"name": "a", "decoder_blocks": 0, "fields": [{"name": "p", "dim": 1}]}]}"#).unwrap();
/// # let model = AbUpt::new(&config, VarBuilder::zeros(DType::F32, &Device::Cpu))?;
/// let error = model.forward(&AbUptInput::new()).unwrap_err();
/// assert!(matches!(AbUptError::from(error), AbUptError::NoAnchors));
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AbUptError {
    /// An entry of the configuration cannot work.
    #[error("configuration: {field} must be {expected}, got {got}")]
    Config {
        /// The entry.
        field: String,
        /// What it must be.
        expected: String,
        /// What it is.
        got: String,
    },
    /// A file cannot be opened or read.
    #[error("'{path}': {reason}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why not. It is a part of the message, and so no source of its own.
        reason: std::io::Error,
    },
    /// A file is truncated, corrupt, or not what it should be.
    #[error("'{path}' is not a readable {format} file: {reason}")]
    Format {
        /// The file.
        path: PathBuf,
        /// `"safetensors"`, `"safetensors index"`, `"PyTorch"` or `"configuration"`.
        format: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The tensors of a checkpoint are not those of the network.
    #[error("'{path}' does not fit the network:{}", list(problems))]
    Tensors {
        /// The file.
        path: PathBuf,
        /// Every tensor that does not fit, sorted by name.
        problems: Vec<TensorProblem>,
    },
    /// Positions came for a domain that the network does not have.
    #[error("{role} were given for domain '{domain}', but the domains of the network are {known:?}")]
    UnknownDomain {
        /// `"anchors"` or `"queries"`.
        role: &'static str,
        /// The unknown domain.
        domain: String,
        /// The domains of the network.
        known: Vec<String>,
    },
    /// A field was asked for that the result does not hold.
    #[error("there is no field '{field}'; the fields are {known:?}")]
    UnknownField {
        /// The unknown field.
        field: String,
        /// The fields of the result.
        known: Vec<String>,
    },
    /// A tensor has another shape than the network needs.
    #[error("{argument} must have shape {expected}, got {got:?}")]
    Shape {
        /// The argument.
        argument: String,
        /// The shape that was expected, with the names of its axes.
        expected: String,
        /// The shape that came.
        got: Vec<usize>,
    },
    /// A tensor has another number of samples than the others.
    #[error("{argument} has {got} samples, expected {expected}")]
    Batch {
        /// The argument.
        argument: String,
        /// Number of samples of the rest of the input.
        expected: usize,
        /// Number of samples that came.
        got: usize,
    },
    /// A number that is NaN or infinite, or a condition that is missing or unknown.
    #[error(transparent)]
    Input(#[from] InputError),
    /// Positions or conditions cannot be normalised, or statistics are missing or impossible.
    #[error(transparent)]
    Normalisation(NormalisationError),
    /// Statistics of another number of components than the network has.
    #[error("the statistics of {what} have {got} components, the network has {expected}")]
    StatisticsWidth {
        /// Which statistics.
        what: String,
        /// Components in the network.
        expected: usize,
        /// Components in the statistics.
        got: usize,
    },
    /// A first pass needs anchors: without any, the tokens would have nothing to attend to.
    #[error("a first pass needs the anchors of at least one domain, got none")]
    NoAnchors,
    /// A cached pass needs queries.
    #[error("a cached pass needs the queries of at least one domain, got none")]
    NoQueries,
    /// Points are counted in 64 bits.
    #[error("point {first} and the {points} that follow are more than can be counted")]
    TooManyPoints {
        /// Index of the first point.
        first: u64,
        /// Number of points.
        points: usize,
    },
    /// A chunk must hold a point.
    #[error("a chunk must have at least 1 point, got 0")]
    EmptyChunk,
    /// The network reads a geometry, but none came.
    #[error("the network has perceiver blocks, so a first pass needs a geometry, got none")]
    GeometryMissing,
    /// A geometry came that the network does not read.
    #[error("a geometry was given, but the network has no perceiver block that would read it")]
    GeometryUnexpected,
    /// The points or supernodes of a geometry are not usable.
    #[error("geometry: {argument} must be {expected}, got {got}")]
    Geometry {
        /// The argument.
        argument: &'static str,
        /// What it must be.
        expected: String,
        /// What came.
        got: String,
    },
    /// A block with modulation got no condition, or one without modulation got one.
    #[error("the block is made {expected} condition, but was called {got} one")]
    Modulation {
        /// `"with a"` or `"without a"`.
        expected: &'static str,
        /// `"with"` or `"without"`.
        got: &'static str,
    },
    /// A cache was made by another network.
    #[error("the cache does not fit: {what} is {got} in the cache and {expected} in this network")]
    CacheMismatch {
        /// What differs.
        what: &'static str,
        /// The value in the network.
        expected: String,
        /// The value in the cache.
        got: String,
    },
    /// A cache file was written with other statistics, under which its positions mean something else.
    #[error("the cache does not fit: it holds {got} where the statistics of this predictor are expected")]
    CacheStatistics {
        /// `"others"` or `"none"`.
        got: &'static str,
    },
    /// The network predicts NaN or infinity, most likely because numbers in between are too large for its dtype.
    #[error("{points}: the network predicts {field} = {got} at point {point}, in {dtype}")]
    Prediction {
        /// `queries of '<domain>'` or `anchors of '<domain>'`.
        points: String,
        /// The field.
        field: String,
        /// Index of the first such point.
        point: u64,
        /// The value there, in physical units.
        got: f32,
        /// The dtype of the network.
        dtype: &'static str,
    },
    /// An attention layer does not take its input, or a cache file cannot be read.
    #[error(transparent)]
    Attention(#[from] AttentionError),
    /// Candle failed for another reason, such as too little memory.
    #[error(transparent)]
    Candle(candle_core::Error),
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

impl AbUptError {
    /// [`Config`](Self::Config).
    pub(super) fn config(field: impl Into<String>, expected: impl Into<String>, got: impl Display) -> Self {
        Self::Config { field: field.into(), expected: expected.into(), got: got.to_string() }
    }

    /// [`Io`](Self::Io): turns an error of the system into one that names the file.
    pub(super) fn io(path: &Path) -> impl Fn(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |reason| Self::Io { path: path.clone(), reason }
    }

    /// [`Format`](Self::Format).
    pub(super) fn format(path: &Path, format: &'static str, reason: impl Display) -> Self {
        Self::Format { path: path.to_path_buf(), format, reason: reason.to_string() }
    }

    /// [`Shape`](Self::Shape): `got` are the dims that came.
    pub(super) fn shape(argument: impl Into<String>, expected: impl Into<String>, got: &[usize]) -> Self {
        Self::Shape { argument: argument.into(), expected: expected.into(), got: got.to_vec() }
    }

    /// [`Batch`](Self::Batch).
    pub(super) fn batch(argument: impl Into<String>, expected: usize, got: usize) -> Self {
        Self::Batch { argument: argument.into(), expected, got }
    }

    /// [`Geometry`](Self::Geometry).
    pub(super) fn geometry(argument: &'static str, expected: impl Into<String>, got: impl Display) -> Self {
        Self::Geometry { argument, expected: expected.into(), got: got.to_string() }
    }
}

impl From<NormalisationError> for AbUptError {
    fn from(error: NormalisationError) -> Self {
        match error {
            NormalisationError::Input(error) => Self::Input(error),
            other => Self::Normalisation(other),
        }
    }
}

impl From<candle_core::Error> for AbUptError {
    fn from(error: candle_core::Error) -> Self {
        downcast::<Self>(error)
            .or_else(|error| downcast::<AttentionError>(error).map(Self::from))
            .or_else(|error| downcast::<NormalisationError>(error).map(Self::from))
            .unwrap_or_else(|error| Self::Candle(without_backtrace(error)))
    }
}

impl From<AbUptError> for candle_core::Error {
    fn from(error: AbUptError) -> Self {
        match error {
            AbUptError::Candle(error) => error,
            other => carry(other),
        }
    }
}
