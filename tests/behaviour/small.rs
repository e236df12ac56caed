//! A small layer, its plans and its inputs.

use candle_core::{DType, Device, Result, Tensor};
use candle_mixed_attention::{
    AttentionOptions, AttentionPattern, AttentionPlan, KeyPadding, MixedAttention, MixedAttentionConfig, Rope,
    RopeConfig, RopeFrequencies, TokenSpec,
};
use candle_nn::{VarBuilder, VarMap};

use crate::support::compare::check_close;

pub const WIDTH: usize = 32;
pub const HEADS: usize = 2;
pub const HEAD_DIM: usize = WIDTH / HEADS;

/// Rounding of two f32 paths to the same numbers, which reach 10.
pub const ROUNDING: f64 = 1e-5;

pub fn same(case: &str, got: &Tensor, want: &Tensor) {
    check_close(case, got, want, ROUNDING).unwrap_or_else(|message| panic!("{message}"));
}

pub fn random(shape: &[usize]) -> Result<Tensor> {
    Tensor::randn(0f32, 1., shape, &Device::Cpu)
}

pub fn weights() -> VarBuilder<'static> {
    // A fresh map makes random weights.
    VarBuilder::from_varmap(&VarMap::new(), DType::F32, &Device::Cpu)
}

pub fn layer(use_rope: bool) -> Result<MixedAttention> {
    MixedAttention::new(&MixedAttentionConfig::new(WIDTH, HEADS).use_rope(use_rope), weights())
}

pub fn tokens(groups: &[(&str, usize)]) -> Vec<TokenSpec> {
    groups.iter().map(|&(name, size)| TokenSpec::new(name, size)).collect()
}

/// A pattern written as `"a b -> a"`.
pub fn pattern(text: &str) -> AttentionPattern {
    let (queries, keys) = text.split_once("->").expect("an arrow");
    AttentionPattern::queries(queries.split_whitespace()).attend_to(keys.split_whitespace())
}

pub fn plan(groups: &[(&str, usize)], patterns: &[&str]) -> AttentionPlan {
    let patterns: Vec<_> = patterns.iter().map(|text| pattern(text)).collect();
    AttentionPlan::new(tokens(groups), patterns).expect("a valid plan")
}

/// Groups `a` (3 tokens) and `b` (4), all of which see `a`.
pub fn small_plan() -> AttentionPlan {
    plan(&[("a", 3), ("b", 4)], &["a b -> a"])
}

pub fn frequencies(batch: usize, tokens: usize, head_dim: usize) -> Result<RopeFrequencies> {
    Rope::new(&RopeConfig::new(head_dim), &Device::Cpu)?.frequencies(&random(&[batch, tokens, 3])?)
}

pub fn mask(rows: &[&[u8]]) -> Result<KeyPadding> {
    KeyPadding::from_mask(&Tensor::new(rows.to_vec(), &Device::Cpu)?)
}

/// What the layer gives where attention gives zeros.
pub fn bias_of(layer: &MixedAttention) -> Result<Tensor> {
    let x = random(&[1, 1, WIDTH])?;
    layer.forward(
        &x,
        &plan(&[("query", 1), ("nothing", 0)], &["query nothing -> nothing"]),
        &AttentionOptions::default(),
    )
}
