//! Odd calls of an AB-UPT and its parts, case by case: what is refused and with which words, what works and gives what.
//!
//! The cases are those in which the published PyTorch package is known to refuse, crash, or be silently wrong, and
//! everything that comes from a file or a caller and can be wrong; the table in the documentation of `models::ab_upt`
//! lists where this crate differs on purpose.

mod blocks;
mod caches;
mod calls;
mod checkpoints;
mod files;
mod pooling;
#[path = "../support/mod.rs"]
mod support;
mod untied;
mod weights;

use candle_core::{DType, Device, Result, Tensor};
use candle_nn::{VarBuilder, VarMap};
use support::compare::check_close;

/// Rounding of two f32 paths to the same numbers.
const ROUNDING: f64 = 2e-5;

fn same(case: &str, got: &Tensor, want: &Tensor) {
    check_close(case, got, want, ROUNDING).unwrap_or_else(|message| panic!("{message}"));
}

/// Whether two results differ by much more than rounding.
fn differs(got: &Tensor, want: &Tensor) -> bool {
    check_close("", got, want, 1e-3).is_err()
}

fn random(shape: &[usize]) -> Result<Tensor> {
    Tensor::randn(0f32, 1., shape, &Device::Cpu)
}

/// Weights that candle draws.
fn drawn_weights() -> (VarMap, VarBuilder<'static>) {
    let vars = VarMap::new();
    let vb = VarBuilder::from_varmap(&vars, DType::F32, &Device::Cpu);
    (vars, vb)
}

#[test]
fn errors_hold_no_backtrace_where_the_environment_asks_for_one() {
    support::refusal::again_with_backtraces("errors_hold_no_backtrace");
}
