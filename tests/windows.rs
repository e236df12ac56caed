//! Causal and sliding windows inside patterns, against dense masks that are made pair by pair.

mod support;

use candle_core::{DType, Device, Result, Tensor, Var};
use candle_mixed_attention::plan::CacheLayout;
use candle_mixed_attention::{
    AttentionOptions, AttentionPattern, AttentionPlan, AttentionWindow, Backend, KeyPadding, KvCache, TokenSpec,
    mixed_attention, mixed_attention_cached, mixed_attention_part,
};
use proptest::prelude::*;
use support::backends::{DTYPES, runners};
use support::compare::check_close;
use support::refusal::refused;

/// Groups as (size, whether cached), the pattern in which each asks, and per pattern what it sees and how far.
#[derive(Debug, Clone)]
struct Setup {
    groups: Vec<(usize, bool)>,
    pattern_of: Vec<usize>,
    patterns: Vec<(Vec<usize>, Option<usize>, Option<usize>)>,
}

fn name(group: usize) -> String {
    format!("group_{group}")
}

impl Setup {
    /// The groups that ask in a pattern, and all that it names in the order of their places.
    fn named(&self, pattern: usize) -> (Vec<usize>, Vec<usize>) {
        let asking: Vec<usize> = (0..self.groups.len()).filter(|group| self.pattern_of[*group] == pattern).collect();
        let mut named: Vec<usize> =
            (0..self.groups.len()).filter(|g| asking.contains(g) || self.patterns[pattern].0.contains(g)).collect();
        named.sort_by_key(|group| !self.groups[*group].1);
        (asking, named)
    }

    fn plan(&self) -> AttentionPlan {
        let spec = |(group, &(size, cached)): (usize, &(usize, bool))| {
            if cached { TokenSpec::cached(name(group)) } else { TokenSpec::new(name(group), size) }
        };
        let patterns = self.patterns.iter().enumerate().filter_map(|(index, (keys, left, right))| {
            let (asking, _) = self.named(index);
            let mut pattern = AttentionPattern::queries(asking.iter().copied().map(name));
            pattern = pattern.attend_to(keys.iter().copied().map(name));
            pattern.window = AttentionWindow { left: *left, right: *right };
            (!asking.is_empty()).then_some(pattern)
        });
        let tokens: Vec<TokenSpec> = self.groups.iter().enumerate().map(spec).collect();
        AttentionPlan::new(tokens, patterns.collect::<Vec<_>>()).expect("a valid plan")
    }

    /// Sizes of the cached groups, or of those of the input, in order.
    fn sizes(&self, cached: bool) -> Vec<(usize, usize)> {
        let groups = self.groups.iter().enumerate().filter(|(_, (_, of))| *of == cached);
        groups.map(|(group, (size, _))| (group, *size)).collect()
    }

    fn count(&self, cached: bool) -> usize {
        self.sizes(cached).iter().map(|(_, size)| size).sum()
    }

    /// First column of a group among the keys: those of the input, then the cache.
    fn column(&self, group: usize) -> usize {
        let cached = self.groups[group].1;
        let before =
            self.sizes(cached).iter().take_while(|(other, _)| *other != group).map(|(_, size)| size).sum::<usize>();
        before + if cached { self.count(false) } else { 0 }
    }

    /// How often each input token (row) sees each key (column), from the definition.
    fn mask(&self) -> Vec<u8> {
        let (rows, columns) = (self.count(false), self.count(false) + self.count(true));
        let mut mask = vec![0; rows * columns];
        for (pattern, (keys, left, right)) in self.patterns.iter().enumerate() {
            let (asking, named) = self.named(pattern);
            let first_place = |group: usize| -> usize {
                named.iter().take_while(|other| **other != group).map(|other| self.groups[*other].0).sum()
            };
            for &query_group in asking.iter().filter(|group| !self.groups[**group].1) {
                for &key_group in keys {
                    for query in 0..self.groups[query_group].0 {
                        for key in 0..self.groups[key_group].0 {
                            let (at, key_at) = (first_place(query_group) + query, first_place(key_group) + key);
                            let inside = left.is_none_or(|left| key_at + left >= at)
                                && right.is_none_or(|right| key_at <= at + right);
                            let row = self.column(query_group) + query;
                            mask[row * columns + self.column(key_group) + key] += u8::from(inside);
                        }
                    }
                }
            }
        }
        mask
    }
}

