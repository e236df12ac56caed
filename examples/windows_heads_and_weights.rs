//! A window over time steps of unequal length, with heads of queries that share keys: causal window, grouped-query attention
//! and a bias per key in one launch, past a cache, too.
//!
//! `cargo run --release --example windows_heads_and_weights`

use anyhow::{Result, ensure};
use candle_core::{DType, Device, Tensor};
use candle_mixed_attention::{
    AttentionOptions, AttentionPattern, AttentionPlan, MixedAttention, MixedAttentionConfig, TokenSpec,
};
use candle_nn::{VarBuilder, VarMap};

/// Steps of a simulation whose results are known, steps to predict, and how far back each step sees.
const PAST: usize = 200;
const NEXT: usize = 40;
const WINDOW: usize = 64;

fn main() -> Result<()> {
    let device = Device::Cpu;

    // 1. A step sees itself and the 64 before it. The next steps see past ones from a cache as if all were one sequence:
    //    windows count places over all groups of a pattern.
    let pattern = || AttentionPattern::queries(["past", "next"]).attend_to(["past", "next"]).causal().window(WINDOW, 0);
    let plan = AttentionPlan::new([TokenSpec::new("past", PAST), TokenSpec::new("next", NEXT)], [pattern()])?;
    let later = AttentionPlan::new([TokenSpec::cached("past"), TokenSpec::new("next", NEXT)], [pattern()])?;
    println!("{plan}\n");

    // 2. Eight heads of queries share two of keys and values: the cache is a quarter as large.
    let config = MixedAttentionConfig::new(128, 8).num_kv_heads(2);
    let vb = VarBuilder::from_varmap(&VarMap::new(), DType::F32, &device);
    let attention = MixedAttention::new(&config, vb)?;

    // 3. Steps last differently long. A step that lasts twice as long counts as two: the bias of its key is log 2.
    let x = Tensor::randn(0f32, 1., (1, PAST + NEXT, 128), &device)?;
    let durations = Tensor::rand(0.1f32, 2., (1, 1, PAST + NEXT), &device)?;
    let bias = durations.log()?;
    let options = AttentionOptions::default().key_bias(&bias).cache_groups(["past"]);

    // 4. All steps in one launch; the keys, values and biases of past steps are kept.
    let (y, cache) = attention.forward_and_cache(&x, &plan, &options)?;
    println!("cached keys {:?}, their bias {:?}", cache.keys().dims(), cache.key_bias().map(Tensor::dims));

    // 5. The next steps again, past the cache.
    let next = |tensor: &Tensor, axis| tensor.narrow(axis, PAST, NEXT);
    let options = AttentionOptions::default().key_bias(&next(&bias, 2)?);
    let again = attention.forward_from_cache(&next(&x, 1)?, &later, &cache, &options)?;
    let difference = largest(&(again - next(&y, 1)?)?)?;
    println!("past the cache: largest difference {difference:.1e}");
    ensure!(difference < 1e-5, "cached and single pass differ by {difference}");

    // 6. Durations matter by their ratios alone, and they do matter.
    let run = |bias: &Tensor| attention.forward(&x, &plan, &AttentionOptions::default().key_bias(bias));
    let in_other_units = largest(&(run(&(&durations * 1000.)?.log()?)? - &y)?)?;
    let without = largest(&(run(&bias.zeros_like()?)? - &y)?)?;
    println!("durations in other units: {in_other_units:.1e}; all alike: {without:.1e}");
    ensure!(in_other_units < 1e-4 && without > 1e-3, "units change {in_other_units}, durations {without}");
    Ok(())
}

fn largest(tensor: &Tensor) -> Result<f32> {
    Ok(tensor.abs()?.max_all()?.to_scalar()?)
}
