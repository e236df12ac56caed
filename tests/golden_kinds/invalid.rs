//! `invalid.json`: calls that must be refused with an error that says what is wrong.

use std::collections::BTreeMap;

use anyhow::Result;
use candle_core::{DType, Device, Tensor};
use candle_mixed_attention::{
    AttentionOptions, AttentionPattern, AttentionPlan, KeyPadding, KvCache, MixedAttention, MixedAttentionConfig, Rope,
    RopeConfig, TokenSpec,
};
use candle_nn::{VarBuilder, VarMap};
use libtest_mimic::{Failed, Trial};
use serde_json::Value;

use super::mixed::PatternEntry;
use super::parse;

#[derive(serde::Deserialize)]
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

/// One test per call.
pub fn trials(file: &Value) -> Result<Vec<Trial>> {
    let cases: Vec<Invalid> = parse(&file["cases"])?;
    let trial = |case: Invalid| {
        Trial::test(format!("invalid/{}", case.name), move || match call(case) {
            Ok(output) => Err(Failed::from(format!("accepted, output {:?}", output.dims()))),
            Err(error) if error.to_string().len() < 20 => Err(Failed::from(format!("the error says little: {error}"))),
            Err(_) => Ok(()),
        })
    };
    Ok(cases.into_iter().map(trial).collect())
}

fn call(case: Invalid) -> candle_core::Result<Tensor> {
    let device = Device::Cpu;
    let tensor = |shape: &[usize]| Tensor::randn(0f32, 1., shape, &device);
    let config = MixedAttentionConfig::new(case.hidden_dim, case.num_heads).use_rope(case.use_rope);
    let vars = VarMap::new();
    let attention = MixedAttention::new(&config, VarBuilder::from_varmap(&vars, DType::F32, &device))?;
    let patterns: Vec<AttentionPattern> = case.patterns.into_iter().map(Into::into).collect();
    let plan = AttentionPlan::new(case.token_specs, patterns)?;
    let mut options = AttentionOptions::default();
    if let Some(shape) = &case.pos {
        let rope = Rope::new(&RopeConfig::new(case.hidden_dim / case.num_heads), &device)?;
        options = options.rope(&rope.frequencies(&tensor(shape)?)?);
    }
    if let Some(shape) = &case.mask {
        options = options.key_padding(KeyPadding::from_mask(&Tensor::ones(&shape[..], DType::U8, &device)?)?);
    }
    let x = tensor(&case.x)?;
    match case.cache {
        None => attention.forward(&x, &plan, &options),
        Some(groups) => {
            let groups = groups.iter().map(|(name, shape)| Ok((name.clone(), tensor(shape)?, tensor(shape)?)));
            let cache = KvCache::from_groups(groups.collect::<candle_core::Result<Vec<_>>>()?, None)?;
            attention.forward_cached(&x, &plan, &cache, &options)
        }
    }
}
