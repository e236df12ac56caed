//! Tests on kernels that the first one to need them compiles.

use std::path::PathBuf;
use std::sync::LazyLock;

use anyhow::{Error, Result, anyhow};
use libtest_mimic::Trial;

use crate::{Compiler, Kernels, Source};

/// The kernels of one file with its macros; or why they do not compile.
pub type LazyKernels = LazyLock<Result<Kernels, String>, Build>;
type Build = Box<dyn FnOnce() -> Result<Kernels, String> + Send>;

/// Lives as long as the process, as the tests do.
pub fn compile_once(
    compiler: &Result<Compiler, String>,
    path: PathBuf,
    kernels: Vec<String>,
    defines: Vec<String>,
) -> &'static LazyKernels {
    let compiler = compiler.clone();
    build_once(move || {
        let kernels: Vec<&str> = kernels.iter().map(String::as_str).collect();
        let defines: Vec<&str> = defines.iter().map(String::as_str).collect();
        let source = Source { path: &path, kernels: &kernels, defines: &defines };
        Kernels::compile(&compiler.map_err(Error::msg)?, source)
    })
}

/// Kernels from elsewhere, as PTX. Lives as long as the process.
pub fn build_once(build: impl FnOnce() -> Result<Kernels> + Send + 'static) -> &'static LazyKernels {
    let build: Build = Box::new(move || build().map_err(|error| format!("{error:#}")));
    Box::leak(Box::new(LazyLock::new(build)))
}

/// The compiled kernels.
pub fn compiled(kernels: &'static LazyKernels) -> Result<&'static Kernels> {
    kernels.as_ref().map_err(|reason| anyhow!("{reason}"))
}

/// A test; ignored without what compiles its kernels, with the reason in its name.
pub fn trial<C>(name: &str, compiler: &Result<C, String>, test: impl FnOnce() -> Result<()> + Send + 'static) -> Trial {
    let title = match compiler {
        Ok(_) => name.to_string(),
        Err(reason) => format!("{name} ({reason})"),
    };
    let run = move || Ok(test().map_err(|error| format!("{error:#}"))?);
    Trial::test(title, run).with_ignored_flag(compiler.is_err())
}
