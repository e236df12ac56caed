//! The Metal kernels.

#[path = "../../../src/attention/metal/arguments.rs"]
mod arguments;
mod language;
mod launch;
mod mutations;
mod registers;
#[allow(dead_code, reason = "the launch uses the rest")]
#[path = "../../support/metal_kernels.rs"]
mod table;
mod waves;

use std::path::{Path, PathBuf};

use anyhow::Result;
use half::{bf16, f16};
use libtest_mimic::Trial;

use super::case::{CASES, Case};
use super::numbers::Number;
use super::{HEAD_DIMS, Operands, cases_for};
use emulator::{Compiler, LazyKernels, compile_once, compiled, trial};
use launch::CallKernels;
use table::source::Recipe;
use table::tuning::{CANDIDATES, Element, Row};
use table::{ELEMENTS, recipes};

pub fn trials() -> Vec<Trial> {
    let compiler = Compiler::find_clang();
    let mut trials = Vec::new();
    for (element, families) in ELEMENTS {
        let rotate = compile(&compiler, recipes::rotate_keys(element));
        let combine = compile(&compiler, recipes::combine_split_keys(element));
        let mut add = |row: &'static Row, head_dim: usize, cases: &mut dyn Iterator<Item = &'static Case>| {
            let attend = compile(&compiler, recipes::mixed_attention(row, element, head_dim));
            for case in cases {
                let name = format!("metal_{}_{}::head_dim_{head_dim}::{}", element.policy(), shape(row), case.name);
                let kernels = LazyCallKernels { attend, rotate, combine };
                trials.push(trial(&name, &compiler, move || check(element, row, kernels, head_dim, case)));
            }
        };
        for head_dim in HEAD_DIMS {
            let mut rows: Vec<_> = families.iter().filter_map(|&family| Row::of(family, element, head_dim)).collect();
            rows.dedup();
            for row in rows {
                add(row, head_dim, &mut cases_for(head_dim));
            }
        }
        let of_element = |row: &&Row| families.iter().any(|&family| row.serves(family, element));
        for row in CANDIDATES.iter().filter(of_element) {
            for head_dim in [row.head_dim - 24, row.head_dim] {
                add(row, head_dim, &mut CASES.iter().filter(|case| case.brief));
            }
        }
    }
    trials.extend(waves::trials(&compiler));
    trials.extend(mutations::trials(&compiler));
    trials.extend(language::trials(&compiler));
    trials.extend(registers::trials(&compiler));
    trials
}

/// A tile in a test's name.
fn shape(row: &Row) -> String {
    let Row { row_tiles, keys, stages, parked, .. } = row;
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

fn check(element: Element, row: &Row, kernels: LazyCallKernels, head_dim: usize, case: &Case) -> Result<()> {
    match element {
        Element::F16 => check_as::<f16>(Operands::F16, row, kernels, head_dim, case),
        Element::Bf16 | Element::WideBf16 => check_as::<bf16>(Operands::Bf16, row, kernels, head_dim, case),
        Element::F32 => check_as::<f32>(Operands::F32, row, kernels, head_dim, case),
    }
}

fn check_as<T: Number>(
    operands: Operands,
    row: &Row,
    kernels: LazyCallKernels,
    head_dim: usize,
    case: &Case,
) -> Result<()> {
    let kernels = CallKernels {
        attend: compiled(kernels.attend)?,
        rotate: compiled(kernels.rotate)?,
        combine: compiled(kernels.combine)?,
    };
    super::check::<T>(case, head_dim, operands, |problem, order| launch::run(row, kernels, problem, order))
}
