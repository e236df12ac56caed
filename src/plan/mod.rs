//! From names to ranges: the validated, immutable description of one attention pass.
//!
//! [`AttentionPlan`] checks token specs and patterns once and turns them into [`PlanRanges`]; a [`TileSchedule`] cuts
//! the ranges into the work items of a launch. Nothing here depends on a device.

mod balance;
mod band;
mod batch;
mod display;
mod kept;
mod key_rows;
mod layout;
mod padding;
mod pattern;
mod ranges;
mod resolved;
mod schedule;
mod steps;
mod tokens;
mod window;

use std::collections::HashMap;
use std::sync::Arc;

use crate::error::PlanError;
use crate::recent::Recent;

pub use balance::PersistentBlocks;
pub use band::Band;
pub use batch::BatchPlan;
pub use key_rows::{KeyRows, KeySpan};
pub use layout::{CacheLayout, CachedGroup};
pub use padding::{PaddingBits, TileClass};
pub use pattern::AttentionPattern;
pub use ranges::{KeyRange, KeySource, PlanRanges, QueryRange};
pub use resolved::ResolvedPlan;
pub use schedule::{KeyTile, Reduction, TileSchedule, TileShape, WorkItem};
pub use steps::{KeyStep, MAX_KEYS_PER_STEP, NARROW_KEYS, SlotReduction, StepContext, StepItem, StepSchedule};
pub use tokens::TokenSpec;
pub use window::AttentionWindow;

use ranges::PatternRanges;
use window::windowed_ranges;

/// The plans that a layer made last, by what it makes them from: a plan that is kept has its schedules, on a GPU uploaded
/// ones. Clones of a layer share them.
pub(crate) type RecentPlans<K> = Arc<Recent<K, AttentionPlan, RECENT_PLANS>>;

/// How many plans are kept: of a stream of equal chunks one for each kind of block, and as many for its end.
const RECENT_PLANS: usize = 16;

/// Who attends to whom, checked once: an unvalidated plan cannot exist.
///
/// Cheap to clone and to share between layers, batches and threads; clones share the schedules that the backends
/// derive from the plan, so a plan that is kept costs nothing per call.
///
/// ```
/// use candle_mixed_attention::{AttentionPattern, AttentionPlan, TokenSpec};
///
/// let plan = AttentionPlan::new(
///     [TokenSpec::new("anchors", 100), TokenSpec::new("queries", 50)],
///     [AttentionPattern::queries(["anchors", "queries"]).attend_to(["anchors"])],
/// )?;
/// assert_eq!(plan.len(), 150);
/// assert_eq!(plan.visible_pairs()?, 150 * 100);
/// println!("{plan}");
/// # Ok::<(), candle_mixed_attention::PlanError>(())
/// ```
#[derive(Clone)]
pub struct AttentionPlan {
    inner: Arc<Inner>,
}

struct Inner {
    tokens: Vec<TokenSpec>,
    patterns: Vec<AttentionPattern>,
    input_tokens: usize,
    has_cached: bool,
    /// Sizes that cached groups must have, where the plan was derived from the one that filled the cache.
    expected_cached: HashMap<String, usize>,
    /// The plan without a cache, or for the layout given by `with_cache_layout`.
    known: Option<Arc<ResolvedPlan>>,
    /// The plan for the cache layouts that were met.
    met: Recent<CacheLayout, Arc<ResolvedPlan>, RECENT_LAYOUTS>,
}

/// How many cache layouts a plan remembers; a loop over more of them resolves again, in microseconds.
const RECENT_LAYOUTS: usize = 8;

impl AttentionPlan {
    /// Checks token specs and patterns.
    ///
    /// Each input group must be query of exactly one pattern. Cached groups may be named as queries and are then
    /// skipped. Keys may be any groups, also a mix of cached and input groups; a group named twice counts twice.
    ///
    /// # Errors
    /// No groups, two groups of one name, unknown names, a group that is query of two patterns or of none, a pattern
    /// without queries or without keys, more tokens or pairs than can be counted.
    pub fn new(
        tokens: impl Into<Vec<TokenSpec>>,
        patterns: impl Into<Vec<AttentionPattern>>,
    ) -> Result<Self, PlanError> {
        Self::build(tokens.into(), patterns.into(), HashMap::new(), None)
    }

