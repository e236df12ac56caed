//! The emulator tested on itself: it finds what it should, and computes what a GPU computes.
//!
//! Without a C++ compiler the tests are ignored, each with the reason in its name.

mod detectors;
mod metal;
mod primitives;

use std::path::PathBuf;

use anyhow::{Result, ensure};
use emulator::{Compiler, Finding, FindingKind, Kernels, LazyKernels};
use libtest_mimic::{Arguments, Trial};

fn main() {
    let arguments = Arguments::from_args();
    let compiler = Compiler::find();
    let mut trials = detectors::trials(&compiler);
    trials.extend(primitives::trials(&compiler));
    trials.extend(metal::trials());
    libtest_mimic::run(&arguments, trials).exit();
}

/// The named kernels of a file of `kernels/`.
fn compile_once(compiler: &Result<Compiler, String>, path: PathBuf, names: Vec<&str>) -> &'static LazyKernels {
    emulator::compile_once(compiler, path, names.into_iter().map(str::to_string).collect(), Vec::new())
}

/// A test on compiled kernels.
fn trial(
    group: &str,
    name: &str,
    compiler: &Result<Compiler, String>,
    kernels: &'static LazyKernels,
    test: impl Fn(&Kernels) -> Result<()> + Send + 'static,
) -> Trial {
    emulator::trial(&format!("{group}::{name}"), compiler, move || test(emulator::compiled(kernels)?))
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
