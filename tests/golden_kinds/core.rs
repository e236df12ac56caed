//! `core`: softmax(q kᵀ / √d) v, with the keys as a cache because queries and keys differ in number.

use anyhow::Result;
use candle_mixed_attention::{AttentionPattern, AttentionPlan, KeyPadding, KvCache, TokenSpec, mixed_attention_cached};

use super::{Case, Setting, Tensors, check, parse};

#[derive(serde::Deserialize)]
struct Config {
    queries: usize,
    mask: bool,
}

pub fn run(case: &Case, setting: &Setting) -> Result<()> {
    let config: Config = parse(&case.config)?;
    let tensors = Tensors::load(case, setting)?;
    let padding = if config.mask { Some(KeyPadding::from_mask(tensors.raw("in.mask")?)?) } else { None };
    let cache = KvCache::from_groups([("keys", tensors.get("in.k")?, tensors.get("in.v")?)], padding)?;
    let plan = AttentionPlan::new(
        [TokenSpec::new("queries", config.queries), TokenSpec::cached("keys")],
        [AttentionPattern::queries(["queries"]).attend_to(["keys"])],
    )?;
    let options = setting.runner.options();
    let output = mixed_attention_cached(&tensors.get("in.q")?, None, &cache, &plan, &options)?;
    check(&tensors, setting, "out.y", &output)
}
