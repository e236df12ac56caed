//! Mixed attention against its in-process peers, per workload, dtype and number of threads.
//!
//! `cargo bench --bench attention`; `RAYON_NUM_THREADS=1` measures one thread. Every result is checked against the
//! reference before it is timed. GFLOP/s count the two products over visible pairs. With the feature `cuda` or
//! `metal`, and `-- cuda/` or `-- metal/` to run nothing else, the groups of [`gpu`] measure the first such GPU.

#[cfg(any(feature = "cuda", feature = "metal"))]
mod gpu;
mod peers;
mod workloads;

use std::hint::black_box;

use candle_core::{DType, Device, Result, Tensor};
use candle_mixed_attention::{
    AttentionOptions, AttentionPlan, Backend, KvCache, MixedAttention, MixedAttentionConfig, mixed_attention,
    mixed_attention_cached,
};
use candle_nn::{VarBuilder, VarMap};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use workloads::{Workload, workloads};

/// Random operands of a workload: views of one fused projection, and the cache.
pub struct Operands {
    pub queries: Tensor,
    pub keys: Tensor,
    pub values: Tensor,
    pub cache: Option<KvCache>,
}

impl Operands {
    fn new(workload: &Workload, dtype: DType, device: &Device) -> Result<Self> {
        let (tokens, heads, head_dim) = (workload.plan.len(), workload.num_heads, workload.head_dim());
        let all = Tensor::randn(0f32, 1., (1, tokens, 3, heads, head_dim), device)?.to_dtype(dtype)?;
        let view = |part| all.narrow(2, part, 1)?.squeeze(2)?.transpose(1, 2);
        let random = |size| Tensor::randn(0f32, 1., (1, heads, size, head_dim), device)?.to_dtype(dtype);
        let groups = workload.cached.iter().map(|(name, size)| Ok((name.clone(), random(*size)?, random(*size)?)));
        let groups = groups.collect::<Result<Vec<_>>>()?;
        let cache = if groups.is_empty() { None } else { Some(KvCache::from_groups(groups, None)?) };
        Ok(Self { queries: view(0)?, keys: view(1)?, values: view(2)?, cache })
    }

    fn run(&self, plan: &AttentionPlan, options: &AttentionOptions) -> Result<Tensor> {
        match &self.cache {
            None => mixed_attention(&self.queries, &self.keys, &self.values, plan, options),
            Some(cache) => mixed_attention_cached(&self.queries, None, cache, plan, options),
        }
    }
}

/// Stops the benchmark if a result is wrong: a fast wrong answer is worth nothing.
fn assert_agrees(name: &str, got: &Tensor, want: &Tensor, tolerance: f32) {
    let worst = |got: &Tensor, want: &Tensor| -> Result<f32> {
        (got.to_dtype(DType::F32)? - want.to_dtype(DType::F32)?)?.abs()?.max_all()?.to_scalar::<f32>()
    };
    let worst = worst(got, want).expect("shapes agree");
    assert!(worst <= tolerance, "{name}: off by {worst}, allowed {tolerance}");
}

fn core(criterion: &mut Criterion) {
    for dtype in [DType::F32, DType::BF16] {
        for workload in workloads() {
            let operands = Operands::new(&workload, dtype, &Device::Cpu).expect("operands");
            let fused = AttentionOptions::default().backend(Backend::Fused);
            let reference = AttentionOptions::default().backend(Backend::Reference);
            let want = operands.run(&workload.plan, &reference).expect("the reference runs");
            let tolerance = if dtype == DType::F32 { 1e-5 } else { 3e-2 };
            let mut group = criterion.benchmark_group(format!("core/{}/{}", dtype.as_str(), workload.name));
            group.throughput(Throughput::Elements(workload.flops())).sample_size(10);

            let ours = || operands.run(&workload.plan, &fused).expect("the kernel runs");
            assert_agrees("fused", &ours(), &want, tolerance);
            group.bench_function("fused", |bencher| bencher.iter(|| black_box(ours())));

            let per_pattern = || peers::per_pattern(&operands, &workload).expect("the peer runs");
            assert_agrees("candle per pattern", &per_pattern(), &want, 10.0 * tolerance);
            group.bench_function("candle per pattern", |bencher| bencher.iter(|| black_box(per_pattern())));

            if dtype == DType::F32 {
                let flash = || peers::candle_flash(&operands, &workload).expect("the peer runs");
                assert_agrees("candle_nn flash", &flash(), &want, 10.0 * tolerance);
                group.bench_function("candle_nn flash", |bencher| bencher.iter(|| black_box(flash())));
            }
            group.finish();
        }
    }
}

fn module(criterion: &mut Criterion) {
    for workload in workloads() {
        let operands = Operands::new(&workload, DType::F32, &Device::Cpu).expect("operands");
        let vars = VarMap::new();
        let vb = VarBuilder::from_varmap(&vars, DType::F32, &Device::Cpu);
        let config = MixedAttentionConfig::new(workload.hidden_dim, workload.num_heads);
        let layer = MixedAttention::new(&config, vb).expect("a layer");
        let shape = (1, workload.plan.len(), workload.hidden_dim);
        let x = Tensor::randn(0f32, 1., shape, &Device::Cpu).expect("an input");
        let options = AttentionOptions::default().backend(Backend::Fused);
        let forward = || match &operands.cache {
            None => layer.forward(&x, &workload.plan, &options),
            Some(cache) => layer.forward_cached(&x, &workload.plan, cache, &options),
        };
        let mut group = criterion.benchmark_group(format!("module/f32/{}", workload.name));
        group.throughput(Throughput::Elements(workload.flops())).sample_size(10);
        group.bench_function("fused", |bencher| bencher.iter(|| black_box(forward().expect("the layer runs"))));
        group.finish();
    }
}

fn plan(criterion: &mut Criterion) {
    use candle_mixed_attention::{AttentionPattern, TokenSpec};
    let tokens: Vec<TokenSpec> = (0..1000).map(|group| TokenSpec::new(format!("group_{group}"), 100)).collect();
    let patterns: Vec<AttentionPattern> = (0..1000)
        .map(|group: usize| {
            let keys = [format!("group_{group}"), format!("group_{}", (group + 1) % 1000)];
            AttentionPattern::queries([format!("group_{group}")]).attend_to(keys)
        })
        .collect();
    let mut group = criterion.benchmark_group("plan");
    let make = || AttentionPlan::new(tokens.as_slice(), patterns.as_slice()).expect("a valid plan");
    group.bench_function("1000 groups", |bencher| bencher.iter(|| black_box(make())));
    let plan = make();
    let tile = candle_mixed_attention::plan::TileShape { queries: 192, keys: 128 };
    let cached = || plan.resolve(None).expect("no cache is needed").schedule(1, 3, tile, 2);
    group.bench_function("cached schedule of 1000 groups", |bencher| bencher.iter(|| black_box(cached())));
    group.finish();
}

#[cfg(any(feature = "cuda", feature = "metal"))]
criterion_group!(benches, plan, core, module, gpu::launches);
#[cfg(not(any(feature = "cuda", feature = "metal")))]
criterion_group!(benches, plan, core, module);
criterion_main!(benches);
