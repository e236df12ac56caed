//! The situations that every kernel must get right, and what it should compute there.

use anyhow::Result;
use candle_core::Layout;
use candle_mixed_attention::kernels::call::CallShape;
use candle_mixed_attention::kernels::schedule::ScheduleInputs;
use candle_mixed_attention::plan::{Band, CacheLayout, KeySource, PaddingBits, ResolvedPlan, TileShape};
use candle_mixed_attention::{AttentionPattern, AttentionPlan, AttentionWindow, TokenSpec};
use rand::{Rng, SeedableRng, rngs::StdRng};
use std::sync::Arc;

use super::numbers::Number;

/// One situation.
pub struct Case {
    pub name: &'static str,
    pub batch: usize,
    pub heads: usize,
    /// Heads of queries that share a head of keys and values.
    group: usize,
    /// Input groups.
    groups: &'static [(&'static str, usize)],
    /// Groups in the cache.
    cached: &'static [(&'static str, usize)],
    /// Queries and keys of each pattern.
    patterns: &'static [(&'static [&'static str], &'static [&'static str])],
    /// How far the queries of each pattern see, if they have windows.
    windows: &'static [AttentionWindow],
    /// Whether log-sum-exps are wanted.
    pub log_sum_exp: bool,
    /// Whether keys of the input and of the cache have biases.
    bias: [bool; 2],
    /// Real tokens of the input, by batch row and token.
    padding: Option<fn(usize, usize) -> bool>,
    /// Real tokens of the cache.
    cache_padding: Option<fn(usize, usize) -> bool>,
    pub rope: bool,
    /// Work items that the machine runs at a time; more than there are splits keys.
    pub workers: usize,
    /// Whether a different tile size could break it.
    pub brief: bool,
    /// What the cached values scatter around, by the place in the cache from 0 to 1.
    cached_mean: Option<fn(f64) -> f64>,
}

const PLAIN: Case = Case {
    name: "",
    batch: 1,
    heads: 1,
    group: 1,
    groups: &[],
    cached: &[],
    patterns: &[],
    windows: &[],
    log_sum_exp: false,
    bias: [false; 2],
    padding: None,
    cache_padding: None,
    rope: false,
    workers: 1,
    brief: false,
    cached_mean: None,
};

const TWO_DOMAINS: &[(&str, usize)] = &[("a_anchors", 70), ("a_queries", 21), ("b_anchors", 133), ("b_queries", 9)];

fn third(_: usize, token: usize) -> bool {
    token.is_multiple_of(3)
}

fn ragged(row: usize, token: usize) -> bool {
    token < 149 - 67 * row
}

fn holes(row: usize, token: usize) -> bool {
    // Whole tiles of padding, in different places per row, and stray padding in between.
    !(60 + 60 * row..160 + 62 * row).contains(&token) && !token.is_multiple_of(7)
}

fn none_in_row_one(row: usize, _: usize) -> bool {
    row != 1
}

fn late_only(_: usize, token: usize) -> bool {
    token > 700
}

/// All cases.
pub const CASES: &[Case] = &[
    Case {
        name: "self",
        groups: TWO_DOMAINS,
        patterns: &[(&["a_anchors", "a_queries"], &["a_anchors"]), (&["b_anchors", "b_queries"], &["b_anchors"])],
        ..PLAIN
    },
    Case {
        name: "cross",
        groups: TWO_DOMAINS,
        patterns: &[(&["a_anchors", "a_queries"], &["b_anchors"]), (&["b_anchors", "b_queries"], &["a_anchors"])],
        ..PLAIN
    },
    Case {
        name: "joint",
        groups: TWO_DOMAINS,
        patterns: &[(&["a_anchors", "a_queries", "b_anchors", "b_queries"], &["b_anchors", "a_anchors"])],
        heads: 2,
        ..PLAIN
    },
    Case {
        name: "many_groups",
        groups: &[("0", 30), ("1", 9), ("2", 70), ("3", 1), ("4", 64), ("5", 17)],
        patterns: &[
            (&["0"], &["0"]),
            (&["1"], &["1", "0"]),
            (&["2"], &["2", "0"]),
            (&["3"], &["3", "0"]),
            (&["4"], &["4", "0"]),
            (&["5"], &["5", "0", "5"]),
        ],
        ..PLAIN
    },
    Case {
        name: "cache",
        brief: true,
        groups: &[("queries", 39)],
        // More steps than any ring of stages or descriptions holds.
        cached: &[("anchors", 2100), ("unused", 12)],
        patterns: &[(&["queries"], &["anchors"])],
        ..PLAIN
    },
    Case {
        name: "cache_and_fresh_keys",
        groups: &[("fresh", 90), ("queries", 33)],
        cached: &[("old", 100), ("older", 140)],
        patterns: &[(&["queries"], &["older", "fresh", "old"]), (&["fresh"], &["fresh", "old"])],
        cache_padding: Some(third),
        heads: 2,
        ..PLAIN
    },
    Case {
        name: "padding",
        brief: true,
        groups: TWO_DOMAINS,
        patterns: &[
            (&["a_anchors", "b_queries"], &["a_anchors", "b_anchors"]),
            (&["a_queries", "b_anchors"], &["b_anchors"]),
        ],
        batch: 2,
        padding: Some(holes),
        ..PLAIN
    },
    Case {
        name: "ragged_batch",
        groups: &[("tokens", 150)],
        patterns: &[(&["tokens"], &["tokens"])],
        batch: 3,
        padding: Some(ragged),
        ..PLAIN
    },
    Case {
        name: "all_keys_masked",
        groups: &[("tokens", 70)],
        patterns: &[(&["tokens"], &["tokens"])],
        batch: 2,
        padding: Some(none_in_row_one),
        ..PLAIN
    },
    Case {
        name: "empty_groups",
        groups: &[("nobody", 0), ("some", 50), ("none", 0), ("lost", 20)],
        patterns: &[(&["nobody", "some"], &["none", "some"]), (&["none", "lost"], &["nobody"])],
        ..PLAIN
    },
    Case { name: "one_token", groups: &[("only", 1)], patterns: &[(&["only"], &["only"])], ..PLAIN },
    Case {
        name: "zero_queries",
        groups: &[("queries", 0)],
        cached: &[("anchors", 40)],
        patterns: &[(&["queries"], &["anchors"])],
        ..PLAIN
    },
    Case {
        name: "tails",
        brief: true,
        groups: &[("1", 1), ("129", 129), ("65", 65), ("15", 15), ("16", 16), ("17", 17)],
        patterns: &[(&["1", "129", "17"], &["65", "1"]), (&["65"], &["129", "17"]), (&["15", "16"], &["15", "1"])],
        ..PLAIN
    },
    Case {
        name: "split_keys",
        brief: true,
        // Rows of more than one warp or simdgroup.
        groups: &[("queries", 39)],
        cached: &[("anchors", 1100)],
        patterns: &[(&["queries"], &["anchors"])],
        workers: 32,
        ..PLAIN
    },
    Case {
        name: "split_keys_with_a_part_all_masked",
        groups: &[("queries", 20)],
        cached: &[("anchors", 1800)],
        patterns: &[(&["queries"], &["anchors"])],
        cache_padding: Some(late_only),
        workers: 64,
        ..PLAIN
    },
    Case {
        name: "rope",
        brief: true,
        groups: TWO_DOMAINS,
        cached: &[("older", 30)],
        patterns: &[
            (&["a_anchors", "a_queries"], &["a_anchors", "older"]),
            (&["b_anchors", "b_queries"], &["b_anchors"]),
        ],
        heads: 2,
        rope: true,
        ..PLAIN
    },
    Case {
        name: "grouped_heads",
        groups: &[("fresh", 90), ("queries", 33)],
        cached: &[("old", 170)],
        patterns: &[(&["queries"], &["old", "fresh"]), (&["fresh"], &["fresh"])],
        batch: 2,
        heads: 6,
        group: 3,
        rope: true,
        padding: Some(third),
        ..PLAIN
    },
    Case {
        name: "bias",
        brief: true,
        groups: &[("steps", 81)],
        cached: &[("past", 150)],
        patterns: &[(&["steps"], &["past", "steps"])],
        windows: &[AttentionWindow { left: Some(163), right: Some(0) }],
        heads: 2,
        group: 2,
        bias: [true; 2],
        ..PLAIN
    },
    Case {
        name: "bias_of_the_cache",
        groups: &[("queries", 39)],
        cached: &[("anchors", 1100)],
        patterns: &[(&["queries"], &["anchors", "queries"])],
        bias: [false, true],
        workers: 32,
        log_sum_exp: true,
        ..PLAIN
    },
    Case {
        name: "bias_of_the_input",
        groups: TWO_DOMAINS,
        cached: &[("older", 64)],
        patterns: &[
            (&["a_anchors", "a_queries"], &["older", "a_anchors"]),
            (&["b_anchors", "b_queries"], &["b_anchors", "older"]),
        ],
        bias: [true, false],
        batch: 2,
        rope: true,
        padding: Some(holes),
        ..PLAIN
    },
    Case {
        name: "one_head_of_keys",
        groups: &[("queries", 20)],
        cached: &[("anchors", 1030)],
        patterns: &[(&["queries"], &["anchors", "queries"])],
        heads: 2,
        group: 2,
        workers: 64,
        log_sum_exp: true,
        ..PLAIN
    },
    Case {
        name: "log_sum_exp",
        groups: &[("tokens", 70)],
        patterns: &[(&["tokens"], &["tokens"])],
        batch: 2,
        heads: 2,
        padding: Some(none_in_row_one),
        log_sum_exp: true,
        ..PLAIN
    },
    Case {
        name: "causal",
        brief: true,
        groups: &[("early", 21), ("other", 3), ("late", 170)],
        patterns: &[(&["early", "late"], &["late", "early"]), (&["other"], &["late"])],
        windows: &[CAUSAL, EVERYTHING],
        heads: 2,
        rope: true,
        log_sum_exp: true,
        ..PLAIN
    },
    Case {
        name: "window_past_a_cache",
        groups: &[("steps", 140)],
        cached: &[("past", 190)],
        patterns: &[(&["steps"], &["past", "steps"])],
        windows: &[AttentionWindow { left: Some(83), right: Some(5) }],
        batch: 2,
        padding: Some(ragged),
        cache_padding: Some(third),
        log_sum_exp: true,
        ..PLAIN
    },
    Case {
        name: "split_keys_in_a_window",
        brief: true,
        groups: &[("steps", 39)],
        cached: &[("past", 1100)],
        patterns: &[(&["steps"], &["past", "steps"])],
        windows: &[AttentionWindow { left: Some(1001), right: Some(0) }],
        workers: 32,
        log_sum_exp: true,
        ..PLAIN
    },
];

const EVERYTHING: AttentionWindow = AttentionWindow { left: None, right: None };
const CAUSAL: AttentionWindow = AttentionWindow { left: None, right: Some(0) };

impl Case {
    /// Whether it takes a kernel that knows more than plain attention.
    pub fn is_general(&self) -> bool {
        self.log_sum_exp || !self.windows.is_empty() || self.bias.contains(&true)
    }
}

/// Biases of many sizes, some of which hide their key.
fn biases(count: usize) -> Vec<f32> {
    let bias = |i: usize| if i % 11 == 5 { f32::NEG_INFINITY } else { (i as f32 * 0.73).sin() * 3.0 };
    (0..count).map(bias).collect()
}

fn drifting(place: f64) -> f64 {
    1.0 + place
}

/// A tile of queries that see so many keys that small errors of each step add up. The values have one sign, so that
/// errors do not cancel, and drift, so that normalising does not take them back.
pub static MANY_KEYS: Case = Case {
    name: "many_keys",
    groups: &[("queries", 16)],
    cached: &[("anchors", 16_400)],
    patterns: &[(&["queries"], &["anchors"])],
    cached_mean: Some(drifting),
    ..PLAIN
};

/// The case of this name.
pub fn find(name: &str) -> Option<&'static Case> {
    CASES.iter().chain([&MANY_KEYS]).find(|case| case.name == name)
}

