//! `mixed`: the layer, with patterns, masks and caches, in one or several passes.

use anyhow::{Result, anyhow};
use candle_mixed_attention::{
    AttentionPattern, AttentionPlan, KeyPadding, KvCache, MixedAttention, MixedAttentionConfig, RopeConfig, TokenSpec,
};

use super::{Case, Setting, Tensors, check, parse, parse_config};

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Pass {
    token_specs: Vec<TokenSpec>,
    patterns: Vec<PatternEntry>,
    x: String,
    pos: Option<String>,
    mask: Option<String>,
    out: String,
    cache_from: Option<usize>,
    #[serde(default)]
    cache: Vec<String>,
}

/// A pattern as the fixtures spell it.
#[derive(Clone, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PatternEntry {
    query: Vec<String>,
    key_value: Vec<String>,
}

impl From<PatternEntry> for AttentionPattern {
    fn from(entry: PatternEntry) -> Self {
        AttentionPattern::queries(entry.query).attend_to(entry.key_value)
    }
}

pub fn run(case: &Case, setting: &Setting) -> Result<()> {
    let (layer, rope): (MixedAttentionConfig, RopeConfig) =
        parse_config(&case.config, &["head_dim", "position_dim", "max_wavelength"])?;
    let tensors = Tensors::load(case, setting)?;
    let attention = MixedAttention::new(&layer, tensors.weights())?;
    let mut caches: Vec<Option<KvCache>> = Vec::new();
    for pass in &case.passes {
        let pass: Pass = parse(pass)?;
        let patterns: Vec<AttentionPattern> = pass.patterns.into_iter().map(Into::into).collect();
        let plan = AttentionPlan::new(pass.token_specs, patterns)?;
        let mut options = setting.runner.options();
        if let (true, Some(positions)) = (layer.use_rope, &pass.pos) {
            options = options.rope(&tensors.frequencies(&rope, positions)?);
        }
        if let Some(mask) = &pass.mask {
            options = options.key_padding(KeyPadding::from_mask(tensors.raw(mask)?)?);
        }
        let x = tensors.get(&pass.x)?;
        let (y, cache) = match pass.cache_from {
            Some(from) => {
                let cache =
                    caches.get(from).and_then(Option::as_ref).ok_or_else(|| anyhow!("pass {from} made no cache"))?;
                (attention.forward_from_cache(&x, &plan, cache, &options)?, None)
            }
            None if pass.cache.is_empty() => (attention.forward(&x, &plan, &options)?, None),
            None => {
                let (y, cache) = attention.forward_and_cache(&x, &plan, &options)?;
                for group in &pass.cache {
                    let (keys, values) = cache.group(group)?;
                    check(&tensors, setting, &format!("out.cache.{group}.k"), &keys)?;
                    check(&tensors, setting, &format!("out.cache.{group}.v"), &values)?;
                }
                (y, Some(cache))
            }
        };
        check(&tensors, setting, &pass.out, &y)?;
        caches.push(cache);
    }
    Ok(())
}