/// Attention in f64 where query `i` sees key `j` as often as `seen [batch or 1, 1, queries, keys]` says.
fn dense(q: &Tensor, k: &Tensor, v: &Tensor, seen: &Tensor) -> Result<Tensor> {
    let [q, k, v, seen] = [q, k, v, seen].map(|tensor| tensor.to_dtype(DType::F64));
    let (q, k, v, seen) = (q?, k?, v?.contiguous()?, seen?);
    if k.dim(2)? == 0 || q.dim(2)? == 0 {
        return q.zeros_like();
    }
    let scores = (q.contiguous()?.matmul(&k.t()?.contiguous()?)? / (q.dim(3)? as f64).sqrt())?;
    let weights = scores.broadcast_sub(&scores.max_keepdim(3)?.detach())?.exp()?.broadcast_mul(&seen)?;
    let sum = weights.sum_keepdim(3)?;
    let none = sum.eq(0f64)?.to_dtype(DType::F64)?;
    weights.matmul(&v)?.broadcast_div(&(sum + none)?)
}

fn setups() -> impl Strategy<Value = Setup> {
    (1usize..5).prop_flat_map(|groups| {
        let sizes = prop::collection::vec((0usize..150, prop::bool::weighted(0.3)), groups);
        let pattern_of = prop::collection::vec(0usize..2, groups);
        let reach = || prop::option::weighted(0.7, prop_oneof![Just(0usize), 1usize..40, 40usize..400]);
        let keys = prop::collection::vec(0usize..groups, 1..4);
        let patterns = prop::collection::vec((keys, reach(), reach()), 2);
        (sizes, pattern_of, patterns).prop_map(|(groups, pattern_of, patterns)| Setup { groups, pattern_of, patterns })
    })
}

fn cases(count: u32) -> ProptestConfig {
    let chosen = std::env::var_os("PROPTEST_CASES").is_some();
    if chosen { ProptestConfig::default() } else { ProptestConfig::with_cases(count) }
}

fn random(shape: (usize, usize, usize, usize), dtype: DType) -> Tensor {
    Tensor::randn(0f32, 1., shape, &Device::Cpu).unwrap().to_dtype(dtype).unwrap()
}

proptest! {
    #![proptest_config(cases(60))]

    /// Plans show the pairs of the definition, and every backend computes them, past a cache, padding and NaN in tokens
    /// that nobody sees.
    #[test]
    fn backends_agree_with_dense_masks(
        setup in setups(), batch in 1usize..3, eighths in 1usize..9, odd in 0usize..2,
        masked in prop::option::of(0usize..7), dtype in prop::sample::select(&DTYPES[..]),
    ) {
        let (heads, head_dim) = (2, 8 * eighths - odd);
        let (rows, cached) = (setup.count(false), setup.count(true));
        let columns = rows + cached;
        let mask = setup.mask();
        let plan = setup.plan();
        let groups = setup.sizes(true);
        let layout = CacheLayout::new(groups.iter().map(|(group, size)| (name(*group), *size))).unwrap();
        let known = if groups.is_empty() { plan.clone() } else { plan.with_cache_layout(&layout).unwrap() };
        prop_assert_eq!(&known.to_dense_mask().unwrap(), &mask);
        prop_assert_eq!(known.visible_pairs().unwrap(), mask.iter().map(|seen| u64::from(*seen)).sum::<u64>());

        let real = |row: usize, column: usize| masked.is_none_or(|seed| (column * 5 + row * 3 + seed) % 7 > 2);
        let seen: Vec<u8> = (0..batch)
            .flat_map(|row| mask.iter().enumerate().map(move |(index, seen)| if real(row, index % columns) { *seen } else { 0 }))
            .collect();
        let visible: Vec<u8> = (0..batch * columns)
            .map(|index| {
                let (row, column) = (index / columns, index % columns);
                u8::from((0..rows).any(|query| seen[(row * rows + query) * columns + column] > 0))
            })
            .collect();
        let q = random((batch, heads, rows, head_dim), dtype);
        let [k, v] = [(); 2].map(|()| random((batch, heads, columns, head_dim), dtype));
        let want = {
            let seen = Tensor::from_vec(seen, (batch, 1, rows, columns), &Device::Cpu).unwrap();
            dense(&q, &k, &v, &seen).unwrap()
        };
        let visible = Tensor::from_vec(visible, (batch, 1, columns, 1), &Device::Cpu).unwrap();
        let [k, v] = [k, v].map(|tensor| {
            let nan = Tensor::full(f32::NAN, tensor.shape(), &Device::Cpu).unwrap().to_dtype(dtype).unwrap();
            visible.broadcast_as(tensor.shape()).unwrap().where_cond(&tensor, &nan).unwrap()
        });
        let padding = |start: usize, len: usize| {
            let bits = (0..batch).flat_map(|row| (start..start + len).map(move |column| u8::from(real(row, column))));
            let mask = Tensor::from_vec(bits.collect::<Vec<u8>>(), (batch, len), &Device::Cpu).unwrap();
            KeyPadding::from_mask(&mask).unwrap()
        };
        let has_input_keys = known.resolve((!groups.is_empty()).then_some(&layout)).unwrap().ranges().has_input_keys();
        // Inputs are exact in every dtype, so that only the result is rounded, and bf16 dot products, where used.
        let tolerance = match dtype { DType::F32 => 5e-6, DType::F16 => 5e-3, _ => 4e-2 };
        for runner in runners() {
            let mut options = runner.options();
            if masked.is_some() && (groups.is_empty() || has_input_keys) {
                options = options.key_padding(padding(0, rows));
            }
            let part = |tensor: &Tensor, start, len| {
                tensor.narrow(2, start, len).unwrap().to_device(&runner.device).unwrap()
            };
            let (q, input) = (part(&q, 0, rows), [&k, &v].map(|tensor| part(tensor, 0, rows)));
            let [input_k, input_v] = &input;
            let got = if groups.is_empty() {
                mixed_attention(&q, input_k, input_v, &plan, &options)
            } else {
                let of_group = |(group, size): &(usize, usize)| {
                    let start = setup.column(*group);
                    (name(*group), part(&k, start, *size), part(&v, start, *size))
                };
                let padding = masked.map(|_| padding(rows, cached));
                let cache = KvCache::from_groups(groups.iter().map(of_group), padding).unwrap();
                mixed_attention_cached(&q, Some((input_k, input_v)), &cache, &plan, &options)
            };
            let result = check_close(&runner.name, &got.unwrap(), &want, tolerance);
            prop_assert!(result.is_ok(), "{}", result.unwrap_err());
        }
    }
}

