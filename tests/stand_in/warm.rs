//! What a call asks of the driver once its plan has met its sizes.

use anyhow::{Result, ensure};
use candle_core::{DType, Tensor};
use candle_mixed_attention::{Backend, KeyPadding};

use crate::bench::{Bench, Test};
use crate::control::{AMPERE, Counts, HOPPER};
use crate::problem::{Features, PLAIN, Problem, SPLIT};

pub const TESTS: [(&str, Test); 2] = [
    ("a_warm_call_allocates_once_and_launches_once", a_warm_call_allocates_once_and_launches_once),
    ("padding_from_a_mask_on_a_device_waits_once", padding_from_a_mask_on_a_device_waits_once),
];

/// How often a warm call may call a function: without RoPE, and with it.
const LIMITS: [(&str, u64, u64); 14] = [
    ("cuMemAllocAsync", 1, 1),
    ("cuLaunchKernel", 1, 2),
    ("cuTensorMapEncodeTiled", 2, 2),
    ("cuDeviceGetAttribute", 0, 0),
    ("cuMemcpyHtoDAsync_v2", 0, 0),
    ("cuMemcpyDtoHAsync_v2", 0, 0),
    ("cuMemcpyDtoDAsync_v2", 0, 0),
    ("cuMemsetD8Async", 0, 0),
    ("cuStreamSynchronize", 0, 0),
    ("cuCtxSynchronize", 0, 0),
    ("cuModuleLoadData", 0, 0),
    ("cuModuleGetFunction", 0, 0),
    ("cuFuncSetAttribute", 0, 0),
    ("cuGetProcAddress_v2", 0, 0),
];

/// Counted beside them, for whoever reads the output.
const TOLD: [&str; 6] =
    ["", "cuCtxGetCurrent", "cuEventCreate", "cuEventDestroy_v2", "cuMemFreeAsync", "cuStreamIsCapturing"];

fn a_warm_call_allocates_once_and_launches_once(bench: &Bench) -> Result<()> {
    let calls = [PLAIN, Features { rope: true, ..PLAIN }, Features { padding: true, ..SPLIT }];
    let names: Vec<&str> = LIMITS.iter().map(|limit| limit.0).chain(TOLD).collect();
    for number in [AMPERE, HOPPER] {
        for (seed, features) in (20..).zip(calls) {
            let problem = Problem::new(features, seed)?;
            let call = problem.on(bench.device(number)?, DType::F16, Backend::Fused)?;
            let (_, first) = bench.driver.counting(&names, || call.run())?;
            let (result, warm) = bench.driver.counting(&names, || call.run())?;
            problem.compare(&result, DType::F16)?;
            let told = |counts: &Counts| -> Vec<String> {
                let called = counts.iter().filter(|(_, count)| *count > 0);
                called.map(|(name, count)| format!("{} {count}", if name.is_empty() { "all" } else { name })).collect()
            };
            println!("device {number}, {features:?}: first {:?}; warm {:?}", told(&first), told(&warm));
            for (&(name, plain, with_rope), &(_, count)) in LIMITS.iter().zip(&warm) {
                let most = if features.rope { with_rope } else { plain };
                ensure!(count <= most, "{features:?} on device {number}: {count} calls of {name}, at most {most}");
            }
            ensure!(
                first.iter().any(|&(name, count)| name == "cuMemcpyHtoDAsync_v2" && count > 0),
                "no upload is counted"
            );
        }
    }
    Ok(())
}

fn padding_from_a_mask_on_a_device_waits_once(bench: &Bench) -> Result<()> {
    let device = bench.device(AMPERE)?;
    let mut problem = Problem::new(Features { padding: true, ..PLAIN }, 30)?;
    let names = ["cuMemcpyDtoHAsync_v2", "cuStreamSynchronize", "cuCtxSynchronize", "cuMemcpyHtoDAsync_v2"];
    let mask = problem.padding.to_mask(device)?;
    let (padding, made) = bench.driver.counting(&names, || Ok(KeyPadding::from_mask(&mask)?))?;
    ensure!(made[0].1 == 1, "the mask is read once, not {made:?}");
    problem.padding = padding;
    let call = problem.on(device, DType::F16, Backend::Fused)?;
    problem.compare(&call.run()?, DType::F16)?;
    let (_, warm) =
        bench.driver.counting(&names, || -> Result<Vec<Tensor>> { (0..3).map(|_| call.run()).collect() })?;
    ensure!(warm.iter().all(|&(_, count)| count == 0), "warm calls with padding wait or copy: {warm:?}");
    Ok(())
}
