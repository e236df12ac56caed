//! Fewer heads of keys and values than of queries.

use std::collections::HashMap;

use candle_core::{DType, Device, Result, Tensor, Var};
use candle_mixed_attention::{
    AttentionOptions, AttentionPart, AttentionParts, Backend, KvCache, MixedAttention, MixedAttentionConfig,
    PerceiverAttention, PerceiverAttentionConfig, mixed_attention, mixed_attention_cached, mixed_attention_part,
};
use candle_nn::{Linear, VarBuilder};

use crate::small::{frequencies, plan, random, same, weights};
use crate::support::backends::runners;
use crate::support::compare::check_close;
use crate::support::refusal::refused;

const HEADS: usize = 6;
const HEAD_DIM: usize = 8;
const WIDTH: usize = HEADS * HEAD_DIM;

/// Anchors that a later pass finds in its cache, and queries.
const GROUPS: [(&str, usize); 2] = [("anchors", 5), ("queries", 4)];
const PATTERN: &str = "anchors queries -> anchors";

fn none() -> AttentionOptions {
    AttentionOptions::default()
}

/// Every head (or block of a head's weights, along axis `axis`) `group` times, one beside the other.
fn repeated(tensor: &Tensor, axis: usize, group: usize) -> Result<Tensor> {
    let mut shape = tensor.dims().to_vec();
    shape.insert(axis + 1, group);
    let all = tensor.unsqueeze(axis + 1)?.broadcast_as(shape)?.contiguous()?;
    all.flatten(axis, axis + 1)
}

/// Weights of a layer with `kv_heads`, and of the layer with all heads that computes the same.
fn tensors(kv_heads: usize) -> Result<[HashMap<String, Tensor>; 2]> {
    let (mut grouped, mut full) = (HashMap::new(), HashMap::new());
    for (name, heads) in [("q", HEADS), ("k", kv_heads), ("v", kv_heads), ("proj", HEADS)] {
        let weight = (random(&[heads, HEAD_DIM, WIDTH])? * 0.2)?;
        let bias = random(&[heads, HEAD_DIM])?;
        grouped.insert(format!("{name}.weight"), weight.flatten(0, 1)?);
        grouped.insert(format!("{name}.bias"), bias.flatten(0, 1)?);
        full.insert(format!("{name}.weight"), repeated(&weight, 0, HEADS / heads)?.flatten(0, 1)?);
        full.insert(format!("{name}.bias"), repeated(&bias, 0, HEADS / heads)?.flatten(0, 1)?);
    }
    Ok([grouped, full])
}

fn layer(config: &MixedAttentionConfig, tensors: &HashMap<String, Tensor>) -> Result<MixedAttention> {
    MixedAttention::new(config, VarBuilder::from_tensors(tensors.clone(), DType::F32, &Device::Cpu))
}

#[test]
fn a_layer_computes_what_one_with_repeated_heads_does() -> Result<()> {
    let plan = plan(&GROUPS, &[PATTERN]);
    let (x, queries) = (random(&[2, 9, WIDTH])?, random(&[2, 4, WIDTH])?);
    let options = none().rope(&frequencies(1, 9, HEAD_DIM)?);
    let of_queries = none().rope(&frequencies(1, 4, HEAD_DIM)?);
    let step = plan.cached_queries("queries", 4).expect("a plan");
    for kv_heads in [1, 2, 3, 6] {
        let config = MixedAttentionConfig::new(WIDTH, HEADS).use_rope(true);
        let [grouped, full] = tensors(kv_heads)?;
        let full = layer(&config, &full)?;
        let config = config.num_kv_heads(kv_heads);
        let separate = layer(&config, &grouped)?;
        let cat = |part: &str| Tensor::cat(&["q", "k", "v"].map(|name| grouped[&format!("{name}.{part}")].clone()), 0);
        let mut fused_tensors = grouped.clone();
        fused_tensors.retain(|name, _| name.starts_with("proj"));
        fused_tensors.insert("qkv.weight".to_string(), cat("weight")?);
        fused_tensors.insert("qkv.bias".to_string(), cat("bias")?);
        let linear = |name: &str| {
            Linear::new(grouped[&format!("{name}.weight")].clone(), Some(grouped[&format!("{name}.bias")].clone()))
        };
        let qkv = Linear::new(cat("weight")?, Some(cat("bias")?));
        let layers = [
            ("separate weights", separate),
            ("fused weights", layer(&config, &fused_tensors)?),
            ("own modules", {
                let parts = AttentionParts::separate(linear("q"), linear("k"), linear("v"), linear("proj"));
                MixedAttention::from_parts(&config, parts)?
            }),
            ("one own module", MixedAttention::from_parts(&config, AttentionParts::fused(qkv, linear("proj")))?),
        ];
        let (want, want_cache) = full.forward_and_cache(&x, &plan, &options)?;
        let want_step = full.forward_from_cache(&queries, &step, &want_cache, &of_queries)?;
        for (name, layer) in layers {
            let (got, cache) = layer.forward_and_cache(&x, &plan, &options)?;
            let case = format!("{name}, {kv_heads} heads of keys");
            same(&case, &got, &want);
            assert_eq!(cache.fingerprint().heads, kv_heads);
            same(&case, &repeated(cache.keys(), 1, HEADS / kv_heads)?, want_cache.keys());
            same(&case, &layer.forward_from_cache(&queries, &step, &cache, &of_queries)?, &want_step);
            let (_, grown) = layer.forward_and_append(&x, &plan_past(), &cache, &options)?;
            assert_eq!(grown.keys().dims(), [2, kv_heads, 14, HEAD_DIM]);
        }
    }
    Ok(())
}

