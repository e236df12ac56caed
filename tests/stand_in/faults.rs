//! Each call of the driver fails once.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use anyhow::{Result, anyhow, bail, ensure};
use candle_core::{DType, Device, Tensor};
use candle_mixed_attention::Backend;

use crate::bench::{Bench, Test};
use crate::compare::check_close;
use crate::control::{AMPERE, HOPPER, StandIn};
use crate::problem::{Call, Features, PLAIN, Problem, SPLIT};

pub const TESTS: [(&str, Test); 3] = [
    ("a_device_that_cannot_be_asked_can_be_asked_again", a_device_that_cannot_be_asked_can_be_asked_again),
    ("a_kernel_that_cannot_be_loaded_can_be_loaded_again", a_kernel_that_cannot_be_loaded_can_be_loaded_again),
    ("every_call_fails_once", every_call_fails_once),
];

/// Any code but that of a full memory.
const UNKNOWN: u32 = 999;

/// What is called where something is dropped, which cannot be an error.
const IN_DROPS: [&str; 3] = ["cuMemFreeAsync", "cuEventDestroy_v2", "cuCtxGetCurrent"];

/// What a call says when a function fails, as a part of the text.
const TOLD: [(&str, &str); 9] = [
    ("cuMemAllocAsync", "GPU memory"),
    ("cuMemcpyHtoDAsync_v2", "schedule"),
    ("cuMemsetD8Async", "GPU memory"),
    ("cuLaunchKernel", "launch"),
    ("cuTensorMapEncodeTiled", "tensor map"),
    ("cuModuleLoadData", "load"),
    ("cuModuleGetFunction", "load"),
    ("cuFuncSetAttribute", "load"),
    ("cuDeviceGetAttribute", "capab"),
];

/// Runs something again and again, with the first, second, … call of the driver failing, until it gets through without
/// such a call; `check` sees each outcome, with the function that failed.
fn each_call_fails<T>(
    driver: &StandIn,
    mut body: impl FnMut() -> Result<T>,
    mut check: impl FnMut(&str, Result<T>) -> Result<()>,
) -> Result<BTreeMap<String, usize>> {
    let mut failed = BTreeMap::new();
    for number in 1.. {
        driver.fail(number, UNKNOWN)?;
        let outcome = catch_unwind(AssertUnwindSafe(&mut body)).map_err(|_| anyhow!("a panic"));
        let name = driver.failed()?;
        driver.fail(0, 0)?;
        let outcome = outcome.map_err(|error| error.context(format!("call {number}, of {name}")))?;
        if name.is_empty() {
            outcome?;
            break;
        }
        check(&name, outcome)?;
        *failed.entry(name).or_default() += 1;
    }
    Ok(failed)
}

/// Checks that an error tells what could not be done.
fn tells(name: &str, error: &anyhow::Error) -> Result<()> {
    let text = format!("{error:#}");
    ensure!(text.contains("CUDA_ERROR_UNKNOWN"), "{name} failed, and the error is: {text}");
    if let Some((_, expected)) = TOLD.iter().find(|(function, _)| *function == name) {
        ensure!(text.contains(expected), "{name} failed, and the error does not say '{expected}': {text}");
    }
    Ok(())
}

/// The first call of all asks a GPU what it is.
fn a_device_that_cannot_be_asked_can_be_asked_again(bench: &Bench) -> Result<()> {
    for number in [AMPERE, HOPPER] {
        let device = bench.device(number)?;
        let ask = || Ok(candle_mixed_attention::supports(device, DType::F16, 64)?);
        let failed = each_call_fails(&bench.driver, ask, |name, outcome| match outcome {
            Ok(()) => bail!("{name} failed, and the device is fine"),
            Err(error) => tells(name, &error),
        })?;
        println!("device {number}: {failed:?}");
    }
    Ok(())
}

