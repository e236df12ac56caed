//! The CUDA kernels as the PTX that the build makes of them: what stands in inline PTX is executed, too.

use std::path::Path;

use anyhow::{Error, Result};
use libtest_mimic::Trial;

use super::recipes::{self, ELEMENTS, Recipe, Target};
use super::{FOLDER, HEAD_DIMS, Pair, cases_for, check, ptx_mutations, rows_of, serves};
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
    pub fn ptx(&self, recipe: &Recipe) -> Result<std::path::PathBuf> {
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
    for element in ELEMENTS {
        let rotate = translate(&tools, recipes::rotate_keys(element));
        for row in rows_of(element) {
            let attend = translate(&tools, recipes::attention(row, element));
            for head_dim in HEAD_DIMS.into_iter().filter(|&head_dim| serves(row, element, head_dim)) {
                for case in cases_for(head_dim) {
                    let name = format!("ptx_{}::head_dim_{head_dim}::{}", row.kernel_name(element), case.name);
                    let kernels = Pair { attend, rotate };
                    trials.push(trial(&name, &tools, move || check(element, row, kernels, head_dim, case)));
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
