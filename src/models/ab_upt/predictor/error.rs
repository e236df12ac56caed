//! Why a prediction is refused.

use thiserror::Error;

use crate::error::without_backtrace;
use crate::models::NormalisationError;
use crate::models::ab_upt::error::AbUptError;

/// Why a [`Predictor`](super::Predictor) cannot be made, or does not take its input.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PredictorError {
    /// Positions or conditions that cannot be normalised, or statistics that are missing.
    #[error(transparent)]
    Normalisation(#[from] NormalisationError),
    /// The network does not take its input, or a cache is that of another network.
    #[error(transparent)]
    Model(#[from] AbUptError),
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
    /// A cache file was written with other statistics, under which its positions mean something else.
    #[error("the cache does not fit: it holds {got} where the statistics of this predictor are expected")]
    CacheStatistics {
        /// `"others"` or `"none"`.
        got: &'static str,
    },
    /// The network predicts NaN or infinity, most likely because numbers in between are too large for its dtype.
    #[error("{points}: the network predicts {field} = {got} at point {point}, in {dtype}")]
    NotFinite {
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
    /// The network failed: on its input, or for another reason such as too little memory.
    #[error(transparent)]
    Candle(candle_core::Error),
}

impl From<candle_core::Error> for PredictorError {
    fn from(error: candle_core::Error) -> Self {
        Self::Candle(without_backtrace(error))
    }
}

impl From<PredictorError> for candle_core::Error {
    fn from(error: PredictorError) -> Self {
        match error {
            PredictorError::Candle(error) => error,
            other => crate::error::wrap(other),
        }
    }
}
