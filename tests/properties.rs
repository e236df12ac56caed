//! Properties of plans, schedules and kernels on random groups, patterns, masks, sizes and strides.

mod support;

use candle_core::{DType, Device, Tensor};
use candle_mixed_attention::plan::{CacheLayout, KeySource, TileShape, WorkItem};
use candle_mixed_attention::{
    AttentionOptions, AttentionPattern, AttentionPlan, AttentionWindow, Backend, KeyPadding, KvCache, MixedAttention,
    MixedAttentionConfig, Rope, RopeConfig, RopeFrequencies, TokenSpec, mixed_attention, mixed_attention_cached,
};
use candle_nn::{VarBuilder, VarMap};
use proptest::prelude::*;
use support::backends::runners;
use support::compare::{check_close, numbers};

/// Groups with their sizes, and for each group the pattern it asks in; for each pattern the groups it sees.
#[derive(Debug, Clone)]
struct Setup {
    sizes: Vec<usize>,
    pattern_of: Vec<usize>,
    keys_of: Vec<Vec<usize>>,
    /// How far the queries of each pattern see.
    windows: Vec<[Option<usize>; 2]>,
}

impl Setup {
    fn plan(&self) -> AttentionPlan {
        let name = |group: &usize| format!("group_{group}");
        let tokens: Vec<TokenSpec> =
            self.sizes.iter().enumerate().map(|(group, size)| TokenSpec::new(name(&group), *size)).collect();
        let patterns: Vec<AttentionPattern> = self
            .keys_of
            .iter()
            .enumerate()
            .filter_map(|(pattern, keys)| {
                let asking: Vec<String> = (0..self.sizes.len())
                    .filter(|group| self.pattern_of[*group] == pattern)
                    .map(|g| name(&g))
                    .collect();
                let [left, right] = self.windows[pattern];
                (!asking.is_empty()).then(|| AttentionPattern {
                    window: AttentionWindow { left, right },
                    ..AttentionPattern::queries(asking).attend_to(keys.iter().map(name))
                })
            })
            .collect();
        AttentionPlan::new(tokens, patterns).expect("a valid plan")
    }
}

fn setups(largest: usize) -> impl Strategy<Value = Setup> {
    (1usize..6).prop_flat_map(move |groups| {
        let sizes = prop::collection::vec(0usize..largest, groups);
        let pattern_of = prop::collection::vec(0usize..3, groups);
        let keys_of = prop::collection::vec(prop::collection::vec(0usize..groups, 1..4), 3);
        let reach = || prop::option::weighted(0.3, 0usize..largest);
        let windows = prop::collection::vec([reach(), reach()], 3);
        let parts = (sizes, pattern_of, keys_of, windows);
        parts.prop_map(|(sizes, pattern_of, keys_of, windows)| Setup { sizes, pattern_of, keys_of, windows })
    })
}