/// A case with numbers.
///
/// The input tensors are views of one fused projection `[batch, tokens, heads + 2 · kv_heads, head_dim]`. Rows that no query
/// may see hold NaN.
pub struct Problem<T> {
    pub resolved: Arc<ResolvedPlan>,
    pub batch: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    pub tokens: usize,
    pub workers: usize,
    /// Whether log-sum-exps are wanted.
    pub log_sum_exp: bool,
    /// `[batch, tokens, heads + 2 · kv_heads, head_dim]` of queries, keys, values.
    pub fused: Vec<T>,
    /// `[batch, kv_heads, cache tokens, head_dim]`
    pub cached_keys: Vec<T>,
    pub cached_values: Vec<T>,
    /// `[batch, heads, tokens]`, if keys of the input have biases.
    pub bias: Option<Vec<f32>>,
    /// `[batch, heads, cache tokens]`, if keys of the cache have biases.
    pub cache_bias: Option<Vec<f32>>,
    /// `[tokens, head_dim / 2, 2]` of (cos, sin).
    pub rope: Option<Vec<f32>>,
    pub padding: Option<Arc<PaddingBits>>,
    pub cache_padding: Option<Arc<PaddingBits>>,
}

impl<T: Number> Problem<T> {
    pub fn new(case: &Case, head_dim: usize) -> Result<Self> {
        let specs = case.cached.iter().map(|&(name, _)| TokenSpec::cached(name));
        let specs = specs.chain(case.groups.iter().map(|&(name, size)| TokenSpec::new(name, size)));
        let windows = case.windows.iter().copied().chain(std::iter::repeat(EVERYTHING));
        let patterns = case.patterns.iter().zip(windows).map(|((queries, keys), window)| AttentionPattern {
            window,
            ..AttentionPattern::queries(queries.iter().copied()).attend_to(keys.iter().copied())
        });
        let plan = AttentionPlan::new(specs.collect::<Vec<_>>(), patterns.collect::<Vec<_>>())?;
        let layout = (!case.cached.is_empty())
            .then(|| CacheLayout::new(case.cached.iter().map(|&(name, size)| (name.to_string(), size))))
            .transpose()?;
        let resolved = plan.resolve(layout.as_ref())?;
        let (batch, heads, tokens) = (case.batch, case.heads, plan.len());
        let kv_heads = heads / case.group;
        let cache_tokens = resolved.ranges().cache_tokens();
        let bits = |tokens: usize, real: Option<fn(usize, usize) -> bool>| {
            real.map(|real| Arc::new(PaddingBits::new(batch, tokens, real)))
        };
        let mut random = StdRng::seed_from_u64(head_dim as u64);
        let mut draw =
            |count: usize| -> Vec<T> { (0..count).map(|_| T::from_f64(random.random_range(-1.5..1.5))).collect() };
        let mut problem = Self {
            batch,
            heads,
            kv_heads,
            head_dim,
            tokens,
            workers: case.workers,
            log_sum_exp: case.log_sum_exp,
            fused: draw(batch * tokens * (heads + 2 * kv_heads) * head_dim),
            cached_keys: draw(batch * kv_heads * cache_tokens * head_dim),
            cached_values: draw(batch * kv_heads * cache_tokens * head_dim),
            bias: case.bias[0].then(|| biases(batch * heads * tokens)),
            cache_bias: case.bias[1].then(|| biases(batch * heads * cache_tokens)),
            rope: case.rope.then(|| {
                let angle = |i: usize| (i as f32 * 0.37).sin() * 3.0;
                (0..tokens * head_dim / 2).flat_map(|i| [angle(i).cos(), angle(i).sin()]).collect()
            }),
            padding: bits(tokens, case.padding),
            cache_padding: bits(cache_tokens, case.cache_padding),
            resolved,
        };
        if let Some(mean) = case.cached_mean {
            problem.shift_cached_values(mean);
        }
        problem.poison();
        Ok(problem)
    }

