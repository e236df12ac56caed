//! The Metal kernels.

mod dispatches;
#[path = "../../support/metal_kernels.rs"]
mod kernels;
mod language;
mod launch;
mod mutations;
mod numerics;
mod registers;
mod sin_cos;

use std::path::{Path, PathBuf};

use anyhow::Result;
use half::{bf16, f16};
use libtest_mimic::Trial;

use super::case::{CASES, Case};
use super::numbers::Number;
use super::rounding::{self, Rounded};
use super::{HEAD_DIMS, Operands, cases_for, is_whole};
use candle_mixed_attention::kernels::metal::recipes;
use candle_mixed_attention::kernels::metal::source::Recipe;
use candle_mixed_attention::kernels::metal::tiling::{CANDIDATES, Element, Family, TILINGS, Tiling};
use emulator::{Compiler, LazyKernels, compile_once, compiled, trial};
use kernels::ELEMENTS;
use launch::CallKernels;

pub fn trials() -> Vec<Trial> {
    let compiler = Compiler::find_clang();
    let mut trials = Vec::new();
    for (element, families) in ELEMENTS {
        let rotate = compile(&compiler, recipes::rotate_keys(element));
        let combine = compile(&compiler, recipes::combine_split_keys(element));
        let mut add = |tiling: &'static Tiling, head_dim: usize, cases: &mut dyn Iterator<Item = &'static Case>| {
            let attend = compile(&compiler, recipes::mixed_attention(tiling, element, head_dim));
            for case in cases {
                let name = format!("metal_{}_{}::head_dim_{head_dim}::{}", element.policy(), shape(tiling), case.name);
                let kernels = LazyCallKernels { attend, rotate, combine };
                trials.push(trial(&name, &compiler, move || check(element, tiling, kernels, head_dim, case)));
            }
        };
        for head_dim in HEAD_DIMS {
            let mut tilings: Vec<_> =
                families.iter().filter_map(|&family| Tiling::of(family, element, head_dim)).collect();
            tilings.dedup();
            for tiling in tilings {
                add(tiling, head_dim, &mut cases_for(head_dim));
            }
        }
        for tiling in CANDIDATES.iter().filter(|tiling| is_candidate_of(element, families, tiling)) {
            // The ends of runs of channels, and whole ones.
            let head_dims = [tiling.head_dim - 24, tiling.head_dim];
            for &head_dim in if is_whole() { &head_dims[..] } else { &head_dims[..1] } {
                add(tiling, head_dim, &mut CASES.iter().filter(|case| case.brief));
            }
        }
    }
    trials.extend(rounding_trials(&compiler));
    trials.extend(sin_cos::trials(&compiler));
    trials.extend(mutations::trials(&compiler));
    trials.extend(language::trials(&compiler));
    trials.extend(dispatches::trials(&compiler));
    trials.extend(numerics::trials(&compiler));
    trials.extend(registers::trials(&compiler));
    trials
}

/// Sums over many keys: f32 at one head_dim, or everything.
fn rounding_trials(compiler: &Result<Compiler, String>) -> Vec<Trial> {
    let mut trials = Vec::new();
    for (element, families) in ELEMENTS {
        let tilings = TILINGS.iter().filter(|tiling| families.iter().any(|&family| tiling.serves(family, element)));
        let is_wanted = |tiling: &&Tiling| is_whole() || element == Element::F32 && tiling.head_dim == 64;
        for tiling in tilings.filter(is_wanted) {
            trials.extend(match element {
                Element::F16 => rounding_trials_as::<f16>(compiler, element, tiling),
                Element::Bf16 | Element::WideBf16 => rounding_trials_as::<bf16>(compiler, element, tiling),
                Element::F32 => rounding_trials_as::<f32>(compiler, element, tiling),
            });
        }
    }
    trials
}

fn rounding_trials_as<T: Rounded>(
    compiler: &Result<Compiler, String>,
    element: Element,
    tiling: &'static Tiling,
) -> Vec<Trial> {
    let head_dim = tiling.head_dim;
    let kernels = LazyCallKernels {
        attend: compile(compiler, recipes::mixed_attention(tiling, element, head_dim)),
        rotate: compile(compiler, recipes::rotate_keys(element)),
        combine: compile(compiler, recipes::combine_split_keys(element)),
    };
    let name = format!("metal_{}_{}", element.policy(), shape(tiling));
    rounding::trials::<T>(
        &name,
        head_dim,
        |name, check| trial(name, compiler, check),
        move |problem| {
            let kernels = CallKernels {
                attend: compiled(kernels.attend)?,
                rotate: compiled(kernels.rotate)?,
                combine: compiled(kernels.combine)?,
            };
            Ok(launch::run(element, tiling, kernels, problem, 0, u64::MAX)?.output)
        },
    )
}

/// Whether a tile that a Mac should try runs with an element: with the first that it serves, or with all of them.
fn is_candidate_of(element: Element, families: &[Family], tiling: &Tiling) -> bool {
    let serves = |families: &[Family], element| families.iter().any(|&family| tiling.serves(family, element));
    let first = ELEMENTS.iter().find(|(element, families)| serves(families, *element));
    serves(families, element) && (is_whole() || first.is_some_and(|(first, _)| *first == element))
}

/// A tile in a test's name.
fn shape(tiling: &Tiling) -> String {
    let Tiling { row_tiles, keys, stages, parked, .. } = tiling;
    format!("{row_tiles}x{keys}_stages_{stages}_parked_{parked}")
}

/// The kernels of a call.
#[derive(Clone, Copy)]
struct LazyCallKernels {
    attend: &'static LazyKernels,
    rotate: &'static LazyKernels,
    combine: &'static LazyKernels,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels/metal")
}

fn path(recipe: &Recipe) -> PathBuf {
    folder().join(format!("{}.metal", recipe.function))
}

fn compile(compiler: &Result<Compiler, String>, recipe: Recipe) -> &'static LazyKernels {
    compile_once(compiler, path(&recipe), vec![recipe.function.to_string()], recipe.defines)
}

fn check(
    element: Element,
    tiling: &'static Tiling,
    kernels: LazyCallKernels,
    head_dim: usize,
    case: &Case,
) -> Result<()> {
    match element {
        Element::F16 => check_as::<f16>(element, Operands::F16, tiling, kernels, head_dim, case),
        Element::Bf16 | Element::WideBf16 => check_as::<bf16>(element, Operands::Bf16, tiling, kernels, head_dim, case),
        Element::F32 => check_as::<f32>(element, Operands::F32, tiling, kernels, head_dim, case),
    }
}

fn check_as<T: Number>(
    element: Element,
    operands: Operands,
    tiling: &'static Tiling,
    kernels: LazyCallKernels,
    head_dim: usize,
    case: &Case,
) -> Result<()> {
    let kernels = CallKernels {
        attend: compiled(kernels.attend)?,
        rotate: compiled(kernels.rotate)?,
        combine: compiled(kernels.combine)?,
    };
    super::check::<T>(case, head_dim, operands, |problem, order| {
        launch::run(element, tiling, kernels, problem, order, u64::MAX)
    })
}
