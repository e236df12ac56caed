//! The emulator tested on itself: it finds what it should, and computes what a GPU computes.
//!
//! Without a C++ compiler, or nvcc where PTX runs, the tests are ignored, each with the reason in its name.

mod detectors;
mod metal;
mod primitives;
mod ptx_text;

use std::path::Path;

use anyhow::{Error, Result, ensure};
use emulator::{Compiler, Finding, FindingKind, Kernels, LazyKernels, Nvcc, PtxSource, Source};
use libtest_mimic::{Arguments, Trial};

fn main() {
    let arguments = Arguments::from_args();
    let compiler = Compiler::find();
    let ways = [Way::compiled(&compiler), Way::interpreted(&compiler)];
    let mut trials = metal::trials();
    trials.extend(ptx_text::trials(&compiler));
    for way in &ways {
        trials.extend(detectors::trials(way));
        trials.extend(primitives::trials(way));
    }
    libtest_mimic::run(&arguments, trials).exit();
}

/// How CUDA kernels run: compiled from their source with twins of the inline PTX, or as the PTX that nvcc makes of them.
struct Way {
    prefix: &'static str,
    tools: Result<Tools, String>,
}

#[derive(Clone)]
struct Tools {
    compiler: Compiler,
    nvcc: Option<Nvcc>,
}

impl Way {
    fn compiled(compiler: &Result<Compiler, String>) -> Self {
        Self { prefix: "", tools: compiler.clone().map(|compiler| Tools { compiler, nvcc: None }) }
    }

    fn interpreted(compiler: &Result<Compiler, String>) -> Self {
        let tools = compiler.clone().and_then(|compiler| Ok(Tools { compiler, nvcc: Some(Nvcc::find()?) }));
        Self { prefix: "ptx_", tools }
    }

    /// The named kernels of a file of `kernels/`, which Hopper runs if the file's name says so.
    fn kernels(&self, file: &'static str, names: Vec<&'static str>) -> &'static LazyKernels {
        let tools = self.tools.clone();
        emulator::build_once(move || {
            let package = Path::new(env!("CARGO_MANIFEST_DIR"));
            let path = package.join("kernels").join(file);
            let Tools { compiler, nvcc } = tools.map_err(Error::msg)?;
            let Some(nvcc) = nvcc else {
                return Kernels::compile(&compiler, Source { path: &path, kernels: &names, defines: &[] });
            };
            let headers = package.join("../kernels/cuda");
            let architecture = if file.contains("hopper") { "compute_90a" } else { "compute_80" };
            let ptx = nvcc.ptx(PtxSource { path: &path, defines: &[], includes: &[&headers], architecture })?;
            Kernels::interpret(&compiler, &ptx)
        })
    }

    /// A test on kernels.
    fn trial(
        &self,
        group: &str,
        name: &str,
        kernels: &'static LazyKernels,
        test: impl Fn(&Kernels) -> Result<()> + Send + 'static,
    ) -> Trial {
        let name = format!("{}{group}::{name}", self.prefix);
        emulator::trial(&name, &self.tools, move || test(emulator::compiled(kernels)?))
    }
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
