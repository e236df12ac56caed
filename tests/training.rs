//! Layers that are being trained: gradients are derivatives, and weights are followed after they were loaded.

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use candle_core::{DType, Device, Result, Tensor, Var};
use candle_mixed_attention::{
    AttentionOptions, AttentionPattern, AttentionPlan, Backend, KeyPadding, KvCache, MixedAttention,
    MixedAttentionConfig, PerceiverAttention, PerceiverAttentionConfig, RopeFrequencies, SquareBanks, TokenSpec,
    WeightSharing, mixed_attention,
};
use candle_nn::{VarBuilder, VarMap};
use support::compare::{check_close, numbers};

const SHAPE: (usize, usize, usize, usize) = (1, 2, 7, 6);

fn random(shape: impl Into<candle_core::Shape>) -> Result<Tensor> {
    Tensor::randn(0f32, 1., shape, &Device::Cpu)
}

/// Groups `a_tokens` (3) and `b_tokens` (4), all of which see `b_tokens`.
fn plan() -> AttentionPlan {
    let tokens = [TokenSpec::new("a_tokens", 3), TokenSpec::new("b_tokens", 4)];
    AttentionPlan::new(tokens, [AttentionPattern::queries(["a_tokens", "b_tokens"]).attend_to(["b_tokens"])])
        .expect("a valid plan")
}

/// Compares a gradient with central differences at some numbers of each operand.
fn check_gradients(case: &str, options: &AttentionOptions) -> Result<()> {
    let operands = [(); 3].map(|()| Var::from_tensor(&random(SHAPE).expect("numbers")).expect("a variable"));
    let weights = random(SHAPE)?;
    let loss = |operands: [&Tensor; 3]| {
        (mixed_attention(operands[0], operands[1], operands[2], &plan(), options)? * &weights)?.sum_all()
    };
    let gradients = loss([&operands[0], &operands[1], &operands[2]])?.backward()?;
    for position in 0..3 {
        let gradient = numbers(gradients.get(&operands[position]).expect("a gradient"))?;
        for index in [0, 13, 27, 41, 60, 83] {
            let shifted = |step: f32| -> Result<f64> {
                let mut values = operands[position].flatten_all()?.to_vec1::<f32>()?;
                values[index] += step;
                let shifted = Tensor::from_vec(values, SHAPE, &Device::Cpu)?;
                let mut all: [&Tensor; 3] = [&operands[0], &operands[1], &operands[2]];
                all[position] = &shifted;
                Ok(f64::from(loss(all)?.to_scalar::<f32>()?))
            };
            let difference = (shifted(1e-2)? - shifted(-1e-2)?) / 2e-2;
            let error = (difference - gradient[index]).abs();
            assert!(error < 2e-3, "{case}, operand {position}, number {index}: {difference} {}", gradient[index]);
        }
    }
    Ok(())
}

#[test]
fn gradients_match_finite_differences() -> Result<()> {
    let fused = AttentionOptions::default().backend(Backend::Fused);
    let padding = KeyPadding::from_mask(&Tensor::new(&[[1u8, 1, 1, 1, 0, 1, 1]], &Device::Cpu)?)?;
    let rope = RopeFrequencies::from_angles(&random((1, 7, 3))?)?;
    check_gradients("plain", &fused)?;
    check_gradients("padding", &fused.clone().key_padding(padding.clone()))?;
    check_gradients("RoPE", &fused.clone().rope(&rope))?;
    check_gradients("padding and RoPE", &fused.key_padding(padding).rope(&rope))
}

