//! What is kept and what is freed.

use anyhow::{Result, bail, ensure};
use candle_core::DType;
use candle_mixed_attention::Backend;

use crate::bench::{Bench, Test};
use crate::control::{AMPERE, HOPPER};
use crate::problem::{Features, Problem, SPLIT};

pub const TESTS: [(&str, Test); 2] = [
    ("a_plan_takes_its_memory_along", a_plan_takes_its_memory_along),
    ("memory_that_runs_out_is_an_error_and_no_leak", memory_that_runs_out_is_an_error_and_no_leak),
];

const CALL: Features = Features { padding: true, ..SPLIT };

fn a_plan_takes_its_memory_along(bench: &Bench) -> Result<()> {
    for number in [AMPERE, HOPPER] {
        let device = bench.device(number)?;
        let alive = |kind| bench.driver.alive(number, kind);
        // Kernels, and what candle keeps.
        Problem::new(CALL, 60)?.check(device, DType::F16)?;
        let before = (alive("buffers")?, alive("events")?, alive("modules")?);
        for seed in 61..64 {
            let problem = Problem::new(CALL, seed)?;
            let call = problem.on(device, DType::F16, Backend::Fused)?;
            let first = call.run()?;
            let kept = alive("bytes")?;
            drop(call.run()?);
            ensure!(alive("bytes")? == kept, "a second call keeps memory besides its result");
            drop((first, call));
            drop(problem);
            let now = (alive("buffers")?, alive("events")?, alive("modules")?);
            ensure!(now == before, "device {number}: {now:?} buffers, events and modules are alive, {before:?} before");
        }
    }
    Ok(())
}

/// A device with so little memory that a call gets as far as it can, for every amount from nothing to enough.
fn memory_that_runs_out_is_an_error_and_no_leak(bench: &Bench) -> Result<()> {
    const WHOLE: usize = 2 << 30;
    let (number, device) = (AMPERE, bench.device(AMPERE)?);
    let mut refused = 0;
    for free in (0..).map(|step| step * 16_000) {
        let problem = Problem::new(CALL, 70)?;
        let call = problem.on(device, DType::F16, Backend::Fused)?;
        let before = bench.driver.alive(number, "bytes")?;
        bench.driver.set_capacity(number, before as usize + free)?;
        let result = call.run();
        let after = bench.driver.alive(number, "bytes")?;
        bench.driver.set_capacity(number, WHOLE)?;
        match result {
            Ok(result) => {
                problem.compare(&result, DType::F16)?;
                break;
            }
            Err(error) => {
                let text = format!("{error:#}");
                ensure!(text.contains("OUT_OF_MEMORY") && text.contains("GPU memory"), "{free} bytes: {text}");
                ensure!(after <= before + free as u64, "more memory than there is");
                refused += 1;
            }
        }
        // The next call finds a device that works.
        problem.compare(&call.run()?, DType::F16)?;
        if free > 10 << 20 {
            bail!("10 MiB are not enough");
        }
    }
    ensure!(refused > 1, "nothing was refused");
    Ok(())
}
