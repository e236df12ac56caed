//! The CUDA kernels, in `kernels/cuda/`.
//!
//! | file | idea |
//! |---|---|
//! | [`tiling`] | which kernels there are and their tiles; read by `build.rs`, too |
//! | [`recipes`] | what to compile; for `build.rs` and for tests |
//! | [`arguments`] | the structs that kernels take |
//! | [`tensor_map`] | how the copy engine of Hopper finds rows |
//! | [`launch`] | the launches of a call |

pub mod arguments;
#[cfg(test)]
mod efficiency;
pub mod launch;
pub mod recipes;
pub mod tensor_map;
pub mod tiling;
