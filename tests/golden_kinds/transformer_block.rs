//! `transformer_block`: self attention and feed-forward layer, with norms, modulation and layer scale.

use anyhow::{Result, ensure};
use candle_mixed_attention::DotProductAttention;
use candle_mixed_attention::models::ab_upt::{BlockKeys, TransformerBlock, TransformerBlockConfig};

use super::{Case, Rotation, Setting, Tensors, check, parse_config};

/// What the description of a block has besides its own configuration.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Extra {
    position_dim: usize,
    /// Always null: only perceiver blocks have a source.
    kv_dim: Option<usize>,
}

pub fn run(case: &Case, setting: &Setting) -> Result<()> {
    let (config, extra): (TransformerBlockConfig, Extra) = parse_config(&case.config, &["position_dim", "kv_dim"])?;
    ensure!(extra.kv_dim.is_none(), "a transformer block has no source, but kv_dim is {:?}", extra.kv_dim);
    let tensors = Tensors::load(case, setting)?;
    let block = TransformerBlock::new(&config, tensors.weights())?;
    let rope = Rotation { position_dim: extra.position_dim }.of_heads(config.hidden_dim / config.num_heads);
    let options = setting.runner.options().rope(&tensors.frequencies(&rope, "in.pos")?);
    let condition = config.condition_dim.map(|_| tensors.raw("in.condition")).transpose()?;
    let x = tensors.get("in.x")?;
    let plan = DotProductAttention::plan(x.dim(1)?)?;
    let (y, cache) = block.forward(&x, &plan, BlockKeys::Input, condition, &options)?;
    assert!(cache.is_none());
    check(&tensors, setting, "out.y", &y)
}