/// Gradients of a fused call by recomputation against those that candle finds in the ops of the reference.
#[test]
fn gradients_of_both_backends_agree() -> Result<()> {
    let tokens = [TokenSpec::new("a", 37), TokenSpec::cached("c"), TokenSpec::new("b", 41), TokenSpec::new("none", 3)];
    let patterns = [
        AttentionPattern::queries(["a"]).attend_to(["b", "c", "b"]),
        AttentionPattern::queries(["b"]).attend_to(["a", "b"]),
        AttentionPattern::queries(["none"]).attend_to(["c"]),
    ];
    let plan = AttentionPlan::new(tokens, patterns).expect("a valid plan");
    let part = |len: usize| random((2, 3, len, 8));
    let cache = KvCache::from_groups([("c", part(11)?, part(11)?)], None)?;
    let mask: Vec<u8> = (0..2 * 81).map(|token| u8::from(token % 5 != 2)).collect();
    let padding = KeyPadding::from_mask(&Tensor::from_vec(mask, (2, 81), &Device::Cpu)?)?;
    let rope = RopeFrequencies::from_angles(&random((2, 81, 4))?)?;
    let operands = [(); 3].map(|()| Var::from_tensor(&part(81).expect("numbers")).expect("a variable"));
    let weights = part(81)?;
    let gradients = |backend| -> Result<Vec<Tensor>> {
        let options = AttentionOptions::default().backend(backend).key_padding(padding.clone()).rope(&rope);
        let [queries, keys, values] = &operands;
        let keys_values = Some((keys.as_tensor(), values.as_tensor()));
        let output = candle_mixed_attention::mixed_attention_cached(queries, keys_values, &cache, &plan, &options)?;
        let gradients = (output * &weights)?.sum_all()?.backward()?;
        Ok(operands.iter().map(|operand| gradients.get(operand).expect("a gradient").clone()).collect())
    };
    let (got, want) = (gradients(Backend::Fused)?, gradients(Backend::Reference)?);
    for (name, (got, want)) in ["queries", "keys", "values"].iter().zip(got.iter().zip(&want)) {
        check_close(name, got, want, 2e-5).unwrap();
    }
    Ok(())
}

/// Counts the bytes that are allocated, and the most at a time since it was last asked.
struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = NOW.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        MOST.fetch_max(now, Ordering::Relaxed);
        // SAFETY: as it came.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as it came.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn memory_of_a_backward_pass_is_linear() -> Result<()> {
    let most_bytes = |tokens: usize| -> Result<usize> {
        let plan = AttentionPlan::new(
            [TokenSpec::new("all", tokens)],
            [AttentionPattern::queries(["all"]).attend_to(["all"])],
        );
        let plan = plan.expect("a valid plan");
        let operands =
            [(); 3].map(|()| Var::from_tensor(&random((1, 1, tokens, 8)).expect("numbers")).expect("variable"));
        let options = AttentionOptions::default().backend(Backend::Fused);
        let loss = mixed_attention(&operands[0], &operands[1], &operands[2], &plan, &options)?.sqr()?.sum_all()?;
        let before = NOW.load(Ordering::Relaxed);
        MOST.store(before, Ordering::Relaxed);
        let gradients = loss.backward()?;
        assert!(gradients.get(&operands[1]).is_some());
        Ok(MOST.load(Ordering::Relaxed) - before)
    };
    // All scores are 256 MiB, and an autograd of them takes a dozen times that. Other tests of this file take little.
    let most = most_bytes(8_192)?;
    assert!(most < 160 << 20, "{} MiB", most >> 20);
    Ok(())
}

#[test]
fn gradients_do_not_see_what_padding_hides() -> Result<()> {
    let mask = Tensor::new(&[[1u8, 1, 1, 1, 0, 1, 1]], &Device::Cpu)?;
    let options = AttentionOptions::default().key_padding(KeyPadding::from_mask(&mask)?);
    let poison = mask.reshape((1, 1, 7, 1))?.broadcast_as(SHAPE)?;
    let nan = Tensor::full(f32::NAN, SHAPE, &Device::Cpu)?;
    let poisoned = || -> Result<Var> { Var::from_tensor(&poison.where_cond(&random(SHAPE)?, &nan)?) };
    let (queries, keys, values) = (Var::from_tensor(&random(SHAPE)?)?, poisoned()?, poisoned()?);
    let gradients = mixed_attention(&queries, &keys, &values, &plan(), &options)?.sum_all()?.backward()?;
    for (name, operand) in [("queries", &queries), ("keys", &keys), ("values", &values)] {
        let gradient = numbers(gradients.get(operand).expect("a gradient"))?;
        assert!(gradient.iter().all(|number| number.is_finite()), "{name}: {gradient:?}");
    }
    Ok(())
}

#[test]
fn a_cache_that_is_trained_is_followed_or_refused() -> Result<()> {
    let part = |len: usize| random((1, 2, len, 6));
    let (keys, values) = (Var::from_tensor(&part(4)?)?, part(4)?);
    let cache = KvCache::from_groups([("b_tokens", keys.as_tensor().clone(), values)], None)?;
    let step = plan().with_cached(["b_tokens"], [("a_tokens", 3)]).expect("a valid plan");
    let run = |backend| {
        let options = AttentionOptions::default().backend(backend);
        candle_mixed_attention::mixed_attention_cached(&part(3)?, None, &cache, &step, &options)
    };
    let refusal = run(Backend::Fused).expect_err("the kernel cannot follow the cache").to_string();
    assert!(refusal.contains("cache") && refusal.contains("gradient"), "{refusal}");
    let gradients = run(Backend::Auto)?.sum_all()?.backward()?;
    assert!(numbers(gradients.get(&keys).expect("a gradient"))?.iter().any(|number| *number != 0.0));
    Ok(())
}