/// A sequence whose tokens see those in a window.
fn sequence(tokens: usize, left: Option<usize>, right: Option<usize>) -> AttentionPlan {
    let mut pattern = AttentionPattern::queries(["steps"]).attend_to(["steps"]);
    pattern.window = AttentionWindow { left, right };
    AttentionPlan::new([TokenSpec::new("steps", tokens)], [pattern]).expect("a valid plan")
}

/// More keys than one group of tiles, and items that threads share.
#[test]
fn long_sequences_agree_with_dense_masks() -> Result<()> {
    let tokens = 2600;
    let operand = |dtype| random((1, 1, tokens, 16), dtype);
    for (left, right) in [(None, Some(0)), (Some(130), Some(0)), (Some(700), Some(300)), (Some(0), None)] {
        let plan = sequence(tokens, left, right);
        let seen = Tensor::from_vec(plan.to_dense_mask().unwrap(), (1, 1, tokens, tokens), &Device::Cpu)?;
        let (q, k, v) = (operand(DType::F32), operand(DType::F32), operand(DType::F32));
        let want = dense(&q, &k, &v, &seen)?;
        for runner in runners() {
            let [q, k, v] = [&q, &k, &v].map(|tensor| tensor.to_device(&runner.device).unwrap());
            let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().expect("threads");
            let got = pool.install(|| mixed_attention(&q, &k, &v, &plan, &runner.options()))?;
            check_close(&runner.name, &got, &want, 5e-6).unwrap();
        }
    }
    Ok(())
}

