//! The CUDA kernels.

#[allow(dead_code, reason = "the launch uses the rest")]
#[path = "../../../src/attention/cuda/arguments.rs"]
mod arguments;
mod launch;
mod mutations;
mod ptx;
mod ptx_mutations;
#[allow(dead_code, reason = "the build script uses the rest")]
#[path = "../../../kernels/cuda/recipes.rs"]
mod recipes;
#[allow(dead_code, reason = "the launch uses the rest")]
#[path = "../../../src/attention/cuda/tuning.rs"]
mod tuning;

use std::path::Path;

use anyhow::Result;
use half::{bf16, f16};
use libtest_mimic::Trial;

use super::case::Case;
use super::numbers::Number;
use super::{HEAD_DIMS, Operands, cases_for};
use emulator::{Compiler, LazyKernels, compile_once, compiled, trial};
use recipes::{ELEMENTS, Recipe};
use tuning::{Element, Row, SM90_ROWS, Sm80Row, Sm90Row};

/// Where the kernels are.
const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/kernels/cuda");

pub fn trials(compiler: &Result<Compiler, String>) -> Vec<Trial> {
    let mut trials = mutations::trials(compiler);
    trials.extend(ptx::trials(compiler));
    for element in ELEMENTS {
        let rotate = compile(compiler, recipes::rotate_keys(element));
        for row in rows_of(element) {
            let attend = compile(compiler, recipes::attention(row, element));
            for head_dim in HEAD_DIMS.into_iter().filter(|&head_dim| serves(row, element, head_dim)) {
                for case in cases_for(head_dim) {
                    let name = format!("{}::head_dim_{head_dim}::{}", row.kernel_name(element), case.name);
                    let kernels = Pair { attend, rotate };
                    trials.push(trial(&name, compiler, move || check(element, row, kernels, head_dim, case)));
                }
            }
        }
    }
    trials
}

/// The tuned rows of an element type, and the options that no row has.
fn rows_of(element: Element) -> Vec<Row> {
    let tuned = recipes::rows().filter(|(_, of)| *of == element).map(|(row, _)| row);
    let with_turns = SM90_WITH_TURNS.iter().filter(|_| element == Element::F16).map(Row::Sm90);
    tuned.chain(with_turns).collect()
}

/// The first row for Hopper, whose consumers take turns.
static SM90_WITH_TURNS: [Sm90Row; 1] = [Sm90Row { take_turns: true, ..SM90_ROWS[0] }];

/// Whether a launch would choose the row (or the row it varies) for a head_dim.
fn serves(row: Row, element: Element, head_dim: usize) -> bool {
    match row {
        Row::Sm80(row) => Sm80Row::of(element, head_dim) == Some(row),
        Row::Sm90(row) => Sm90Row::of(element, head_dim).is_some_and(|of| of.head_dim == row.head_dim),
    }
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

fn check(element: Element, row: Row, kernels: Pair, head_dim: usize, case: &Case) -> Result<()> {
    match element {
        Element::F16 => check_as::<f16>(element, Operands::F16, row, kernels, head_dim, case),
        Element::Bf16 => check_as::<bf16>(element, Operands::Bf16, row, kernels, head_dim, case),
        Element::F32 => check_as::<f32>(element, Operands::F32, row, kernels, head_dim, case),
        Element::Tf32 => check_as::<f32>(element, Operands::Tf32, row, kernels, head_dim, case),
    }
}

fn check_as<T: Number>(
    element: Element,
    operands: Operands,
    row: Row,
    kernels: Pair,
    head_dim: usize,
    case: &Case,
) -> Result<()> {
    let (attend, rotate) = (compiled(kernels.attend)?, compiled(kernels.rotate)?);
    super::check::<T>(case, head_dim, operands, |problem, order| {
        launch::run(element, row, attend, rotate, problem, order)
    })
}
