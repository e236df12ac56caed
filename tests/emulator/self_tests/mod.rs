//! The emulator tested on itself: it finds what it should, and computes what a GPU computes.

mod detectors;
mod metal;
mod primitives;

use std::path::PathBuf;
use std::sync::LazyLock;

use anyhow::{Result, ensure};
use libtest_mimic::Trial;

use super::{Compiler, Finding, FindingKind, Kernels, Source};

/// All tests, ignored where there is no compiler for them.
pub fn trials(compiler: &Result<Compiler, String>) -> Vec<Trial> {
    let mut trials = detectors::trials(compiler);
    trials.extend(primitives::trials(compiler));
    trials.extend(metal::trials());
    trials
}

/// Kernels of one file, compiled by the first test that needs them; or why that failed.
type LazyKernels = LazyLock<Result<Kernels, String>, Build>;
type Build = Box<dyn FnOnce() -> Result<Kernels, String> + Send>;

/// Lives as long as the process, as the tests do.
fn compile_once(compiler: &Result<Compiler, String>, path: PathBuf, names: Vec<&'static str>) -> &'static LazyKernels {
    let compiler = compiler.clone();
    let build: Build = Box::new(move || {
        let source = Source { path: &path, kernels: &names, defines: &[] };
        Kernels::compile(&compiler?, source).map_err(|error| format!("{error:#}"))
    });
    Box::leak(Box::new(LazyLock::new(build)))
}

/// A test on compiled kernels.
fn trial(
    group: &str,
    name: &str,
    compiler: &Result<Compiler, String>,
    kernels: &'static LazyKernels,
    test: impl Fn(&Kernels) -> Result<()> + Send + 'static,
) -> Trial {
    let title = match compiler {
        Ok(_) => format!("{group}::{name}"),
        Err(reason) => format!("{group}::{name} ({reason})"),
    };
    let run = move || Ok(test(kernels.as_ref()?).map_err(|error| format!("{error:#}"))?);
    Trial::test(title, run).with_ignored_flag(compiler.is_err())
}

/// A kernel is right without its mistake, and found with it to end with one of `kinds`, in every thread order.
fn check_detector(
    orders: &[u64],
    kinds: &[FindingKind],
    launch: impl Fn(bool, u64) -> Result<(), Finding>,
) -> Result<()> {
    for &order in orders {
        launch(false, order)?;
        let found = launch(true, order);
        let expected = found.as_ref().is_err_and(|finding| kinds.contains(&finding.kind));
        ensure!(expected, "order {order}: expected a finding of kind {kinds:?}, got {found:?}");
    }
    Ok(())
}
