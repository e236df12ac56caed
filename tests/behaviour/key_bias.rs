//! A number for each key that is added to its scores.

use candle_core::{DType, Device, Result, Tensor, Var};
use candle_mixed_attention::{
    AttentionOptions, AttentionPattern, AttentionPlan, Backend, KeyPadding, KvCache, MixedAttention,
    MixedAttentionConfig, SimdLevel, TokenSpec, mixed_attention, mixed_attention_cached, mixed_attention_part,
};

use crate::small::{WIDTH, frequencies, layer, plan, random, same, weights};
use crate::support::backends::{DTYPES, runners};
use crate::support::compare::{check_close, numbers};
use crate::support::refusal::refused;

fn none() -> AttentionOptions {
    AttentionOptions::default()
}

/// Attention in f64 by the definition: every query sees the keys of `seen`, and `bias [batch, heads, keys]` is added. Returns
/// the output and the log-sum-exp.
fn dense([q, k, v]: [&Tensor; 3], bias: &Tensor) -> Result<[Tensor; 2]> {
    let wide = |tensor: &Tensor| tensor.to_dtype(DType::F64)?.contiguous();
    let (q, k, v) = (wide(q)?, wide(k)?, wide(v)?);
    let scores = (q.matmul(&k.t()?.contiguous()?)? / (q.dim(3)? as f64).sqrt())?;
    let scores = scores.broadcast_add(&bias.to_dtype(DType::F64)?.unsqueeze(2)?)?;
    let log_sum_exp = scores.log_sum_exp(3)?;
    let weights = scores.broadcast_sub(&log_sum_exp.unsqueeze(3)?)?.exp()?;
    Ok([weights.matmul(&v)?, log_sum_exp])
}

/// Inputs are exact in every dtype, so that only the result is rounded, and bf16 dot products, where used. Scores reach 20.
fn tolerance(dtype: DType) -> f64 {
    match dtype {
        DType::F32 => 2e-5,
        DType::F16 => 5e-3,
        _ => 4e-2,
    }
}

/// The shapes that a bias may have.
fn shapes(batch: usize, heads: usize, tokens: usize) -> [[usize; 3]; 4] {
    [[batch, heads, tokens], [1, heads, tokens], [batch, 1, tokens], [1, 1, tokens]]
}

#[test]
fn every_backend_adds_the_bias_to_the_scores() -> Result<()> {
    let (batch, heads) = (2, 3);
    // Odd sizes; more keys than a group of tiles; items that threads share.
    for (keys, queries, head_dim) in [(5, 3, 7), (131, 50, 24), (257, 1, 64), (2600, 9, 16)] {
        let groups = [("keys", keys), ("queries", queries), ("nothing", 0)];
        let plan = plan(&groups, &["queries nothing -> keys", "keys -> nothing"]);
        let tokens = keys + queries;
        for dtype in DTYPES {
            let operand = || random(&[batch, heads, tokens, head_dim])?.to_dtype(dtype);
            let (q, k, v) = (operand()?, operand()?, operand()?);
            for shape in shapes(batch, heads, tokens) {
                let bias = (random(&shape)? * 3.0)?;
                let of_keys = bias.narrow(2, 0, keys)?.broadcast_as((batch, heads, keys))?;
                let seen = |tensor: &Tensor| tensor.narrow(2, 0, keys);
                let asking = |tensor: &Tensor| tensor.narrow(2, keys, queries);
                let [want, want_log_sum_exp] = dense([&asking(&q)?, &seen(&k)?, &seen(&v)?], &of_keys)?;
                // Tokens that are nobody's keys may have any bias.
                let nan = Tensor::full(f32::NAN, (shape[0], shape[1], queries), &Device::Cpu)?;
                let bias = Tensor::cat(&[bias.narrow(2, 0, keys)?, nan], 2)?;
                let tolerance = tolerance(dtype);
                for runner in runners() {
                    let on_device = |tensor: &Tensor| tensor.to_device(&runner.device);
                    let options = runner.options().key_bias(&on_device(&bias)?);
                    let (q, k, v) = (on_device(&q)?, on_device(&k)?, on_device(&v)?);
                    let case = format!("{} {dtype:?} {keys} keys, bias {shape:?}", runner.name);
                    let part = mixed_attention_part(&q, Some((&k, &v)), None, &plan, &options)?;
                    check_close(&case, &asking(&part.output)?, &want, tolerance).unwrap();
                    check_close(&case, &asking(&part.log_sum_exp)?, &want_log_sum_exp, 2e-5).unwrap();
                }
            }
        }
    }
    Ok(())
}

