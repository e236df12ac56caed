//! One file per kind of golden case.

pub mod ab_upt;
pub mod core;
pub mod dot_product;
pub mod invalid;
pub mod mixed;
pub mod mlp;
pub mod perceiver;
pub mod perceiver_block;
pub mod pooling;
pub mod rope;
pub mod sincos;
pub mod transformer_block;
pub mod untied_linear;

use std::collections::HashMap;
use std::path::PathBuf;

use anyhow::{Context, Result, anyhow, bail};
use candle_core::{DType, Device, Tensor};
use candle_mixed_attention::{Rope, RopeConfig, RopeFrequencies};
use candle_nn::VarBuilder;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::support::backends::Runner;
use crate::support::compare::check_close;

/// A case, as the index describes it.
pub struct Case {
    pub path: PathBuf,
    pub config: Value,
    pub passes: Vec<Value>,
}

/// How to run it.
pub struct Setting {
    pub runner: Runner,
    pub dtype: DType,
    pub tolerance: f64,
}

/// Runs the cases of a kind.
pub type Run = fn(&Case, &Setting) -> Result<()>;

/// The function that runs the cases of a kind.
pub fn runner(kind: &str) -> Result<Run> {
    Ok(match kind {
        "core" => core::run,
        "rope" => rope::run,
        "mixed" => mixed::run,
        "dot_product" => dot_product::run,
        "perceiver" => perceiver::run,
        "sincos" => sincos::run,
        "mlp" => mlp::run,
        "transformer_block" => transformer_block::run,
        "perceiver_block" => perceiver_block::run,
        "untied_linear" => untied_linear::run,
        "pooling" => pooling::run,
        "ab_upt" => ab_upt::run,
        _ => return Err(anyhow!("cases of kind '{kind}' are not known")),
    })
}

/// The tensors of a case: weights and inputs in the dtype under test, positions and wave numbers in f32.
pub struct Tensors {
    all: HashMap<String, Tensor>,
    dtype: DType,
    device: Device,
}

impl Tensors {
    pub fn load(case: &Case, setting: &Setting) -> Result<Self> {
        let device = setting.runner.device.clone();
        let all = candle_core::safetensors::load(&case.path, &device)?;
        Ok(Self { all, dtype: setting.dtype, device })
    }

    /// As stored.
    pub fn raw(&self, name: &str) -> Result<&Tensor> {
        self.all.get(name).ok_or_else(|| anyhow!("the case has no tensor {name}"))
    }

    /// In the dtype under test.
    pub fn get(&self, name: &str) -> Result<Tensor> {
        let raw = self.raw(name)?;
        // candle's kernels take no empty tensors.
        match raw.elem_count() {
            0 => Ok(Tensor::zeros(raw.dims(), self.dtype, &self.device)?),
            _ => Ok(raw.to_dtype(self.dtype)?),
        }
    }

    /// The weights `w.*`, without the prefix.
    pub fn weights(&self) -> VarBuilder<'static> {
        let own = self.all.iter().filter_map(|(name, tensor)| Some((name.strip_prefix("w.")?, tensor)));
        let weights = own.map(|(name, tensor)| (name.to_string(), tensor.clone())).collect();
        VarBuilder::from_tensors(weights, self.dtype, &self.device)
    }

    /// The RoPE angles at stored positions, by the wave numbers of the case.
    pub fn frequencies(&self, config: &RopeConfig, positions: &str) -> Result<RopeFrequencies> {
        let rope = Rope::load(config, self.weights())?;
        Ok(rope.frequencies(self.raw(positions)?)?)
    }
}

/// Reads a pass, or another description that refuses unknown keys itself.
pub fn parse<T: DeserializeOwned>(value: &Value) -> Result<T> {
    serde_json::from_value(value.clone()).context("the case's description")
}

/// Reads a config that consists of a layer's own configuration and of `extra` keys, each of which is read: a key of
/// neither is an error, because a case that says more than its runner does would test something else.
pub fn parse_config<T: Serialize + DeserializeOwned, E: DeserializeOwned>(
    config: &Value,
    extra: &[&str],
) -> Result<(T, E)> {
    let Value::Object(entries) = config else { bail!("the case's config is no object: {config}") };
    let (extra, own): (Map<_, _>, Map<_, _>) =
        entries.clone().into_iter().partition(|(key, _)| extra.contains(&key.as_str()));
    let layer: T = parse(&Value::Object(own.clone()))?;
    let known = serde_json::to_value(&layer)?;
    if let Some(key) = own.keys().find(|key| known.get(key.as_str()).is_none()) {
        bail!("the case's config has a key '{key}' that nothing reads");
    }
    Ok((layer, parse(&Value::Object(extra))?))
}

/// Coordinates of the positions that a case rotates by; the wavelength is always the usual one.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rotation {
    position_dim: usize,
}

impl Rotation {
    /// For heads of this width.
    pub fn of_heads(&self, head_dim: usize) -> RopeConfig {
        RopeConfig { position_dim: self.position_dim, ..RopeConfig::new(head_dim) }
    }
}

/// Compares with a stored expectation.
pub fn check(tensors: &Tensors, setting: &Setting, name: &str, got: &Tensor) -> Result<()> {
    if got.dtype() != setting.dtype {
        return Err(anyhow!("{name} has dtype {:?}, expected {:?}", got.dtype(), setting.dtype));
    }
    check_close(name, got, tensors.raw(name)?, setting.tolerance).map_err(|error| anyhow!(error))
}
