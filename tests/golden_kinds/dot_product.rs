//! `dot_product`: self attention over one group.

use anyhow::Result;
use candle_mixed_attention::{DotProductAttention, DotProductAttentionConfig};

use super::{Case, Rotation, Setting, Tensors, check, parse_config};

pub fn run(case: &Case, setting: &Setting) -> Result<()> {
    let (config, rotation): (DotProductAttentionConfig, Rotation) = parse_config(&case.config, &["position_dim"])?;
    let tensors = Tensors::load(case, setting)?;
    let layer = DotProductAttention::new(&config, tensors.weights())?;
    let mut options = setting.runner.options();
    if config.0.use_rope {
        let rope = rotation.of_heads(config.0.hidden_dim / config.0.num_heads);
        options = options.rope(&tensors.frequencies(&rope, "in.pos")?);
    }
    check(&tensors, setting, "out.y", &layer.forward(&tensors.get("in.x")?, &options)?)
}