/// Few queries at the end of many keys: the keys of a tile of queries are split between threads.
#[test]
fn split_keys_agree_with_dense_masks() -> Result<()> {
    let (queries, keys) = (40, 5000);
    let mut pattern = AttentionPattern::queries(["steps"]).attend_to(["past", "steps"]);
    pattern.window = AttentionWindow { left: Some(4500), right: Some(0) };
    let plan = AttentionPlan::new([TokenSpec::cached("past"), TokenSpec::new("steps", queries)], [pattern]).unwrap();
    let layout = CacheLayout::new([("past", keys)]).unwrap();
    let q = random((1, 1, queries, 16), DType::F32);
    let [k, v] = [(); 2].map(|()| random((1, 1, queries + keys, 16), DType::F32));
    let mask = plan.with_cache_layout(&layout).unwrap().to_dense_mask().unwrap();
    let want = dense(&q, &k, &v, &Tensor::from_vec(mask, (1, 1, queries, queries + keys), &Device::Cpu)?)?;
    for runner in runners() {
        let part = |tensor: &Tensor, start, len| tensor.narrow(2, start, len)?.to_device(&runner.device);
        let cache = KvCache::from_groups([("past", part(&k, queries, keys)?, part(&v, queries, keys)?)], None)?;
        let (q, k, v) = (q.to_device(&runner.device)?, part(&k, 0, queries)?, part(&v, 0, queries)?);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(16).build().expect("threads");
        let call = || mixed_attention_cached(&q, Some((&k, &v)), &cache, &plan, &runner.options());
        check_close(&runner.name, &pool.install(call)?, &want, 5e-6).unwrap();
        // The log-sum-exp of the first query, from its own scores.
        let part = mixed_attention_part(&q, Some((&k, &v)), Some(&cache), &plan, &runner.options());
        if let Ok(part) = part {
            assert!(part.log_sum_exp.flatten_all()?.to_vec1::<f32>()?.iter().all(|number| number.is_finite()));
        }
    }
    Ok(())
}

#[test]
fn gradients_are_those_of_dense_masks() -> Result<()> {
    let tokens = 61;
    let plan = sequence(tokens, Some(20), Some(3));
    let seen = Tensor::from_vec(plan.to_dense_mask().unwrap(), (1, 1, tokens, tokens), &Device::Cpu)?;
    let operands = [(); 3].map(|()| Var::from_tensor(&random((2, 2, tokens, 12), DType::F32)));
    let operands = operands.into_iter().collect::<Result<Vec<_>>>()?;
    let [q, k, v] = [0, 1, 2].map(|index| operands[index].as_tensor());
    let of = |output: Tensor| output.to_dtype(DType::F64)?.sqr()?.sum_all()?.backward();
    let want = of(dense(q, k, v, &seen)?)?;
    for runner in runners().iter().filter(|runner| runner.device.is_cpu()) {
        let got = of(mixed_attention(q, k, v, &plan, &runner.options())?)?;
        for operand in &operands {
            let [got, want] = [&got, &want].map(|gradients| gradients.get(operand).expect("a gradient"));
            check_close(&runner.name, got, want, 2e-5).unwrap();
        }
    }
    Ok(())
}

/// A query that its window leaves nothing gets zeros, and −∞ as its log-sum-exp.
#[test]
fn queries_that_see_nothing_get_zeros() -> Result<()> {
    let mut pattern = AttentionPattern::queries(["early", "late"]).attend_to(["late"]);
    pattern.window = AttentionWindow { left: None, right: Some(0) };
    let tokens = [TokenSpec::new("early", 30), TokenSpec::new("late", 7)];
    let plan = AttentionPlan::new(tokens, [pattern]).expect("a valid plan");
    assert_eq!(plan.visible_pairs(), Ok(28));
    let [q, k, v] = [(); 3].map(|()| random((1, 2, 37, 16), DType::F32));
    for runner in runners().iter().filter(|runner| runner.device.is_cpu()) {
        let part = mixed_attention_part(&q, Some((&k, &v)), None, &plan, &runner.options())?;
        let early = |tensor: &Tensor| tensor.narrow(2, 0, 30)?.flatten_all()?.to_vec1::<f32>();
        assert!(early(&part.output)?.iter().all(|number| *number == 0.0), "{}", runner.name);
        assert!(early(&part.log_sum_exp)?.iter().all(|number| *number == f32::NEG_INFINITY), "{}", runner.name);
    }
    Ok(())
}

/// Step by step past a growing cache gives what one pass over the sequence gives.
#[test]
fn steps_past_a_cache_equal_one_pass() -> Result<()> {
    let (tokens, first) = (50, 20);
    for (left, right) in [(None, Some(0)), (Some(8), Some(0))] {
        let whole = sequence(tokens, left, right);
        let [q, k, v] = [(); 3].map(|()| random((2, 2, tokens, 16), DType::F32));
        let want = mixed_attention(&q, &k, &v, &whole, &AttentionOptions::default().backend(Backend::Reference))?;
        let mut pattern = AttentionPattern::queries(["steps"]).attend_to(["past", "steps"]);
        pattern.window = AttentionWindow { left, right };
        for runner in runners() {
            for (start, len) in [(first, 1), (first + 1, 13), (first + 14, tokens - first - 14)] {
                let part = |tensor: &Tensor, start, len| tensor.narrow(2, start, len)?.to_device(&runner.device);
                let cache = KvCache::from_groups([("past", part(&k, 0, start)?, part(&v, 0, start)?)], None)?;
                let specs = [TokenSpec::cached("past"), TokenSpec::new("steps", len)];
                let plan = AttentionPlan::new(specs, [pattern.clone()]).expect("a valid plan");
                let (q, k, v) = (part(&q, start, len)?, part(&k, start, len)?, part(&v, start, len)?);
                let got = mixed_attention_cached(&q, Some((&k, &v)), &cache, &plan, &runner.options())?;
                check_close(&runner.name, &got, &want.narrow(2, start, len)?, 5e-6).unwrap();
            }
        }
    }
    Ok(())
}

