//! Small calls through every path of the fused CPU kernel, for a memory checker.
//!
//! Miri looks at each load and store of the scalar level (Tree Borrows, because rayon's queues are not made for Stacked
//! Borrows; rayon's threads never end); without Miri the same calls run on every level that the CPU has.
//!
//! ```text
//! MIRIFLAGS="-Zmiri-disable-isolation -Zmiri-tree-borrows -Zmiri-ignore-leaks" cargo +nightly miri test --test memory
//! ```

mod support;

use candle_core::{DType, Device, Result, Tensor};
use candle_mixed_attention::{
    AttentionOptions, AttentionPattern, AttentionPlan, Backend, KeyPadding, KvCache, RopeFrequencies, SimdLevel,
    TokenSpec, mixed_attention, mixed_attention_cached,
};
use half::{bf16, f16};
use support::compare::check_close;

const HEADS: usize = 2;

/// Numbers between -1 and 1 without a pattern that a wrong index would keep.
fn sequence(shape: &[usize], start: usize) -> Result<Tensor> {
    let number = |index: usize| (((start + index) * 2_654_435_761) % 1013) as f32 / 506.5 - 1.0;
    Tensor::from_vec((0..shape.iter().product()).map(number).collect::<Vec<_>>(), shape, &Device::Cpu)
}

/// Queries, keys and values `[1, heads, tokens, head_dim]` as views of one projection.
fn projection(tokens: usize, head_dim: usize, dtype: DType) -> Result<[Tensor; 3]> {
    let all = sequence(&[1, tokens, 3, HEADS, head_dim], tokens)?.to_dtype(dtype)?;
    let view = |part| all.narrow(2, part, 1)?.squeeze(2)?.transpose(1, 2);
    Ok([view(0)?, view(1)?, view(2)?])
}

fn all_attend_to(seen: &str, tokens: Vec<TokenSpec>) -> AttentionPlan {
    let asking: Vec<String> =
        tokens.iter().filter(|group| !group.is_cached()).map(|group| group.name.clone()).collect();
    AttentionPlan::new(tokens, [AttentionPattern::queries(asking).attend_to([seen])]).expect("a valid plan")
}

/// Rows `[heads][tokens][head_dim]` of a tensor of one batch row.
fn rows(tensor: &Tensor) -> Result<Vec<Vec<Vec<f64>>>> {
    tensor.to_dtype(DType::F64)?.squeeze(0)?.to_vec3()
}

/// Attention of all queries to the keys that are real, as the textbook writes it.
fn textbook(queries: &Tensor, keys: &Tensor, values: &Tensor, real: impl Fn(usize) -> bool) -> Result<Tensor> {
    let (queries, keys, values) = (rows(queries)?, rows(keys)?, rows(values)?);
    let head_dim = queries[0][0].len();
    let attend = |head: usize, query: &[f64]| {
        let score = |key: &[f64]| query.iter().zip(key).map(|(q, k)| q * k).sum::<f64>() / (head_dim as f64).sqrt();
        let seen: Vec<usize> = (0..keys[head].len()).filter(|key| real(*key)).collect();
        let weights: Vec<f64> = seen.iter().map(|key| score(&keys[head][*key]).exp()).collect();
        let total: f64 = weights.iter().sum();
        let channel = |channel: usize| {
            let weighted = |(key, weight): (&usize, &f64)| weight * values[head][*key][channel];
            seen.iter().zip(&weights).map(weighted).sum::<f64>() / total
        };
        (0..head_dim).map(channel).collect::<Vec<f64>>()
    };
    let numbers = (0..queries.len()).flat_map(|head| queries[head].iter().flat_map(move |query| attend(head, query)));
    let shape = (1, queries.len(), queries[0].len(), head_dim);
    Tensor::from_vec(numbers.collect::<Vec<f64>>(), shape, &Device::Cpu)
}

/// Runs a call on every level and compares it with what is expected.
fn check(what: &str, want: &Tensor, dtype: DType, run: impl Fn(&AttentionOptions) -> Result<Tensor>) {
    let tolerance = if dtype == DType::F32 { 1e-5 } else { 2e-2 };
    for level in SimdLevel::available() {
        let options = AttentionOptions::default().backend(Backend::Fused).simd(*level);
        let got = run(&options).expect("the kernel runs");
        check_close(&format!("{what}, {level}, {dtype:?}"), &got, want, tolerance).unwrap();
    }
}

