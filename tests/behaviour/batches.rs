//! Samples of different sizes in one launch give what each gives alone.

use candle_core::{DType, Device, Result, Tensor};
use candle_mixed_attention::{
    AttentionOptions, AttentionPattern, AttentionPlan, BatchPlan, KeyPadding, KvCache, TokenSpec, mixed_attention,
    mixed_attention_cached,
};
use rand::Rng;

use crate::small::{WIDTH, layer, random, same};
use crate::support::backends::{DTYPES, runners};
use crate::support::compare::check_close;
use crate::support::refusal::refused;

/// Anchors that see each other, queries that see them, steps that see those before them.
fn sample(anchors: usize, queries: usize, steps: usize) -> AttentionPlan {
    let tokens = [("a_anchors", anchors), ("a_queries", queries), ("b_steps", steps)];
    let patterns = [
        AttentionPattern::queries(["a_anchors", "a_queries"]).attend_to(["a_anchors"]),
        AttentionPattern::queries(["b_steps"]).attend_to(["b_steps", "a_anchors"]).window(40, 0),
    ];
    AttentionPlan::new(tokens.map(|(name, size)| TokenSpec::new(name, size)), patterns).expect("a valid plan")
}

fn batch_of(plans: &[AttentionPlan]) -> BatchPlan {
    BatchPlan::new(plans).expect("a valid batch")
}

#[test]
fn samples_in_one_launch_equal_one_call_each() -> Result<()> {
    let mut sizes = rand::rng();
    for dtype in DTYPES {
        let plans: Vec<AttentionPlan> = (0..4)
            .map(|_| sample(sizes.random_range(0..300), sizes.random_range(0..90), sizes.random_range(0..200)))
            .collect();
        let batch = batch_of(&plans);
        let tokens = batch.plan().len();
        let pairs: u64 = plans.iter().filter_map(|plan| plan.visible_pairs().ok()).sum();
        assert_eq!(batch.plan().visible_pairs(), Ok(pairs));
        let operand = || random(&[1, 2, tokens, 24])?.to_dtype(dtype);
        let (q, k, v) = (operand()?, operand()?, operand()?);
        let mask: Vec<u8> = (0..tokens).map(|_| u8::from(sizes.random_bool(0.8))).collect();
        let mask = Tensor::from_vec(mask, (1, tokens), &Device::Cpu)?;
        let tolerance = if dtype == DType::F32 { 3e-6 } else { 3e-2 };
        for runner in runners() {
            let options = runner.options().key_padding(KeyPadding::from_mask(&mask)?);
            let [q, k, v] = [&q, &k, &v].map(|tensor| tensor.to_device(&runner.device).expect("a copy"));
            let all = mixed_attention(&q, &k, &v, batch.plan(), &options)?;
            for (plan, of_sample) in plans.iter().zip(batch.samples()) {
                let (start, len) = (of_sample.start, of_sample.len());
                let part = |tensor: &Tensor| tensor.narrow(2, start, len);
                let options = runner.options().key_padding(KeyPadding::from_mask(&mask.narrow(1, start, len)?)?);
                let alone = mixed_attention(&part(&q)?, &part(&k)?, &part(&v)?, plan, &options)?;
                let got = part(&all)?.to_device(&Device::Cpu)?;
                check_close(&runner.name, &got, &alone.to_device(&Device::Cpu)?, tolerance).unwrap();
            }
        }
    }
    Ok(())
}

