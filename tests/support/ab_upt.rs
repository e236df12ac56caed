//! Small networks with random weights, and inputs for them.

use candle_core::{DType, Device, Result, Tensor};
use candle_mixed_attention::models::ab_upt::{AbUpt, AbUptConfig, AbUptInput, Geometry};
use candle_nn::{VarBuilder, VarMap};
use serde_json::{Value, json};

/// Perceiver, untied and tied blocks, two conditions, two domains of which one has a name that begins like the other.
pub fn config() -> Value {
    json!({
        "hidden_dim": 32, "num_heads": 2, "mlp_hidden_dim": 64, "position_dim": 3,
        "layer_scale": true,
        "physics_blocks": ["perceiver_untied", "self", "cross_untied", "joint", "perceiver"],
        "geometry_depth": 1,
        "supernode_pooling": {"hidden_dim": 32, "radius": 0.5},
        "condition": [{"name": "alpha", "dim": 1}, {"name": "inflow", "dim": 3}],
        "domains": [
            {"name": "wing", "decoder_blocks": 1, "fields": [{"name": "pressure", "dim": 1}]},
            {"name": "wing_tip", "decoder_blocks": 2, "fields": [{"name": "shear", "dim": 3}, {"name": "heat", "dim": 1}]}
        ],
        "untied_square_banks": "plain"
    })
}

pub fn parse(config: Value) -> AbUptConfig {
    serde_json::from_value(config).expect("a valid configuration")
}

/// A network whose weights are all random, also those that start as zeros or ones.
pub fn model(config: &AbUptConfig) -> Result<AbUpt> {
    AbUpt::new(config, VarBuilder::from_tensors(weights(config)?, DType::F32, &Device::Cpu))
}

/// Random weights for all tensors of a network.
pub fn weights(config: &AbUptConfig) -> Result<std::collections::HashMap<String, Tensor>> {
    let vars = VarMap::new();
    AbUpt::new(config, VarBuilder::from_varmap(&vars, DType::F32, &Device::Cpu))?;
    let vars = vars.data().lock().expect("no other thread");
    let random = |tensor: &Tensor| Tensor::randn(0f32, 0.3, tensor.dims(), &Device::Cpu);
    vars.iter().map(|(name, var)| Ok((name.clone(), random(var.as_tensor())?))).collect()
}

/// `[batch, points, 3]`
pub fn points(batch: usize, count: usize) -> Result<Tensor> {
    Tensor::rand(0f32, 1f32, (batch, count, 3), &Device::Cpu)
}

pub fn geometry(batch: u32) -> Result<Geometry> {
    let count = 20 * batch;
    let positions = Tensor::rand(0f32, 1f32, (count as usize, 3), &Device::Cpu)?;
    let samples: Vec<u32> = (0..count).map(|point| point / 20).collect();
    let supernodes: Vec<u32> = (0..count).filter(|point| point % 5 == 1).collect();
    Geometry::batched(&positions, &supernodes, &samples)
}

/// Everything that the network of [`config`] needs, except positions.
pub fn input(batch: u32) -> Result<AbUptInput> {
    let inflow = Tensor::rand(0f32, 1f32, (batch as usize, 3), &Device::Cpu)?;
    let alpha = Tensor::new(&[0.3f32], &Device::Cpu)?;
    Ok(AbUptInput::new().geometry(&geometry(batch)?).condition("inflow", &inflow).condition("alpha", &alpha))
}