/// Sets each variable in turn: the output must change with it, to what a layer loaded afterwards gives.
fn check_weights_are_followed(
    case: &str,
    load: impl Fn(VarBuilder) -> Result<Box<dyn Fn() -> Result<Tensor>>>,
) -> Result<()> {
    let vars = VarMap::new();
    let vb = || VarBuilder::from_varmap(&vars, DType::F32, &Device::Cpu);
    let forward = load(vb())?;
    let names: Vec<String> = vars.data().lock().expect("no panic while locked").keys().cloned().collect();
    assert!(names.len() >= 4, "{case}: {names:?}");
    for name in names {
        let before = forward()?;
        let var = vars.data().lock().expect("no panic while locked")[&name].clone();
        var.set(&random(var.shape())?)?;
        let after = forward()?;
        // A bias of keys shifts all scores of a query alike.
        if !name.contains("k.bias") {
            let change = (&after - &before)?.abs()?.max_all()?.to_scalar::<f32>()?;
            assert!(change > 1e-3, "{case}: '{name}' was set and nothing changed");
        }
        check_close(&format!("{case}, {name}"), &after, &load(vb())?()?, 2e-6).unwrap();
    }
    Ok(())
}

#[test]
fn weights_that_change_are_followed() -> Result<()> {
    let tokens = plan().tokens().to_vec();
    let all = ["a_tokens", "b_tokens"];
    let all = AttentionPlan::new(tokens, [AttentionPattern::queries(all).attend_to(all)]).expect("a valid plan");
    let per_domain = |square| WeightSharing::PerDomain { domains: vec!["a".to_string(), "b".to_string()], square };
    let sharings = [WeightSharing::Shared, per_domain(SquareBanks::Plain), per_domain(SquareBanks::Transposed)];
    for sharing in &sharings {
        let x = random((1, 7, 12))?;
        check_weights_are_followed(&format!("mixed, {sharing:?}"), |vb| {
            let layer = MixedAttention::with_sharing(&MixedAttentionConfig::new(12, 2), sharing, vb)?;
            let (x, all) = (x.clone(), all.clone());
            Ok(Box::new(move || layer.forward(&x, &all, &AttentionOptions::default())))
        })?;
    }

    let config: PerceiverAttentionConfig =
        serde_json::from_str(r#"{"hidden_dim": 12, "num_heads": 2, "kv_dim": 5}"#).expect("a configuration");
    let (x, source) = (random((1, 7, 12))?, random((1, 4, 5))?);
    check_weights_are_followed("perceiver", |vb| {
        let layer = PerceiverAttention::new(&config, vb)?;
        let (x, source) = (x.clone(), source.clone());
        let options = AttentionOptions::default();
        Ok(Box::new(move || layer.forward(&x, &layer.encode(&source, None, None)?, &options)))
    })
}

/// Later passes use the part of the weights that makes queries.
#[test]
fn weights_that_change_are_followed_past_a_cache() -> Result<()> {
    let vars = VarMap::new();
    let vb = VarBuilder::from_varmap(&vars, DType::F32, &Device::Cpu);
    let layer = MixedAttention::new(&MixedAttentionConfig::new(12, 2), vb)?;
    let x = random((1, 7, 12))?;
    let options = AttentionOptions::default().cache_groups(["b_tokens"]);
    let (_, cache) = layer.forward_and_cache(&x, &plan(), &options)?;
    let cache = KvCache::from_groups([("b_tokens", cache.keys().detach(), cache.values().detach())], None)?;
    let step = plan().with_cached(["b_tokens"], [("a_tokens", 3)]).expect("a valid plan");
    let run = || layer.forward_from_cache(&x.narrow(1, 0, 3)?, &step, &cache, &AttentionOptions::default());
    let before = run()?;
    vars.data().lock().expect("no panic while locked")["q.weight"].set(&random((12, 12))?)?;
    let change = (run()? - before)?.abs()?.max_all()?.to_scalar::<f32>()?;
    assert!(change > 1e-3, "'q.weight' was set and nothing changed");
    Ok(())
}
