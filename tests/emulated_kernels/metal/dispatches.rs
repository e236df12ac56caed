//! A call that is cut into several dispatches gives the same bytes.

use anyhow::{Context, Result, ensure};
use half::f16;
use libtest_mimic::Trial;

use super::launch::{self, CallKernels};
use super::{LazyCallKernels, compile};
use crate::emulated_kernels::Computed;
use crate::emulated_kernels::case::{self, Problem};
use candle_mixed_attention::kernels::metal::recipes;
use candle_mixed_attention::kernels::metal::tiling::{Element, Family, Tiling};
use emulator::{Compiler, compiled, trial};

const HEAD_DIM: usize = 64;

/// So few that every case is several dispatches, some of several items.
const STEPS_PER_DISPATCH: u64 = 7;

pub fn trials(compiler: &Result<Compiler, String>) -> Vec<Trial> {
    let Some(tiling) = Tiling::of(Family::Apple7, Element::F16, HEAD_DIM) else { return Vec::new() };
    let kernels = LazyCallKernels {
        attend: compile(compiler, recipes::mixed_attention(tiling, Element::F16, HEAD_DIM)),
        rotate: compile(compiler, recipes::rotate_keys(Element::F16)),
        combine: compile(compiler, recipes::combine_split_keys(Element::F16)),
    };
    let case_trial =
        |case| trial(&format!("metal_dispatches::{case}"), compiler, move || same_bytes(case, kernels, tiling));
    ["tails", "rope", "split_keys"].map(case_trial).into()
}

fn same_bytes(case: &str, kernels: LazyCallKernels, tiling: &'static Tiling) -> Result<()> {
    let kernels = CallKernels {
        attend: compiled(kernels.attend)?,
        rotate: compiled(kernels.rotate)?,
        combine: compiled(kernels.combine)?,
    };
    let problem = Problem::<f16>::new(case::find(case).context("a case")?, HEAD_DIM)?;
    let run = |steps| launch::run(Element::F16, tiling, kernels, &problem, 0, steps);
    let bits = |computed: Computed<f16>| computed.output.into_iter().map(f16::to_bits).collect::<Vec<_>>();
    ensure!(bits(run(u64::MAX)?) == bits(run(STEPS_PER_DISPATCH)?), "other bytes");
    Ok(())
}
