//! What the host knows of the GPU kernels in `kernels/`, as far as no device is needed: from a plan to the numbers of a
//! launch, by pure functions.
//!
//! | file | idea |
//! |---|---|
//! | [`call`] | the sizes of a call |
//! | [`rows`] | where the rows of a tensor are |
//! | [`schedule`] | what kernels walk over |
//! | [`cuda`], [`metal`] | tiles, what to compile, arguments, launches |
//!
//! The backends in `src/attention/` upload, allocate and launch what is described here, and so do the tests that execute
//! the kernels without a GPU. For those the module is public, and hidden: it is no part of the crate's interface and
//! changes with any version.

pub mod call;
pub mod cuda;
pub mod metal;
pub mod rows;
pub mod schedule;
