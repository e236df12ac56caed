//! `perceiver`: cross attention to an encoded source.

use anyhow::Result;
use candle_mixed_attention::{PerceiverAttention, PerceiverAttentionConfig};

use super::{Case, Rotation, Setting, Tensors, check, parse_config};

pub fn run(case: &Case, setting: &Setting) -> Result<()> {
    let (config, rotation): (PerceiverAttentionConfig, Rotation) = parse_config(&case.config, &["position_dim"])?;
    let tensors = Tensors::load(case, setting)?;
    let layer = PerceiverAttention::new(&config, tensors.weights())?;
    let rope = rotation.of_heads(config.hidden_dim / config.num_heads);
    let mut options = setting.runner.options();
    let mut source_frequencies = None;
    if config.use_rope {
        options = options.rope(&tensors.frequencies(&rope, "in.pos_q")?);
        source_frequencies = Some(tensors.frequencies(&rope, "in.pos_k")?);
    }
    let source = layer.encode(&tensors.get("in.source")?, source_frequencies.as_ref(), None)?;
    check(&tensors, setting, "out.cache.k", source.keys())?;
    check(&tensors, setting, "out.cache.v", source.values())?;
    check(&tensors, setting, "out.y", &layer.forward(&tensors.get("in.x")?, &source, &options)?)
}