/// A key whose bias is log 3 weighs as much as three keys like it, past padding, windows and a rotation.
#[test]
fn the_bias_is_the_logarithm_of_a_weight() -> Result<()> {
    let tokens = |anchors| [TokenSpec::new("anchors", anchors), TokenSpec::new("queries", 4)];
    let pattern = || [AttentionPattern::queries(["anchors", "queries"]).attend_to(["anchors"])];
    let once = AttentionPlan::new(tokens(10), pattern()).expect("a valid plan");
    let thrice = AttentionPlan::new(tokens(30), pattern()).expect("a valid plan");
    let [q, k, v] = [random(&[1, 2, 14, 16])?, random(&[1, 2, 14, 16])?, random(&[1, 2, 14, 16])?];
    let angles = frequencies(1, 14, 16)?;
    let repeat = |tensor: &Tensor| {
        let (anchors, queries) = (tensor.narrow(2, 0, 10)?, tensor.narrow(2, 10, 4)?);
        Tensor::cat(&[&anchors, &anchors, &anchors, &queries], 2)
    };
    let (rotated_q, rotated_k) = (angles.rotate(&q)?, angles.rotate(&k)?);
    let want = mixed_attention(&repeat(&rotated_q)?, &repeat(&rotated_k)?, &repeat(&v)?, &thrice, &none())?;
    let bias = Tensor::full(3f32.ln(), (1, 1, 14), &Device::Cpu)?;
    let alone = mixed_attention(&q, &k, &v, &once, &none().rope(&angles))?;
    for runner in runners().iter().filter(|runner| runner.device.is_cpu()) {
        // All keys three times: nothing changes but the sum.
        let options = runner.options().rope(&angles).key_bias(&bias);
        let got = mixed_attention(&q, &k, &v, &once, &options)?;
        same(&runner.name, &got, &alone);
        same(&runner.name, &got.narrow(2, 10, 4)?, &want.narrow(2, 30, 4)?);
    }
    Ok(())
}

#[test]
fn a_bias_of_minus_infinity_hides_a_key() -> Result<()> {
    let plan = plan(&[("a", 9), ("b", 140)], &["a -> b", "b -> a"]);
    for dtype in DTYPES {
        let operand = || random(&[1, 2, 149, 20])?.to_dtype(dtype);
        let (q, k, v) = (operand()?, operand()?, operand()?);
        // All of `a`, and some of `b`.
        let hidden = |token: usize| token < 9 || token.is_multiple_of(3);
        let bias: Vec<f32> =
            (0..149).map(|token| if hidden(token) { f32::NEG_INFINITY } else { 0.1 * token as f32 }).collect();
        let bias = Tensor::from_vec(bias, (1, 1, 149), &Device::Cpu)?;
        let real: Vec<u8> = (0..149).map(|token| u8::from(!hidden(token))).collect();
        let padding = KeyPadding::from_mask(&Tensor::from_vec(real, (1, 149), &Device::Cpu)?)?;
        for runner in runners() {
            let on_device = |tensor: &Tensor| tensor.to_device(&runner.device);
            let (q, k, v) = (on_device(&q)?, on_device(&k)?, on_device(&v)?);
            let options = runner.options().key_bias(&on_device(&bias)?);
            let got = mixed_attention(&q, &k, &v, &plan, &options)?;
            let want = mixed_attention(&q, &k, &v, &plan, &options.clone().key_padding(padding.clone()))?;
            // Hidden keys of a tile move those that are seen to others.
            check_close(&runner.name, &got, &want, tolerance(dtype)).unwrap();
            assert!(numbers(&got.narrow(2, 9, 140)?)?.iter().all(|number| *number == 0.0), "{}", runner.name);
        }
    }
    Ok(())
}

