//! What a plan boils down to: which run of query tokens sees which runs of key tokens.

use std::ops::Range;

use super::Band;
use crate::error::PlanError;

/// Where the keys and values of a range are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum KeySource {
    /// The keys and values of the input tokens.
    Input = 0,
    /// The keys and values of a [`KvCache`](crate::KvCache).
    Cache = 1,
}

/// A run of key tokens, `[start, start + len)` along the token axis of its source, as a run of queries sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyRange {
    /// Which keys.
    pub source: KeySource,
    /// First token.
    pub start: usize,
    /// Number of tokens.
    pub len: usize,
    /// Which of them a query sees.
    pub band: Band,
}

/// A run of query tokens, `[start, start + len)` of the input, that all see the same key ranges.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct QueryRange {
    /// First token.
    pub start: usize,
    /// Number of tokens, at least 1.
    pub len: usize,
    /// The keys it sees, as positions in [`PlanRanges::key_ranges`]. Empty if every key group has size 0.
    pub keys: Range<usize>,
}

/// All ranges of a plan whose group sizes are known.
///
/// Invariants: query ranges are ascending, disjoint and cover every input token; no range is empty; neighbours with
/// the same keys are merged, and so are adjacent key ranges of one source.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PlanRanges {
    input_tokens: usize,
    cache_tokens: usize,
    query_ranges: Vec<QueryRange>,
    key_ranges: Vec<KeyRange>,
    visible_pairs: u64,
}

impl PlanRanges {
    /// Collects the ranges of all patterns.
    ///
    /// # Errors
    /// More pairs than can be counted.
    pub(super) fn new(
        input_tokens: usize,
        cache_tokens: usize,
        patterns: Vec<PatternRanges>,
    ) -> Result<Self, PlanError> {
        let mut key_ranges: Vec<KeyRange> = Vec::new();
        let mut query_ranges: Vec<QueryRange> = Vec::new();
        for pattern in patterns {
            let first = key_ranges.len();
            for range in pattern.keys.into_iter().filter(|range| range.len > 0) {
                // Only what this pattern has added may be extended.
                match key_ranges[first..].last_mut() {
                    Some(last)
                        if (last.source, last.band) == (range.source, range.band)
                            && last.start + last.len == range.start =>
                    {
                        last.len += range.len;
                    }
                    _ => key_ranges.push(range),
                }
            }
            let keys = first..key_ranges.len();
            let queries = pattern.queries.into_iter().filter(|&(_, len)| len > 0);
            query_ranges.extend(queries.map(|(start, len)| QueryRange { start, len, keys: keys.clone() }));
        }
        query_ranges.sort_unstable_by_key(|range| range.start);
        query_ranges.dedup_by(|next, last| {
            let mergeable =
                last.start + last.len == next.start && key_ranges[last.keys.clone()] == key_ranges[next.keys.clone()];
            if mergeable {
                last.len += next.len;
            }
            mergeable
        });
        let mut visible_pairs = 0u64;
        for queries in &query_ranges {
            let asking = queries.start..queries.start + queries.len;
            for keys in &key_ranges[queries.keys.clone()] {
                let pairs = keys.band.pairs(asking.clone(), keys.start..keys.start + keys.len);
                let sum = pairs.and_then(|pairs| visible_pairs.checked_add(pairs));
                visible_pairs = sum.ok_or(PlanError::TooManyPairs)?;
            }
        }
        Ok(Self { input_tokens, cache_tokens, query_ranges, key_ranges, visible_pairs })
    }

    /// Number of tokens of the input.
    pub fn input_tokens(&self) -> usize {
        self.input_tokens
    }

    /// Number of tokens of the cache, 0 without one.
    pub fn cache_tokens(&self) -> usize {
        self.cache_tokens
    }

    /// The query ranges, ascending.
    pub fn query_ranges(&self) -> &[QueryRange] {
        &self.query_ranges
    }

    /// The key ranges of all query ranges.
    pub fn key_ranges(&self) -> &[KeyRange] {
        &self.key_ranges
    }

