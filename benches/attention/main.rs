//! Mixed attention against its in-process peers, by layer, dtype, number of threads and workload.
//!
//! ```text
//! cargo bench --bench attention                             everything: about half an hour
//! cargo bench --bench attention -- 'core/f32/1 thread'      one part
//! MIXED_ATTENTION_SIMD=avx2 cargo bench --bench attention   another instruction set
//! ```
//!
//! Every result is checked against the reference before it is timed. Besides criterion's report there is a line for each
//! contestant with its best CPU and wall time, GFLOP/s of the two products over visible pairs (by CPU time on one thread,
//! which other work on the machine disturbs less), and their fraction of the peak: a loop of the kernel's multiply-adds,
//! measured beside each workload.
//!
//! With `ATTENTION_EXPORT=FOLDER` nothing is measured: layers, inputs and results are written for
//! `benches/peers/torch_attention.py`, which runs the same in PyTorch.
//!
//! With the feature `cuda` or `metal`, and `-- cuda/` or `-- metal/` to run nothing else, the groups of [`gpu`] measure
//! the first such GPU.

mod clock;
mod contest;
#[cfg(any(feature = "cuda", feature = "metal"))]
mod device_clock;
mod export;
#[cfg(any(feature = "cuda", feature = "metal"))]
mod gpu;
mod operands;
mod peak;
mod peers;
mod workloads;

use std::cell::LazyCell;
use std::hint::black_box;
use std::path::Path;
use std::sync::LazyLock;

use candle_core::{DType, Device, Result, Tensor};
use candle_mixed_attention::plan::TileShape;
use candle_mixed_attention::{AttentionOptions, AttentionPattern, AttentionPlan, Backend, TokenSpec};
use criterion::{Criterion, criterion_group};
use rayon::{ThreadPool, ThreadPoolBuilder};

use contest::{Contest, Contestant};
use operands::{Layer, Operands};
use workloads::{Workload, workloads};

/// Numbers of threads that are measured.
const THREADS: [usize; 2] = [1, 2];

fn pool(threads: usize) -> ThreadPool {
    ThreadPoolBuilder::new().num_threads(threads).build().expect("a thread pool")
}

/// Tolerance against the reference of the same dtype, for outputs of order 1.
fn tolerance(dtype: DType) -> f32 {
    if dtype == DType::F32 { 1e-5 } else { 3e-2 }
}

fn on(backend: Backend) -> AttentionOptions {
    AttentionOptions::default().backend(backend)
}

/// Runs one workload of a layer for every number of threads.
fn compare(
    criterion: &mut Criterion,
    layer: &str,
    dtype: DType,
    workload: &Workload,
    reference: impl FnOnce() -> Result<Tensor>,
    contestants: &[Contestant<'_>],
) {
    let reference = LazyCell::new(|| reference().expect("the reference runs"));
    for threads in THREADS {
        let noun = if threads == 1 { "thread" } else { "threads" };
        let title = format!("{layer}/{}/{threads} {noun}/{}", dtype.as_str(), workload.name);
        let (pool, flops) = (pool(threads), workload.flops());
        let contest = Contest { title, dtype, threads, pool: &pool, flops, reference: &reference };
        contest.run(criterion, contestants);
    }
}

/// Attention alone, on views of a fused projection.
fn core(criterion: &mut Criterion) {
    for dtype in [DType::F32, DType::BF16] {
        for workload in workloads() {
            let operands = LazyLock::new(|| Operands::random(&workload, dtype, &Device::Cpu).expect("operands"));
            let tolerance = tolerance(dtype);
            let fused = || operands.attend(&workload.plan, &on(Backend::Fused));
            let per_pattern = || peers::per_pattern(&operands, &workload);
            let flash = || peers::candle_flash(&operands, &workload);
            let contestants = [
                Contestant { name: "fused", tolerance, run: &fused },
                Contestant { name: "candle per pattern", tolerance: 10.0 * tolerance, run: &per_pattern },
                Contestant { name: "candle_nn flash", tolerance: 10.0 * tolerance, run: &flash },
            ];
            let reference = || operands.attend(&workload.plan, &on(Backend::Reference));
            compare(criterion, "core", dtype, &workload, reference, &contestants);
        }
    }
}

/// The layer with its projections.
fn module(criterion: &mut Criterion) {
    for dtype in [DType::F32, DType::BF16] {
        for workload in workloads() {
            let layer = LazyLock::new(|| Layer::random(&workload, dtype).expect("a layer"));
            // Projections carry the rounding of their input on.
            let tolerance = 3.0 * tolerance(dtype);
            let fused = || layer.forward(&workload, &on(Backend::Fused));
            let per_pattern = || layer.forward_around(&workload, peers::per_pattern);
            let flash = || layer.forward_around(&workload, peers::candle_flash);
            let contestants = [
                Contestant { name: "fused", tolerance, run: &fused },
                Contestant { name: "candle per pattern", tolerance: 10.0 * tolerance, run: &per_pattern },
                Contestant { name: "candle_nn flash", tolerance: 10.0 * tolerance, run: &flash },
            ];
            let reference = || layer.forward(&workload, &on(Backend::Reference));
            compare(criterion, "module", dtype, &workload, reference, &contestants);
        }
    }
}

/// Planning a pass, and asking a plan again for its schedule.
fn plan(criterion: &mut Criterion) {
    let tokens: Vec<TokenSpec> = (0..1000).map(|group| TokenSpec::new(format!("group_{group}"), 100)).collect();
    let patterns: Vec<AttentionPattern> = (0..1000)
        .map(|group: usize| {
            let keys = [format!("group_{group}"), format!("group_{}", (group + 1) % 1000)];
            AttentionPattern::queries([format!("group_{group}")]).attend_to(keys)
        })
        .collect();
    let mut group = criterion.benchmark_group("plan");
    let make = || AttentionPlan::new(tokens.as_slice(), patterns.as_slice()).expect("a valid plan");
    let tile = TileShape { queries: 192, keys: 128 };
    let schedule = |plan: &AttentionPlan| plan.resolve(None).expect("no cache is needed").schedule(1, 3, tile, 2);
    group.bench_function("1000 groups", |bencher| bencher.iter(|| black_box(make())));
    group.bench_function("1000 groups and their schedule", |bencher| bencher.iter(|| black_box(schedule(&make()))));
    let plan = make();
    group.bench_function("cached schedule of 1000 groups", |bencher| bencher.iter(|| black_box(schedule(&plan))));
    group.finish();
}

#[cfg(any(feature = "cuda", feature = "metal"))]
criterion_group!(benches, plan, core, module, gpu::launches);
#[cfg(not(any(feature = "cuda", feature = "metal")))]
criterion_group!(benches, plan, core, module);

fn main() -> Result<()> {
    if let Some(folder) = std::env::var_os("ATTENTION_EXPORT") {
        return export::layers(Path::new(&folder));
    }
    benches();
    Criterion::default().configure_from_args().final_summary();
    Ok(())
}