    /// The call in numbers.
    pub fn shape(&self) -> CallShape {
        CallShape {
            batch: self.batch,
            heads: self.heads,
            kv_heads: self.kv_heads,
            tokens: self.tokens,
            cache_tokens: self.resolved.ranges().cache_tokens(),
            input_keys: self.resolved.ranges().has_input_keys(),
            head_dim: self.head_dim,
            scale: 1.0 / (self.head_dim as f32).sqrt(),
        }
    }

    /// What the schedule of the call depends on.
    pub fn schedule_inputs(&self, tile: TileShape) -> ScheduleInputs {
        ScheduleInputs {
            tile,
            workers: self.workers,
            persistent: None,
            batch: self.batch,
            heads: self.heads,
            group: self.heads / self.kv_heads,
            rotated: self.rope.is_some(),
            input_padding: self.padding.clone(),
            cache_padding: self.cache_padding.clone(),
        }
    }

    /// Queries (0), keys (1) or values (2) as `[batch, heads, tokens, head_dim]` in the fused projection. The strides of
    /// dimensions of 1, which mean nothing, are odd.
    pub fn part(&self, part: usize) -> Layout {
        let width = (self.heads + 2 * self.kv_heads) * self.head_dim;
        let heads = if part == 0 { self.heads } else { self.kv_heads };
        let shape = (self.batch, heads, self.tokens, self.head_dim);
        let stride = |dim: usize, stride: usize| if dim == 1 { stride + 1 } else { stride };
        let strides =
            vec![stride(self.batch, self.tokens * width), stride(heads, self.head_dim), stride(self.tokens, width), 1];
        Layout::new(shape.into(), strides, self.first_head(part) * self.head_dim)
    }