/// The first call that needs a kernel loads it; no other test runs this one.
fn a_kernel_that_cannot_be_loaded_can_be_loaded_again(bench: &Bench) -> Result<()> {
    let device = bench.device(AMPERE)?;
    let problem = Problem::new(Features { head_dim: 24, anchors: 20, ..PLAIN }, 2)?;
    let call = problem.on(device, DType::BF16, Backend::Fused)?;
    for name in ["cuModuleLoadData", "cuModuleGetFunction", "cuFuncSetAttribute"] {
        bench.driver.fail_next(name, UNKNOWN)?;
        let Err(error) = call.run() else { bail!("{name} failed, and the call went through") };
        ensure!(bench.driver.failed()? == name, "{name} was not called");
        tells(name, &error)?;
        ensure!(format!("{error:#}").contains("mixed_attention_sm80_bf16_32"), "no kernel is named: {error:#}");
    }
    problem.compare(&call.run()?, DType::BF16)
}

/// From the upload of a schedule to the end of its plan: the error tells what failed, nothing is kept, and the next call is
/// right.
fn every_call_fails_once(bench: &Bench) -> Result<()> {
    for number in [AMPERE, HOPPER] {
        let device = bench.device(number)?;
        Problem::new(SPLIT, 3)?.check(device, DType::F16)?;
        let (driver, kinds) = (&bench.driver, ["buffers", "events", "modules"]);
        let alive = || kinds.iter().map(|kind| driver.alive(number, kind)).collect::<Result<Vec<_>>>();
        let problem = Problem::new(SPLIT, 4)?;
        let expected = problem.expected(DType::F16)?;
        let call = problem.on(device, DType::F16, Backend::Fused)?;
        let mut before = alive()?;
        let body = || run_once(&problem, &call);
        let right =
            |what: &str, result: &Tensor| check_close(what, result, &expected, 4e-3).map_err(anyhow::Error::msg);
        let mut met: BTreeMap<String, usize> = BTreeMap::new();
        let failed = each_call_fails(driver, body, |name, outcome| {
            match outcome {
                Err(error) => tells(name, &error)?,
                Ok(result) => {
                    ensure!(IN_DROPS.contains(&name), "{name} failed, and the call went through");
                    right(name, &result)?;
                }
            }
            // What a drop could not do would be told by the next call.
            bench.findings()?;
            let times = met.entry(name.to_string()).or_default();
            *times += 1;
            // A kernel takes long here.
            if *times % 8 == 1 {
                right(name, &run_once(&problem, &call)?)?;
            }
            let after = alive()?;
            // What the call that failed was to free or destroy is still there; and cudarc keeps memory whose events it cannot
            // make.
            let kept = match name {
                "cuMemFreeAsync" | "cuEventCreate" | "cuCtxGetCurrent" => [1, 0, 0],
                "cuEventDestroy_v2" => [0, 1, 0],
                _ => [0, 0, 0],
            };
            let allowed = after.iter().zip(&before).zip(kept).all(|((after, before), kept)| *after <= before + kept);
            ensure!(allowed, "{name} failed: {kinds:?} {after:?}, before {before:?}");
            before = after;
            Ok(())
        })?;
        println!("device {number}: {failed:?}");
        for name in ["cuMemAllocAsync", "cuMemcpyHtoDAsync_v2", "cuLaunchKernel", "cuMemFreeAsync"] {
            ensure!(failed.contains_key(name), "{name} never failed: {failed:?}");
        }
        // Keys are split on the one, and the other takes maps.
        let own = if number == AMPERE { "cuMemsetD8Async" } else { "cuTensorMapEncodeTiled" };
        ensure!(failed.contains_key(own), "{own} never failed: {failed:?}");
    }
    Ok(())
}

/// A plan's first call, to the end of the plan; the result on the CPU.
fn run_once(problem: &Problem, call: &Call<'_>) -> Result<Tensor> {
    let plan = problem.fresh_plan()?;
    let result = call.with_plan(&plan).run()?;
    Ok(result.transpose(1, 2)?.to_device(&Device::Cpu)?.transpose(1, 2)?)
}
