//! Odd calls of the attention layers, case by case: what is refused and with which words, what works and gives what.
//!
//! The cases are those in which the published PyTorch package is known to refuse, crash, or be silently wrong; the table
//! in the crate's documentation lists where this crate differs on purpose.

mod support;

use candle_core::{D, DType, Device, Result, Tensor};
use candle_mixed_attention::{
    AnchorAttention, AnchorAttentionConfig, AnchorKind, AttentionOptions, AttentionPattern, AttentionPlan, Backend,
    DomainRuns, DotProductAttention, DotProductAttentionConfig, KeyPadding, KvCache, MixedAttention,
    MixedAttentionConfig, PerceiverAttention, PerceiverAttentionConfig, Rope, RopeConfig, RopeFrequencies, SimdLevel,
    TokenSpec, mixed_attention,
};
use candle_nn::{VarBuilder, VarMap};
use support::backends::runners;
use support::compare::{check_close, numbers};
use support::refusal::refused;

const WIDTH: usize = 32;
const HEADS: usize = 2;
const HEAD_DIM: usize = WIDTH / HEADS;

/// Rounding of two f32 paths to the same numbers.
const ROUNDING: f64 = 2e-6;

fn same(case: &str, got: &Tensor, want: &Tensor) {
    check_close(case, got, want, ROUNDING).unwrap_or_else(|message| panic!("{message}"));
}

fn random(shape: &[usize]) -> Result<Tensor> {
    Tensor::randn(0f32, 1., shape, &Device::Cpu)
}

fn weights() -> VarBuilder<'static> {
    // A fresh map makes random weights.
    VarBuilder::from_varmap(&VarMap::new(), DType::F32, &Device::Cpu)
}

fn layer(use_rope: bool) -> Result<MixedAttention> {
    MixedAttention::new(&MixedAttentionConfig::new(WIDTH, HEADS).use_rope(use_rope), weights())
}

fn tokens(groups: &[(&str, usize)]) -> Vec<TokenSpec> {
    groups.iter().map(|&(name, size)| TokenSpec::new(name, size)).collect()
}

/// A pattern written as `"a b -> a"`.
fn pattern(text: &str) -> AttentionPattern {
    let (queries, keys) = text.split_once("->").expect("an arrow");
    AttentionPattern::queries(queries.split_whitespace()).attend_to(keys.split_whitespace())
}

fn plan(groups: &[(&str, usize)], patterns: &[&str]) -> AttentionPlan {
    let patterns: Vec<_> = patterns.iter().map(|text| pattern(text)).collect();
    AttentionPlan::new(tokens(groups), patterns).expect("a valid plan")
}

/// Groups `a` (3 tokens) and `b` (4), all of which see `a`.
fn small_plan() -> AttentionPlan {
    plan(&[("a", 3), ("b", 4)], &["a b -> a"])
}

fn frequencies(batch: usize, tokens: usize, head_dim: usize) -> Result<RopeFrequencies> {
    Rope::new(&RopeConfig::new(head_dim), &Device::Cpu)?.frequencies(&random(&[batch, tokens, 3])?)
}

fn mask(rows: &[&[u8]]) -> Result<KeyPadding> {
    KeyPadding::from_mask(&Tensor::new(rows.to_vec(), &Device::Cpu)?)
}

/// What the layer gives where attention gives zeros.
fn bias_of(layer: &MixedAttention) -> Result<Tensor> {
    let x = random(&[1, 1, WIDTH])?;
    layer.forward(
        &x,
        &plan(&[("query", 1), ("nothing", 0)], &["query nothing -> nothing"]),
        &AttentionOptions::default(),
    )
}

