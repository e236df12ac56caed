//! `perceiver_block`: cross attention and feed-forward layer, with norms, modulation and layer scale.

use anyhow::Result;
use candle_mixed_attention::models::ab_upt::{PerceiverBlock, PerceiverBlockConfig};
use candle_mixed_attention::{TokenSpec, WeightSharing};

use super::{Case, Rotation, Setting, Tensors, check, parse_config};

pub fn run(case: &Case, setting: &Setting) -> Result<()> {
    let (config, rotation): (PerceiverBlockConfig, Rotation) = parse_config(&case.config, &["position_dim"])?;
    let tensors = Tensors::load(case, setting)?;
    let block = PerceiverBlock::new(&config, &WeightSharing::Shared, tensors.weights())?;
    let rope = rotation.of_heads(config.hidden_dim / config.num_heads);
    let condition = config.condition_dim.map(|_| tensors.raw("in.condition")).transpose()?;
    let source_frequencies = tensors.frequencies(&rope, "in.pos_source")?;
    let source = block.encode(&tensors.get("in.source")?, Some(&source_frequencies), condition)?;
    let options = setting.runner.options().rope(&tensors.frequencies(&rope, "in.pos")?);
    let x = tensors.get("in.x")?;
    let groups = [TokenSpec::new("queries", x.dim(1)?)];
    check(&tensors, setting, "out.y", &block.forward(&x, &groups, &source, condition, &options)?)
}