    /// Cached keys or values.
    pub fn cache(&self) -> Layout {
        let cache_tokens = self.resolved.ranges().cache_tokens();
        Layout::contiguous((self.batch, self.kv_heads, cache_tokens, self.head_dim))
    }

    /// Numbers of the output `[batch, tokens, heads, head_dim]`.
    pub fn output_len(&self) -> usize {
        self.batch * self.tokens * self.heads * self.head_dim
    }

    /// Numbers of the log-sum-exps `[batch, tokens, heads]`, if they are wanted.
    pub fn log_sum_exp_len(&self) -> usize {
        if self.log_sum_exp { self.batch * self.tokens * self.heads } else { 0 }
    }

    /// The angles.
    pub fn angles(&self) -> Layout {
        Layout::contiguous((1, self.tokens, self.head_dim / 2, 2))
    }

    /// Biases of the keys of the input or of the cache.
    pub fn bias_layout(&self, source: KeySource) -> Layout {
        let tokens = match source {
            KeySource::Input => self.tokens,
            KeySource::Cache => self.resolved.ranges().cache_tokens(),
        };
        Layout::contiguous((self.batch, self.heads, tokens))
    }

    /// The bias of a key.
    fn bias_of(&self, source: KeySource, batch: usize, head: usize, token: usize) -> f64 {
        let (bias, tokens) = match source {
            KeySource::Input => (&self.bias, self.tokens),
            KeySource::Cache => (&self.cache_bias, self.resolved.ranges().cache_tokens()),
        };
        let place = (batch * self.heads + head) * tokens + token;
        bias.as_ref().map_or(0.0, |bias| bias[place].into())
    }

