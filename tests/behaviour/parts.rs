//! Layers of one's own projections, and of weights under other names.

use std::collections::HashMap;
use std::io::Cursor;

use candle_core::quantized::{GgmlDType, QMatMul, QTensor, gguf_file};
use candle_core::{DType, Device, Module, Result, Tensor};
use candle_mixed_attention::{
    AttentionError, AttentionOptions, AttentionParts, Backend, MixedAttention, MixedAttentionConfig, mixed_attention,
};
use candle_nn::{Linear, VarBuilder};

use crate::small::{HEADS, WIDTH, plan, random, same};
use crate::support::refusal::refused;

/// Anchors that a later pass finds in its cache, and queries.
const GROUPS: [(&str, usize); 2] = [("anchors", 5), ("queries", 4)];

fn config() -> MixedAttentionConfig {
    MixedAttentionConfig::new(WIDTH, HEADS)
}

/// Weights of `q`, `k`, `v` and `proj`.
fn tensors() -> Result<HashMap<String, Tensor>> {
    let mut tensors = HashMap::new();
    for name in ["q", "k", "v", "proj"] {
        tensors.insert(format!("{name}.weight"), (random(&[WIDTH, WIDTH])? * 0.2)?);
        tensors.insert(format!("{name}.bias"), random(&[WIDTH])?);
    }
    Ok(tensors)
}

fn layer(tensors: &HashMap<String, Tensor>) -> Result<MixedAttention> {
    MixedAttention::new(&config(), VarBuilder::from_tensors(tensors.clone(), DType::F32, &Device::Cpu))
}

fn linear(tensors: &HashMap<String, Tensor>, name: &str) -> Linear {
    Linear::new(tensors[&format!("{name}.weight")].clone(), Some(tensors[&format!("{name}.bias")].clone()))
}

/// Three linear layers as one.
fn side_by_side(tensors: &HashMap<String, Tensor>) -> Result<Linear> {
    let cat = |what: &str| Tensor::cat(&["q", "k", "v"].map(|name| &tensors[&format!("{name}.{what}")]), 0);
    Ok(Linear::new(cat("weight")?, Some(cat("bias")?)))
}

#[test]
fn modules_give_what_their_weights_give() -> Result<()> {
    let tensors = tensors()?;
    let [q, k, v, proj] = ["q", "k", "v", "proj"].map(|name| linear(&tensors, name));
    let separate = AttentionParts::separate(q, k, v, proj.clone());
    let fused = AttentionParts::fused(side_by_side(&tensors)?, proj);
    let first = plan(&GROUPS, &["anchors queries -> anchors"]);
    let step = first.with_cached(["anchors"], [("queries", 4)]).expect("a valid step");
    let x = random(&[2, 9, WIDTH])?;
    let queries = x.narrow(1, 5, 4)?;
    let none = AttentionOptions::default();
    let own = layer(&tensors)?;
    let (want, own_cache) = own.forward_and_cache(&x, &first, &none)?;
    for (name, parts) in [("separate", separate), ("fused", fused)] {
        let layer = MixedAttention::from_parts(&config(), parts)?;
        let (got, cache) = layer.forward_and_cache(&x, &first, &none)?;
        same(name, &got, &want);
        same(name, cache.keys(), own_cache.keys());
        // All keys are cached: the queries alone are projected.
        same(name, &layer.forward_from_cache(&queries, &step, &cache, &none)?, &want.narrow(1, 5, 4)?);
    }
    Ok(())
}

/// A frozen layer plus a product of two thin matrices.
struct LowRank {
    frozen: Linear,
    down: Tensor,
    up: Tensor,
}

impl Module for LowRank {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.frozen.forward(x)? + x.broadcast_matmul(&self.down.t()?)?.broadcast_matmul(&self.up.t()?)?
    }
}

#[test]
fn adapters_give_what_merged_weights_give() -> Result<()> {
    let frozen = tensors()?;
    let mut merged = frozen.clone();
    let mut adapted = |name: &str| -> Result<LowRank> {
        let (down, up) = (random(&[3, WIDTH])?, (random(&[WIDTH, 3])? * 0.2)?);
        let weight = format!("{name}.weight");
        merged.insert(weight.clone(), (&frozen[&weight] + up.matmul(&down)?)?);
        Ok(LowRank { frozen: linear(&frozen, name), down, up })
    };
    let parts = AttentionParts::separate(adapted("q")?, linear(&frozen, "k"), adapted("v")?, adapted("proj")?);
    let plan = plan(&GROUPS, &["anchors queries -> anchors"]);
    let (x, none) = (random(&[2, 9, WIDTH])?, AttentionOptions::default());
    let got = MixedAttention::from_parts(&config(), parts)?.forward(&x, &plan, &none)?;
    let want = layer(&merged)?.forward(&x, &plan, &none)?;
    let (scale, difference) = (want.abs()?.max_all()?, (got - want)?.abs()?.max_all()?);
    assert!(difference.to_scalar::<f32>()? <= 1e-5 * scale.to_scalar::<f32>()?, "{difference} of {scale}");
    Ok(())
}

