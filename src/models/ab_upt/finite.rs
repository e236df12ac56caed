//! Refuses NaN and infinity in what comes in or goes out.

use candle_core::{Result, Tensor};

use super::error::AbUptError;
use crate::ops::is_finite;

/// Checks that a tensor holds neither NaN nor infinity.
pub(super) fn check_finite(argument: &str, tensor: &Tensor) -> Result<()> {
    match is_finite(tensor)? {
        true => Ok(()),
        false => Err(AbUptError::NotFinite { argument: argument.to_string() }.into()),
    }
}
