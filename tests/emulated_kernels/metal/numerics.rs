//! Scores of −∞.

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

pub fn trials(compiler: &Result<Compiler, String>) -> Vec<Trial> {
    let Some(tiling) = Tiling::of(Family::Apple7, Element::F32, HEAD_DIM) else { return Vec::new() };
    let kernels = LazyCallKernels {
        attend: compile(compiler, recipes::mixed_attention(tiling, Element::F32, HEAD_DIM)),
        rotate: compile(compiler, recipes::rotate_keys(Element::F32)),
        combine: compile(compiler, recipes::combine_split_keys(Element::F32)),
    };
    vec![trial("metal_infinite_scores", compiler, move || {
        let problem = Problem::<f32>::new(case::find("cache").context("a case")?, HEAD_DIM)?;
        infinite_scores(problem, kernels, tiling)
    })]
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