    fn build(
        tokens: Vec<TokenSpec>,
        patterns: Vec<AttentionPattern>,
        expected_cached: HashMap<String, usize>,
        layout: Option<CacheLayout>,
    ) -> Result<Self, PlanError> {
        let input_tokens = check(&tokens, &patterns)?;
        let has_cached = tokens.iter().any(TokenSpec::is_cached);
        let mut inner =
            Inner { tokens, patterns, input_tokens, has_cached, expected_cached, known: None, met: Recent::default() };
        if layout.is_some() || !has_cached {
            let ranges = inner.ranges(layout.as_ref())?;
            inner.known = Some(Arc::new(ResolvedPlan::new(ranges, layout)));
        }
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The token groups, in input order.
    pub fn tokens(&self) -> &[TokenSpec] {
        &self.inner.tokens
    }

    /// The patterns.
    pub fn patterns(&self) -> &[AttentionPattern] {
        &self.inner.patterns
    }

    /// Number of input tokens: the length of the token axis of `x`.
    pub fn len(&self) -> usize {
        self.inner.input_tokens
    }

    /// Whether the input has no tokens.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The names of the groups whose keys and values come from a cache.
    pub fn cached_groups(&self) -> impl Iterator<Item = &str> {
        self.inner.tokens.iter().filter(|token| token.is_cached()).map(|token| token.name.as_str())
    }

    /// Whether a cache is needed.
    pub fn needs_cache(&self) -> bool {
        self.inner.has_cached
    }

    /// First token and size of an input group.
    pub fn input_group(&self, name: &str) -> Option<(usize, usize)> {
        let mut start = 0;
        for token in &self.inner.tokens {
            let size = token.size.unwrap_or(0);
            if token.name == name {
                return token.size.map(|size| (start, size));
            }
            start += size;
        }
        None
    }

    /// This plan for caches of one layout, so that its pairs can be counted before a cache exists.
    ///
    /// # Errors
    /// A cached group is not in the layout or has another size than the plan expects; or no group is cached.
    pub fn with_cache_layout(&self, layout: &CacheLayout) -> Result<Self, PlanError> {
        let inner = &self.inner;
        if !inner.has_cached {
            return Err(PlanError::CacheUnused { cached: layout.names() });
        }
        Self::build(inner.tokens.clone(), inner.patterns.clone(), inner.expected_cached.clone(), Some(layout.clone()))
    }

    /// The plan of a later pass, which takes `cached` groups from the cache that a pass with this plan filled and whose
    /// input holds `queries`, as (group, size) in input order.
    ///
    /// Each query group keeps the pattern it has in this plan, whatever its size there. Its keys must be cached or be
    /// among `queries` themselves.
    ///
    /// ```
    /// # use candle_mixed_attention::{AttentionPattern, AttentionPlan, TokenSpec};
    /// # let plan = AttentionPlan::new(
    /// #     [TokenSpec::new("anchors", 100), TokenSpec::new("queries", 50)],
    /// #     [AttentionPattern::queries(["anchors", "queries"]).attend_to(["anchors"])],
    /// # )?;
    /// let step = plan.with_cached(["anchors"], [("queries", 4096)])?;
    /// assert_eq!(step.len(), 4096);
    /// assert!(step.needs_cache());
    /// # Ok::<(), candle_mixed_attention::PlanError>(())
    /// ```
    ///
    /// # Errors
    /// No queries; names that this plan does not have, a group in both lists, or keys that would be missing. In a pattern
    /// with a window, groups that would come to stand elsewhere: cached groups come before the queries, which follow them
    /// at once.
    pub fn with_cached<C: Into<String>, Q: Into<String>>(
        &self,
        cached: impl IntoIterator<Item = C>,
        queries: impl IntoIterator<Item = (Q, usize)>,
    ) -> Result<Self, PlanError> {
        let specs: HashMap<&str, &TokenSpec> =
            self.inner.tokens.iter().map(|token| (token.name.as_str(), token)).collect();
        let mut tokens = Vec::new();
        let mut expected_cached = HashMap::new();
        for name in cached {
            let name = name.into();
            let spec = specs.get(name.as_str()).ok_or_else(|| self.no_such_group(&name))?;
            // A group that was cached in this plan too keeps whatever size this plan expects.
            let size = spec.size.or_else(|| self.inner.expected_cached.get(&name).copied());
            expected_cached.extend(size.map(|size| (name.clone(), size)));
            tokens.push(TokenSpec::cached(name));
        }
        for (name, size) in queries {
            let name = name.into();
            if !specs.contains_key(name.as_str()) {
                return Err(self.no_such_group(&name));
            }
            tokens.push(TokenSpec::new(name, size));
        }
        if tokens.iter().all(TokenSpec::is_cached) {
            return Err(PlanError::NoQueries { cached: tokens.into_iter().map(|token| token.name).collect() });
        }

        // Whether a group of this step is cached.
        let present: HashMap<&str, bool> =
            tokens.iter().map(|token| (token.name.as_str(), token.is_cached())).collect();
        let mut patterns = Vec::new();
        for pattern in &self.inner.patterns {
            let asks = |name: &&String| present.get(name.as_str()) == Some(&false);
            let asking: Vec<String> = pattern.query_tokens.iter().filter(asks).cloned().collect();
            let Some(query) = asking.first() else { continue };
            if let Some(group) = pattern.key_value_tokens.iter().find(|name| !present.contains_key(name.as_str())) {
                let cached = tokens.iter().filter(|token| token.is_cached()).map(|token| token.name.clone()).collect();
                return Err(PlanError::KeysMissing { query: query.clone(), group: group.clone(), cached });
            }
            let later = AttentionPattern { query_tokens: asking, ..pattern.clone() };
            if !later.window.is_unlimited() {
                self.check_places(pattern, &later, &tokens)?;
            }
            patterns.push(later);
        }
        Self::build(tokens, patterns, expected_cached, None)
    }

    /// Checks that the tokens of a pattern with a window stand to each other in a later pass as they do in this one, apart
    /// from the sizes of query groups: its groups there are side by side here, in this order.
    fn check_places(
        &self,
        pattern: &AttentionPattern,
        later: &AttentionPattern,
        later_tokens: &[TokenSpec],
    ) -> Result<(), PlanError> {
        let named = |pattern: &AttentionPattern, tokens: &[TokenSpec]| -> (Vec<String>, Vec<String>) {
            let is_named = |token: &&TokenSpec| {
                pattern.query_tokens.contains(&token.name) || pattern.key_value_tokens.contains(&token.name)
            };
            let (cached, input): (Vec<&TokenSpec>, Vec<_>) =
                tokens.iter().filter(is_named).partition(|token| token.is_cached());
            let names = |tokens: Vec<&TokenSpec>| tokens.into_iter().map(|token| token.name.clone()).collect();
            (names(cached), names(input))
        };
        let (cached, input) = named(pattern, &self.inner.tokens);
        let before = [cached, input].concat();
        // The cache lays its groups out in the order of this pass.
        let (mut cached, input) = named(later, later_tokens);
        cached.sort_by_key(|name| before.iter().position(|other| other == name));
        let after = [cached, input].concat();
        if before.windows(after.len()).any(|run| run == after) {
            return Ok(());
        }
        Err(PlanError::PlacesChange { before, after })
    }

    /// The plan of a later pass over `size` tokens of one group, all of whose keys come from the cache.
    ///
    /// # Errors
    /// As [`with_cached`](Self::with_cached); also if this plan has no such group.
    pub fn cached_queries(&self, group: &str, size: usize) -> Result<Self, PlanError> {
        let asks = |pattern: &&AttentionPattern| pattern.query_tokens.iter().any(|name| name == group);
        let pattern = self.inner.patterns.iter().find(asks).ok_or_else(|| self.no_such_group(group))?;
        let mut keys: Vec<&String> = Vec::new();
        for name in &pattern.key_value_tokens {
            if !keys.contains(&name) {
                keys.push(name);
            }
        }
        self.with_cached(keys, [(group, size)])
    }

    /// The plan with every size known, for a cache of this layout or for none.
    ///
    /// Remembered, so that asking again is free.
    ///
    /// # Errors
    /// A cache is needed and missing, given and not needed, or lacks a group.
    pub fn resolve(&self, layout: Option<&CacheLayout>) -> Result<Arc<ResolvedPlan>, PlanError> {
        let known = self.inner.known.as_ref().filter(|known| known.layout() == layout);
        match (known, layout) {
            (Some(known), _) => Ok(known.clone()),
            (None, Some(layout)) if !self.needs_cache() => Err(PlanError::CacheUnused { cached: layout.names() }),
            (None, Some(layout)) => self.inner.met.get(layout, || {
                Ok(Arc::new(ResolvedPlan::new(self.inner.ranges(Some(layout))?, Some(layout.clone()))))
            }),
            // A plan without cached groups is known without a layout.
            (None, None) => Err(PlanError::CacheMissing { groups: self.cached_groups().map(str::to_string).collect() }),
        }
    }

    /// The plan with every size known from the plan alone.
    fn known(&self) -> Result<&Arc<ResolvedPlan>, PlanError> {
        self.inner.known.as_ref().ok_or_else(|| PlanError::CachedSizeUnknown {
            group: self.cached_groups().next().unwrap_or_default().to_string(),
        })
    }

    /// Number of (query, key) pairs that are computed per batch row and head; a group named twice counts twice.
    ///
    /// # Errors
    /// The size of a cached group is not known; see [`with_cache_layout`](Self::with_cache_layout).
    pub fn visible_pairs(&self) -> Result<u64, PlanError> {
        Ok(self.known()?.ranges().visible_pairs())
    }

    /// Visible pairs as a fraction of all pairs of input tokens with input and cached tokens; 0 without any pair.
    ///
    /// Above 1 only when groups are named twice among the keys.
    ///
    /// # Errors
    /// As [`visible_pairs`](Self::visible_pairs).
    pub fn density(&self) -> Result<f64, PlanError> {
        let ranges = self.known()?.ranges();
        let keys = ranges.input_tokens() + ranges.cache_tokens();
        let all = ranges.input_tokens() as f64 * keys as f64;
        Ok(if all == 0.0 { 0.0 } else { ranges.visible_pairs() as f64 / all })
    }

    /// How often each input token (row) sees each key (column): the input tokens, then the tokens of the cache.
    ///
    /// Row-major, [`len`](Self::len) rows. For looking at small plans and for tests: it has one byte per pair. More
    /// than 255 repetitions of a key count as 255.
    ///
    /// # Errors
    /// As [`visible_pairs`](Self::visible_pairs); a mask that does not fit into memory.
    pub fn to_dense_mask(&self) -> Result<Vec<u8>, PlanError> {
        let ranges = self.known()?.ranges();
        let width = ranges.input_tokens() + ranges.cache_tokens();
        let too_large = || PlanError::DenseMask { queries: ranges.input_tokens(), keys: width };
        let len = ranges.input_tokens().checked_mul(width).ok_or_else(too_large)?;
        let mut mask = Vec::new();
        mask.try_reserve_exact(len).map_err(|_| too_large())?;
        mask.resize(len, 0u8);
        for queries in ranges.query_ranges() {
            for row in queries.start..queries.start + queries.len {
                for keys in ranges.keys_of(queries) {
                    let offset = match keys.source {
                        KeySource::Input => 0,
                        KeySource::Cache => ranges.input_tokens(),
                    };
                    let visible = keys.band.seen_by(row..row + 1, keys.start..keys.start + keys.len);
                    let first = row * width + offset + visible.start;
                    mask[first..first + visible.len()].iter_mut().for_each(|seen| *seen = seen.saturating_add(1));
                }
            }
        }
        Ok(mask)
    }

    fn no_such_group(&self, group: &str) -> PlanError {
        let known = self.inner.tokens.iter().map(|token| token.name.clone()).collect();
        PlanError::NoSuchGroup { group: group.to_string(), known }
    }

    /// The input groups with their sizes, for error messages.
    pub(crate) fn describe_input(&self) -> String {
        let groups = self.inner.tokens.iter().filter_map(|token| Some((token, token.size?)));
        groups.map(|(token, size)| format!("{} {size}", token.name)).collect::<Vec<_>>().join(", ")
    }
}

impl std::fmt::Debug for AttentionPlan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AttentionPlan")
            .field("tokens", &self.inner.tokens)
            .field("patterns", &self.inner.patterns)
            .finish_non_exhaustive()
    }
}

