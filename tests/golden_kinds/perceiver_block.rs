//! `perceiver_block`: cross attention and feed-forward layer, with norms, modulation and layer scale.

use anyhow::Result;
use candle_mixed_attention::models::ab_upt::{PerceiverBlock, PerceiverBlockConfig};
use candle_mixed_attention::{RopeConfig, TokenSpec, WeightSharing};

use super::{Case, Setting, Tensors, check, parse};

pub fn run(case: &Case, setting: &Setting) -> Result<()> {
    let config: PerceiverBlockConfig = parse(&case.config)?;
    let tensors = Tensors::load(case, setting)?;
    let block = PerceiverBlock::new(&config, &WeightSharing::Shared, tensors.weights())?;
    let rope = RopeConfig::new(config.hidden_dim / config.num_heads);
    let condition = config.condition_dim.map(|_| tensors.raw("in.condition")).transpose()?;
    let source_frequencies = tensors.frequencies(&rope, "in.pos_source")?;
    let source = block.encode(&tensors.get("in.source")?, Some(&source_frequencies), condition)?;
    let options = setting.runner.options().rope(&tensors.frequencies(&rope, "in.pos")?);
    let x = tensors.get("in.x")?;
    let groups = [TokenSpec::new("queries", x.dim(1)?)];
    check(&tensors, setting, "out.y", &block.forward(&x, &groups, &source, condition, &options)?)
}
