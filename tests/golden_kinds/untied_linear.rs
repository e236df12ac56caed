//! `untied_linear`: a linear layer with weights of its own for every domain.

use anyhow::Result;
use candle_mixed_attention::{DomainRuns, SquareBanks, UntiedLinear};

use super::{Case, Setting, Tensors, check, parse};

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    input_dim: usize,
    output_dim: usize,
    sizes: Vec<usize>,
    bias: bool,
    square_banks: SquareBanks,
}

pub fn run(case: &Case, setting: &Setting) -> Result<()> {
    let config: Config = parse(&case.config)?;
    let tensors = Tensors::load(case, setting)?;
    let widths = (config.input_dim, config.output_dim);
    let banks = config.sizes.len();
    let layer = UntiedLinear::new(widths, banks, config.bias, config.square_banks, &tensors.weights())?;
    let runs = DomainRuns::from_sizes(&config.sizes);
    check(&tensors, setting, "out.y", &layer.forward(&tensors.get("in.x")?, &runs)?)
}