/// Checks everything that does not depend on a cache and returns the number of input tokens.
fn check(tokens: &[TokenSpec], patterns: &[AttentionPattern]) -> Result<usize, PlanError> {
    if tokens.is_empty() {
        return Err(PlanError::NoGroups);
    }
    let mut position = HashMap::with_capacity(tokens.len());
    let mut total = 0usize;
    for (index, token) in tokens.iter().enumerate() {
        if position.insert(token.name.as_str(), index).is_some() {
            return Err(PlanError::DuplicateGroup { group: token.name.clone() });
        }
        let sum = total.checked_add(token.size.unwrap_or(0));
        total = sum.ok_or_else(|| PlanError::TooManyTokens { group: token.name.clone() })?;
    }

    let mut query_of: Vec<Option<usize>> = vec![None; tokens.len()];
    for (index, pattern) in patterns.iter().enumerate() {
        let find = |group: &String, role| {
            position.get(group.as_str()).copied().ok_or_else(|| PlanError::UnknownGroup {
                pattern: index,
                group: group.clone(),
                role,
                known: tokens.iter().map(|token| token.name.clone()).collect(),
            })
        };
        for (names, role) in [(&pattern.query_tokens, "query_tokens"), (&pattern.key_value_tokens, "key_value_tokens")]
        {
            if names.is_empty() {
                return Err(PlanError::EmptyPattern { pattern: index, role });
            }
        }
        for group in &pattern.query_tokens {
            let slot = &mut query_of[find(group, "query_tokens")?];
            if let Some(first) = slot.replace(index) {
                return Err(PlanError::DuplicateQuery { group: group.clone(), first, second: index });
            }
        }
        for group in &pattern.key_value_tokens {
            find(group, "key_value_tokens")?;
        }
    }
    for (token, asked) in tokens.iter().zip(&query_of) {
        if let (Some(size), None) = (token.size, asked) {
            return Err(PlanError::GroupWithoutPattern { group: token.name.clone(), size });
        }
    }
    Ok(total)
}

