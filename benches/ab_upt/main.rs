//! The whole AB-UPT network: a first pass, a later pass by its cache, and the geometry encoder on a large mesh.
//!
//! `cargo bench --bench ab_upt`; `RAYON_NUM_THREADS=1` measures one thread. With `AB_UPT_EXPORT=FOLDER` nothing is
//! measured: network, inputs and results are written for `benches/peers/torch_ab_upt.py`, which runs the same in PyTorch.

mod network;

use std::collections::HashMap;
use std::hint::black_box;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use candle_mixed_attention::models::ab_upt::{PoolingConfig, SupernodePooling};
use candle_nn::VarBuilder;
use criterion::{Criterion, Throughput};
use network::{CONFIG, DOMAINS, Inputs, Network, QUERIES, geometry};

/// Points and supernodes of the large mesh.
const LARGE: (usize, usize) = (65_536, 16_384);

/// How far the later pass may be from the first.
const ROUNDING: f32 = 1e-4;

fn main() -> anyhow::Result<()> {
    let (network, inputs) = (Network::new()?, Inputs::new()?);
    if let Some(folder) = std::env::var_os("AB_UPT_EXPORT") {
        return export(&network, &inputs, Path::new(&folder));
    }
    let mut criterion = Criterion::default().sample_size(10).configure_from_args();
    passes(&mut criterion, &network, &inputs)?;
    pooling(&mut criterion)?;
    criterion.final_summary();
    Ok(())
}

fn passes(criterion: &mut Criterion, network: &Network, inputs: &Inputs) -> anyhow::Result<()> {
    let (model, input) = (&network.model, inputs.first_pass());
    let first = model.forward(&input)?;
    let later = model.forward_from_cache(inputs.later_queries(), &first.cache)?;
    for (name, values) in later.iter() {
        let worst = (values - first.fields.get(name)?)?.abs()?.max_all()?.to_scalar::<f32>()?;
        anyhow::ensure!(worst <= ROUNDING, "{name}: the passes differ by {worst}");
    }
    let mut group = criterion.benchmark_group("ab_upt");
    group.throughput(Throughput::Elements((DOMAINS.len() * QUERIES) as u64));
    group.bench_function("first pass", |bencher| bencher.iter(|| black_box(model.forward(&input))));
    group.bench_function("later pass", |bencher| {
        bencher.iter(|| black_box(model.forward_from_cache(inputs.later_queries(), &first.cache)));
    });
    group.finish();
    Ok(())
}

fn pooling(criterion: &mut Criterion) -> anyhow::Result<()> {
    let config: PoolingConfig = serde_json::from_str(r#"{"hidden_dim": 192, "radius": 12.5}"#)?;
    let pooling = SupernodePooling::new(&config, VarBuilder::zeros(DType::F32, &Device::Cpu))?;
    let (points, supernodes) = LARGE;
    let geometry = geometry(points, supernodes)?;
    let mut group = criterion.benchmark_group("supernode pooling");
    group.throughput(Throughput::Elements(points as u64));
    group.bench_function(format!("{points} points, {supernodes} supernodes"), |bencher| {
        bencher.iter(|| black_box(pooling.forward(&geometry)));
    });
    group.finish();
    Ok(())
}

/// Writes `config.json`, `weights.safetensors` and `case.safetensors`: the inputs and the fields of the first pass.
fn export(network: &Network, inputs: &Inputs, folder: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder)?;
    std::fs::write(folder.join("config.json"), CONFIG)?;
    candle_core::safetensors::save(&network.weights, folder.join("weights.safetensors"))?;
    let supernodes: Vec<i64> = inputs.geometry.supernodes().iter().map(|&index| i64::from(index)).collect();
    let mut case = HashMap::from([
        ("geometry.positions".to_string(), inputs.geometry.positions().clone()),
        ("geometry.supernodes".to_string(), Tensor::new(supernodes, &Device::Cpu)?),
    ]);
    for ((domain, anchors), queries) in DOMAINS.iter().zip(&inputs.anchors).zip(&inputs.queries) {
        case.insert(format!("anchors.{domain}"), anchors.clone());
        case.insert(format!("queries.{domain}"), queries.clone());
    }
    for (name, values) in network.model.forward(&inputs.first_pass())?.fields.iter() {
        case.insert(format!("fields.{name}"), values.contiguous()?);
    }
    candle_core::safetensors::save(&case, folder.join("case.safetensors"))?;
    Ok(())
}
