//! What can be wrong with the input of a network, in whatever units it comes.

use thiserror::Error;

/// Why the numbers or names that a network is given cannot be right.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum InputError {
    /// A number is NaN or infinite.
    #[error("{argument} must be finite, got {value} as {component}{}", of_point(*point))]
    NotFinite {
        /// The argument.
        argument: String,
        /// Which number: the coordinate `x`, `y` or `z`, `component 2` of a condition, or the indices in a tensor.
        component: String,
        /// Index of its point, for coordinates.
        point: Option<u64>,
        /// The number.
        value: f64,
    },
    /// A condition is missing.
    #[error("condition '{name}' is missing; the model takes {known:?}")]
    ConditionMissing {
        /// The condition.
        name: String,
        /// All conditions of the network.
        known: Vec<String>,
    },
    /// A condition came that the network does not have.
    #[error("condition '{name}' is unknown; the model takes {known:?}")]
    ConditionUnknown {
        /// The unknown name.
        name: String,
        /// All conditions of the network.
        known: Vec<String>,
    },
}

fn of_point(point: Option<u64>) -> String {
    point.map_or_else(String::new, |point| format!(" of point {point}"))
}

/// Checks that conditions were given by these names: every one of the network, and no other.
pub(crate) fn check_condition_names<'a>(
    known: impl Iterator<Item = &'a str> + Clone,
    given: impl Iterator<Item = &'a str> + Clone,
) -> Result<(), InputError> {
    let all = || known.clone().map(str::to_string).collect();
    if let Some(name) = given.clone().find(|name| !known.clone().any(|other| other == *name)) {
        return Err(InputError::ConditionUnknown { name: name.to_string(), known: all() });
    }
    if let Some(name) = known.clone().find(|name| !given.clone().any(|other| other == *name)) {
        return Err(InputError::ConditionMissing { name: name.to_string(), known: all() });
    }
    Ok(())
}