/// A layer keeps the bias of the groups that it caches; caches carry it through files, devices and one another.
#[test]
fn a_cached_key_keeps_its_bias() -> Result<()> {
    let groups = [("a_anchors", 5), ("a_queries", 4), ("b_anchors", 3)];
    let plan = plan(&groups, &["a_anchors a_queries b_anchors -> a_anchors b_anchors"]);
    let x = random(&[2, 12, WIDTH])?;
    let step = plan.cached_queries("a_queries", 4).expect("a plan");
    let queries = x.narrow(1, 5, 4)?;
    for shape in shapes(2, 2, 12) {
        let bias = random(&shape)?;
        let layer = layer(false)?;
        let (y, cache) = layer.forward_and_cache(&x, &plan, &none().key_bias(&bias))?;
        let want = y.narrow(1, 5, 4)?;
        same("in a cache", &layer.forward_from_cache(&queries, &step, &cache, &none())?, &want);

        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("cache.safetensors");
        cache.save_safetensors(&path)?;
        let loaded = KvCache::load_safetensors(&path, &Device::Cpu)?;
        same("in a file", &layer.forward_from_cache(&queries, &step, &loaded, &none())?, &want);

        // Group by group, the first with its bias, the second without.
        let of_group = |name: &str| {
            let (keys, values) = cache.group(name)?;
            KvCache::from_groups([(name, keys, values)], None)
        };
        let bias = cache.key_bias().expect("a bias");
        let first = of_group("a_anchors")?.with_key_bias(&bias.narrow(2, 0, 5)?)?;
        let zeros = Tensor::cat(&[bias.narrow(2, 0, 5)?, bias.narrow(2, 5, 3)?.zeros_like()?], 2)?;
        let (_, cache) = layer.forward_and_cache(&x, &plan, &none())?;
        let other = layer.forward_from_cache(&queries, &step, &cache.with_key_bias(&zeros)?, &none())?;
        let appended = first.append(&of_group("b_anchors")?)?;
        same("appended", &layer.forward_from_cache(&queries, &step, &appended, &none())?, &other);
    }
    Ok(())
}

/// Cached and fresh keys in one pattern, each with a bias of its own, or only one of them.
#[test]
fn cached_and_fresh_keys_have_biases_of_their_own() -> Result<()> {
    let tokens = [TokenSpec::cached("old"), TokenSpec::new("fresh", 30)];
    let plan = AttentionPlan::new(tokens, [AttentionPattern::queries(["fresh"]).attend_to(["fresh", "old"]).causal()]);
    let plan = plan.expect("a valid plan");
    let (q, [k, v]) = (random(&[1, 4, 30, 8])?, [random(&[1, 2, 30, 8])?, random(&[1, 2, 30, 8])?]);
    let [old_k, old_v] = [random(&[1, 2, 70, 8])?, random(&[1, 2, 70, 8])?];
    let (of_fresh, of_old) = (random(&[1, 4, 30])?, random(&[1, 1, 70])?);
    let zeros = |bias: &Tensor| bias.zeros_like();
    let run = |options: AttentionOptions, fresh: Option<&Tensor>, old: Option<&Tensor>| -> Result<Tensor> {
        let options = fresh.map_or(options.clone(), |bias| options.key_bias(bias));
        let cache = KvCache::from_groups([("old", old_k.clone(), old_v.clone())], None)?;
        let cache = match old {
            Some(bias) => cache.with_key_bias(bias)?,
            None => cache,
        };
        mixed_attention_cached(&q, Some((&k, &v)), &cache, &plan, &options)
    };
    let both = run(none().backend(Backend::Reference), Some(&of_fresh), Some(&of_old))?;
    let plain = run(none().backend(Backend::Reference), None, None)?;
    assert!(check_close("a bias changes something", &both, &plain, 1e-2).is_err());
    for runner in runners().iter().filter(|runner| runner.device.is_cpu()) {
        let options = || runner.options();
        same(&runner.name, &run(options(), Some(&of_fresh), Some(&of_old))?, &both);
        same(&runner.name, &run(options(), Some(&zeros(&of_fresh)?), None)?, &plain);
        let [one, with_zeros] = [None, Some(&zeros(&of_old)?)].map(|old| run(options(), Some(&of_fresh), old));
        same(&runner.name, &one?, &with_zeros?);
        let [one, with_zeros] = [None, Some(&zeros(&of_fresh)?)].map(|fresh| run(options(), fresh, Some(&of_old)));
        same(&runner.name, &one?, &with_zeros?);
    }
    Ok(())
}

