//! Kernels of our own on Apple GPUs: from embedded source to launches in candle's command buffers.
//!
//! | file | idea |
//! |---|---|
//! | [`source`] | the text of a kernel |
//! | [`kernels`] | compiled on first use, kept per GPU |
//! | [`system`] | which versions of the system run what |
//! | [`dispatch`] | the one place where kernels are launched |

mod dispatch;
mod kernels;
pub(crate) mod source;
pub(crate) mod system;

pub(crate) use dispatch::{Binding, dispatch, extent};
pub(crate) use kernels::load;
