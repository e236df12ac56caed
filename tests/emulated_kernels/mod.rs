//! The crate's GPU kernels, every instantiation, in the emulator against an f64 reference.
//!
//! [`case`] has the situations, which are the same for all kernels; `cuda` and `metal` have the launches.

mod case;
mod cuda;
mod metal;
mod mutation;
mod numbers;
mod rounding;

use std::env;

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;

use case::{CASES, Case, MANY_KEYS, Problem};
use emulator::Compiler;
use numbers::{Number, worst_error};

/// One test per kernel, head_dim and case.
pub fn trials(compiler: &Result<Compiler, String>) -> Vec<Trial> {
    let mut trials = cuda::trials(compiler);
    trials.extend(metal::trials());
    trials
}

/// Thread orders: random, ascending, descending.
const ORDERS: [u64; 3] = [17, 0, 1];

/// Whether everything runs: `EMULATED=all` in the environment.
fn is_whole() -> bool {
    env::var_os("EMULATED").is_some_and(|value| value == "all")
}

/// How many thread orders a case runs in: more where a different tile size could break it, fewer where only numbers could go
/// wrong.
fn orders_for(case: &Case) -> &'static [u64] {
    let least = if case.brief { 2 } else { 1 };
    let more = usize::from(is_whole() && case.name != MANY_KEYS.name);
    &ORDERS[..least + more]
}

/// head_dims to run: those of the tuned rows, and ones that are padded inside.
const HEAD_DIMS: [usize; 9] = [8, 32, 40, 64, 96, 128, 136, 192, 256];

/// head_dims that run every case. At the others those that a tile size can break are enough: the rest of the code is the same.
const FULL_HEAD_DIMS: [usize; 2] = [64, 128];

/// What more of them do where everything runs.
const MORE_FULL_HEAD_DIMS: [usize; 3] = [32, 40, 96];

/// The head_dim for so many keys: the least that all kernels take.
const MANY_KEYS_HEAD_DIM: usize = 40;

/// The cases to run with a head_dim.
fn cases_for(head_dim: usize) -> impl Iterator<Item = &'static Case> {
    let full = FULL_HEAD_DIMS.contains(&head_dim) || is_whole() && MORE_FULL_HEAD_DIMS.contains(&head_dim);
    let many_keys = (head_dim == MANY_KEYS_HEAD_DIM).then_some(&MANY_KEYS);
    CASES.iter().filter(move |case| case.brief || full).chain(many_keys)
}

/// What a log-sum-exp may be off by, at least: its parts are rounded to f32.
const LOG_SUM_EXP_TOLERANCE: f64 = 2e-6;

/// How a kernel rounds the operands of its products.
#[derive(Clone, Copy)]
enum Operands {
    /// 11 bits.
    F16,
    /// 8 bits.
    Bf16,
    /// 11 bits of an f32.
    Tf32,
    /// Not at all.
    F32,
}

impl Operands {
    /// The error to allow in results of order 1.
    fn tolerance<T: Number>(self, problem: &Problem<T>, expected: &[f64]) -> f64 {
        match self {
            Self::F16 => 4e-3,
            Self::Bf16 => 3e-2,
            Self::Tf32 => 5e-3,
            // Where f32 arithmetic is exact, as with a single key, products of parts may still round the last bit.
            Self::F32 => 2.0 * worst_error(&problem.reference::<f32>(), expected) + f64::from(f32::EPSILON),
        }
    }
}

/// What the launches of a call give.
pub struct Computed<T> {
    /// `[batch, tokens, heads, head_dim]`
    pub output: Vec<T>,
    /// `[batch, tokens, heads]`, empty if they are not wanted.
    pub log_sum_exp: Vec<f32>,
}

/// What a log-sum-exp may be off by: scores are rounded as products are, and their number is large.
fn check_log_sum_exp<T: Number>(problem: &Problem<T>, got: &[f32], tolerance: f64) -> Result<()> {
    let expected = problem.reference_log_sum_exp();
    ensure!(got.len() == expected.len(), "{} log-sum-exps, expected {}", got.len(), expected.len());
    for (row, (&got, &expected)) in got.iter().zip(&expected).enumerate() {
        let same = f64::from(got) == expected;
        let error = (f64::from(got) - expected).abs();
        ensure!(same || error <= tolerance, "log-sum-exp {row} is {got}, expected {expected}: off by {error:e}");
    }
    Ok(())
}

/// What `run` makes of a problem in a thread order is right, and has the same bits in each order.
fn check<T: Number>(
    case: &Case,
    head_dim: usize,
    operands: Operands,
    run: impl Fn(&Problem<T>, u64) -> Result<Computed<T>>,
) -> Result<()> {
    let problem = Problem::<T>::new(case, head_dim)?;
    let expected = problem.reference::<f64>();
    let tolerance = operands.tolerance(&problem, &expected);
    let mut first: Option<Vec<T>> = None;
    for &order in orders_for(case) {
        let Computed { output, log_sum_exp } = run(&problem, order).with_context(|| format!("thread order {order}"))?;
        check_log_sum_exp(&problem, &log_sum_exp, tolerance.max(LOG_SUM_EXP_TOLERANCE))?;
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