#[test]
fn plans_that_cannot_work_are_refused() {
    type Case = (&'static str, &'static [(&'static str, usize)], &'static [&'static str], &'static [&'static str]);
    let cases: &[Case] = &[
        ("a group asks in two patterns", &[("a", 3)], &["a -> a", "a -> a"], &["'a'", "pattern 0", "pattern 1"]),
        ("a group is named twice in one list of queries", &[("a", 3)], &["a a -> a"], &["'a'", "query"]),
        ("a group asks nowhere", &[("a", 3), ("b", 4)], &["a -> a"], &["'b'", "4 tokens", "no pattern"]),
        ("an unknown group asks", &[("a", 3)], &["a c -> a"], &["'c'", "query_tokens", "[\"a\"]"]),
        ("an unknown group is asked", &[("a", 3)], &["a -> c"], &["'c'", "key_value_tokens", "[\"a\"]"]),
        ("two specs of one name", &[("a", 3), ("a", 3)], &["a -> a"], &["'a'", "twice"]),
        ("nobody asks in a pattern", &[("a", 3)], &["a -> a", " -> a"], &["pattern 1", "query_tokens"]),
        ("a pattern without keys", &[("a", 3)], &["a -> "], &["pattern 0", "key_value_tokens"]),
        ("no groups at all", &[], &[], &["at least one token group"]),
        ("sizes that overflow", &[("a", usize::MAX), ("b", 1)], &["a b -> a"], &["'b'"]),
    ];
    for (case, groups, patterns, words) in cases {
        let patterns: Vec<_> = patterns.iter().map(|text| pattern(text)).collect();
        refused(case, AttentionPlan::new(tokens(groups), patterns), words);
    }
    refused("a negative size", serde_json::from_str::<TokenSpec>(r#"{"name": "a", "size": -1}"#), &["-1"]);
}

#[test]
fn calls_that_do_not_fit_are_refused() -> Result<()> {
    let plan = small_plan();
    let none = AttentionOptions::default;
    let x = random(&[2, 7, WIDTH])?;
    let rope =
        |batch, tokens, head_dim| Ok::<_, candle_core::Error>(none().rope(&frequencies(batch, tokens, head_dim)?));
    let padding = |rows: &[&[u8]]| Ok::<_, candle_core::Error>(none().key_padding(mask(rows)?));
    let plain = layer(false)?;
    let rotating = layer(true)?;

    refused("RoPE on, no frequencies", rotating.forward(&x, &plan, &none()), &["use_rope = true", "frequencies"]);
    refused("RoPE off, frequencies", plain.forward(&x, &plan, &rope(1, 7, HEAD_DIM)?), &["use_rope = false"]);
    refused(
        "frequencies of 6 tokens",
        rotating.forward(&x, &plan, &rope(1, 6, HEAD_DIM)?),
        &["6 tokens", "7", "a 3, b 4"],
    );
    refused("frequencies of one token", rotating.forward(&x, &plan, &rope(1, 1, HEAD_DIM)?), &["1 tokens", "7"]);
    refused("frequencies of another head_dim", rotating.forward(&x, &plan, &rope(1, 7, 8)?), &["head_dim 16"]);
    refused("frequencies of 3 rows", rotating.forward(&x, &plan, &rope(3, 7, HEAD_DIM)?), &["batch size 3", "2"]);
    refused(
        "angles with two axes",
        RopeFrequencies::from_angles(&random(&[7, 8])?),
        &["[batch, tokens, head_dim / 2]"],
    );

    let wide = x.to_dtype(DType::F64)?;
    refused("x of another dtype", plain.forward(&wide, &plan, &none()), &["x has dtype F64", "F32", "weights"]);
    let ones = Tensor::ones((1, 7), DType::F32, &Device::Cpu)?;
    refused("a float mask", KeyPadding::from_mask(&ones), &["F32", "u8"]);
    let ones = Tensor::ones((1, 1, 7), DType::U8, &Device::Cpu)?;
    refused("a mask with three axes", KeyPadding::from_mask(&ones), &["[batch, tokens]", "[1, 1, 7]"]);
    refused(
        "a mask of 6 tokens",
        plain.forward(&x, &plan, &padding(&[&[1; 6]])?),
        &["key_padding", "6", "7", "a 3, b 4"],
    );
    refused(
        "a mask of 3 rows",
        plain.forward(&x, &plan, &padding(&[&[1; 7], &[1; 7], &[1; 7]])?),
        &["key_padding", "3", "2"],
    );

    refused("8 tokens", plain.forward(&random(&[1, 8, WIDTH])?, &plan, &none()), &["x has 8 tokens", "7", "a 3, b 4"]);
    refused(
        "another width",
        plain.forward(&random(&[1, 7, 16])?, &plan, &none()),
        &["[batch, tokens, 32]", "[1, 7, 16]"],
    );
    refused("two axes", plain.forward(&random(&[7, WIDTH])?, &plan, &none()), &["[batch, tokens, 32]", "[7, 32]"]);
    let indivisible = MixedAttention::new(&MixedAttentionConfig::new(33, 2), weights());
    refused("heads that do not divide the width", indivisible, &["33", "num_heads 2"]);
    for scale in [0.0, -1.0, f32::NAN, f32::INFINITY] {
        refused(
            "a scale out of range",
            plain.forward(&x, &plan, &none().scale(scale)),
            &["scale", "positive and finite"],
        );
    }
    Ok(())
}

#[test]
fn batches_of_one_serve_every_row() -> Result<()> {
    // Two equally large patterns, which the package cannot do with a mask of one row.
    let plan = plan(&[("a", 3), ("b", 3)], &["a -> a", "b -> b"]);
    let row: &[u8] = &[1, 0, 1, 1, 1, 0];
    let x = random(&[2, 6, WIDTH])?;
    let rotating = layer(true)?;
    let one = frequencies(1, 6, HEAD_DIM)?;
    let two = RopeFrequencies::from_angles(&{
        let table = one.table();
        // Angles from (cos, sin), doubled along the batch.
        let (sine, cosine) = (table.narrow(D::Minus1, 1, 1)?, table.narrow(D::Minus1, 0, 1)?);
        let angle = |(sine, cosine): (f64, f64)| sine.atan2(cosine) as f32;
        let angles: Vec<f32> = numbers(&sine)?.into_iter().zip(numbers(&cosine)?).map(angle).collect();
        Tensor::from_vec(angles, (1, 6, HEAD_DIM / 2), &Device::Cpu)?.repeat((2, 1, 1))?
    })?;
    let options = AttentionOptions::default().rope(&one).key_padding(mask(&[row])?);
    let explicit = AttentionOptions::default().rope(&two).key_padding(mask(&[row, row])?);
    same("broadcast", &rotating.forward(&x, &plan, &options)?, &rotating.forward(&x, &plan, &explicit)?);
    Ok(())
}

#[test]
fn nothing_to_attend_to_gives_the_bias() -> Result<()> {
    let layer = layer(false)?;
    let bias = bias_of(&layer)?;
    let none = AttentionOptions::default;

    let empty_keys = plan(&[("a", 3), ("nothing", 0)], &["a nothing -> nothing"]);
    let y = layer.forward(&random(&[2, 3, WIDTH])?, &empty_keys, &none())?;
    same("key groups of size 0", &y, &bias.broadcast_as((2, 3, WIDTH))?);

    let options = none().key_padding(mask(&[&[0, 0, 0, 1, 1, 1, 1], &[1; 7]])?);
    let x = random(&[2, 7, WIDTH])?;
    let y = layer.forward(&x, &small_plan(), &options)?;
    same("all keys of one sample masked", &y.narrow(0, 0, 1)?, &bias.broadcast_as((1, 7, WIDTH))?);
    let visible = layer.forward(&x, &small_plan(), &none())?;
    same("the other sample", &y.narrow(0, 1, 1)?, &visible.narrow(0, 1, 1)?);
    Ok(())
}

#[test]
fn sizes_of_zero_work_everywhere() -> Result<()> {
    for use_rope in [false, true] {
        let layer = layer(use_rope)?;
        let options = |batch: usize, tokens: usize| -> Result<AttentionOptions> {
            let none = AttentionOptions::default();
            Ok(if use_rope { none.rope(&frequencies(batch, tokens, HEAD_DIM)?) } else { none })
        };
        let empty = plan(&[("a", 0), ("b", 0)], &["a b -> a"]);
        let y = layer.forward(&random(&[1, 0, WIDTH])?, &empty, &options(1, 0)?)?;
        assert_eq!(y.dims(), [1, 0, WIDTH], "0 tokens, RoPE {use_rope}");
        let y = layer.forward(&random(&[0, 7, WIDTH])?, &small_plan(), &options(0, 7)?)?;
        assert_eq!(y.dims(), [0, 7, WIDTH], "batch 0, RoPE {use_rope}");
        let equal = plan(&[("a", 3), ("b", 3)], &["a -> a", "b -> b"]);
        let y = layer.forward(&random(&[0, 6, WIDTH])?, &equal, &options(0, 6)?)?;
        assert_eq!(y.dims(), [0, 6, WIDTH], "batch 0, two patterns, RoPE {use_rope}");
    }
    for runner in runners() {
        for dtype in [DType::F32, DType::F16, DType::BF16, DType::F64] {
            let options = match (dtype, runner.backend) {
                (DType::F64, Backend::Fused) => continue,
                _ => runner.options(),
            };
            for (batch, sizes) in [(0, [3, 4]), (2, [0, 4]), (2, [0, 0]), (0, [0, 0])] {
                let plan = plan(&[("a", sizes[0]), ("b", sizes[1])], &["a b -> a"]);
                let operand = Tensor::ones((batch, HEADS, plan.len(), HEAD_DIM), dtype, &runner.device)?;
                let y = mixed_attention(&operand, &operand, &operand, &plan, &options)?;
                assert_eq!((y.dims(), y.dtype()), (operand.dims(), dtype), "{}, batch {batch}, {sizes:?}", runner.name);
                assert!(numbers(&y)?.iter().all(|number| *number == 0.0), "{}, nothing to see", runner.name);
            }
        }
    }
    Ok(())
}

/// Scores of −∞ have no weight, wherever they stand among others; a key without weight adds nothing.
#[test]
fn keys_without_weight_add_nothing() -> Result<()> {
    // More keys than any kernel takes at a time, so that tiles without a finite score come first, last and in between.
    let count = 700;
    let plan = plan(&[("q", 1), ("k", count)], &["q k -> k"]);
    let head_dim = 8;
    let row = |number: f32| vec![number; head_dim];
    for runner in runners() {
        for visible in [0, 350, count - 1] {
            for score in [f32::NEG_INFINITY, -1e30] {
                let value = |key: usize| if key == visible { 1.0 } else { 1e30 };
                let keys: Vec<f32> = (0..count).flat_map(|key| row(if key == visible { 1.0 } else { score })).collect();
                let values: Vec<f32> = (0..count).flat_map(|key| row(value(key))).collect();
                let tensor = |numbers: Vec<f32>| {
                    let numbers = [row(1.0), numbers].concat();
                    Tensor::from_vec(numbers, (1, 1, count + 1, head_dim), &runner.device)
                };
                let (keys, values) = (tensor(keys)?, tensor(values)?);
                let y = mixed_attention(&keys.ones_like()?, &keys, &values, &plan, &runner.options())?;
                let first = numbers(&y.narrow(2, 0, 1)?)?;
                assert!(first.iter().all(|y| *y == 1.0), "{}, key {visible}, {score}: {first:?}", runner.name);
            }
        }
    }
    Ok(())
}

#[test]
fn sizes_that_no_machine_holds_are_refused() {
    let huge = |groups: &[(&str, usize)]| AttentionPlan::new(tokens(groups), [pattern("a b -> a")]);
    refused("too many tokens", huge(&[("a", usize::MAX), ("b", 1)]), &["'b'", "tokens"]);
    refused("too many pairs", huge(&[("a", 1 << 33), ("b", 0)]), &["pairs", "18446744073709551615"]);
    let large = huge(&[("a", 1 << 31), ("b", 5)]).expect("countable pairs");
    assert_eq!(large.visible_pairs(), Ok(((1 << 31) + 5) * (1 << 31)));
    let large = huge(&[("a", 1), ("b", 1 << 62)]).expect("countable pairs");
    refused("a dense mask", large.to_dense_mask(), &["memory", "4611686018427387905"]);
    refused("a long mask", KeyPadding::from_lengths(&[5], 1 << 62), &["key_padding", "memory"]);
    let runs = DomainRuns::from_sizes(&[usize::MAX]);
    assert_eq!(runs.tokens(), usize::MAX);
}

#[test]
fn only_the_kernel_of_the_cpu_asks_for_its_instructions() -> Result<()> {
    let all = [SimdLevel::Scalar, SimdLevel::Neon, SimdLevel::Avx2, SimdLevel::Avx512, SimdLevel::Avx512Bf16];
    let absent = *all.iter().find(|level| !SimdLevel::available().contains(level)).expect("no CPU has all");
    let (layer, x, plan) = (layer(false)?, random(&[1, 7, WIDTH])?, small_plan());
    let options = AttentionOptions::default().simd(absent);
    let words = ["SIMD level", &absent.to_string(), "scalar"];
    refused("instructions of another CPU", layer.forward(&x, &plan, &options.clone().backend(Backend::Fused)), &words);
    layer.forward(&x, &plan, &options.backend(Backend::Reference))?;
    Ok(())
}

#[test]
fn a_group_named_twice_among_the_keys_counts_twice() -> Result<()> {
    let layer = layer(false)?;
    let x = random(&[1, 7, WIDTH])?;
    let run = |keys: &str| {
        let plan = plan(&[("a", 3), ("b", 4)], &[&format!("a b -> {keys}")]);
        layer.forward(&x, &plan, &AttentionOptions::default())
    };
    same("all keys twice", &run("a a")?, &run("a")?);
    assert!(check_close("some keys twice", &run("a b a")?, &run("a b")?, 1e-3).is_err());
    Ok(())
}

#[test]
fn masked_tokens_have_no_influence() -> Result<()> {
    let layer = layer(false)?;
    let options = AttentionOptions::default().key_padding(mask(&[&[1, 0, 1, 1, 1, 1, 1]])?);
    let x = random(&[1, 7, WIDTH])?;
    let y = layer.forward(&x, &small_plan(), &options)?;
    for poison in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e30] {
        let token = Tensor::full(poison, (1, 1, WIDTH), &Device::Cpu)?;
        let poisoned = Tensor::cat(&[&x.narrow(1, 0, 1)?, &token, &x.narrow(1, 2, 5)?], 1)?;
        let got = layer.forward(&poisoned, &small_plan(), &options)?;
        // The masked token is still a query, of its own content.
        for (start, len) in [(0, 1), (2, 5)] {
            same(&format!("{poison} in a masked token"), &got.narrow(1, start, len)?, &y.narrow(1, start, len)?);
        }
    }
    Ok(())
}

#[test]
fn the_order_of_the_patterns_does_not_matter() -> Result<()> {
    let layer = layer(false)?;
    let x = random(&[1, 7, WIDTH])?;
    let run =
        |patterns: &[&str]| layer.forward(&x, &plan(&[("a", 3), ("b", 4)], patterns), &AttentionOptions::default());
    same("patterns in another order", &run(&["b -> a b", "a -> b"])?, &run(&["a -> b", "b -> a b"])?);
    Ok(())
}

/// Anchors of two domains and queries of one, and the plan of a later pass of those queries.
fn anchored() -> AttentionPlan {
    plan(
        &[("a_anchors", 3), ("a_queries", 5), ("b_anchors", 4)],
        &["a_anchors a_queries -> a_anchors b_anchors", "b_anchors -> b_anchors"],
    )
}

#[test]
fn caches_that_do_not_fit_are_refused() -> Result<()> {
    let none = AttentionOptions::default;
    let layer = layer(false)?;
    let first = anchored();
    let (_, cache) = layer.forward_and_cache(&random(&[2, 12, WIDTH])?, &first, &none())?;
    let step = first.cached_queries("a_queries", 6).expect("a valid step");
    let x = random(&[2, 6, WIDTH])?;

    refused("a cached group and no cache", layer.forward(&x, &step, &none()), &["a_anchors", "no cache was given"]);
    let only_a = KvCache::from_groups(
        [("a_anchors", random(&[2, HEADS, 3, HEAD_DIM])?, random(&[2, HEADS, 3, HEAD_DIM])?)],
        None,
    )?;
    refused(
        "a group that is not cached",
        layer.forward_from_cache(&x, &step, &only_a, &none()),
        &["'b_anchors'", "a_anchors"],
    );
    refused(
        "a cache that no group uses",
        layer.forward_from_cache(&random(&[2, 7, WIDTH])?, &small_plan(), &cache, &none()),
        &["would be ignored"],
    );
    refused(
        "a cache of 2 rows for a batch of 3",
        layer.forward_from_cache(&random(&[3, 6, WIDTH])?, &step, &cache, &none()),
        &["cache", "2", "3"],
    );
    let other = MixedAttention::new(&MixedAttentionConfig::new(WIDTH, 4), weights())?;
    refused("a cache of other heads", other.forward_from_cache(&x, &step, &cache, &none()), &["heads", "2", "4"]);
    let fits = layer.forward_from_cache(&x, &step, &cache, &none())?;
    assert_eq!(fits.dims(), x.dims());
    refused(
        "a group of another size",
        layer.forward_from_cache(
            &x,
            &step,
            &layer
                .forward_and_cache(
                    &random(&[2, 13, WIDTH])?,
                    &plan(
                        &[("a_anchors", 4), ("a_queries", 5), ("b_anchors", 4)],
                        &["a_anchors a_queries b_anchors -> a_anchors b_anchors"],
                    ),
                    &none(),
                )?
                .1,
            &none(),
        ),
        &["'a_anchors'", "3", "4"],
    );
    let padded = none().key_padding(mask(&[&[1; 6]])?);
    refused(
        "a mask that would be ignored",
        layer.forward_from_cache(&x, &step, &cache, &padded),
        &["key_padding", "cache"],
    );
    let unknown = none().cache_groups(["nobody"]);
    refused(
        "an unknown group to cache",
        layer.forward_and_cache(&random(&[2, 12, WIDTH])?, &first, &unknown),
        &["'nobody'"],
    );
    Ok(())
}

#[test]
fn a_first_pass_caches_the_anchors() -> Result<()> {
    let layer = layer(true)?;
    let plan = plan(&[("a_anchors", 3), ("x_anchor_y", 2), ("b", 4)], &["a_anchors x_anchor_y b -> a_anchors"]);
    let options = AttentionOptions::default().rope(&frequencies(2, 9, HEAD_DIM)?);
    let (_, cache) = layer.forward_and_cache(&random(&[2, 9, WIDTH])?, &plan, &options)?;
    assert_eq!(cache.layout().names(), ["a_anchors", "x_anchor_y"]);
    let (keys, values) = cache.group("x_anchor_y")?;
    assert_eq!((keys.dims(), values.dims()), ([2, HEADS, 2, HEAD_DIM].as_slice(), [2, HEADS, 2, HEAD_DIM].as_slice()));
    Ok(())
}

#[test]
fn cached_and_fresh_keys_mix() -> Result<()> {
    let layer = layer(true)?;
    let none = AttentionOptions::default;
    let joint = plan(&[("a_anchors", 3), ("b", 4)], &["a_anchors -> a_anchors", "b -> a_anchors b"]);
    let frequencies = frequencies(2, 7, HEAD_DIM)?;
    let x = random(&[2, 7, WIDTH])?;
    let (whole, cache) = layer.forward_and_cache(&x, &joint, &none().rope(&frequencies))?;
    let step = joint.with_cached(["a_anchors"], [("b", 4)]).expect("a valid step");
    let later = none().rope(&frequencies.narrow(3, 4)?);
    let y = layer.forward_from_cache(&x.narrow(1, 3, 4)?, &step, &cache, &later)?;
    same("keys of the cache and of the input", &y, &whole.narrow(1, 3, 4)?);
    // Nothing asks any more.
    let step = joint.with_cached(["a_anchors"], [("b", 0)]).expect("a valid step");
    let later = none().rope(&frequencies.narrow(3, 0)?);
    assert_eq!(layer.forward_from_cache(&x.narrow(1, 3, 0)?, &step, &cache, &later)?.dims(), [2, 0, WIDTH]);
    Ok(())
}

#[test]
fn a_cache_keeps_its_padding() -> Result<()> {
    let layer = layer(false)?;
    let first = plan(&[("a_anchors", 5), ("b", 4)], &["a_anchors b -> a_anchors"]);
    let options =
        AttentionOptions::default().key_padding(mask(&[&[1, 1, 0, 1, 0, 1, 1, 1, 1], &[1, 0, 0, 0, 0, 1, 1, 1, 1]])?);
    let x = random(&[2, 9, WIDTH])?;
    let (whole, cache) = layer.forward_and_cache(&x, &first, &options)?;
    let step = first.cached_queries("b", 4).expect("a valid step");
    let y = layer.forward_from_cache(&x.narrow(1, 5, 4)?, &step, &cache, &AttentionOptions::default())?;
    same("padded anchors", &y, &whole.narrow(1, 5, 4)?);
    Ok(())
}

#[test]
fn a_cache_of_one_row_serves_every_row() -> Result<()> {
    let layer = layer(false)?;
    let first = anchored();
    let x = random(&[1, 12, WIDTH])?;
    let (_, cache) = layer.forward_and_cache(&x, &first, &AttentionOptions::default())?;
    let step = first.cached_queries("a_queries", 6).expect("a valid step");
    let queries = random(&[2, 6, WIDTH])?;
    let both = layer.forward_from_cache(&queries, &step, &cache, &AttentionOptions::default())?;
    for row in 0..2 {
        let one = layer.forward_from_cache(&queries.narrow(0, row, 1)?, &step, &cache, &AttentionOptions::default())?;
        same("one row of the cache", &both.narrow(0, row, 1)?, &one);
    }
    Ok(())
}

#[test]
fn positions_and_head_dims_of_rope() -> Result<()> {
    let rope = Rope::new(&RopeConfig::new(16), &Device::Cpu)?;
    refused(
        "two coordinates of three",
        rope.frequencies(&random(&[1, 7, 2])?),
        &["positions", "[batch, tokens, 3]", "[1, 7, 2]"],
    );
    refused("positions with two axes", rope.frequencies(&random(&[7, 3])?), &["[batch, tokens, 3]", "[7, 3]"]);
    refused(
        "no pair for each coordinate",
        Rope::new(&RopeConfig::new(4), &Device::Cpu),
        &["4 channels for 3 coordinates"],
    );
    refused("an odd head_dim", Rope::new(&RopeConfig::new(15), &Device::Cpu), &["head_dim", "even", "15"]);
    let config = RopeConfig { max_wavelength: f64::NAN, ..RopeConfig::new(16) };
    refused("a wavelength that is no number", Rope::new(&config, &Device::Cpu), &["max_wavelength", "NaN"]);
    let omega = Tensor::zeros(3, DType::F32, &Device::Cpu)?;
    refused("omega of another length", Rope::with_omega(&RopeConfig::new(16), &omega), &["omega", "[2]", "[3]"]);

    // (head_dim, pairs per coordinate, channels that are not rotated)
    for (head_dim, pairs, rest) in [(16, 2, 4), (20, 3, 2), (64, 10, 4), (128, 21, 2)] {
        let rope = Rope::new(&RopeConfig::new(head_dim), &Device::Cpu)?;
        assert_eq!(rope.omega().dims(), [pairs], "head_dim {head_dim}");
        let table = rope.frequencies(&random(&[1, 5, 3])?)?.table().clone();
        let unrotated = table.narrow(2, (head_dim - rest) / 2, rest / 2)?;
        let identity = Tensor::new(&[1f32, 0.], &Device::Cpu)?.broadcast_as(unrotated.shape())?;
        same("unrotated channels", &unrotated, &identity.contiguous()?);
    }

    let positions = (random(&[1, 7, 3])? * 10.)?.round()?;
    let angles = rope.frequencies(&positions)?;
    for dtype in [DType::F64, DType::I64] {
        let got = rope.frequencies(&positions.to_dtype(dtype)?)?;
        assert_eq!(got.table().dtype(), DType::F32);
        same("positions of another dtype", got.table(), angles.table());
    }
    Ok(())
}

fn anchor_layer(kind: AnchorKind, domains: &[&str]) -> Result<AnchorAttention> {
    let attention = MixedAttentionConfig::new(WIDTH, HEADS);
    AnchorAttention::new(&AnchorAttentionConfig::new(attention, kind, domains.iter().copied()), weights())
}

#[test]
fn domains_that_cannot_work_are_refused() -> Result<()> {
    use AnchorKind::{Cross, Joint, Own};
    refused("no domains", anchor_layer(Own, &[]), &["at least one domain"]);
    refused("cross with one domain", anchor_layer(Cross, &["a"]), &["cross", "at least two", "[\"a\"]"]);
    refused("joint with one domain", anchor_layer(Joint, &["a"]), &["joint", "at least two", "[\"a\"]"]);
    refused("a domain named twice", anchor_layer(Own, &["a", "a"]), &["'a'", "twice"]);

    let layer = anchor_layer(Own, &["a", "b"])?;
    type Case = (&'static str, &'static [(&'static str, usize)], &'static [&'static str]);
    let cases: &[Case] = &[
        (
            "an unknown token",
            &[("a_anchors", 3), ("b_anchors", 2), ("z_queries", 2)],
            &["'z_queries'", "[\"a\", \"b\"]"],
        ),
        ("a domain without tokens", &[("a_anchors", 7)], &["'b'", "no token group"]),
        ("a domain without anchors", &[("a_anchors", 3), ("b_queries", 4)], &["'b'", "'b_anchors'"]),
        ("a name that merely starts like a domain", &[("a_anchors", 3), ("b_anchors", 2), ("bX", 2)], &["'bX'", "'_'"]),
    ];
    for (case, groups, words) in cases {
        let x = random(&[1, 7, WIDTH])?;
        refused(case, layer.forward(&x, &tokens(groups), &AttentionOptions::default()), words);
    }
    Ok(())
}

#[test]
fn domain_names_may_start_alike() -> Result<()> {
    use AnchorKind::{Cross, Joint, Own};
    let groups = tokens(&[("wing_anchors", 2), ("wing_queries", 1), ("wing_tip_anchors", 3), ("wing_tip_queries", 2)]);
    let (wing, tip) = (["wing_anchors", "wing_queries"], ["wing_tip_anchors", "wing_tip_queries"]);
    for (kind, seen_by_wing, seen_by_tip) in [
        (Own, vec!["wing_anchors"], vec!["wing_tip_anchors"]),
        (Cross, vec!["wing_tip_anchors"], vec!["wing_anchors"]),
        (Joint, vec!["wing_anchors", "wing_tip_anchors"], vec!["wing_anchors", "wing_tip_anchors"]),
    ] {
        let layer = anchor_layer(kind, &["wing", "wing_tip"])?;
        let x = random(&[1, 8, WIDTH])?;
        let got = layer.forward(&x, &groups, &AttentionOptions::default())?;
        let patterns = [
            AttentionPattern::queries(wing).attend_to(seen_by_wing),
            AttentionPattern::queries(tip).attend_to(seen_by_tip),
        ];
        let explicit = layer.attention().forward_patterns(&x, &groups, &patterns, &AttentionOptions::default())?;
        same(&format!("{kind:?}"), &got, &explicit);
    }
    Ok(())
}

#[test]
fn empty_anchors_give_the_bias() -> Result<()> {
    let layer = anchor_layer(AnchorKind::Own, &["a"])?;
    let groups = tokens(&[("a_anchors", 0), ("a_queries", 3)]);
    let y = layer.forward(&random(&[1, 3, WIDTH])?, &groups, &AttentionOptions::default())?;
    same("no anchors", &y, &bias_of(layer.attention())?.broadcast_as((1, 3, WIDTH))?);
    Ok(())
}

#[test]
fn dot_product_and_perceiver_calls() -> Result<()> {
    let none = AttentionOptions::default;
    let x = random(&[1, 3, WIDTH])?;
    for use_rope in [false, true] {
        let config = DotProductAttentionConfig(MixedAttentionConfig::new(WIDTH, HEADS).use_rope(use_rope));
        let layer = DotProductAttention::new(&config, weights())?;
        let wrong = if use_rope { none() } else { none().rope(&frequencies(1, 3, HEAD_DIM)?) };
        refused("frequencies that do not agree with use_rope", layer.forward(&x, &wrong), &["use_rope", "frequencies"]);
    }

    let config = |use_rope| PerceiverAttentionConfig {
        hidden_dim: WIDTH,
        num_heads: HEADS,
        kv_dim: Some(20),
        bias: true,
        use_rope,
    };
    let source = random(&[1, 4, 20])?;
    let angles = frequencies(1, 4, HEAD_DIM)?;
    let plain = PerceiverAttention::new(&config(false), weights())?;
    let rotating = PerceiverAttention::new(&config(true), weights())?;
    refused("angles of the source missing", rotating.encode(&source, None, None), &["the source", "use_rope = true"]);
    refused("angles of the source without RoPE", plain.encode(&source, Some(&angles), None), &["use_rope = false"]);
    let encoded = rotating.encode(&source, Some(&angles), None)?;
    refused("angles of the queries missing", rotating.forward(&x, &encoded, &none()), &["x", "use_rope = true"]);
    let wide = random(&[1, 4, WIDTH])?;
    refused("a source of another width", plain.encode(&wide, None, None), &["source", "20", "[1, 4, 32]"]);
    let empty = plain.encode(&source.narrow(1, 0, 0)?, None, None)?;
    let y = plain.forward(&x, &empty, &none())?;
    assert_eq!(y.dims(), [1, 3, WIDTH]);
    let first = y.narrow(1, 0, 1)?;
    same("a source without tokens: every row is the bias", &y, &first.broadcast_as((1, 3, WIDTH))?.contiguous()?);
    Ok(())
}
