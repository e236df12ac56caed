//! `sincos`: the embedding of positions.

use anyhow::Result;
use candle_mixed_attention::models::ab_upt::SinCosEmbedding;

use super::{Case, Setting, Tensors, check, parse};

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    hidden_dim: usize,
    position_dim: usize,
    max_wavelength: f64,
}

pub fn run(case: &Case, setting: &Setting) -> Result<()> {
    let config: Config = parse(&case.config)?;
    let tensors = Tensors::load(case, setting)?;
    let embedding =
        SinCosEmbedding::new(config.hidden_dim, config.position_dim, config.max_wavelength, tensors.weights())?;
    check(&tensors, setting, "out.y", &embedding.forward(tensors.raw("in.pos")?)?)
}
