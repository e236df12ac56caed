//! `mlp`: linear layers with an activation in between.

use anyhow::Result;
use candle_mixed_attention::models::ab_upt::{Activation, Mlp};

use super::{Case, Setting, Tensors, check, parse};

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    input_dim: usize,
    hidden_dim: usize,
    output_dim: usize,
    num_layers: usize,
    activation: Activation,
}

pub fn run(case: &Case, setting: &Setting) -> Result<()> {
    let config: Config = parse(&case.config)?;
    let tensors = Tensors::load(case, setting)?;
    let widths = (config.input_dim, config.hidden_dim, config.output_dim);
    let mlp = Mlp::new(widths, config.num_layers, config.activation, tensors.weights())?;
    check(&tensors, setting, "out.y", &mlp.forward(&tensors.get("in.x")?)?)
}
