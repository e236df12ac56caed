//! The crate's CUDA kernels, every instantiation, in the emulator against an f64 reference.

#[allow(dead_code, reason = "the launch uses the rest")]
#[path = "../../src/attention/cuda/arguments.rs"]
mod arguments;
mod case;
mod launch;
mod numbers;
#[allow(dead_code, reason = "the build script uses the rest")]
#[path = "../../kernels/cuda/recipes.rs"]
mod recipes;
#[allow(dead_code, reason = "the launch uses the rest")]
#[path = "../../src/attention/cuda/tuning.rs"]
mod tuning;

use std::path::Path;
use std::sync::LazyLock;

use anyhow::{Context, Result, ensure};
use half::{bf16, f16};
use libtest_mimic::Trial;

use crate::emulator::{Compiler, Kernels, Source};
use case::{CASES, Case, Problem};
use numbers::{Number, worst_error};
use recipes::{ELEMENTS, Recipe};
use tuning::{Element, SM80_ROWS, Sm80Row};

/// Thread orders: ascending, descending, random.
const ORDERS: [u64; 3] = [0, 1, 17];

/// head_dims to run: those of the tuned rows, and ones that are padded inside.
const HEAD_DIMS: [usize; 9] = [8, 32, 40, 64, 96, 128, 136, 192, 256];

/// head_dims for which the cases that a tile size can break are enough: the rest of the code is that of the others.
const BRIEF_HEAD_DIMS: [usize; 4] = [8, 136, 192, 256];

/// One test per kernel, head_dim and case.
pub fn trials(compiler: &Result<Compiler, String>) -> Vec<Trial> {
    let mut trials = Vec::new();
    for element in ELEMENTS {
        let rotate = compile_once(compiler, recipes::rotate_keys(element));
        for row in SM80_ROWS.iter().filter(|row| row.element_bytes == element.bytes()) {
            let attend = compile_once(compiler, recipes::sm80(row, element));
            let of_row = |head_dim: &&usize| Sm80Row::of(element, **head_dim) == Some(row);
            for &head_dim in HEAD_DIMS.iter().filter(of_row) {
                let brief = BRIEF_HEAD_DIMS.contains(&head_dim);
                for case in CASES.iter().filter(|case| case.brief || !brief) {
                    let name = format!("{}::head_dim_{head_dim}::{}", row.kernel_name(element), case.name);
                    let kernels = Pair { attend, rotate };
                    let run = move || Ok(check(element, row, kernels, head_dim, case).map_err(|e| format!("{e:#}"))?);
                    let title = match compiler {
                        Ok(_) => name,
                        Err(reason) => format!("{name} ({reason})"),
                    };
                    trials.push(Trial::test(title, run).with_ignored_flag(compiler.is_err()));
                }
            }
        }
    }
    trials
}

type Compiled = LazyLock<Result<Kernels, String>, Box<dyn FnOnce() -> Result<Kernels, String> + Send>>;

/// The kernels of a call; compiled by the first test that needs them.
#[derive(Clone, Copy)]
struct Pair {
    attend: &'static Compiled,
    rotate: &'static Compiled,
}

fn compile_once(compiler: &Result<Compiler, String>, recipe: Recipe) -> &'static Compiled {
    let compiler = compiler.clone();
    let build: Box<dyn FnOnce() -> Result<Kernels, String> + Send> = Box::new(move || {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels/cuda").join(recipe.file);
        let defines: Vec<&str> = recipe.defines.iter().map(String::as_str).collect();
        let source = Source { path: &path, kernels: &[&recipe.name], defines: &defines };
        Kernels::compile(&compiler?, source).map_err(|error| format!("{error:#}"))
    });
    Box::leak(Box::new(LazyLock::new(build)))
}

fn check(element: Element, row: &Sm80Row, kernels: Pair, head_dim: usize, case: &Case) -> Result<()> {
    match element {
        Element::F16 => check_as::<f16>(element, row, kernels, head_dim, case),
        Element::Bf16 => check_as::<bf16>(element, row, kernels, head_dim, case),
        Element::F32 | Element::Tf32 => check_as::<f32>(element, row, kernels, head_dim, case),
    }
}

/// The kernel is right in every thread order, and gives the same bits in each.
fn check_as<T: Number>(element: Element, row: &Sm80Row, kernels: Pair, head_dim: usize, case: &Case) -> Result<()> {
    let problem = Problem::<T>::new(case, head_dim)?;
    let expected = problem.reference::<f64>();
    // Numbers are of order 1; operands are rounded to 11, 8 and 11 bits, or not at all.
    let tolerance = match element {
        Element::F16 => 4e-3,
        Element::Bf16 => 3e-2,
        Element::Tf32 => 5e-3,
        Element::F32 => 4.0 * worst_error(&problem.reference::<f32>(), &expected) + 1e-7,
    };
    let attend = kernels.attend.as_ref().map_err(|reason| anyhow::anyhow!("{reason}"))?;
    let rotate = kernels.rotate.as_ref().map_err(|reason| anyhow::anyhow!("{reason}"))?;
    let mut first: Option<Vec<T>> = None;
    for order in ORDERS {
        let output = launch::run(element, row, attend, rotate, &problem, order)
            .with_context(|| format!("thread order {order}"))?;
        let numbers: Vec<f64> = output.iter().map(|&number| number.to_f64()).collect();
        let error = worst_error(&numbers, &expected);
        ensure!(error <= tolerance, "thread order {order}: off by {error:e}, allowed {tolerance:e}");
        let bytes = |numbers: &[T]| bytemuck::cast_slice::<T, u8>(numbers).to_vec();
        let same = first.as_ref().is_none_or(|first| bytes(first) == bytes(&output));
        ensure!(same, "thread order {order} gives other bits than order {}", ORDERS[0]);
        first.get_or_insert(output);
    }
    Ok(())
}
