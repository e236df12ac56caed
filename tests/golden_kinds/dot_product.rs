//! `dot_product`: self attention over one group.

use anyhow::Result;
use candle_mixed_attention::{DotProductAttention, DotProductAttentionConfig, RopeConfig};

use super::{Case, Setting, Tensors, check, parse};

pub fn run(case: &Case, setting: &Setting) -> Result<()> {
    let config: DotProductAttentionConfig = parse(&case.config)?;
    let tensors = Tensors::load(case, setting)?;
    let layer = DotProductAttention::new(&config, tensors.weights())?;
    let mut options = setting.runner.options();
    if config.0.use_rope {
        let rope = RopeConfig::new(config.0.hidden_dim / config.0.num_heads);
        options = options.rope(&tensors.frequencies(&rope, "in.pos")?);
    }
    check(&tensors, setting, "out.y", &layer.forward(&tensors.get("in.x")?, &options)?)
}