proptest! {
    #![proptest_config(cases(200))]

    /// Every visible (query, key) pair of every batch row and head is in exactly one work item, as often as it counts.
    #[test]
    fn schedule_covers_every_pair(
        setup in setups(60), batch in 1usize..3, heads in 1usize..3, queries in 1usize..40, keys in 1usize..17,
        workers in 1usize..64,
    ) {
        let plan = setup.plan();
        let resolved = plan.resolve(None).unwrap();
        let tokens = plan.len();
        let schedule = resolved.schedule(batch, heads, TileShape { queries, keys }, workers);
        let mut seen = vec![0u32; batch * heads * tokens * tokens];
        for item in schedule.items() {
            prop_assert!(item.query_len as usize <= queries && item.query_len > 0);
            for tile in &schedule.key_tiles()[item.key_tiles()] {
                prop_assert!(tile.source == KeySource::Input && tile.len as usize <= keys && tile.len > 0);
                for query in item.query_start..item.query_start + u64::from(item.query_len) {
                    for key in tile.tokens().filter(|key| tile.band.sees(query as usize, *key)) {
                        let row = (item.batch as usize * heads + item.head as usize) * tokens + query as usize;
                        seen[row * tokens + key] += 1;
                    }
                }
            }
        }
        let mask = plan.to_dense_mask().unwrap();
        for (index, seen) in seen.iter().enumerate() {
            prop_assert_eq!(*seen, u32::from(mask[index % (tokens * tokens)]));
        }
        let slots: Vec<u32> = schedule
            .items().iter().map(|item| item.partial_slot).filter(|slot| *slot != WorkItem::WHOLE).collect();
        let mut sorted = slots.clone();
        sorted.sort_unstable();
        prop_assert_eq!(sorted, (0..schedule.partial_slots() as u32).collect::<Vec<_>>());
        let cost = |item: &WorkItem| u64::from(item.query_len) * item.key_tiles().len() as u64;
        prop_assert!(schedule.items().is_sorted_by(|a, b| cost(a) >= cost(b)));
    }

    /// The number of visible pairs is the sum of the dense mask.
    #[test]
    fn visible_pairs_are_what_the_mask_says(setup in setups(40)) {
        let plan = setup.plan();
        let counted: u64 = plan.to_dense_mask().unwrap().iter().map(|seen| u64::from(*seen)).sum();
        prop_assert_eq!(plan.visible_pairs().unwrap(), counted);
    }
}

/// A random tensor `[batch, heads, tokens, head_dim]` in one of several memory layouts, with NaN in the gaps.
fn strided(shape: (usize, usize, usize, usize), layout: usize) -> Tensor {
    let (batch, heads, tokens, head_dim) = shape;
    let device = Device::Cpu;
    let random = |shape: &[usize]| Tensor::randn(0f32, 1., shape, &device).unwrap();
    let gap = |shape: &[usize]| Tensor::full(f32::NAN, shape, &device).unwrap();
    match layout {
        0 => random(&[batch, heads, tokens, head_dim]),
        1 => random(&[batch, tokens, heads, head_dim]).transpose(1, 2).unwrap(),
        2 => {
            let part = random(&[batch, tokens, 1, heads, head_dim]);
            let gap = gap(&[batch, tokens, 1, heads, head_dim]);
            let all = Tensor::cat(&[&gap, &part, &gap], 2).unwrap();
            all.narrow(2, 1, 1).unwrap().squeeze(2).unwrap().transpose(1, 2).unwrap()
        }
        _ => random(&[batch, heads, head_dim, tokens]).transpose(2, 3).unwrap(),
    }
}

fn reference_in_f64(q: &Tensor, k: &Tensor, v: &Tensor, plan: &AttentionPlan, options: &AttentionOptions) -> Tensor {
    let wide = |tensor: &Tensor| tensor.to_dtype(DType::F64).unwrap();
    mixed_attention(&wide(q), &wide(k), &wide(v), plan, &options.clone().backend(Backend::Reference)).unwrap()
}

/// Every head `group` times, as grouped queries see them.
fn for_each_query_head(tensor: &Tensor, group: usize) -> Tensor {
    let (batch, heads, tokens, head_dim) = tensor.dims4().unwrap();
    let shared = tensor.unsqueeze(2).unwrap().broadcast_as((batch, heads, group, tokens, head_dim)).unwrap();
    shared.contiguous().unwrap().reshape((batch, heads * group, tokens, head_dim)).unwrap()
}

/// Any, and as often multiples of 8, which are all that GPUs take.
fn head_dims() -> impl Strategy<Value = usize> {
    prop_oneof![1usize..80, (1usize..21).prop_map(|eighth| 8 * eighth)]
}

/// As many cases as the environment asks for (`PROPTEST_CASES`), or this many.
fn cases(count: u32) -> ProptestConfig {
    let chosen = std::env::var_os("PROPTEST_CASES").is_some();
    if chosen { ProptestConfig::default() } else { ProptestConfig::with_cases(count) }
}

