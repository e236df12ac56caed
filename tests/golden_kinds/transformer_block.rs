//! `transformer_block`: self attention and feed-forward layer, with norms, modulation and layer scale.

use anyhow::Result;
use candle_mixed_attention::models::ab_upt::{BlockKeys, TransformerBlock, TransformerBlockConfig};
use candle_mixed_attention::{DotProductAttention, RopeConfig};

use super::{Case, Setting, Tensors, check, parse};

pub fn run(case: &Case, setting: &Setting) -> Result<()> {
    let config: TransformerBlockConfig = parse(&case.config)?;
    let tensors = Tensors::load(case, setting)?;
    let block = TransformerBlock::new(&config, tensors.weights())?;
    let rope = RopeConfig::new(config.hidden_dim / config.num_heads);
    let options = setting.runner.options().rope(&tensors.frequencies(&rope, "in.pos")?);
    let condition = config.condition_dim.map(|_| tensors.raw("in.condition")).transpose()?;
    let x = tensors.get("in.x")?;
    let plan = DotProductAttention::plan(x.dim(1)?)?;
    let (y, cache) = block.forward(&x, &plan, BlockKeys::Input, condition, &options)?;
    assert!(cache.is_none());
    check(&tensors, setting, "out.y", &y)
}
