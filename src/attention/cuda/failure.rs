//! Errors of the driver, told with what could not be done.

use std::fmt::Display;

use candle_core::Result;
use candle_core::cuda::WrapErr;
use candle_core::cuda::cudarc::driver::DriverError;

/// What the driver returns.
pub(super) trait Doing<T> {
    /// As one of candle's errors, with what could not be done in front.
    fn doing<W: Display + Send + Sync + 'static>(self, what: impl FnOnce() -> W) -> Result<T>;
}

impl<T> Doing<T> for std::result::Result<T, DriverError> {
    fn doing<W: Display + Send + Sync + 'static>(self, what: impl FnOnce() -> W) -> Result<T> {
        self.w().map_err(|error| error.context(what()))
    }
}
