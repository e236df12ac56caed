//! Kernels of our own on Apple GPUs: from the source that `crate::kernels::metal` embeds to launches in candle's command
//! buffers.
//!
//! | file | idea |
//! |---|---|
//! | [`kernels`] | compiled on first use, kept per GPU |
//! | [`system`] | which versions of the system run what |
//! | [`dispatch`] | the one place where kernels are launched |

mod dispatch;
mod kernels;
pub(crate) mod system;

pub(crate) use dispatch::dispatch;
pub(crate) use kernels::load;
