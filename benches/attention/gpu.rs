//! The fused kernels on the first GPU of each kind that the build has.
//!
//! Measured is a call from the host until the device is idle again, with cold caches. Before that, sampled rows are
//! compared with f64, and the worst error is printed. `benches/peers/torch_attention.py --device cuda` measures PyTorch
//! in the same way and puts both side by side; `benches/peers/mlx_attention.py` does so with MLX on a Mac.

use std::time::{Duration, Instant};

use candle_core::{DType, Device, IndexOp, Result, Tensor};
use candle_mixed_attention::plan::KeySource;
use candle_mixed_attention::{AttentionOptions, AttentionPlan, Backend, supports};
use criterion::{Criterion, Throughput};

use crate::operands::Operands;
use crate::peers::{candle_sdpa, per_pattern};
use crate::workloads::{Workload, gpu_workloads};

/// More than any GPU's last cache.
const FLUSH_BYTES: usize = 512 << 20;

/// Rows of each query range that are compared.
const SAMPLED_ROWS: usize = 32;

/// Scores of candle's own matmul–softmax–matmul that are still worth measuring.
const PEER_PAIRS: u64 = 1 << 30;

/// Overwrites the caches of the device between two measurements.
struct ColdCaches {
    device: Device,
    buffer: Tensor,
}

impl ColdCaches {
    fn new(device: &Device) -> Result<Self> {
        Ok(Self { device: device.clone(), buffer: Tensor::zeros(FLUSH_BYTES, DType::U8, device)? })
    }

    /// The time of `run` on an idle device with cold caches, until it is idle again.
    fn time(&self, run: impl Fn() -> Result<Tensor>) -> Result<Duration> {
        self.buffer.zero_set()?;
        self.device.synchronize()?;
        let start = Instant::now();
        let output = run()?;
        self.device.synchronize()?;
        let elapsed = start.elapsed();
        drop(output);
        Ok(elapsed)
    }

    fn total(&self, iterations: u64, run: impl Fn() -> Result<Tensor>) -> Duration {
        (0..iterations).map(|_| self.time(&run).expect("the kernel runs")).sum()
    }
}

/// All groups `cuda/dtype/workload` or `metal/dtype/workload`.
pub fn launches(criterion: &mut Criterion) {
    #[cfg(feature = "cuda")]
    launches_on(criterion, "cuda", Device::new_cuda(0));
    #[cfg(feature = "metal")]
    launches_on(criterion, "metal", Device::new_metal(0));
}

fn launches_on(criterion: &mut Criterion, name: &str, device: Result<Device>) {
    let device = match device {
        Ok(device) => device,
        Err(error) => return println!("the groups '{name}' are skipped: {error}"),
    };
    if let Err(reason) = supports(&device, DType::F16, 64) {
        return println!("the groups '{name}' are skipped: {reason}");
    }
    let caches = ColdCaches::new(&device).expect("room to flush the caches");
    for dtype in [DType::F16, DType::BF16, DType::F32] {
        for workload in gpu_workloads() {
            measure(criterion, name, &caches, &workload, dtype).expect("the workload runs");
        }
    }
}

fn measure(criterion: &mut Criterion, gpu: &str, caches: &ColdCaches, workload: &Workload, dtype: DType) -> Result<()> {
    let name = format!("{gpu}/{}/{}", dtype.as_str(), workload.name);
    let operands = Operands::random(workload, dtype, &caches.device)?;
    let mut options = AttentionOptions::default().backend(Backend::Fused);
    if let Some(padding) = workload.padding()? {
        options = options.key_padding(padding);
    }
    let ours = || operands.attend(&workload.plan, &options);
    let tolerance = if dtype == DType::F32 { 1e-5 } else { 3e-2 };
    let error = worst_error(&operands, workload, &ours()?)?;
    println!("{name}: worst error of sampled rows {error:.1e}");
    assert!(error <= tolerance, "off by {error}, allowed {tolerance}");

    let mut group = criterion.benchmark_group(name);
    group.throughput(Throughput::Elements(workload.flops())).sample_size(20);
    group.bench_function("fused", |bencher| bencher.iter_custom(|iterations| caches.total(iterations, ours)));
    if dtype == DType::F32 && caches.device.is_cuda() {
        let rounded = options.clone().tf32(true);
        let tf32 = || operands.attend(&workload.plan, &rounded);
        group.bench_function("fused tf32", |bencher| bencher.iter_custom(|iterations| caches.total(iterations, tf32)));
    }
    // A plan of its own each time: cut into tiles, uploaded, launched.
    let first_call = || {
        let (tokens, patterns) = (workload.plan.tokens(), workload.plan.patterns());
        operands.attend(&AttentionPlan::new(tokens, patterns)?, &options)
    };
    group.bench_function("fused, first call", |bencher| {
        bencher.iter_custom(|iterations| caches.total(iterations, first_call));
    });
    if workload.pairs() <= PEER_PAIRS && !workload.half_padded {
        let peer = || per_pattern(&operands, workload);
        group.bench_function("candle per pattern", |bencher| {
            bencher.iter_custom(|iterations| caches.total(iterations, peer));
        });
    }
    // candle's own fused attention has a few head_dims, and masks only as tensors.
    let has_sdpa = caches.device.is_metal() && [32, 64, 96, 128].contains(&workload.head_dim());
    if has_sdpa && !workload.half_padded {
        let peer = || candle_sdpa(&operands, workload);
        group.bench_function("candle sdpa", |bencher| {
            bencher.iter_custom(|iterations| caches.total(iterations, peer));
        });
    }
    group.finish();
    Ok(())
}

/// The largest error of the first rows of each query range, against f64 on the CPU.
fn worst_error(operands: &Operands, workload: &Workload, output: &Tensor) -> Result<f64> {
    let layout = operands.cache.as_ref().map(|cache| cache.layout());
    let resolved = workload.plan.resolve(layout).map_err(candle_core::Error::wrap)?;
    let ranges = resolved.ranges();
    let padding = workload.padding()?.map(|padding| padding.to_mask(&Device::Cpu)).transpose()?;
    let wide = |tensor: &Tensor| tensor.to_device(&Device::Cpu)?.to_dtype(DType::F64)?.i(0)?.contiguous();
    let mut worst = 0f64;
    for queries in ranges.query_ranges() {
        let rows = queries.len.min(SAMPLED_ROWS);
        let keys = wide(&crate::peers::gather(operands, ranges, queries, true)?)?;
        let values = wide(&crate::peers::gather(operands, ranges, queries, false)?)?;
        let sampled = |tensor: &Tensor| wide(&tensor.narrow(2, queries.start, rows)?);
        let mut scores = (sampled(&operands.queries)?.matmul(&keys.t()?)? / (workload.head_dim() as f64).sqrt())?;
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
        let want = candle_nn::ops::softmax_last_dim(&scores)?.matmul(&values)?;
        let error = (sampled(output)? - want)?.abs()?.max_all()?.to_scalar::<f64>()?;
        // A NaN must not get lost.
        worst = if error > worst || error.is_nan() { error } else { worst };
    }
    Ok(worst)
}
