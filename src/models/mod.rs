//! Whole networks on top of the attention layers, and what goes with their weights.

pub mod ab_upt;
mod normalisation;

pub use normalisation::{
    BOX_TOLERANCE, ConditionStatistics, FieldStatistics, Normalisation, NormalisationError, PositionBox,
    PositionStatistics,
};

pub use crate::files::UniqueKeys;
