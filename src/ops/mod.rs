//! What surrounds attention, fused for the CPU: one pass over memory where candle's separate ops take several.
//!
//! | file | idea |
//! |---|---|
//! | [`linear`] | matrix product, bias and activation while a block of rows is in cache |
//! | [`gelu`] | the GELU, vectorised |
//! | [`layer_norm`] | layer norm with its modulation |
//! | [`message_sum`] | GELU messages between points, summed up without a list of them |
//! | [`rows`] | blocks of rows on the thread pool |
//! | [`sin_cos`] | sines and cosines at f32 accuracy, also on Metal |
//! | [`residual`] | the sum that ends a residual branch |
//! | [`per_sample`] | numbers for each channel of a sample |
//! | [`convert`] | conversion of tensors of any size |
//! | [`vectorised`] | plain loops, compiled for several instruction sets |
//! | [`finite`] | is there NaN or infinity |
//!
//! Every function here has the result of the candle ops that its documentation names, and falls back to them on other
//! devices, for other dtypes, and where a gradient is tracked.

mod convert;
mod finite;
mod gelu;
mod layer_norm;
mod linear;
mod message_sum;
mod per_sample;
mod residual;
mod rows;
mod sin_cos;
mod vectorised;

use candle_core::{DType, Tensor};

pub(crate) use convert::to_dtype;
pub(crate) use finite::{first_not_finite, is_finite};
pub(crate) use layer_norm::layer_norm;
pub(crate) use linear::{Epilogue, feed_forward, linear};
pub(crate) use message_sum::{Messages, message_sum};
pub(crate) use residual::residual;
pub(crate) use sin_cos::{cos, sin};

/// Whether a tensor can be read by the ops here: f32 on the CPU, and no gradient to follow.
pub(crate) fn is_plain(tensor: &Tensor) -> bool {
    tensor.device().is_cpu() && tensor.dtype() == DType::F32 && !tensor.track_op()
}