/// Gradients flow past a bias in the fused backend; one of the bias itself is the reference's.
#[test]
fn gradients_know_the_bias() -> Result<()> {
    let plan = plan(&[("a", 13), ("b", 30)], &["a -> b a", "b -> a"]);
    let shapes = [[2, 4, 43, 8], [2, 2, 43, 8], [2, 2, 43, 8]];
    let operands = shapes.iter().map(|shape| Var::from_tensor(&random(shape)?)).collect::<Result<Vec<_>>>()?;
    let [q, k, v] = [0, 1, 2].map(|index| operands[index].as_tensor());
    let bias = Var::from_tensor(&random(&[1, 4, 43])?)?;
    let weights = random(&[2, 4, 43, 8])?;
    let loss = |y: Tensor| (y * &weights)?.sum_all();
    let auto = loss(mixed_attention(q, k, v, &plan, &none().key_bias(&bias))?)?.backward()?;
    let fused = none().backend(Backend::Fused);
    let got =
        loss(mixed_attention(q, k, v, &plan, &fused.clone().key_bias(&bias.as_detached_tensor()))?)?.backward()?;
    for operand in &operands {
        let [got, want] = [&got, &auto].map(|gradients| gradients.get(operand).expect("a gradient"));
        check_close("past a bias", got, want, 1e-4).unwrap();
    }
    let refusal = mixed_attention(q, k, v, &plan, &fused.key_bias(&bias));
    refused("a bias that is trained", refusal, &["key_bias", "gradient"]);

    let of_bias = numbers(auto.get(&bias).expect("a gradient"))?;
    let value = |shift: f32, index: usize| -> Result<f64> {
        let mut numbers = bias.flatten_all()?.to_vec1::<f32>()?;
        numbers[index] += shift;
        let bias = Tensor::from_vec(numbers, bias.dims(), &Device::Cpu)?;
        let [q, k, v] = [q, k, v].map(|tensor| tensor.to_dtype(DType::F64).expect("wide"));
        let reference = none().backend(Backend::Reference);
        let y = mixed_attention(&q, &k, &v, &plan, &reference.key_bias(&bias))?;
        (y * weights.to_dtype(DType::F64)?)?.sum_all()?.to_scalar::<f64>()
    };
    for index in [0, 12, 13, 50, 130, 171] {
        let difference = (value(1e-2, index)? - value(-1e-2, index)?) / 2e-2;
        assert!((difference - of_bias[index]).abs() < 1e-3, "{index}: {difference}, {}", of_bias[index]);
    }
    Ok(())
}

