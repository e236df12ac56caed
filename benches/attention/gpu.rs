//! The fused kernels on the first GPU of each kind that the build has.
//!
//! Before a contestant is timed, sampled rows are compared with f64. Measured is a call from the host until the device is
//! idle again, with cold caches; on CUDA also the device's part of it, by events. Besides criterion's report there is a
//! line for each contestant: medians of single calls, the worst error, and what the call reaches over visible pairs.
//!
//! `benches/peers/torch_attention.py --device cuda` measures PyTorch in the same way and, given these lines, puts both
//! side by side; `benches/peers/mlx_attention.py` does so with MLX on a Mac.

use std::cell::LazyCell;
use std::time::Duration;

use candle_core::{DType, Device, IndexOp, Result, Tensor};
#[cfg(feature = "metal")]
use candle_mixed_attention::kernels::metal::tiling::{self, Tiling};
use candle_mixed_attention::plan::KeySource;
use candle_mixed_attention::{AttentionOptions, AttentionPlan, Backend, supports};
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput};

use crate::device_clock::{DeviceClock, median};
use crate::operands::Operands;
use crate::peers::{candle_sdpa, gather, per_pattern};
use crate::workloads::{Workload, gpu_workloads};

/// Rows of each query range that are compared.
const SAMPLED_ROWS: usize = 32;

/// Calls that are timed by events.
const MARKED_CALLS: usize = 20;

/// Scores of candle's own matmul–softmax–matmul that are still worth measuring.
const PEER_PAIRS: u64 = 1 << 30;

/// All groups `cuda/dtype/workload` or `metal/dtype/workload`.
pub fn launches(criterion: &mut Criterion) {
    #[cfg(feature = "cuda")]
    launches_on(criterion, "cuda", Device::new_cuda(0));
    // scripts/metal-sweep.py reads it.
    #[cfg(feature = "metal")]
    if let Some(tiling) = std::env::var(tiling::CHOICE).ok().and_then(|number| Tiling::candidate(&number)) {
        println!("candidate | {}", tiling.row());
    }
    #[cfg(feature = "metal")]
    launches_on(criterion, "metal", Device::new_metal(0));
}

fn launches_on(criterion: &mut Criterion, name: &str, device: Result<Device>) {
    let device = match device {
        Ok(device) => device,
        Err(error) => {
            let reason = error.to_string();
            return println!("the groups '{name}' are skipped: {}", reason.lines().next().unwrap_or_default());
        }
    };
    if let Err(reason) = supports(&device, DType::F16, 64) {
        return println!("the groups '{name}' are skipped: {reason}");
    }
    let clock = DeviceClock::new(&device).expect("room to flush the caches");
    for dtype in [DType::F16, DType::BF16, DType::F32] {
        for workload in gpu_workloads() {
            measure(criterion, name, &clock, &workload, dtype).expect("the workload runs");
        }
    }
}

fn measure(criterion: &mut Criterion, gpu: &str, clock: &DeviceClock, workload: &Workload, dtype: DType) -> Result<()> {
    let title = format!("{gpu}/{}/{}", dtype.as_str(), workload.name);
    // Made when the first contestant is not left out.
    let operands = LazyCell::new(|| Operands::random(workload, dtype, &clock.device).expect("operands"));
    let expected = LazyCell::new(|| sampled_rows(&operands, workload).expect("the definition"));
    let mut group = criterion.benchmark_group(&title);
    group.throughput(Throughput::Elements(workload.flops())).sample_size(20);
    let mut contest = Contest { title, clock, flops: workload.flops(), expected: &expected, group };

    let mut options = AttentionOptions::default().backend(Backend::Fused);
    if let Some(padding) = workload.padding()? {
        options = options.key_padding(padding);
    }
    let tolerance = if dtype == DType::F32 { 1e-5 } else { 3e-2 };
    contest.run("fused", tolerance, || operands.attend(&workload.plan, &options));
    if dtype == DType::F32 && clock.device.is_cuda() {
        let rounded = options.clone().tf32(true);
        contest.run("fused tf32", 5e-3, || operands.attend(&workload.plan, &rounded));
    }
    // A plan of its own each time: cut into tiles, uploaded, launched.
    contest.run("fused, first call", tolerance, || {
        let (tokens, patterns) = (workload.plan.tokens(), workload.plan.patterns());
        operands.attend(&AttentionPlan::new(tokens, patterns)?, &options)
    });
    if workload.pairs() <= PEER_PAIRS && !workload.half_padded {
        contest.run("candle per pattern", 10.0 * tolerance, || per_pattern(&operands, workload));
    }
    // candle's own fused attention has a few head_dims, and masks only as tensors.
    let has_sdpa = clock.device.is_metal() && [32, 64, 96, 128].contains(&workload.head_dim());
    if has_sdpa && !workload.half_padded {
        contest.run("candle sdpa", 10.0 * tolerance, || candle_sdpa(&operands, workload));
    }
    contest.group.finish();
    Ok(())
}