proptest! {
    #![proptest_config(cases(40))]

    /// Every backend agrees with the reference in f64, on any strides, with padding, RoPE and poisoned padding tokens.
    #[test]
    fn backends_agree_with_the_reference(
        setup in setups(300), batch in 1usize..3, kv_heads in 1usize..3, group in 1usize..4, dim in head_dims(),
        layouts in prop::array::uniform3(0usize..4), masked in prop::option::of(0u64..1000), rotated: bool,
        dtype in prop::sample::select(&support::backends::DTYPES[..]),
    ) {
        let plan = setup.plan();
        // Rotation takes pairs of channels.
        let (tokens, head_dim) = (plan.len(), if rotated { dim.next_multiple_of(2) } else { dim });
        let heads = [kv_heads * group, kv_heads, kv_heads];
        let operand = |part: usize| strided((batch, heads[part], tokens, head_dim), layouts[part]).to_dtype(dtype).unwrap();
        let [q, k, v] = [0, 1, 2].map(operand);
        let mut options = AttentionOptions::default();
        let positions = rotated.then(|| Tensor::rand(0f32, 100., (1, tokens, 1), &Device::Cpu).unwrap());
        if let Some(positions) = &positions {
            options = options.rope(&frequencies(positions, head_dim, &Device::Cpu));
        }
        // Tokens that no group attends to, and those that padding hides, hold NaN.
        let seen = plan.to_dense_mask().unwrap();
        let mut real: Vec<u8> = (0..batch * tokens)
            .map(|index| u8::from((0..tokens).any(|query| seen[query * tokens + index % tokens] > 0)))
            .collect();
        if let Some(seed) = masked {
            let hidden = |index: usize| (index as u64 * 2_654_435_761 + seed) % 7 < 3;
            let mask: Vec<u8> = (0..batch * tokens).map(|index| u8::from(!hidden(index))).collect();
            real.iter_mut().zip(&mask).for_each(|(real, mask)| *real &= mask);
            let mask = Tensor::from_vec(mask, (batch, tokens), &Device::Cpu).unwrap();
            options = options.key_padding(KeyPadding::from_mask(&mask).unwrap());
        }
        let real = Tensor::from_vec(real, (batch, 1, tokens, 1), &Device::Cpu).unwrap();
        let poison = |tensor: &Tensor| {
            let nan = Tensor::full(f32::NAN, tensor.shape(), &Device::Cpu).unwrap().to_dtype(dtype).unwrap();
            real.broadcast_as(tensor.shape()).unwrap().where_cond(tensor, &nan).unwrap()
        };
        let (poisoned_k, poisoned_v) = (poison(&k), poison(&v));
        let [all_k, all_v] = [&k, &v].map(|tensor| for_each_query_head(tensor, group));
        let want = reference_in_f64(&q, &all_k, &all_v, &plan, &options);
        // Inputs are exact in every dtype, so that only the result is rounded, and bf16 dot products, where used.
        let tolerance = match dtype { DType::F32 => 5e-6, DType::F16 => 5e-3, _ => 4e-2 };
        for runner in runners() {
            let mut forced = merge(runner.options(), &options);
            if let Some(positions) = &positions {
                forced = forced.rope(&frequencies(positions, head_dim, &runner.device));
            }
            // Strides and what lies between rows move along.
            let [q, k, v] = [&q, &poisoned_k, &poisoned_v].map(|tensor| tensor.to_device(&runner.device).unwrap());
            let got = mixed_attention(&q, &k, &v, &plan, &forced).unwrap();
            prop_assert_eq!(got.dtype(), dtype);
            let result = check_close(&runner.name, &got, &want, tolerance);
            prop_assert!(result.is_ok(), "{}", result.unwrap_err());
        }
    }

    /// Keys from a cache, fresh keys and a mix of both give what one pass over all tokens gives.
    #[test]
    fn cached_pass_equals_single_pass(
        anchors in 1usize..200, queries in 1usize..200, batch in 1usize..3, mixed: bool, padded: bool,
    ) {
        let (heads, head_dim) = (2, 24);
        let patterns = |keys: &[&str]| [AttentionPattern::queries(["a_anchors", "a_queries"]).attend_to(keys.to_vec())];
        let keys: &[&str] = if mixed { &["a_anchors", "a_queries"] } else { &["a_anchors"] };
        let tokens = [TokenSpec::new("a_anchors", anchors), TokenSpec::new("a_queries", queries)];
        let plan = AttentionPlan::new(tokens, patterns(keys)).unwrap();
        let [q, k, v] = [0, 1, 2].map(|layout| strided((batch, heads, plan.len(), head_dim), layout));
        let mut options = AttentionOptions::default();
        let mut cache_padding = None;
        let mut step_options = AttentionOptions::default();
        if padded {
            let real = |count: usize| (0..batch * count).map(|index| u8::from(index % 3 != 1)).collect::<Vec<u8>>();
            let mask = |count: usize| Tensor::from_vec(real(count), (batch, count), &Device::Cpu).unwrap();
            let (of_anchors, of_queries) = (mask(anchors), mask(queries));
            let all = Tensor::cat(&[&of_anchors, &of_queries], 1).unwrap();
            options = options.key_padding(KeyPadding::from_mask(&all).unwrap());
            cache_padding = Some(KeyPadding::from_mask(&of_anchors).unwrap());
            if mixed {
                step_options = step_options.key_padding(KeyPadding::from_mask(&of_queries).unwrap());
            }
        }
        let whole = mixed_attention(&q, &k, &v, &plan, &options).unwrap();
        let part = |tensor: &Tensor, start, len| tensor.narrow(2, start, len).unwrap();
        let cached = [&k, &v].map(|tensor| part(tensor, 0, anchors));
        let step = plan.with_cached(["a_anchors"], [("a_queries", queries)]).unwrap();
        let [q, k, v] = [&q, &k, &v].map(|tensor| part(tensor, anchors, queries));
        let want = part(&whole, anchors, queries);
        for runner in runners() {
            let step_options = merge(runner.options(), &step_options);
            let on_device = |tensor: &Tensor| tensor.to_device(&runner.device).unwrap();
            let [q, k, v] = [&q, &k, &v].map(on_device);
            let [cached_k, cached_v] = [&cached[0], &cached[1]].map(on_device);
            let cache = KvCache::from_groups([("a_anchors", cached_k, cached_v)], cache_padding.clone()).unwrap();
            let got = mixed_attention_cached(&q, mixed.then_some((&k, &v)), &cache, &step, &step_options).unwrap();
            let result = check_close(&runner.name, &got, &want, 5e-6);
            prop_assert!(result.is_ok(), "{}", result.unwrap_err());
        }
    }
}

