//! `core`: softmax(q kᵀ / √d) v, with the keys as a cache because queries and keys differ in number.

use anyhow::{Result, ensure};
use candle_mixed_attention::{AttentionPattern, AttentionPlan, KeyPadding, KvCache, TokenSpec, mixed_attention_cached};

use super::{Case, Setting, Tensors, check, parse};

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    batch: usize,
    heads: usize,
    queries: usize,
    keys: usize,
    head_dim: usize,
    mask: bool,
}

pub fn run(case: &Case, setting: &Setting) -> Result<()> {
    let config: Config = parse(&case.config)?;
    let tensors = Tensors::load(case, setting)?;
    let Config { batch, heads, queries, keys, head_dim, .. } = config;
    for (name, tokens) in [("in.q", queries), ("in.k", keys), ("in.v", keys)] {
        let got = tensors.raw(name)?.dims();
        ensure!(got == [batch, heads, tokens, head_dim], "{name} has shape {got:?}, its config is {:?}", case.config);
    }
    let padding = if config.mask { Some(KeyPadding::from_mask(tensors.raw("in.mask")?)?) } else { None };
    let cache = KvCache::from_groups([("keys", tensors.get("in.k")?, tensors.get("in.v")?)], padding)?;
    let plan = AttentionPlan::new(
        [TokenSpec::new("queries", queries), TokenSpec::cached("keys")],
        [AttentionPattern::queries(["queries"]).attend_to(["keys"])],
    )?;
    let options = setting.runner.options();
    let output = mixed_attention_cached(&tensors.get("in.q")?, None, &cache, &plan, &options)?;
    check(&tensors, setting, "out.y", &output)
}
