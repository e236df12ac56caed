//! Checks that several configurations share.

use std::collections::HashSet;

use crate::models::ab_upt::error::AbUptError;
use crate::modules::projection::LARGEST_WIDTH;

/// Checks a width or a number of components.
pub(in crate::models::ab_upt) fn check_width(field: &str, width: usize) -> Result<(), AbUptError> {
    if (1..=LARGEST_WIDTH).contains(&width) {
        return Ok(());
    }
    Err(AbUptError::config(field, format!("at least 1 and at most {LARGEST_WIDTH}"), width))
}

pub(super) fn check_positive(field: &str, value: f64) -> Result<(), AbUptError> {
    if value > 0.0 && value.is_finite() {
        return Ok(());
    }
    Err(AbUptError::config(field, "positive and finite", value))
}

/// Checks what the configurations of both kinds of blocks have in common. The attention layer checks width and heads.
pub(in crate::models::ab_upt) fn check_block(
    mlp_hidden_dim: usize,
    condition_dim: Option<usize>,
    eps: f64,
) -> Result<(), AbUptError> {
    check_width("mlp_hidden_dim", mlp_hidden_dim)?;
    condition_dim.map_or(Ok(()), |dim| check_width("condition_dim", dim))?;
    check_positive("eps", eps)
}

/// Checks that no name comes twice.
pub(super) fn unique(field: &str, names: impl Iterator<Item = String>) -> Result<(), AbUptError> {
    let mut seen = HashSet::new();
    for name in names {
        if !seen.insert(name.clone()) {
            return Err(AbUptError::config(field, "names that differ", format!("'{name}' twice")));
        }
    }
    Ok(())
}