    /// Adds `mean` of its place to every cached value.
    fn shift_cached_values(&mut self, mean: fn(f64) -> f64) {
        let cache_tokens = self.resolved.ranges().cache_tokens();
        for (row, channels) in self.cached_values.chunks_exact_mut(self.head_dim).enumerate() {
            let mean = mean((row % cache_tokens) as f64 / cache_tokens as f64);
            for channel in channels {
                *channel = T::from_f64(channel.to_f64() + mean);
            }
        }
    }

    /// Where a row of the fused projection starts; `part` is 0 for queries, 1 for keys, 2 for values.
    fn row(&self, batch: usize, token: usize, part: usize, head: usize) -> usize {
        let heads = self.heads + 2 * self.kv_heads;
        ((batch * self.tokens + token) * heads + self.first_head(part) + head) * self.head_dim
    }

    /// The first head of a part among all heads of the fused projection.
    fn first_head(&self, part: usize) -> usize {
        [0, self.heads, self.heads + self.kv_heads][part]
    }

    fn cache_row(&self, batch: usize, head: usize, token: usize) -> usize {
        ((batch * self.kv_heads + head) * self.resolved.ranges().cache_tokens() + token) * self.head_dim
    }

    fn is_real(&self, source: KeySource, batch: usize, token: usize) -> bool {
        let padding = match source {
            KeySource::Input => &self.padding,
            KeySource::Cache => &self.cache_padding,
        };
        padding.as_ref().is_none_or(|padding| padding.is_real(batch, token))
    }

