//! Several streams and threads on one device.

use std::thread;

use anyhow::{Result, anyhow, bail};
use candle_core::{DType, Device};
use candle_mixed_attention::Backend;

use crate::bench::{Bench, Test};
use crate::control::{AMPERE, HOPPER};
use crate::problem::{Problem, SPLIT};

pub const TESTS: [(&str, Test); 3] = [
    ("threads_share_a_plan", threads_share_a_plan),
    ("streams_share_a_plan", streams_share_a_plan),
    ("a_plan_outlives_the_thread_that_uploaded_it", a_plan_outlives_the_thread_that_uploaded_it),
];

/// Each thread has a stream of its own behind the same handle.
fn threads_share_a_plan(bench: &Bench) -> Result<()> {
    for number in [AMPERE, HOPPER] {
        let device = bench.device(number)?;
        let problem = Problem::new(SPLIT, 80)?;
        thread::scope(|scope| {
            let work = || -> Result<()> { (0..3).try_for_each(|_| problem.check(device, DType::F16)) };
            let threads: Vec<_> = (0..3).map(|_| scope.spawn(work)).collect();
            threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| anyhow!("a thread panicked"))?)
        })?;
    }
    Ok(())
}

/// Calls on two streams that nobody waits for in between.
fn streams_share_a_plan(_: &Bench) -> Result<()> {
    for number in [AMPERE, HOPPER] {
        let devices = [Device::new_cuda_with_stream(number)?, Device::new_cuda_with_stream(number)?];
        let problem = Problem::new(SPLIT, 90)?;
        let calls = [
            problem.on(&devices[0], DType::F16, Backend::Fused)?,
            problem.on(&devices[1], DType::F16, Backend::Fused)?,
        ];
        let mut results = Vec::new();
        for _ in 0..2 {
            results.extend([calls[0].run()?, calls[1].run()?]);
        }
        // The later ones first.
        for result in results.iter().rev() {
            problem.compare(result, DType::F16)?;
        }
    }
    Ok(())
}

/// Waits for the streams of all threads, which candle does not do.
fn synchronize(device: &Device) -> Result<()> {
    let Device::Cuda(device) = device else { bail!("not a CUDA device") };
    Ok(device.cuda_stream().context().synchronize()?)
}

/// What one thread's stream has to do may not meet what another thread frees.
fn a_plan_outlives_the_thread_that_uploaded_it(bench: &Bench) -> Result<()> {
    for number in [AMPERE, HOPPER] {
        let device = bench.device(number)?;
        let problem = Problem::new(SPLIT, 95)?;
        let run = || -> Result<_> { problem.on(device, DType::F16, Backend::Fused)?.run() };
        let Ok(result) = thread::scope(|scope| scope.spawn(run).join()) else { bail!("a thread panicked") };
        let result = result?;
        let expected = problem.clone();
        // The plan goes, with its schedule, while the launch may not have begun.
        drop(problem);
        synchronize(device)?;
        expected.compare(&result, DType::F16)?;
    }
    Ok(())
}
