//! The attention of random numbers by the fused CPU kernel.

use candle_core::{DType, Device, Result, Tensor};
use candle_mixed_attention::{
    AttentionOptions, AttentionPattern, AttentionPlan, Backend, KvCache, SimdLevel, TokenSpec, mixed_attention_cached,
};
use half::bf16;

use crate::long_sums::Data;
use crate::support::compare::numbers;

/// How numbers of a type are rounded in memory.
pub fn rounding(dtype: DType) -> fn(f32) -> f32 {
    if dtype == DType::BF16 { |number| bf16::from_f32(number).to_f32() } else { |number| number }
}

/// Rows as `[1, 1, tokens, head_dim]`.
pub fn tensor(data: &Data, rows: &[f32], dtype: DType) -> Result<Tensor> {
    let shape = (1, 1, rows.len() / data.head_dim, data.head_dim);
    Tensor::from_slice(rows, shape, &Device::Cpu)?.to_dtype(dtype)
}

/// What the fused kernel makes of the data.
pub fn ours(data: &Data, dtype: DType, level: SimdLevel) -> Result<Vec<f64>> {
    let tokens = [TokenSpec::new("q", data.queries.len() / data.head_dim), TokenSpec::cached("k")];
    let plan = AttentionPlan::new(tokens, [AttentionPattern::queries(["q"]).attend_to(["k"])]).expect("a plan");
    let cached = ("k", tensor(data, &data.keys, dtype)?, tensor(data, &data.values, dtype)?);
    let cache = KvCache::from_groups([cached], None)?;
    let options = AttentionOptions::default().backend(Backend::Fused).simd(level);
    numbers(&mixed_attention_cached(&tensor(data, &data.queries, dtype)?, None, &cache, &plan, &options)?)
}