    /// Writes NaN over every key and value that no query sees.
    fn poison(&mut self) {
        let ranges = self.resolved.ranges().clone();
        let seen = |source, token| {
            let holds = |range: &candle_mixed_attention::plan::KeyRange| {
                range.source == source && (range.start..range.start + range.len).contains(&token)
            };
            ranges.key_ranges().iter().any(holds)
        };
        let nan = T::from_f64(f64::NAN);
        for (source, tokens) in [(KeySource::Input, self.tokens), (KeySource::Cache, ranges.cache_tokens())] {
            let unseen: Vec<bool> = (0..self.batch * self.heads * tokens)
                .map(|place| (place / tokens / self.heads, place % tokens))
                .map(|(batch, token)| !seen(source, token) || !self.is_real(source, batch, token))
                .collect();
            let bias = if source == KeySource::Input { &mut self.bias } else { &mut self.cache_bias };
            for (bias, _) in bias.iter_mut().flatten().zip(unseen).filter(|(_, unseen)| *unseen) {
                *bias = f32::NAN;
            }
        }
        for batch in 0..self.batch {
            for head in 0..self.kv_heads {
                for token in 0..self.tokens {
                    if !seen(KeySource::Input, token) || !self.is_real(KeySource::Input, batch, token) {
                        for part in [1, 2] {
                            let row = self.row(batch, token, part, head);
                            self.fused[row..row + self.head_dim].fill(nan);
                        }
                    }
                }
                for token in 0..ranges.cache_tokens() {
                    if !seen(KeySource::Cache, token) || !self.is_real(KeySource::Cache, batch, token) {
                        let row = self.cache_row(batch, head, token);
                        self.cached_keys[row..row + self.head_dim].fill(nan);
                        self.cached_values[row..row + self.head_dim].fill(nan);
                    }
                }
            }
        }
    }

    /// One row, rotated if it is a query or key of the input.
    fn channels<F: Float>(&self, data: &[T], row: usize, token: Option<usize>) -> Vec<F> {
        let mut channels: Vec<F> = data[row..row + self.head_dim].iter().map(|x| F::of(x.to_f64())).collect();
        if let (Some(rope), Some(token)) = (&self.rope, token) {
            let angles = &rope[token * self.head_dim..(token + 1) * self.head_dim];
            for (pair, angle) in channels.chunks_exact_mut(2).zip(angles.chunks_exact(2)) {
                let (x0, x1, cos, sin) = (pair[0], pair[1], F::of(angle[0].into()), F::of(angle[1].into()));
                pair[0] = x0 * cos - x1 * sin;
                pair[1] = x0 * sin + x1 * cos;
            }
        }
        channels
    }

    /// The definition, computed in `F`: `[batch, tokens, heads, head_dim]`.
    pub fn reference<F: Float>(&self) -> Vec<f64> {
        self.definition::<F>().0
    }

    /// The log-sum-exps of the definition, `[batch, tokens, heads]`, as far as they are wanted.
    pub fn reference_log_sum_exp(&self) -> Vec<f64> {
        if self.log_sum_exp { self.definition::<f64>().1 } else { Vec::new() }
    }