#[test]
fn quantized_weights_of_a_gguf_file_are_projections() -> Result<()> {
    let mut file = Cursor::new(Vec::new());
    let quantized = |rows: usize| QTensor::quantize(&(random(&[rows, WIDTH])? * 0.2)?, GgmlDType::Q8_0);
    let (qkv, proj) = (quantized(3 * WIDTH)?, quantized(WIDTH)?);
    gguf_file::write(&mut file, &[], &[("attn.qkv.weight", &qkv), ("attn.proj.weight", &proj)])?;
    file.set_position(0);
    let content = gguf_file::Content::read(&mut file)?;
    let mut load = |name: &str| QMatMul::from_qtensor(content.tensor(&mut file, name, &Device::Cpu)?);
    let (qkv, proj) = (load("attn.qkv.weight")?, load("attn.proj.weight")?);

    let plan = plan(&GROUPS, &["anchors queries -> anchors"]);
    let x = random(&[2, 9, WIDTH])?;
    let options = AttentionOptions::default().backend(Backend::Reference);
    let layer = MixedAttention::from_parts(&config(), AttentionParts::fused(qkv.clone(), proj.clone()))?;
    let got = layer.forward(&x, &plan, &options)?;

    let heads = qkv.forward(&x)?.reshape((2, 9, 3, HEADS, WIDTH / HEADS))?;
    let part = |index: usize| heads.narrow(2, index, 1)?.squeeze(2)?.transpose(1, 2);
    let attended = mixed_attention(&part(0)?, &part(1)?, &part(2)?, &plan, &options)?;
    let want = proj.forward(&attended.transpose(1, 2)?.flatten_from(2)?)?;
    same("quantized", &got, &want);
    Ok(())
}

#[test]
fn projections_of_another_width_are_refused() -> Result<()> {
    let tensors = tensors()?;
    let narrow = || Linear::new(Tensor::zeros((WIDTH / 2, WIDTH), DType::F32, &Device::Cpu).expect("a weight"), None);
    let [q, k, v, proj] = ["q", "k", "v", "proj"].map(|name| linear(&tensors, name));
    let plan = plan(&GROUPS, &["anchors queries -> anchors"]);
    let call = |parts| {
        let layer = MixedAttention::from_parts(&config(), parts)?;
        layer.forward(&random(&[1, 9, WIDTH])?, &plan, &AttentionOptions::default())
    };
    let parts = AttentionParts::separate(q.clone(), narrow(), v.clone(), proj.clone());
    refused("keys", call(parts), &["output of a projection", "[1, 9, 32]", "[1, 9, 16]"]);
    refused("fused", call(AttentionParts::fused(narrow(), proj)), &["fused projection", "[1, 9, 96]", "[1, 9, 16]"]);
    refused("output", call(AttentionParts::separate(q, k, v, narrow())), &["output projection", "[1, 9, 16]"]);
    Ok(())
}

#[test]
fn a_missing_projection_is_named_with_its_alternative() -> Result<()> {
    let mut tensors = tensors()?;
    tensors.remove("q.weight");
    let weights = |tensors: &HashMap<String, Tensor>, prefix: &str| {
        let tensors = tensors.iter().map(|(name, tensor)| (format!("{prefix}{name}"), tensor.clone())).collect();
        VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu)
    };
    let vb = weights(&tensors, "blocks.0.");
    let error = MixedAttention::new(&config(), vb.pp("blocks").pp(0)).unwrap_err();
    let AttentionError::ProjectionMissing { separate, fused, .. } = AttentionError::downcast(error)? else {
        panic!("another error")
    };
    assert_eq!((separate.as_str(), fused.as_str()), ("blocks.0.q.weight", "blocks.0.qkv.weight"));
    refused("without a prefix", layer(&tensors), &["'q.weight'", "'qkv.weight'"]);
    // With `q`, what is missing is `k`, and nothing else would do.
    let mut tensors = self::tensors()?;
    tensors.remove("k.weight");
    refused("keys", layer(&tensors), &["k.weight"]);
    assert!(!layer(&tensors).unwrap_err().to_string().contains("qkv"));
    Ok(())
}
