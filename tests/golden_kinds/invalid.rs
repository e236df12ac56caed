//! `invalid.json`: calls that must be refused with an error that says what is wrong.

use std::collections::BTreeMap;

use anyhow::Result;
use candle_core::{DType, Error, Tensor};
use candle_mixed_attention::{
    AttentionPattern, AttentionPlan, KeyPadding, KvCache, MixedAttention, MixedAttentionConfig, Rope, RopeConfig,
    TokenSpec,
};
use candle_nn::{VarBuilder, VarMap};
use libtest_mimic::{Failed, Trial};
use serde_json::Value;

use super::mixed::PatternEntry;
use super::parse;
use crate::support::backends::{DTYPES, Runner, runners};

#[derive(Clone, serde::Deserialize)]
struct Invalid {
    name: String,
    hidden_dim: usize,
    num_heads: usize,
    use_rope: bool,
    x: Vec<usize>,
    pos: Option<Vec<usize>>,
    mask: Option<Vec<usize>>,
    cache: Option<BTreeMap<String, Vec<usize>>>,
    token_specs: Vec<TokenSpec>,
    patterns: Vec<PatternEntry>,
}

/// What the message of a call must name, besides being an error of this crate; nothing for calls that are not known here.
fn words(name: &str) -> &'static [&'static str] {
    match name {
        "sizes_do_not_add_up" => &["x has 8 tokens", "7", "a_anchors 4, b_anchors 3"],
        "wrong_width" => &["x must have shape [batch, tokens, 32]", "[1, 7, 16]"],
        "group_in_two_patterns" => &["'a_anchors'", "pattern 0", "pattern 2"],
        "group_without_pattern" => &["'b_anchors'", "3 tokens", "no pattern"],
        "unknown_query_group" => &["pattern 2", "'c'", "query_tokens", "a_anchors"],
        "unknown_key_group" => &["pattern 0", "'c'", "key_value_tokens", "a_anchors"],
        "query_named_twice" => &["'a_anchors'", "pattern 0 and again in pattern 0"],
        "duplicate_spec_names" => &["'a'", "twice"],
        "no_keys_listed" => &["pattern 0", "key_value_tokens"],
        "rope_without_positions" => &["use_rope = true", "no RoPE frequencies", "x"],
        "positions_without_rope" => &["use_rope = false", "x"],
        "positions_of_other_length" => &["RoPE frequencies", "6 tokens", "7", "a_anchors 4"],
        "mask_too_short" => &["key_padding", "6 tokens", "7", "a_anchors 4"],
        "mask_of_other_batch" => &["key_padding", "batch size 2", "3"],
        "cached_group_without_cache" => &["a_anchors", "no cache"],
        "cached_group_not_in_cache" => &["'a_anchors'", "b_anchors"],
        "mask_with_cache" => &["key_padding", "cache"],
        "cache_of_other_batch" => &["cache", "batch size 3", "2"],
        "cache_of_other_head_width" => &["head_dim", "8", "16"],
        "cache_of_other_head_count" => &["number of heads", "3", "2"],
        _ => &[],
    }
}

/// One test per call, way to run and dtype.
pub fn trials(file: &Value) -> Result<Vec<Trial>> {
    let cases: Vec<Invalid> = parse(&file["cases"])?;
    let mut trials = Vec::new();
    for case in cases {
        for runner in runners() {
            for dtype in DTYPES {
                let (case, runner) = (case.clone(), runner.clone());
                let title = format!("invalid/{} [{} {}]", case.name, runner.name, dtype.as_str());
                trials.push(Trial::test(title, move || check(&case, &runner, dtype).map_err(Failed::from)));
            }
        }
    }
    Ok(trials)
}

/// The call must fail, with an error of this crate rather than one of candle's, and say why.
fn check(case: &Invalid, runner: &Runner, dtype: DType) -> Result<(), String> {
    let error = match call(case, runner, dtype) {
        Ok(output) => return Err(format!("accepted, output {:?}", output.dims())),
        Err(error) => error,
    };
    let mut inner = &error;
    while let Error::WithBacktrace { inner: wrapped, .. } = inner {
        inner = wrapped;
    }
    if !matches!(inner, Error::Wrapped(_)) {
        return Err(format!("not an error of this crate: {error}"));
    }
    match words(&case.name).iter().find(|word| !inner.to_string().contains(**word)) {
        Some(word) => Err(format!("no '{word}' in: {inner}")),
        None => Ok(()),
    }
}

fn call(case: &Invalid, runner: &Runner, dtype: DType) -> candle_core::Result<Tensor> {
    let device = &runner.device;
    let tensor = |shape: &[usize]| Tensor::randn(0f32, 1., shape, device)?.to_dtype(dtype);
    let config = MixedAttentionConfig::new(case.hidden_dim, case.num_heads).use_rope(case.use_rope);
    let vars = VarMap::new();
    let attention = MixedAttention::new(&config, VarBuilder::from_varmap(&vars, dtype, device))?;
    let patterns: Vec<AttentionPattern> = case.patterns.iter().cloned().map(Into::into).collect();
    let plan = AttentionPlan::new(case.token_specs.as_slice(), patterns)?;
    let mut options = runner.options();
    if let Some(shape) = &case.pos {
        let rope = Rope::new(&RopeConfig::new(case.hidden_dim / case.num_heads), device)?;
        let positions = Tensor::randn(0f32, 1., &shape[..], device)?;
        options = options.rope(&rope.frequencies(&positions)?);
    }
    if let Some(shape) = &case.mask {
        options = options.key_padding(KeyPadding::from_mask(&Tensor::ones(&shape[..], DType::U8, device)?)?);
    }
    let x = tensor(&case.x)?;
    match &case.cache {
        None => attention.forward(&x, &plan, &options),
        Some(groups) => {
            let groups = groups.iter().map(|(name, shape)| Ok((name.clone(), tensor(shape)?, tensor(shape)?)));
            let cache = KvCache::from_groups(groups.collect::<candle_core::Result<Vec<_>>>()?, None)?;
            attention.forward_from_cache(&x, &plan, &cache, &options)
        }
    }
}
