//! Why a network cannot be made or does not take its input.

use thiserror::Error;

/// Why an AB-UPT cannot be made or does not take its input. Converts into [`candle_core::Error`].
#[derive(Debug, Clone, PartialEq, Error)]
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
    /// Positions or conditions hold NaN or infinity.
    #[error("{argument} holds NaN or infinity")]
    NotFinite {
        /// The argument.
        argument: String,
    },
    /// A first pass needs anchors: without any, the tokens would have nothing to attend to.
    #[error("a first pass needs the anchors of at least one domain, got none")]
    NoAnchors,
    /// A cached pass needs queries.
    #[error("a cached pass needs the queries of at least one domain, got none")]
    NoQueries,
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
    /// A conditioning input is missing.
    #[error("condition '{name}' is missing; the network needs {known:?}")]
    ConditionMissing {
        /// The input.
        name: String,
        /// All inputs of the network.
        known: Vec<String>,
    },
    /// A conditioning input came that the network does not have.
    #[error("condition '{name}' was given, but the network's conditions are {known:?}")]
    ConditionUnknown {
        /// The unknown input.
        name: String,
        /// All inputs of the network.
        known: Vec<String>,
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
}

impl From<AbUptError> for candle_core::Error {
    fn from(error: AbUptError) -> Self {
        crate::error::wrap(error)
    }
}
