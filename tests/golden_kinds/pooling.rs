//! `pooling`: the points around each supernode in one token.

use anyhow::{Result, ensure};
use candle_core::DType;
use candle_mixed_attention::models::ab_upt::{Geometry, PoolingConfig, SupernodePooling};

use super::{Case, Setting, Tensors, check, parse_config};

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Samples {
    batch: usize,
}

pub fn run(case: &Case, setting: &Setting) -> Result<()> {
    let (config, Samples { batch }): (PoolingConfig, Samples) = parse_config(&case.config, &["batch"])?;
    let tensors = Tensors::load(case, setting)?;
    let mut geometry = geometry(&tensors, "in")?;
    ensure!(geometry.batch() == batch, "the geometry has {} samples, its config says {batch}", geometry.batch());
    if config.input_features_dim.is_some() {
        geometry = geometry.with_features(tensors.raw("in.features")?)?;
    }
    let pooling = SupernodePooling::new(&config, tensors.weights())?;
    check(&tensors, setting, "out.y", &pooling.forward(&geometry)?)
}

/// The geometry stored as `<prefix>.pos`, `<prefix>.supernodes` and `<prefix>.batch`.
pub fn geometry(tensors: &Tensors, prefix: &str) -> Result<Geometry> {
    let indices = |name: &str| Ok::<_, anyhow::Error>(tensors.raw(name)?.to_dtype(DType::U32)?.to_vec1::<u32>()?);
    let supernodes = indices(&format!("{prefix}.supernodes"))?;
    let samples = indices(&format!("{prefix}.batch"))?;
    Ok(Geometry::batched(tensors.raw(&format!("{prefix}.pos"))?, &supernodes, &samples)?)
}
