//! What is compiled.

use std::path::{Path, PathBuf};

/// A `.cu` or `.metal` file and the kernels of it that are wanted.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    pub path: &'a Path,
    /// Names as C++ expressions: functions, or instances of templates.
    pub kernels: &'a [&'a str],
    /// Macros, as `NAME` or `NAME=VALUE`.
    pub defines: &'a [&'a str],
}

/// The folder of this crate, whose C++ kernels are compiled with.
pub(crate) fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}