    /// The key ranges that one query range sees, in the order of its pattern.
    ///
    /// # Panics
    /// With a query range of another plan.
    pub fn keys_of(&self, queries: &QueryRange) -> &[KeyRange] {
        &self.key_ranges[queries.keys.clone()]
    }

    /// Number of keys that the queries of this range see together; a group named twice counts twice.
    ///
    /// # Panics
    /// With a query range of another plan.
    pub fn key_count(&self, queries: &QueryRange) -> usize {
        self.keys_of(queries).iter().map(|range| range.len).sum()
    }

    /// Number of (query, key) pairs that are computed per batch row and head.
    pub fn visible_pairs(&self) -> u64 {
        self.visible_pairs
    }

    /// Whether any key is an input token.
    pub fn has_input_keys(&self) -> bool {
        self.key_ranges.iter().any(|range| range.source == KeySource::Input)
    }
}

/// The ranges of one pattern, before empty ones are dropped and neighbours merged.
pub(super) struct PatternRanges {
    /// `(start, len)` of each query group.
    pub queries: Vec<(usize, usize)>,
    /// Each key group, in the order of the pattern.
    pub keys: Vec<KeyRange>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{AttentionPattern, AttentionPlan, TokenSpec};

    fn ranges(groups: &[(&str, usize)], patterns: &[(&[&str], &[&str])]) -> PlanRanges {
        let tokens: Vec<_> = groups.iter().map(|&(name, size)| TokenSpec::new(name, size)).collect();
        let patterns: Vec<_> = patterns
            .iter()
            .map(|(queries, keys)| AttentionPattern::queries(queries.iter().copied()).attend_to(keys.iter().copied()))
            .collect();
        AttentionPlan::new(tokens, patterns).unwrap().resolve(None).unwrap().ranges().clone()
    }

    fn input(start: usize, len: usize) -> KeyRange {
        KeyRange { source: KeySource::Input, start, len, band: Band::ALL }
    }

    #[test]
    fn neighbours_merge() {
        let groups = [("a", 3), ("b", 4), ("c", 5)];
        let ranges = ranges(&groups, &[(&["a", "b", "c"], &["a", "b"])]);
        assert_eq!(ranges.query_ranges(), [QueryRange { start: 0, len: 12, keys: 0..1 }]);
        assert_eq!(ranges.key_ranges(), [input(0, 7)]);
    }

    #[test]
    fn neighbours_of_different_patterns_merge_if_they_see_the_same() {
        let ranges = ranges(&[("a", 3), ("b", 4)], &[(&["a"], &["b"]), (&["b"], &["b"])]);
        assert_eq!(ranges.query_ranges(), [QueryRange { start: 0, len: 7, keys: 0..1 }]);
    }

    #[test]
    fn keys_keep_the_order_and_the_repetitions_of_the_pattern() {
        let ranges = ranges(&[("a", 3), ("b", 4)], &[(&["a", "b"], &["b", "a", "a"])]);
        let queries = &ranges.query_ranges()[0];
        assert_eq!(ranges.keys_of(queries), [input(3, 4), input(0, 3), input(0, 3)]);
        assert_eq!(ranges.key_count(queries), 10);
        assert_eq!(ranges.visible_pairs(), 70);
    }

    #[test]
    fn empty_groups_leave_no_range_and_do_not_separate_neighbours() {
        let ranges = ranges(&[("a", 3), ("nothing", 0), ("b", 4)], &[(&["a", "nothing", "b"], &["a", "nothing", "b"])]);
        assert_eq!(ranges.query_ranges(), [QueryRange { start: 0, len: 7, keys: 0..1 }]);
        assert_eq!(ranges.key_ranges(), [input(0, 7)]);
    }

    #[test]
    fn queries_without_keys_keep_their_range() {
        let ranges = ranges(&[("a", 3), ("nothing", 0)], &[(&["a", "nothing"], &["nothing"])]);
        assert_eq!(ranges.query_ranges(), [QueryRange { start: 0, len: 3, keys: 0..0 }]);
        assert_eq!((ranges.visible_pairs(), ranges.has_input_keys()), (0, false));
    }
}
