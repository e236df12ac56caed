//! The CUDA kernels.

mod launch;
mod mutations;
mod ptx;
mod ptx_mutations;

use std::path::Path;

use anyhow::Result;
use half::{bf16, f16};
use libtest_mimic::Trial;

use super::case::Case;
use super::numbers::Number;
use super::{HEAD_DIMS, Operands, cases_for};
use candle_mixed_attention::kernels::cuda::recipes::{self, ELEMENTS, Recipe};
use candle_mixed_attention::kernels::cuda::tiling::{Element, SM90_TILINGS, Sm80Tiling, Sm90Tiling, Tiling, Variant};
use emulator::{Compiler, LazyKernels, compile_once, compiled, trial};
use launch::CallKernels;

/// Where the kernels are.
const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/kernels/cuda");

pub fn trials(compiler: &Result<Compiler, String>) -> Vec<Trial> {
    let mut trials = mutations::trials(compiler);
    trials.extend(ptx::trials(compiler));
    for element in ELEMENTS {
        let rotate = compile(compiler, recipes::rotate_keys(element));
        for tiling in tilings_of(element) {
            let attend = Variant::ALL.map(|variant| compile(compiler, recipes::attention(tiling, element, variant)));
            for head_dim in HEAD_DIMS.into_iter().filter(|&head_dim| serves(tiling, element, head_dim)) {
                for case in cases_for(head_dim) {
                    let variant = variant_for(case);
                    let name = format!("{}::head_dim_{head_dim}::{}", tiling.kernel_name(element, variant), case.name);
                    let kernels = Pair { attend: attend[variant as usize], rotate };
                    trials.push(trial(&name, compiler, move || check(element, tiling, kernels, head_dim, case)));
                }
            }
        }
    }
    trials
}

/// The tiles of an element type, and the options that no tile in the tables has.
fn tilings_of(element: Element) -> Vec<Tiling> {
    let tuned = recipes::tilings().filter(|(_, of)| *of == element).map(|(tiling, _)| tiling);
    let with_turns = SM90_WITH_TURNS.iter().filter(|_| element == Element::F16).map(Tiling::Sm90);
    tuned.chain(with_turns).collect()
}

/// The first tile for Hopper, whose three consumers take turns, compute some exponentials by the polynomial and all of them
/// before the second wait.
static SM90_WITH_TURNS: [Sm90Tiling; 1] =
    [Sm90Tiling { take_turns: true, polynomial: 1, pin_exponentials: true, ..SM90_TILINGS[0] }];

/// Whether a launch would choose the tile (or the one it varies) for a head_dim.
fn serves(tiling: Tiling, element: Element, head_dim: usize) -> bool {
    match tiling {
        Tiling::Sm80(tiling) => Sm80Tiling::of(element, head_dim) == Some(tiling),
        Tiling::Sm90(tiling) => Sm90Tiling::of(element, head_dim).is_some_and(|of| of.head_dim == tiling.head_dim),
    }
}

/// The kernel that a case needs.
fn variant_for(case: &Case) -> Variant {
    if case.is_general() { Variant::General } else { Variant::Plain }
}

/// The kernels of a call.
#[derive(Clone, Copy)]
struct Pair {
    attend: &'static LazyKernels,
    rotate: &'static LazyKernels,
}

fn compile(compiler: &Result<Compiler, String>, recipe: Recipe) -> &'static LazyKernels {
    let path = Path::new(FOLDER).join(recipe.file);
    compile_once(compiler, path, vec![recipe.name], recipe.defines)
}

fn check(element: Element, tiling: Tiling, kernels: Pair, head_dim: usize, case: &Case) -> Result<()> {
    match element {
        Element::F16 => check_as::<f16>(element, Operands::F16, tiling, kernels, head_dim, case),
        Element::Bf16 => check_as::<bf16>(element, Operands::Bf16, tiling, kernels, head_dim, case),
        Element::F32 => check_as::<f32>(element, Operands::F32, tiling, kernels, head_dim, case),
        Element::Tf32 => check_as::<f32>(element, Operands::Tf32, tiling, kernels, head_dim, case),
    }
}

fn check_as<T: Number>(
    element: Element,
    operands: Operands,
    tiling: Tiling,
    kernels: Pair,
    head_dim: usize,
    case: &Case,
) -> Result<()> {
    let kernels = CallKernels { attend: compiled(kernels.attend)?, rotate: compiled(kernels.rotate)? };
    super::check::<T>(case, head_dim, operands, |problem, order| launch::run(element, tiling, kernels, problem, order))
}