proptest! {
    #![proptest_config(cases(20))]

    /// Queries do not see each other: in chunks past a cache they get what they get in one pass.
    #[test]
    fn chunks_of_queries_equal_one_pass(
        anchors in prop::collection::vec(1usize..90, 2), queries in 1usize..150, chunk in 1usize..60, batch in 1usize..3,
        one_row: bool, dtype in prop::sample::select(&support::backends::DTYPES[..]),
    ) {
        let (heads, head_dim) = (2, 16);
        let names = ["a_anchors", "b_anchors"];
        let keys_of_queries = AttentionPattern::queries(["a_queries"]).attend_to(["b_anchors", "a_anchors"]);
        let keys_of_anchors = AttentionPattern::queries(names).attend_to(names);
        let sizes = [(names[0], anchors[0]), (names[1], anchors[1]), ("a_queries", queries)];
        let tokens = sizes.map(|(name, size)| TokenSpec::new(name, size));
        let plan = AttentionPlan::new(tokens, [keys_of_anchors, keys_of_queries]).unwrap();
        // A cache of one row serves a batch whose rows have the same anchors.
        let rows = if one_row { 1 } else { batch };
        let operand = || {
            let of_cache = strided((rows, heads, plan.len(), head_dim), 2);
            of_cache.broadcast_as((batch, heads, plan.len(), head_dim)).unwrap().to_dtype(dtype).unwrap()
        };
        let (q, k, v) = (operand(), operand(), operand());
        let positions = Tensor::rand(0f32, 50., (1, plan.len(), 1), &Device::Cpu).unwrap();
        let angles = |device: &Device, start: usize, len: usize| {
            frequencies(&positions.narrow(1, start, len).unwrap(), head_dim, device)
        };
        let rotation = AttentionOptions::default().rope(&angles(&Device::Cpu, 0, plan.len()));
        let want = reference_in_f64(&q, &k, &v, &plan, &rotation);
        let tolerance = match dtype { DType::F32 => 5e-6, DType::F16 => 5e-3, _ => 4e-2 };
        for runner in runners() {
            let on_device = |tensor: &Tensor| tensor.to_device(&runner.device).unwrap();
            let part = |tensor: &Tensor, start, len| on_device(&tensor.narrow(2, start, len).unwrap());
            let mut start = 0;
            let mut groups = Vec::new();
            for (name, len) in names.into_iter().zip(anchors.iter().copied()) {
                let first_row = |tensor: &Tensor| part(tensor, start, len).narrow(0, 0, rows).unwrap();
                let rotated = angles(&runner.device, start, len).rotate(&first_row(&k)).unwrap();
                groups.push((name, rotated, first_row(&v)));
                start += len;
            }
            let cache = KvCache::from_groups(groups, None).unwrap();
            for first in (0..queries).step_by(chunk) {
                let (token, len) = (start + first, chunk.min(queries - first));
                let step = plan.cached_queries("a_queries", len).unwrap();
                let options = runner.options().rope(&angles(&runner.device, token, len));
                let got = mixed_attention_cached(&part(&q, token, len), None, &cache, &step, &options).unwrap();
                let result = check_close(&runner.name, &got, &want.narrow(2, token, len).unwrap(), tolerance);
                prop_assert!(result.is_ok(), "{}", result.unwrap_err());
            }
        }
    }
}

