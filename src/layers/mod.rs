//! What surrounds attention, fused for the CPU: one pass over memory where candle's separate ops take several.
//!
//! | file | idea |
//! |---|---|
//! | [`linear`] | matrix product, bias and activation while a block of rows is in cache |
//! | [`gelu`] | the GELU, vectorised |
//! | [`layer_norm`] | layer norm with its modulation |
//! | [`rows`] | blocks of rows on the thread pool |
//!
//! Every function here has the result of the candle ops that its documentation names, and falls back to them on other
//! devices, for other dtypes, and where a gradient is tracked.

mod gelu;
mod layer_norm;
mod linear;
mod rows;

pub(crate) use layer_norm::layer_norm;
pub(crate) use linear::{Epilogue, linear};