/// The nine tokens, past more anchors.
fn plan_past() -> candle_mixed_attention::AttentionPlan {
    use candle_mixed_attention::{AttentionPattern, AttentionPlan, TokenSpec};
    let tokens = [TokenSpec::cached("anchors"), TokenSpec::new("more_anchors", 9)];
    let pattern = AttentionPattern::queries(["more_anchors"]).attend_to(["anchors", "more_anchors"]);
    AttentionPlan::new(tokens, [pattern]).expect("a valid plan")
}

#[test]
fn perceivers_share_heads_too() -> Result<()> {
    let config = |num_kv_heads| PerceiverAttentionConfig {
        hidden_dim: WIDTH,
        num_heads: HEADS,
        num_kv_heads,
        kv_dim: None,
        bias: true,
        use_rope: false,
    };
    let [grouped, full] = tensors(2)?;
    let load = |tensors: HashMap<String, Tensor>, kv_heads| {
        PerceiverAttention::new(&config(kv_heads), VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu))
    };
    let (grouped, full) = (load(grouped, Some(2))?, load(full, None)?);
    let (source, x) = (random(&[1, 11, WIDTH])?, random(&[1, 3, WIDTH])?);
    let encoded = grouped.encode(&source, None, None)?;
    assert_eq!(encoded.keys().dims(), [1, 2, 11, HEAD_DIM]);
    same(
        "perceiver",
        &grouped.forward(&x, &encoded, &none())?,
        &full.forward(&x, &full.encode(&source, None, None)?, &none())?,
    );
    refused("a source of other heads", full.forward(&x, &encoded, &none()), &["number of heads", "2", "6"]);
    Ok(())
}

/// The gradients of shared heads are the sums of those of their copies, on the fused backend and the reference, in the op and
/// with log-sum-exps.
#[test]
fn gradients_of_shared_heads_are_sums_over_their_group() -> Result<()> {
    let plan = plan(&[("a", 13), ("b", 30)], &["a -> b a", "b -> a"]);
    let shapes = [[2, HEADS, 43, HEAD_DIM], [2, 2, 43, HEAD_DIM], [2, 2, 43, HEAD_DIM]];
    let operands = shapes.iter().map(|shape| Var::from_tensor(&random(shape)?)).collect::<Result<Vec<_>>>()?;
    let [q, k, v] = [0, 1, 2].map(|index| operands[index].as_tensor());
    let [all_k, all_v] = [repeated(k, 1, 3)?, repeated(v, 1, 3)?];
    let options = none().rope(&frequencies(1, 43, HEAD_DIM)?);
    let reference = options.clone().backend(Backend::Reference);
    let loss = |y: Tensor| y.sqr()?.sum_all()?.backward();
    let want = loss(mixed_attention(q, &all_k, &all_v, &plan, &reference)?)?;
    let with_parts = |options: &AttentionOptions| -> Result<Tensor> {
        let part = mixed_attention_part(q, Some((k, v)), None, &plan, options)?;
        Ok(AttentionPart::combine(&[part])?.output)
    };
    let outputs = [
        ("fused", mixed_attention(q, k, v, &plan, &options.clone().backend(Backend::Fused))?),
        ("reference", mixed_attention(q, k, v, &plan, &reference)?),
        ("part", with_parts(&options)?),
    ];
    for (case, output) in outputs {
        let got = loss(output)?;
        for operand in &operands {
            let [got, want] = [&got, &want].map(|gradients| gradients.get(operand).expect("a gradient"));
            check_close(case, got, want, 2e-4).unwrap();
        }
    }
    Ok(())
}

