//! Whole networks on top of the attention layers, and what goes with their weights.

pub mod ab_upt;
mod input_error;
mod normalisation;

pub use input_error::InputError;
pub use normalisation::{
    BOX_TOLERANCE, ConditionStatistics, FieldStatistics, Normalisation, NormalisationError, PositionBox,
    PositionStatistics,
};

pub use crate::files::UniqueKeys;
#[doc(hidden)]
pub use crate::files::open_regular;