#[test]
fn samples_keep_caches_of_their_own() -> Result<()> {
    let first = [sample(70, 3, 0), sample(11, 4, 0)];
    let steps = [5, 90].map(|queries| [("a_queries", queries)]);
    let later: Vec<AttentionPlan> = first
        .iter()
        .zip(steps)
        .map(|(plan, queries)| plan.with_cached(["a_anchors"], queries).expect("a valid step"))
        .collect();
    let batch = batch_of(&later);
    let caches = [70, 11].map(|anchors| Ok([random(&[1, 2, anchors, 16])?, random(&[1, 2, anchors, 16])?]));
    let caches = caches.into_iter().collect::<Result<Vec<_>>>()?;
    let q = random(&[1, 2, 95, 16])?;
    let cache_of = |groups: &[(String, usize)]| {
        let tensors = groups.iter().map(|(name, sample)| {
            let [keys, values] = &caches[*sample];
            (name.clone(), keys.clone(), values.clone())
        });
        KvCache::from_groups(tensors, None)
    };
    let all = cache_of(&[(BatchPlan::group("a_anchors", 0), 0), (BatchPlan::group("a_anchors", 1), 1)])?;
    let y = mixed_attention_cached(&q, None, &all, batch.plan(), &AttentionOptions::default())?;
    for (sample, tokens) in batch.samples().iter().enumerate() {
        let cache = cache_of(&[("a_anchors".to_string(), sample)])?;
        let part = |tensor: &Tensor| tensor.narrow(2, tokens.start, tokens.len());
        let alone = mixed_attention_cached(&part(&q)?, None, &cache, &later[sample], &AttentionOptions::default())?;
        same("from a cache of all", &part(&y)?, &alone);
    }
    // The other way round, the sizes are not those of the plans.
    let swapped = cache_of(&[(BatchPlan::group("a_anchors", 0), 1), (BatchPlan::group("a_anchors", 1), 0)])?;
    let result = mixed_attention_cached(&q, None, &swapped, batch.plan(), &AttentionOptions::default());
    refused("caches of other samples", result, &["'a_anchors/0'", "70", "11"]);
    Ok(())
}

#[test]
fn layers_take_samples_and_keep_their_anchors() -> Result<()> {
    let layer = layer(false)?;
    let plans = [sample(20, 5, 9), sample(0, 0, 0), sample(3, 40, 1)];
    let batch = batch_of(&plans);
    let samples = plans.iter().map(|plan| random(&[plan.len(), WIDTH])).collect::<Result<Vec<_>>>()?;
    let none = AttentionOptions::default();
    let got = layer.forward_samples(&samples, &batch, &none)?;
    for ((x, plan), y) in samples.iter().zip(&plans).zip(&got) {
        assert_eq!(y.dims(), x.dims());
        if !plan.is_empty() {
            same("a sample", y, &layer.forward(&x.unsqueeze(0)?, plan, &none)?.squeeze(0)?);
        }
    }
    let x = Tensor::cat(&samples, 0)?.unsqueeze(0)?;
    let (_, cache) = layer.forward_and_cache(&x, batch.plan(), &none)?;
    assert_eq!(cache.layout().names(), [0, 1, 2].map(|sample| BatchPlan::group("a_anchors", sample)));

    refused("a sample too few", layer.forward_samples(&samples[..2], &batch, &none), &["number of samples", "3", "2"]);
    let mut longer = samples.clone();
    longer[2] = random(&[45, WIDTH])?;
    refused("a token too many", layer.forward_samples(&longer, &batch, &none), &["[44, 32]", "[45, 32]"]);
    longer[2] = random(&[1, 44, WIDTH])?;
    refused("a batch axis", layer.forward_samples(&longer, &batch, &none), &["x of a sample", "[1, 44, 32]"]);
    Ok(())
}

#[test]
fn batches_that_cannot_work_are_refused() {
    refused("no sample", BatchPlan::new(&[]), &["at least one token group"]);
    let few_pairs = || {
        let tokens = [TokenSpec::new("a", 1 << 63), TokenSpec::new("nothing", 0)];
        let patterns = [AttentionPattern::queries(["a", "nothing"]).attend_to(["nothing"])];
        AttentionPlan::new(tokens, patterns).expect("countable")
    };
    refused("too many tokens", BatchPlan::new(&[few_pairs(), few_pairs()]), &["'a/1'", "tokens"]);
}
