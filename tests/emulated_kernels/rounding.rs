//! Rounding errors of sums over many keys, beside those of the usual loops in f32.

use anyhow::{Result, ensure};
use half::{bf16, f16};
use libtest_mimic::Trial;

use super::case::{self, Case, Problem};
use super::is_whole;
use super::numbers::Number;
use long_sums::{CASES, Data, rms};

#[path = "../support/long_sums.rs"]
mod long_sums;

/// An element type and how it is rounded in memory.
pub trait Rounded: Number {
    fn round(number: f32) -> f32 {
        Self::from_f64(number.into()).to_f64() as f32
    }
}

impl Rounded for f16 {}
impl Rounded for bf16 {}
impl Rounded for f32 {}

/// How large the root of the mean squared error may be, in that of the usual loops. Where scores are far apart, a few keys
/// decide, and what counts is how their products are rounded: no better or worse, but otherwise.
fn allowed(scores: f32) -> f64 {
    if scores > 1.0 { 1.3 } else { 1.03 }
}

/// The sizes to run, and the names of the cases of `long_sums`: errors that do not cancel, unless everything runs.
fn situations() -> impl Iterator<Item = (&'static Case, (&'static str, f32, bool))> {
    let sizes = case::LONG_SUMS.iter().filter(|size| is_whole() || size.name == "16384_keys");
    let wanted = |(_, scores, one_sign): &(&str, f32, bool)| is_whole() || *one_sign && *scores <= 1.0;
    sizes.flat_map(move |size| CASES.into_iter().filter(wanted).map(move |case| (size, case)))
}

/// One test per situation for a kernel of this name.
pub fn trials<T: Rounded>(
    kernel: &str,
    head_dim: usize,
    trial: impl Fn(&str, Box<dyn FnOnce() -> Result<()> + Send>) -> Trial,
    run: impl Fn(&Problem<T>) -> Result<Vec<T>> + Copy + Send + 'static,
) -> Vec<Trial> {
    let named = |(size, case): (&'static Case, (&'static str, f32, bool))| {
        let name = format!("rounding::{kernel}::head_dim_{head_dim}::{}_{}", size.name, case.0.replace(' ', "_"));
        trial(&name, Box::new(move || check(size, case, head_dim, run)))
    };
    situations().map(named).collect()
}

fn check<T: Rounded>(
    size: &Case,
    (_, scores, one_sign): (&str, f32, bool),
    head_dim: usize,
    run: impl Fn(&Problem<T>) -> Result<Vec<T>>,
) -> Result<()> {
    let mut problem = Problem::<T>::new(size, head_dim)?;
    let (queries, keys) = (problem.tokens, problem.cached_keys.len() / head_dim);
    let data = Data::new((queries, keys, head_dim), scores, one_sign, T::round);
    problem.set_rows(&data.queries, &data.keys, &data.values);
    let want = data.exact();
    let usual = rms(&data.usual(), &want);
    let got: Vec<f64> = run(&problem)?.into_iter().map(Number::to_f64).collect();
    let ratio = rms(&got, &want) / usual;
    println!("{keys} keys, standard deviation {scores}: {ratio:.2} of the usual error {usual:.2e}");
    ensure!(ratio <= allowed(scores), "{ratio:.3} of the usual error {usual:e}");
    Ok(())
}