/// The angles at these positions.
fn frequencies(positions: &Tensor, head_dim: usize, device: &Device) -> RopeFrequencies {
    let config = RopeConfig { position_dim: 1, ..RopeConfig::new(head_dim) };
    let positions = positions.to_device(device).unwrap();
    Rope::new(&config, device).unwrap().frequencies(&positions).unwrap()
}

/// The options of a runner with the rotation and padding of a case.
fn merge(runner: AttentionOptions, case: &AttentionOptions) -> AttentionOptions {
    let merged = match case.rope_frequencies() {
        Some(frequencies) => runner.rope(frequencies),
        None => runner,
    };
    match case.padding() {
        Some(padding) => merged.key_padding(padding.clone()),
        None => merged,
    }
}

/// Few queries and many keys on many threads: the keys are split, and the parts combine to the same result.
#[test]
fn split_keys_combine_to_the_same_result() {
    let plan = AttentionPlan::new(
        [TokenSpec::new("queries", 5), TokenSpec::new("keys", 3000)],
        [
            AttentionPattern::queries(["queries"]).attend_to(["keys"]),
            AttentionPattern::queries(["keys"]).attend_to(["queries"]),
        ],
    )
    .unwrap();
    let layout = CacheLayout::new([("keys", 3000)]).unwrap();
    let step = plan.with_cached(["keys"], [("queries", 5)]).unwrap();
    let schedule = step.resolve(Some(&layout)).unwrap().schedule(1, 1, TileShape { queries: 192, keys: 128 }, 16);
    assert!(schedule.partial_slots() > 1, "nothing is split: {:?}", schedule.items());

    let [q, k, v] = [0, 1, 2].map(|layout| strided((1, 1, plan.len(), 64), layout));
    let want = mixed_attention(&q, &k, &v, &plan, &AttentionOptions::default().backend(Backend::Reference)).unwrap();
    let part = |tensor: &Tensor, start, len| tensor.narrow(2, start, len).unwrap();
    let cache = KvCache::from_groups([("keys", part(&k, 5, 3000), part(&v, 5, 3000))], None).unwrap();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(16).build().unwrap();
    let options = AttentionOptions::default().backend(Backend::Fused);
    let got = pool.install(|| mixed_attention_cached(&part(&q, 0, 5), None, &cache, &step, &options)).unwrap();
    check_close("split keys", &got, &part(&want, 0, 5), 3e-6).unwrap();
}