fn dtypes() -> [DType; 3] {
    [DType::F32, DType::F16, DType::BF16]
}

#[test]
fn tiles_and_their_tails() -> Result<()> {
    // More keys and more queries than a tile has; no size is a multiple of any number of lanes.
    for (anchors, others, head_dim) in [(5, 3, 10), (139, 2, 3), (3, 197, 1)] {
        let plan = all_attend_to("anchors", vec![TokenSpec::new("anchors", anchors), TokenSpec::new("others", others)]);
        // Under Miri minutes for each; the other tests show how rows of each dtype are read.
        for dtype in dtypes().into_iter().take(if cfg!(miri) { 1 } else { 3 }) {
            let [queries, keys, values] = projection(anchors + others, head_dim, dtype)?;
            let want = textbook(&queries, &keys, &values, |key| key < anchors)?;
            check("tails", &want, dtype, |options| mixed_attention(&queries, &keys, &values, &plan, options));
        }
    }
    Ok(())
}

#[test]
fn padding_and_rope() -> Result<()> {
    let (tokens, head_dim) = (23, 8);
    let plan = all_attend_to("all", vec![TokenSpec::new("all", tokens)]);
    let mask: Vec<u8> = (0..tokens).map(|token| u8::from(token % 3 != 1)).collect();
    let padding = KeyPadding::from_mask(&Tensor::from_vec(mask, (1, tokens), &Device::Cpu)?)?;
    let rope = RopeFrequencies::from_angles(&sequence(&[1, tokens, head_dim / 2], 7)?)?;
    for dtype in dtypes() {
        let [queries, keys, values] = projection(tokens, head_dim, dtype)?;
        let (turned, turned_keys) = (rope.rotate(&queries)?, rope.rotate(&keys)?);
        let want = textbook(&turned, &turned_keys, &values, |key| key % 3 != 1)?;
        check("padding and RoPE", &want, dtype, |options| {
            let options = options.clone().key_padding(padding.clone()).rope(&rope);
            mixed_attention(&queries, &keys, &values, &plan, &options)
        });
    }
    Ok(())
}

#[test]
fn keys_of_a_cache() -> Result<()> {
    let (anchors, others, head_dim) = (17, 9, 6);
    let plan = all_attend_to("anchors", vec![TokenSpec::cached("anchors"), TokenSpec::new("others", others)]);
    for dtype in dtypes() {
        let [queries, ..] = projection(others, head_dim, dtype)?;
        let [_, keys, values] = projection(anchors, head_dim, dtype)?;
        let cache = KvCache::from_groups([("anchors".to_string(), keys.clone(), values.clone())], None)?;
        let want = textbook(&queries, &keys, &values, |_| true)?;
        check("cache", &want, dtype, |options| mixed_attention_cached(&queries, None, &cache, &plan, options));
    }
    Ok(())
}

#[test]
fn keys_that_are_not_seen_are_not_read_as_numbers() -> Result<()> {
    let (seen, hidden, head_dim) = (11, 6, 8);
    let plan = all_attend_to("seen", vec![TokenSpec::new("seen", seen), TokenSpec::new("hidden", hidden)]);
    let poison = |tensor: &Tensor, dtype: DType| -> Result<Tensor> {
        let poison = match dtype {
            DType::F32 => Tensor::full(f32::NAN, (1, HEADS, hidden, head_dim), &Device::Cpu)?,
            DType::F16 => Tensor::full(f16::INFINITY, (1, HEADS, hidden, head_dim), &Device::Cpu)?,
            _ => Tensor::full(bf16::NAN, (1, HEADS, hidden, head_dim), &Device::Cpu)?,
        };
        Tensor::cat(&[&tensor.narrow(2, 0, seen)?, &poison], 2)
    };
    for dtype in dtypes() {
        let [queries, keys, values] = projection(seen + hidden, head_dim, dtype)?;
        let want = textbook(&queries, &keys, &values, |key| key < seen)?;
        let (keys, values) = (poison(&keys, dtype)?, poison(&values, dtype)?);
        check("poison", &want, dtype, |options| mixed_attention(&queries, &keys, &values, &plan, options));
    }
    Ok(())
}
