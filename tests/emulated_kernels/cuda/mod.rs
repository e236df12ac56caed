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
use super::rounding::{self, Rounded};
use super::{HEAD_DIMS, Operands, cases_for, is_whole};
use candle_mixed_attention::kernels::cuda::recipes::{self, ELEMENTS, Recipe};
use candle_mixed_attention::kernels::cuda::tiling::{
    Element, SM80_TILINGS, SM90_TILINGS, Sm80Tiling, Sm90Tiling, Tiling, Variant,
};
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
            let is_run = |&head_dim: &usize| serves(tiling, element, head_dim) && is_wanted(element, head_dim);
            for head_dim in HEAD_DIMS.into_iter().filter(is_run) {
                for case in cases_for(head_dim) {
                    let variant = variant_for(case);
                    let name = format!("{}::head_dim_{head_dim}::{}", name_of(tiling, element, variant), case.name);
                    let kernels = Pair { attend: attend[variant as usize], rotate };
                    trials.push(trial(&name, compiler, move || check(element, tiling, kernels, head_dim, case)));
                }
            }
            trials.extend(rounding_trials(compiler, element, tiling, Pair { attend: attend[0], rotate }));
        }
    }
    trials
}

/// The name of a kernel, and what it has that none in the tables has.
fn name_of(tiling: Tiling, element: Element, variant: Variant) -> String {
    let carries_early = match tiling {
        Tiling::Sm80(tiling) => tiling.carry_steps == EARLY,
        Tiling::Sm90(tiling) => tiling.carry_steps == EARLY,
    };
    format!("{}{}", tiling.kernel_name(element, variant), if carries_early { "_carrying_early" } else { "" })
}

/// The tiles of an element type, and the options that no tile in the tables has.
fn tilings_of(element: Element) -> Vec<Tiling> {
    let tuned = recipes::tilings().filter(|(_, of)| *of == element).map(|(tiling, _)| tiling);
    let with_turns = SM90_WITH_TURNS.iter().filter(|_| element == Element::F16).map(Tiling::Sm90);
    let carrying = SM80_CARRYING.iter().filter(|_| element == Element::F32).map(Tiling::Sm80);
    tuned.chain(with_turns).chain(carrying).collect()
}

/// Steps after which sums are carried where no item of the cases has as many as the tables say.
const EARLY: usize = 2;

/// The first tile for Hopper, whose three consumers take turns, compute some exponentials by the polynomial and all of them
/// before the second wait, and carry early.
static SM90_WITH_TURNS: [Sm90Tiling; 1] =
    [Sm90Tiling { take_turns: true, polynomial: 1, pin_exponentials: true, carry_steps: EARLY, ..SM90_TILINGS[0] }];

/// The tile for every GPU of f32 and head_dim 64, which carries early.
static SM80_CARRYING: [Sm80Tiling; 1] = [Sm80Tiling { carry_steps: EARLY, ..SM80_TILINGS[7] }];
const _: () = assert!(SM80_TILINGS[7].element_bytes == 4 && SM80_TILINGS[7].head_dim == 64);

/// The kernels whose sums over many keys are looked at, unless all are: f32, and tensor cores that add to long sums.
fn rounding_trials(compiler: &Result<Compiler, String>, element: Element, tiling: Tiling, kernels: Pair) -> Vec<Trial> {
    let is_tuned = recipes::tilings().any(|known| known == (tiling, element));
    let (head_dim, is_wanted) = match tiling {
        Tiling::Sm80(tiling) => (tiling.head_dim, element == Element::F32 && tiling.head_dim == 64),
        Tiling::Sm90(tiling) => (tiling.head_dim, element == Element::F16),
    };
    if !is_tuned || element == Element::Tf32 || !(is_wanted || is_whole()) {
        return Vec::new();
    }
    match element {
        Element::F16 => rounding_trials_as::<f16>(compiler, element, tiling, head_dim, kernels),
        Element::Bf16 => rounding_trials_as::<bf16>(compiler, element, tiling, head_dim, kernels),
        Element::F32 | Element::Tf32 => rounding_trials_as::<f32>(compiler, element, tiling, head_dim, kernels),
    }
}

fn rounding_trials_as<T: Rounded>(
    compiler: &Result<Compiler, String>,
    element: Element,
    tiling: Tiling,
    head_dim: usize,
    kernels: Pair,
) -> Vec<Trial> {
    let name = tiling.kernel_name(element, Variant::Plain);
    rounding::trials::<T>(
        &name,
        head_dim,
        |name, check| trial(name, compiler, check),
        move |problem| {
            let kernels = CallKernels { attend: compiled(kernels.attend)?, rotate: compiled(kernels.rotate)? };
            Ok(launch::run(element, tiling, kernels, problem, 0)?.output)
        },
    )
}

/// Whether a head_dim runs: what bf16 and TF32 do otherwise than f16 and f32 are one instruction and its rounding, which
/// few kernels show.
fn is_wanted(element: Element, head_dim: usize) -> bool {
    match element {
        Element::F16 | Element::F32 => true,
        Element::Bf16 => is_whole() || [64, 128].contains(&head_dim),
        Element::Tf32 => is_whole() || head_dim == 64,
    }
}

/// Whether a launch would choose the tile (or the one it varies) for a head_dim.
fn serves(tiling: Tiling, element: Element, head_dim: usize) -> bool {
    match tiling {
        Tiling::Sm80(tiling) if tiling.carry_steps == EARLY => head_dim == 40,
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