/// A launch over NaN leaves nothing behind that a later one on the same thread could read.
#[test]
fn launches_do_not_see_each_other() {
    let plan_of = |queries: usize, keys: usize| {
        let tokens = [TokenSpec::new("queries", queries), TokenSpec::new("keys", keys)];
        let patterns = [AttentionPattern::queries(["queries", "keys"]).attend_to(["keys"])];
        AttentionPlan::new(tokens, patterns).unwrap()
    };
    for dtype in support::backends::DTYPES {
        for (head_dim, queries, keys) in [(7, 3, 5), (16, 17, 129), (33, 50, 1)] {
            let large = plan_of(200, 300);
            let poison = Tensor::full(f32::NAN, (1, 1, large.len(), 80), &Device::Cpu).unwrap();
            let poison = poison.to_dtype(dtype).unwrap();
            let plan = plan_of(queries, keys);
            let operand = || strided((1, 1, plan.len(), head_dim), 0).to_dtype(dtype).unwrap();
            let (q, k, v) = (operand(), operand(), operand());
            let want = reference_in_f64(&q, &k, &v, &plan, &AttentionOptions::default());
            for runner in runners() {
                let dirty = mixed_attention(&poison, &poison, &poison, &large, &runner.options()).unwrap();
                assert!(numbers(&dirty).unwrap().iter().all(|number| number.is_nan()), "{}", runner.name);
                let got = mixed_attention(&q, &k, &v, &plan, &runner.options()).unwrap();
                let tolerance = if dtype == DType::F32 { 5e-6 } else { 4e-2 };
                check_close(&runner.name, &got, &want, tolerance).unwrap();
            }
        }
    }
}

/// A cache that went through a file gives the same numbers, padding included.
#[test]
fn cache_survives_a_file() {
    let vars = VarMap::new();
    let vb = VarBuilder::from_varmap(&vars, DType::F32, &Device::Cpu);
    let layer = MixedAttention::new(&MixedAttentionConfig::new(48, 3), vb).unwrap();
    let plan = AttentionPlan::new(
        [TokenSpec::new("a_anchors", 20), TokenSpec::new("a_queries", 9)],
        [AttentionPattern::queries(["a_anchors", "a_queries"]).attend_to(["a_anchors"])],
    )
    .unwrap();
    let x = Tensor::randn(0f32, 1., (2, 29, 48), &Device::Cpu).unwrap();
    let options = AttentionOptions::default().key_padding(KeyPadding::from_lengths(&[29, 13], 29).unwrap());
    let (y, cache) = layer.forward_and_cache(&x, &plan, &options).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("anchors.safetensors");
    cache.save_safetensors(&path).unwrap();
    let loaded = KvCache::load_safetensors(&path, &Device::Cpu).unwrap();
    assert_eq!(loaded.fingerprint(), cache.fingerprint());
    assert_eq!(loaded.padding(), cache.padding());
    let step = plan.cached_queries("a_queries", 9).unwrap();
    let queries = x.narrow(1, 20, 9).unwrap();
    let got = layer.forward_from_cache(&queries, &step, &loaded, &AttentionOptions::default()).unwrap();
    check_close("after the file", &got, &y.narrow(1, 20, 9).unwrap(), 2e-6).unwrap();

    let bytes = std::fs::read(&path).unwrap();
    for len in [0, 7, 100, bytes.len() - 1] {
        std::fs::write(&path, &bytes[..len]).unwrap();
        let error = KvCache::load_safetensors(&path, &Device::Cpu).unwrap_err().to_string();
        assert!(error.contains("anchors.safetensors"), "{error}");
    }
}
