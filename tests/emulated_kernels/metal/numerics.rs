//! Scores of −∞, and sums over many keys.

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;

use super::launch::{self, CallKernels};
use super::{LazyCallKernels, compile};
use crate::emulated_kernels::case::{self, Problem};
use crate::emulated_kernels::numbers::worst_error;
use candle_mixed_attention::kernels::metal::recipes;
use candle_mixed_attention::kernels::metal::tiling::{Element, Family, Tiling};
use emulator::{Compiler, compiled, trial};

const HEAD_DIM: usize = 40;

/// Factors of queries, so that scores have about this standard deviation.
const SPREADS: [f64; 3] = [0.0, 1.0, 100.0];

pub fn trials(compiler: &Result<Compiler, String>) -> Vec<Trial> {
    let Some(tiling) = Tiling::of(Family::Apple7, Element::F32, HEAD_DIM) else { return Vec::new() };
    let kernels = LazyCallKernels {
        attend: compile(compiler, recipes::mixed_attention(tiling, Element::F32, HEAD_DIM)),
        rotate: compile(compiler, recipes::rotate_keys(Element::F32)),
        combine: compile(compiler, recipes::combine_split_keys(Element::F32)),
    };
    let mut trials: Vec<Trial> = ["cache", "many_keys"]
        .into_iter()
        .flat_map(|case| SPREADS.map(|spread| (case, spread)))
        .map(|(case, spread)| {
            let name = format!("metal_sums::{case}_spread_{spread}");
            trial(&name, compiler, move || is_about_as_exact_as_plain_arithmetic(case, spread, kernels, tiling))
        })
        .collect();
    trials.push(trial("metal_infinite_scores", compiler, move || {
        let problem = Problem::<f32>::new(case::find("cache").context("a case")?, HEAD_DIM)?;
        infinite_scores(problem, kernels, tiling)
    }));
    trials
}

fn run(problem: &Problem<f32>, kernels: LazyCallKernels, tiling: &'static Tiling) -> Result<Vec<f64>> {
    let kernels = CallKernels {
        attend: compiled(kernels.attend)?,
        rotate: compiled(kernels.rotate)?,
        combine: compiled(kernels.combine)?,
    };
    let computed = launch::run(Element::F32, tiling, kernels, problem, 0, u64::MAX)?;
    Ok(computed.output.into_iter().map(f64::from).collect())
}

/// How large the root of the mean squared error may be, in that of two passes in plain f32 arithmetic: its maximum is
/// exact, its exponentials are accurate, and it sums blocks of 64 keys. Over 16 k keys of equal scores, where errors do
/// not cancel, one chain of steps loses most, 1.9 times as much; with other scores as much as plain arithmetic.
const ALLOWED: f64 = 2.0;

fn is_about_as_exact_as_plain_arithmetic(
    case: &str,
    spread: f64,
    kernels: LazyCallKernels,
    tiling: &'static Tiling,
) -> Result<()> {
    let mut problem = Problem::<f32>::new(case::find(case).context("a case")?, HEAD_DIM)?;
    // The scores of a case have a standard deviation of about 3/4.
    for number in &mut problem.fused {
        *number = (f64::from(*number) * spread / 0.75) as f32;
    }
    let exact = problem.reference::<f64>();
    let error = |got: &[f64]| {
        let squares: f64 = got.iter().zip(&exact).map(|(got, exact)| (got - exact).powi(2)).sum();
        (squares / exact.len() as f64).sqrt()
    };
    let (ours, plain) = (error(&run(&problem, kernels, tiling)?), error(&problem.reference::<f32>()));
    ensure!(ours <= ALLOWED * plain, "{ours:e}, plain arithmetic {plain:e}: {} times", ours / plain);
    Ok(())
}

/// Keys whose score is −∞ have no weight; a query with no others gets zeros.
fn infinite_scores(mut problem: Problem<f32>, kernels: LazyCallKernels, tiling: &'static Tiling) -> Result<()> {
    // Whatever is rotated, normalised or masked: the first channel of a query is 1 and that of such a key −∞.
    for query in problem.fused.chunks_exact_mut(HEAD_DIM).step_by(3) {
        query[0] = 1.0;
    }
    let keys = problem.cached_keys.len();
    for (hidden, what) in [(keys / 2, "the first half"), (keys, "all")] {
        for key in problem.cached_keys[..hidden].chunks_exact_mut(HEAD_DIM) {
            key.fill(0.0);
            key[0] = f32::NEG_INFINITY;
        }
        let output = run(&problem, kernels, tiling)?;
        let expected = if hidden == keys { vec![0.0; output.len()] } else { problem.reference::<f64>() };
        let error = worst_error(&output, &expected);
        ensure!(error < 1e-5, "{what}: off by {error:e}");
    }
    Ok(())
}