    fn definition<F: Float>(&self) -> (Vec<f64>, Vec<f64>) {
        let mut output = vec![0f64; self.output_len()];
        let mut log_sum_exps = vec![0f64; self.batch * self.tokens * self.heads];
        let scale = F::of(1.0 / (self.head_dim as f64).sqrt());
        for batch in 0..self.batch {
            for head in 0..self.heads {
                let kv_head = head * self.kv_heads / self.heads;
                for queries in self.resolved.ranges().query_ranges() {
                    let mut keys: Vec<Key<F>> = Vec::new();
                    for range in self.resolved.ranges().keys_of(queries) {
                        let tokens = range.start..range.start + range.len;
                        keys.extend(tokens.filter(|&token| self.is_real(range.source, batch, token)).map(|token| {
                            let (key, value) = match range.source {
                                KeySource::Input => (
                                    self.channels(&self.fused, self.row(batch, token, 1, kv_head), Some(token)),
                                    self.channels(&self.fused, self.row(batch, token, 2, kv_head), None),
                                ),
                                KeySource::Cache => (
                                    self.channels(&self.cached_keys, self.cache_row(batch, kv_head, token), None),
                                    self.channels(&self.cached_values, self.cache_row(batch, kv_head, token), None),
                                ),
                            };
                            let bias = F::of(self.bias_of(range.source, batch, head, token));
                            Key { token, band: range.band, key, value, bias }
                        }));
                    }
                    for token in queries.start..queries.start + queries.len {
                        let query = self.channels::<F>(&self.fused, self.row(batch, token, 0, head), Some(token));
                        let row = (batch * self.tokens + token) * self.heads + head;
                        let seen: Vec<&Key<F>> = keys.iter().filter(|key| key.band.sees(token, key.token)).collect();
                        let output = &mut output[row * self.head_dim..][..self.head_dim];
                        log_sum_exps[row] = attend(&query, &seen, scale, output);
                    }
                }
            }
        }
        (output, log_sum_exps)
    }
}

/// A key and value as the queries of a range see them.
struct Key<F> {
    token: usize,
    band: Band,
    key: Vec<F>,
    value: Vec<F>,
    bias: F,
}

/// Computes one row and returns its log-sum-exp.
fn attend<F: Float>(query: &[F], keys: &[&Key<F>], scale: F, output: &mut [f64]) -> f64 {
    let dot = |key: &[F]| query.iter().zip(key).fold(F::of(0.0), |sum, (&q, &k)| sum + q * k) * scale;
    let scores: Vec<F> = keys.iter().map(|key| dot(&key.key) + key.bias).collect();
    let maximum = scores.iter().fold(F::of(f64::NEG_INFINITY), |max, &score| if score > max { score } else { max });
    let weights: Vec<F> = scores.iter().map(|&score| (score - maximum).exp()).collect();
    let sum = blocked_sum(weights.iter().copied());
    for (channel, output) in output.iter_mut().enumerate() {
        let weighted = blocked_sum(keys.iter().zip(&weights).map(|(key, &weight)| weight * key.value[channel]));
        *output = if keys.is_empty() { 0.0 } else { (weighted / sum).into() };
    }
    if keys.is_empty() { f64::NEG_INFINITY } else { maximum.into() + sum.into().ln() }
}

/// A sum by blocks, as every tiled implementation has it: one running sum of many thousand keys would make the error of
/// plain arithmetic, which bounds that of kernels, an easy one.
fn blocked_sum<F: Float>(terms: impl Iterator<Item = F>) -> F {
    const BLOCK: usize = 64;
    let (mut sum, mut block) = (F::of(0.0), F::of(0.0));
    for (i, term) in terms.enumerate() {
        block = block + term;
        if i % BLOCK == BLOCK - 1 {
            sum = sum + block;
            block = F::of(0.0);
        }
    }
    sum + block
}

/// f32 or f64 arithmetic.
pub trait Float:
    Copy
    + PartialOrd
    + Into<f64>
    + std::ops::Add<Output = Self>
    + std::ops::Sub<Output = Self>
    + std::ops::Mul<Output = Self>
    + std::ops::Div<Output = Self>
{
    fn of(value: f64) -> Self;
    fn exp(self) -> Self;
}

impl Float for f32 {
    fn of(value: f64) -> Self {
        value as f32
    }
    fn exp(self) -> Self {
        f32::exp(self)
    }
}

impl Float for f64 {
    fn of(value: f64) -> Self {
        value
    }
    fn exp(self) -> Self {
        f64::exp(self)
    }
}