impl Inner {
    /// The ranges for a cache of this layout. The specs and patterns have passed [`check`].
    fn ranges(&self, layout: Option<&CacheLayout>) -> Result<PlanRanges, PlanError> {
        let mut keys_of = HashMap::with_capacity(self.tokens.len());
        let mut start = 0;
        for token in &self.tokens {
            let range = match token.size {
                Some(len) => {
                    let range = KeyRange { source: KeySource::Input, start, len, band: Band::ALL };
                    start += len;
                    range
                }
                None => self.cached_range(&token.name, layout)?,
            };
            keys_of.insert(token.name.as_str(), range);
        }
        let mut patterns = Vec::with_capacity(self.patterns.len());
        for (number, pattern) in self.patterns.iter().enumerate() {
            let ranges = |names: &[String]| names.iter().map(|name| keys_of[name.as_str()]).collect::<Vec<_>>();
            let (asking, keys) = (ranges(&pattern.query_tokens), ranges(&pattern.key_value_tokens));
            let of_input = asking.iter().filter(|range| range.source == KeySource::Input);
            let queries = of_input.map(|range| (range.start, range.len)).collect();
            if pattern.window.is_unlimited() {
                patterns.push(PatternRanges { queries, keys });
            } else {
                let groups = asking.iter().chain(&keys).copied().collect();
                patterns.extend(windowed_ranges(number, pattern.window, groups, queries, keys)?);
            }
        }
        let cache_tokens = layout.map_or(0, CacheLayout::tokens);
        PlanRanges::new(self.input_tokens, cache_tokens, patterns)
    }

    fn cached_range(&self, name: &str, layout: Option<&CacheLayout>) -> Result<KeyRange, PlanError> {
        let layout = layout.ok_or_else(|| PlanError::CacheMissing { groups: vec![name.to_string()] })?;
        let group = layout
            .group(name)
            .ok_or_else(|| PlanError::NotInCache { group: name.to_string(), cached: layout.names() })?;
        match self.expected_cached.get(name) {
            Some(&expected) if expected != group.len => {
                Err(PlanError::CachedSizeMismatch { group: name.to_string(), expected, got: group.len })
            }
            _ => Ok(KeyRange { source: KeySource::Cache, start: group.start, len: group.len, band: Band::ALL }),
        }
    }
}