#[test]
fn a_bias_that_does_not_fit_is_refused() -> Result<()> {
    let groups = [("anchors", 5), ("queries", 4)];
    let plan = plan(&groups, &["anchors queries -> anchors"]);
    let q = random(&[2, 3, 9, 8])?;
    let attend = |bias: &Tensor| mixed_attention(&q, &q, &q, &plan, &none().key_bias(bias));
    let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::F32, &Device::Cpu);
    refused("two axes", attend(&zeros(&[2, 9])?), &["key_bias", "[batch or 1, heads or 1, tokens]", "[2, 9]"]);
    refused("3 rows", attend(&zeros(&[3, 1, 9])?), &["key_bias", "batch size 3", "2"]);
    refused("2 heads", attend(&zeros(&[1, 2, 9])?), &["key_bias", "3 heads or 1", "[1, 2, 9]"]);
    refused("8 tokens", attend(&zeros(&[1, 1, 8])?), &["key_bias has 8 tokens", "9", "anchors 5"]);
    refused("integers", attend(&zeros(&[1, 1, 9])?.to_dtype(DType::U32)?), &["key_bias", "U32", "float"]);

    let keys = q.narrow(2, 0, 5)?;
    let cache = KvCache::from_groups([("anchors", keys.clone(), keys)], None)?;
    refused("a cache's two axes", cache.clone().with_key_bias(&zeros(&[2, 5])?), &["key_bias", "[2, 5]"]);
    refused("a cache's 3 rows", cache.clone().with_key_bias(&zeros(&[3, 1, 5])?), &["key_bias", "3", "2"]);
    refused("a cache's 4 tokens", cache.clone().with_key_bias(&zeros(&[1, 1, 4])?), &["key_bias", "4", "5", "anchors"]);
    refused("a cache's no heads", cache.clone().with_key_bias(&zeros(&[1, 0, 5])?), &["key_bias", "heads ≥ 1"]);
    let two = cache.clone().with_key_bias(&zeros(&[1, 2, 5])?)?;
    let step = plan.cached_queries("queries", 4).expect("a plan");
    let queries = q.narrow(2, 0, 4)?;
    let refusal = mixed_attention_cached(&queries, None, &two, &step, &none());
    refused("a cache's 2 heads", refusal, &["key_bias of the cache", "3 heads or 1"]);
    let three = cache.clone().with_key_bias(&zeros(&[1, 3, 5])?)?;
    refused("caches of different heads", three.append(&two), &["key_bias of the appended cache", "3 heads", "2"]);
    let useless = none().key_bias(&zeros(&[1, 1, 4])?);
    refused("no key to add it to", mixed_attention_cached(&queries, None, &cache, &step, &useless), &["ignored"]);

    // Files may hold anything.
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("cache.safetensors");
    for (number, is_right) in [(f32::NEG_INFINITY, true), (1.5, true), (f32::NAN, false), (f32::INFINITY, false)] {
        let bias = Tensor::full(number, (1, 1, 5), &Device::Cpu)?;
        cache.clone().with_key_bias(&bias)?.save_safetensors(&path)?;
        match (KvCache::load_safetensors(&path, &Device::Cpu), is_right) {
            (Ok(loaded), true) => assert_eq!(loaded.key_bias().expect("a bias").dims(), [1, 1, 5]),
            (loaded, _) => refused("a file", loaded, &["key_bias", "finite or −∞"]),
        }
    }
    Ok(())
}

/// The order of keys in tiles, threads and SIMD levels must not matter to which bias a key has.
#[test]
fn biases_follow_their_keys_past_padding() -> Result<()> {
    let plan = plan(&[("tokens", 300)], &["tokens -> tokens"]);
    let [q, k, v] = [random(&[2, 2, 300, 16])?, random(&[2, 2, 300, 16])?, random(&[2, 2, 300, 16])?];
    let real: Vec<u8> = (0..600).map(|index| u8::from(index % 5 != 2)).collect();
    let padding = KeyPadding::from_mask(&Tensor::from_vec(real.clone(), (2, 300), &Device::Cpu)?)?;
    let bias: Vec<f32> =
        real.iter().enumerate().map(|(i, real)| if *real == 1 { (i as f32).sin() } else { f32::NAN }).collect();
    let bias = Tensor::from_vec(bias, (2, 1, 300), &Device::Cpu)?;
    let options = none().key_bias(&bias).key_padding(padding);
    let want = mixed_attention(&q, &k, &v, &plan, &options.clone().backend(Backend::Reference))?;
    for level in SimdLevel::available() {
        let got = mixed_attention(&q, &k, &v, &plan, &options.clone().backend(Backend::Fused).simd(*level))?;
        same(&level.to_string(), &got, &want);
    }
    // In a layer, past its cache.
    let layer = MixedAttention::new(&MixedAttentionConfig::new(WIDTH, 2), weights())?;
    let x = random(&[2, 300, WIDTH])?;
    let (_, cache) = layer.forward_and_cache(&x, &plan, &options.cache_groups(["tokens"]))?;
    assert_eq!(cache.key_bias().expect("a bias").dims(), [2, 1, 300]);
    Ok(())
}
