//! What can be wrong with statistics, or with what they are applied to.

use thiserror::Error;

use crate::models::input_error::InputError;
use crate::through_candle::carry;

/// Why a quantity cannot be normalised, or statistics cannot be used.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum NormalisationError {
    /// A number that is NaN or infinite, or a condition that is missing or unknown.
    #[error(transparent)]
    Input(#[from] InputError),
    /// A position lies outside the box that the network was trained on.
    #[error(
        "{argument}: point {point} has {coordinate} = {value}, outside the box [{min}, {max}] of the statistics",
        value = shortest(*value)
    )]
    OutsideBox {
        /// The argument.
        argument: String,
        /// Index of the point.
        point: u64,
        /// Name of the coordinate: `x`, `y`, `z`, or its index.
        coordinate: String,
        /// Its value, in physical units.
        value: f64,
        /// Lower end of the box along this coordinate.
        min: f64,
        /// Upper end of the box along this coordinate.
        max: f64,
    },
    /// Values do not come in rows of the expected width.
    #[error("{argument} must have {expected} components per {row}, got {got}")]
    Width {
        /// The argument.
        argument: String,
        /// `"point"` or `"sample"`.
        row: &'static str,
        /// Components expected.
        expected: usize,
        /// What came.
        got: String,
    },
    /// A condition without statistics.
    #[error("there are no statistics for condition '{condition}'; there are some for {known:?}")]
    UnknownCondition {
        /// The condition.
        condition: String,
        /// The conditions that have statistics.
        known: Vec<String>,
    },
    /// A field without statistics.
    #[error("there are no statistics for field '{field}'; there are some for {known:?}")]
    UnknownField {
        /// The field, as `<domain>_<name>`.
        field: String,
        /// The fields that have statistics.
        known: Vec<String>,
    },
    /// A name stands twice where names must differ.
    #[error("{what} is given twice")]
    Duplicate {
        /// What, with its name.
        what: String,
    },
    /// A flat key that is needed is missing, or holds something else.
    #[error("statistics: {key} must be a number or a list of numbers, got {got}")]
    Key {
        /// The key.
        key: String,
        /// What it holds.
        got: String,
    },
    /// A file cannot be read or does not hold statistics.
    #[error("'{path}' holds no readable statistics: {reason}")]
    File {
        /// The file.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A number of the statistics is impossible.
    #[error("statistics: the {what} must be {expected}, got {got}")]
    Statistics {
        /// Which number.
        what: String,
        /// Its range.
        expected: String,
        /// What came.
        got: String,
    },
}

impl NormalisationError {
    /// The same error for points that are part of a longer list, where the first of them has this index.
    pub fn counted_from(mut self, first: u64) -> Self {
        match &mut self {
            Self::OutsideBox { point, .. } | Self::Input(InputError::NotFinite { point: Some(point), .. }) => {
                *point = point.saturating_add(first);
            }
            _ => {}
        }
        self
    }
}

impl From<NormalisationError> for candle_core::Error {
    fn from(error: NormalisationError) -> Self {
        carry(error)
    }
}

/// A number as it was written: one that came as f32 without the digits that f64 adds.
fn shortest(value: f64) -> String {
    let narrow = value as f32;
    if f64::from(narrow) == value { narrow.to_string() } else { value.to_string() }
}

/// Checks a list of statistics: its length and that every number is in range.
pub(super) fn check(
    what: impl Fn() -> String,
    values: &[f64],
    width: usize,
    expected: &str,
    in_range: impl Fn(f64) -> bool,
) -> Result<(), NormalisationError> {
    if width > 0 && values.len() == width && values.iter().all(|&value| value.is_finite() && in_range(value)) {
        return Ok(());
    }
    let expected = format!("{} finite numbers{expected}", width.max(1));
    Err(NormalisationError::Statistics { what: what(), expected, got: format!("{values:?}") })
}