#[test]
fn a_cache_has_the_heads_of_the_keys() -> Result<()> {
    let step = plan(&GROUPS, &[PATTERN]).cached_queries("queries", 4).expect("a plan");
    let q = random(&[2, HEADS, 4, HEAD_DIM])?;
    let [k, v] = [random(&[2, 2, 5, HEAD_DIM])?, random(&[2, 2, 5, HEAD_DIM])?];
    let cache = |k: &Tensor, v: &Tensor| KvCache::from_groups([("anchors", k.clone(), v.clone())], None);
    let all = cache(&repeated(&k, 1, 3)?, &repeated(&v, 1, 3)?)?;
    for runner in runners().iter().filter(|runner| runner.device.is_cpu()) {
        let want = mixed_attention_cached(&q, None, &all, &step, &runner.options())?;
        same(&runner.name, &mixed_attention_cached(&q, None, &cache(&k, &v)?, &step, &runner.options())?, &want);
    }
    Ok(())
}

#[test]
fn heads_that_do_not_divide_are_refused() -> Result<()> {
    let plan = plan(&GROUPS, &[PATTERN]);
    let q = random(&[2, HEADS, 9, HEAD_DIM])?;
    let attend = |heads: [usize; 2]| {
        let [k, v] = heads.map(|heads| random(&[2, heads, 9, HEAD_DIM]).expect("numbers"));
        mixed_attention(&q, &k, &v, &plan, &none())
    };
    refused("4 heads of keys", attend([4, 4]), &["keys", "divisor of 6", "[2, 4, 9, 8]"]);
    refused("12 heads of keys", attend([12, 12]), &["keys", "divisor of 6"]);
    refused("no heads of keys", attend([0, 0]), &["keys", "divisor of 6"]);
    refused("values of other heads", attend([3, 2]), &["values", "keys", "[2, 3, 9, 8]", "[2, 2, 9, 8]"]);

    let build =
        |kv_heads| MixedAttention::new(&MixedAttentionConfig::new(WIDTH, HEADS).num_kv_heads(kv_heads), weights());
    refused("a layer with 4", build(4), &["num_kv_heads", "divisor of num_heads", "6", "4"]);
    refused("a layer with 0", build(0), &["num_kv_heads", "positive", "0"]);

    let step = plan.cached_queries("queries", 4).expect("a plan");
    let cache = |heads: usize| {
        let tensor = random(&[2, heads, 5, HEAD_DIM])?;
        KvCache::from_groups([("anchors", tensor.clone(), tensor)], None)
    };
    let queries = q.narrow(2, 0, 4)?;
    let refusal = mixed_attention_cached(&queries, None, &cache(4)?, &step, &none());
    refused("a cache with 4", refusal, &["the number of heads", "divisor of 6", "4"]);
    let keys = random(&[2, 2, 4, HEAD_DIM])?;
    let refusal = mixed_attention_cached(&queries, Some((&keys, &keys)), &cache(3)?, &step, &none());
    refused("a cache of other heads than the keys", refusal, &["the number of heads", "2", "3"]);
    // A layer knows its heads, also where it projects no keys.
    let x = random(&[2, 4, WIDTH])?;
    refused(
        "a layer's cache with 3",
        build(2)?.forward_from_cache(&x, &step, &cache(3)?, &none()),
        &["heads", "2", "3"],
    );
    Ok(())
}

#[test]
fn configurations_without_the_field_are_as_before() {
    let config: MixedAttentionConfig = serde_json::from_str(r#"{"hidden_dim": 48, "num_heads": 6}"#).expect("JSON");
    assert_eq!(config, MixedAttentionConfig::new(48, 6));
    assert!(!serde_json::to_string(&config).expect("JSON").contains("kv"));
    let config: MixedAttentionConfig =
        serde_json::from_str(r#"{"hidden_dim": 48, "num_heads": 6, "num_kv_heads": 2}"#).expect("JSON");
    assert_eq!(config, MixedAttentionConfig::new(48, 6).num_kv_heads(2));
}
