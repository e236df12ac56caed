//! Calls in CUDA graphs.

use anyhow::{Context, Result, bail, ensure};
use candle_core::cuda::cudarc::driver::sys::{CUgraphInstantiate_flags, CUstreamCaptureMode};
use candle_core::{DType, Device};
use candle_mixed_attention::Backend;

use crate::bench::{Bench, Test};
use crate::control::{AMPERE, HOPPER};
use crate::problem::{Features, PLAIN, Problem, SPLIT};

pub const TESTS: [(&str, Test); 2] = [
    ("the_first_call_is_refused_in_a_capture", the_first_call_is_refused_in_a_capture),
    ("a_graph_of_a_warm_call_is_replayed", a_graph_of_a_warm_call_is_replayed),
];

const CALLS: [Features; 2] = [PLAIN, SPLIT];

type Graph = candle_core::cuda::cudarc::driver::CudaGraph;

/// The result of something that runs in a capture, and the graph.
fn captured<T>(device: &Device, body: impl FnOnce() -> Result<T>) -> Result<(Result<T>, Option<Graph>)> {
    let Device::Cuda(cuda) = device else { bail!("not a CUDA device") };
    let stream = cuda.cuda_stream();
    stream.begin_capture(CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_GLOBAL)?;
    let result = body();
    Ok((result, stream.end_capture(CUgraphInstantiate_flags(0))?))
}

fn the_first_call_is_refused_in_a_capture(bench: &Bench) -> Result<()> {
    for number in [AMPERE, HOPPER] {
        let device = bench.device(number)?;
        for (seed, features) in (40..).zip(CALLS) {
            let problem = Problem::new(features, seed)?;
            let call = problem.on(device, DType::F16, Backend::Fused)?;
            let (refused, _) = captured(device, || call.run())?;
            let Err(error) = refused else { bail!("{features:?}: the first call was captured") };
            let expected = "run the plan once before capturing";
            ensure!(format!("{error:#}").contains(expected), "{features:?}: {error:#}");
            problem.compare(&call.run()?, DType::F16)?;
        }
    }
    Ok(())
}

fn a_graph_of_a_warm_call_is_replayed(bench: &Bench) -> Result<()> {
    for number in [AMPERE, HOPPER] {
        let device = bench.device(number)?;
        for (seed, features) in (50..).zip(CALLS) {
            let problem = Problem::new(features, seed)?;
            let call = problem.on(device, DType::F16, Backend::Fused)?;
            call.run()?;
            let (result, graph) = captured(device, || call.run())?;
            let (result, graph) = (result?, graph.context("a graph")?);
            graph.launch()?;
            problem.compare(&result, DType::F16)?;
            // Other queries at the same addresses.
            let other = Problem::new(features, seed + 100)?.on(device, DType::F16, Backend::Fused)?.operands[0].clone();
            call.operands[0].slice_set(&other, 0, 0)?;
            let launches = bench.driver.launches("candle")?;
            let want = problem.with_queries(&other.to_device(&Device::Cpu)?.to_dtype(DType::F32)?);
            graph.launch()?;
            graph.launch()?;
            want.compare(&result, DType::F16)?;
            ensure!(bench.driver.launches("candle")? == launches, "a graph holds kernels of candle's");
        }
    }
    Ok(())
}