/// One workload in one dtype.
struct Contest<'a, F> {
    /// `cuda/f16/A self`
    title: String,
    clock: &'a DeviceClock,
    /// Of the two products over visible pairs.
    flops: u64,
    /// Rows of the output that all must agree with.
    expected: &'a LazyCell<Vec<Rows>, F>,
    group: BenchmarkGroup<'a, WallTime>,
}

impl<F: FnOnce() -> Vec<Rows>> Contest<'_, F> {
    /// Checks a contestant, times it, and prints its line.
    fn run(&mut self, name: &str, tolerance: f64, call: impl Fn() -> Result<Tensor>) {
        let (clock, expected, title) = (self.clock, self.expected, &self.title);
        let (mut error, mut times) = (None, Vec::new());
        self.group.bench_function(name, |bencher| {
            error.get_or_insert_with(|| {
                let error = call().and_then(|output| worst_error(expected, &output)).expect("the call runs");
                assert!(error <= tolerance, "{title}, {name}: off by {error}, allowed {tolerance}");
                error
            });
            bencher.iter_custom(|iterations| {
                let before = times.len();
                times.extend((0..iterations).map(|_| clock.call(&call).expect("the call runs")));
                times[before..].iter().sum()
            });
        });
        // Nothing is known of one that the command line leaves out.
        let (Some(error), Some(whole)) = (error, median(times)) else { return };
        let marked: Option<Vec<Duration>> =
            (0..MARKED_CALLS).map(|_| clock.work(&call).expect("the call runs")).collect();
        let microseconds = |time: Duration| format!("{:.3} µs", time.as_secs_f64() * 1e6);
        println!(
            "{title} | {name} | median {} | device {} | error {error:.1e} | {:.2} TFLOP/s",
            microseconds(whole),
            marked.and_then(median).map_or("-".to_string(), microseconds),
            self.flops as f64 / whole.as_secs_f64() * 1e-12,
        );
    }
}

/// The first rows of a query range.
struct Rows {
    start: usize,
    /// `[heads, rows, head_dim]` in f64 on the CPU.
    values: Tensor,
}

/// In f64 on the CPU, without the batch. A copy on the device goes first: candle moves the whole storage of a view.
fn wide(tensor: &Tensor) -> Result<Tensor> {
    tensor.i(0)?.force_contiguous()?.to_device(&Device::Cpu)?.to_dtype(DType::F64)
}

/// The definition for the first rows of each query range.
fn sampled_rows(operands: &Operands, workload: &Workload) -> Result<Vec<Rows>> {
    let layout = operands.cache.as_ref().map(|cache| cache.layout());
    let resolved = workload.plan.resolve(layout).map_err(candle_core::Error::wrap)?;
    let ranges = resolved.ranges();
    let padding = workload.padding()?.map(|padding| padding.to_mask(&Device::Cpu)).transpose()?;
    let sampled = ranges.query_ranges().iter().map(|queries| {
        let rows = queries.len.min(SAMPLED_ROWS);
        let keys = wide(&gather(operands, ranges, queries, true)?)?;
        let values = wide(&gather(operands, ranges, queries, false)?)?;
        let asking = wide(&operands.queries.narrow(2, queries.start, rows)?)?;
        let mut scores = (asking.matmul(&keys.t()?)? / (workload.head_dim() as f64).sqrt())?;
        if let Some(mask) = &padding {
            let real = ranges.keys_of(queries).iter().map(|range| match range.source {
                KeySource::Input => mask.narrow(1, range.start, range.len),
                KeySource::Cache => candle_core::bail!("no workload pads a cache"),
            });
            let real =
                Tensor::cat(&real.collect::<Result<Vec<_>>>()?, 1)?.unsqueeze(0)?.broadcast_as(scores.shape())?;
            let hidden = Tensor::full(f64::NEG_INFINITY, scores.shape(), &Device::Cpu)?;
            scores = real.where_cond(&scores, &hidden)?;
        }
        let values = candle_nn::ops::softmax_last_dim(&scores)?.matmul(&values)?;
        Ok(Rows { start: queries.start, values })
    });
    sampled.collect()
}

/// The largest difference of an output `[1, heads, tokens, head_dim]` to the expected rows.
fn worst_error(expected: &[Rows], output: &Tensor) -> Result<f64> {
    let mut worst = 0f64;
    for rows in expected {
        let got = wide(&output.narrow(2, rows.start, rows.values.dim(1)?)?)?;
        let error = (got - &rows.values)?.abs()?.max_all()?.to_scalar::<f64>()?;
        // A NaN must not get lost.
        worst = if error > worst || error.is_nan() { error } else { worst };
    }
    Ok(worst)
}