#[test]
fn later_passes_keep_the_places() {
    let tokens = ["before", "anchors", "between", "queries"].map(|name| TokenSpec::new(name, 5));
    let all = ["before", "anchors", "between", "queries"];
    let pattern = AttentionPattern::queries(all).attend_to(["anchors"]).window(7, 0);
    let plan = AttentionPlan::new(tokens.clone(), [pattern]).expect("a valid plan");
    let step = plan.with_cached(["anchors"], [("between", 3), ("queries", 9)]).expect("in order");
    assert_eq!(step.patterns()[0].window, AttentionWindow { left: Some(7), right: Some(0) });
    refused("asked before", plan.with_cached(["anchors"], [("before", 5)]), &["anchors", "before", "places"]);
    refused("a gap", plan.with_cached(["anchors"], [("queries", 5)]), &["\"between\"", "places"]);
    refused("a gap", plan.cached_queries("queries", 5), &["\"between\"", "places"]);
    // Without a window nothing depends on places.
    let free =
        AttentionPlan::new(tokens, [AttentionPattern::queries(all).attend_to(["anchors"])]).expect("a valid plan");
    assert!(free.with_cached(["anchors"], [("before", 5)]).is_ok());
}

#[test]
fn windows_narrow_and_show() {
    let window = |pattern: AttentionPattern| (pattern.window.left, pattern.window.right);
    let pattern = || AttentionPattern::queries(["a"]).attend_to(["a"]);
    assert_eq!(window(pattern().causal()), (None, Some(0)));
    assert_eq!(window(pattern().window(5, 3)), (Some(5), Some(3)));
    assert_eq!(window(pattern().window(5, 3).causal()), (Some(5), Some(0)));
    assert_eq!(window(pattern().causal().window(5, 3)), (Some(5), Some(0)));
    let text = |pattern| AttentionPlan::new([TokenSpec::new("a", 10)], [pattern]).expect("a valid plan").to_string();
    assert!(text(pattern().causal()).contains("55 visible pairs (55.0 % of all)"));
    assert!(text(pattern().causal()).ends_with("a [10]  ->  a [10], causal"));
    assert!(text(pattern().window(5, 3)).ends_with("window of 5 before and 3 after"));
    assert!(text(pattern()).ends_with("a [10]"));
}

#[test]
fn windows_are_part_of_the_json() {
    let pattern = AttentionPattern::queries(["a"]).attend_to(["a"]);
    let text = |pattern: &AttentionPattern| serde_json::to_string(pattern).expect("JSON");
    assert_eq!(text(&pattern), r#"{"query_tokens":["a"],"key_value_tokens":["a"]}"#);
    let windowed = pattern.clone().window(5, 0);
    assert!(text(&windowed).ends_with(r#""window":{"left":5,"right":0}}"#));
    for pattern in [pattern, windowed] {
        assert_eq!(serde_json::from_str::<AttentionPattern>(&text(&pattern)).expect("a pattern"), pattern);
    }
    let negative = r#"{"query_tokens":["a"],"key_value_tokens":["a"],"window":{"left":-1}}"#;
    refused("a negative window", serde_json::from_str::<AttentionPattern>(negative), &["-1"]);
}

#[test]
fn more_tokens_than_windows_count_are_refused() {
    let plan = |tokens| {
        AttentionPlan::new(
            [TokenSpec::new("a", tokens)],
            [AttentionPattern::queries(["a"]).attend_to(["a"]).window(0, 0)],
        )
    };
    assert_eq!(plan(1 << 40).map(|plan| plan.visible_pairs()), Ok(Ok(1 << 40)));
    refused("too many", plan(1 << 62), &["pattern 0", "window"]);
    refused(
        "too many pairs",
        AttentionPlan::new(
            [TokenSpec::new("a", 1 << 40)],
            [AttentionPattern::queries(["a"]).attend_to(["a"]).causal()],
        ),
        &["pairs"],
    );
}
