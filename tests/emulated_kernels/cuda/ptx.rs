//! The CUDA kernels as the PTX that the build makes of them: what stands in inline PTX is executed, too.
//!
//! By default every kernel runs the cases that a tile size can break, which have every feature, at one head_dim. With
//! the environment variable `EMULATED_PTX=all` it runs whatever it runs as C++.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Error, Result};
use libtest_mimic::Trial;

use super::{
    FOLDER, HEAD_DIMS, Pair, cases_for, check, is_wanted, name_of, ptx_mutations, serves, tilings_of, variant_for,
};
use candle_mixed_attention::kernels::cuda::recipes::{self, ELEMENTS, Recipe, Target};
use candle_mixed_attention::kernels::cuda::tiling::Variant;
use emulator::{Compiler, Kernels, LazyKernels, Nvcc, PtxSource, build_once, trial};

/// What runs PTX.
#[derive(Clone)]
pub struct Tools {
    compiler: Compiler,
    nvcc: Nvcc,
}

impl Tools {
    /// With nvcc, or why not.
    pub fn find(compiler: &Result<Compiler, String>) -> Result<Self, String> {
        Ok(Self { compiler: compiler.clone()?, nvcc: Nvcc::find()? })
    }

    /// The file with the PTX of a kernel.
    pub fn ptx(&self, recipe: &Recipe) -> Result<PathBuf> {
        let path = Path::new(FOLDER).join(recipe.file);
        let architecture = match recipe.target {
            Target::Compute80 => "compute_80",
            Target::Sm90a => "compute_90a",
        };
        self.nvcc.ptx(PtxSource { path: &path, defines: &recipe.defines, includes: &[], architecture })
    }

    /// The kernels of a file with PTX.
    pub fn interpret(&self, ptx: &Path) -> Result<Kernels> {
        Kernels::interpret(&self.compiler, ptx)
    }
}

pub fn trials(compiler: &Result<Compiler, String>) -> Vec<Trial> {
    let tools = Tools::find(compiler);
    let mut trials = ptx_mutations::trials(&tools);
    let whole = env::var_os("EMULATED_PTX").is_some_and(|value| value == "all");
    for element in ELEMENTS {
        let rotate = translate(&tools, recipes::rotate_keys(element));
        for tiling in tilings_of(element) {
            let attend = Variant::ALL.map(|variant| translate(&tools, recipes::attention(tiling, element, variant)));
            let is_run =
                |&head_dim: &usize| serves(tiling, element, head_dim) && (whole || is_wanted(element, head_dim));
            let head_dims = HEAD_DIMS.into_iter().filter(is_run);
            for head_dim in head_dims.take(if whole { usize::MAX } else { 1 }) {
                for case in cases_for(head_dim).filter(|case| whole || case.brief) {
                    let variant = variant_for(case);
                    let kernel = name_of(tiling, element, variant);
                    let name = format!("ptx_{kernel}::head_dim_{head_dim}::{}", case.name);
                    let kernels = Pair { attend: attend[variant as usize], rotate };
                    trials.push(trial(&name, &tools, move || check(element, tiling, kernels, head_dim, case)));
                }
            }
        }
    }
    trials
}

fn translate(tools: &Result<Tools, String>, recipe: Recipe) -> &'static LazyKernels {
    let tools = tools.clone();
    build_once(move || {
        let tools = tools.map_err(Error::msg)?;
        tools.interpret(&tools.ptx(&recipe)?)
    })
}
