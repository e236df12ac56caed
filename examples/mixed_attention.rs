//! Loads a mixed-attention layer from safetensors and runs it with and without a cache.
//!
//! `cargo run --release --example mixed_attention`

use std::path::Path;

use anyhow::{Result, ensure};
use candle_core::{DType, Device, Tensor};
use candle_mixed_attention::{
    AttentionOptions, AttentionPattern, AttentionPlan, MixedAttention, MixedAttentionConfig, Rope, RopeConfig,
    RopeFrequencies, TokenSpec,
};
use candle_nn::VarBuilder;

fn main() -> Result<()> {
    let device = Device::Cpu;

    // 1. What the sequence is made of, and who attends to whom; checked once.
    let tokens = [
        TokenSpec::new("surface_anchors", 100),
        TokenSpec::new("surface_queries", 50),
        TokenSpec::new("volume_anchors", 80),
        TokenSpec::new("volume_queries", 60),
    ];
    let patterns = [
        AttentionPattern::queries(["surface_anchors", "surface_queries"]).attend_to(["surface_anchors"]),
        AttentionPattern::queries(["volume_anchors", "volume_queries"]).attend_to(["volume_anchors"]),
    ];
    let plan = AttentionPlan::new(tokens, patterns)?;
    println!("{plan}\n");

    // 2. The layer, from a file that holds q, k, v and proj under the prefix `w`.
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/data/mixed_attention_layer.safetensors");
    let vb = VarBuilder::from_tensors(candle_core::safetensors::load(file, &device)?, DType::F32, &device).pp("w");
    let config = MixedAttentionConfig::new(32, 2).use_rope(true);
    let attention = MixedAttention::new(&config, vb.clone())?;
    let rope = Rope::load(&RopeConfig::new(config.hidden_dim / config.num_heads), vb)?;

    // 3. All tokens in one pass, in one launch. The keys and values of the anchors are kept.
    let x = Tensor::randn(0f32, 1., (1, plan.len(), config.hidden_dim), &device)?;
    let frequencies = rope.frequencies(&Tensor::rand(0f32, 1000., (1, plan.len(), 3), &device)?)?;
    let options = AttentionOptions::default().rope(&frequencies);
    let (y, cache) = attention.forward_and_cache(&x, &plan, &options)?;
    println!("one pass over {} tokens; the cache keeps {:?}", plan.len(), cache.layout().names());

    // 4. The queries again, 20 at a time, past the cached anchors.
    let mut worst = 0f32;
    for (group, size) in [("surface_queries", 50), ("volume_queries", 60)] {
        let (start, _) = plan.input_group(group).unwrap_or_default();
        for offset in (0..size).step_by(20) {
            let len = (size - offset).min(20);
            let step = plan.cached_queries(group, len)?;
            let chunk = |frequencies: &RopeFrequencies| frequencies.narrow(start + offset, len);
            let options = AttentionOptions::default().rope(&chunk(&frequencies)?);
            let again = attention.forward_from_cache(&x.narrow(1, start + offset, len)?, &step, &cache, &options)?;
            let difference = (again - y.narrow(1, start + offset, len)?)?.abs()?.max_all()?.to_scalar::<f32>()?;
            worst = worst.max(difference);
        }
    }
    println!("the queries again, 20 at a time, past the cache: largest difference {worst:.1e}");
    ensure!(worst < 1e-5, "cached and single pass differ by {worst}");
    Ok(())
}
