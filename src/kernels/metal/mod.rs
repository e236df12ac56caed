//! The Metal kernels, in `kernels/metal/`.
//!
//! | file | idea |
//! |---|---|
//! | [`tiling`] | GPU families, tiles, how many work items run at a time |
//! | [`source`] | the text of a kernel |
//! | [`recipes`] | which kernels there are: file, macros, function constants |
//! | [`arguments`] | the structs that kernels take |
//! | [`dispatches`] | how many work items a dispatch takes |
//! | [`launch`] | the launches of a call |

pub mod arguments;
pub mod dispatches;
pub mod launch;
pub mod recipes;
pub mod source;
pub mod tiling;
