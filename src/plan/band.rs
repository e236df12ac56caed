//! Which pairs of a run of queries and a run of keys are visible: those between two diagonals.

use std::ops::Range;

use bytemuck::{Pod, Zeroable};

/// A query sees the keys whose token (of their source) less its own (of the input) is in `[first, last]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct Band {
    /// Least difference.
    pub first: i64,
    /// Largest difference.
    pub last: i64,
}

/// No difference of tokens is as large, and sums of two of these do not overflow.
const FAR: i64 = 1 << 61;

/// Tokens that a band can tell apart: on a machine of 32 bits, all that there can be.
pub(super) const MOST_TOKENS: usize = if usize::BITS > 61 { FAR as usize } else { usize::MAX };

impl Band {
    /// Every pair.
    pub const ALL: Self = Self { first: -FAR, last: FAR };

    /// The band in which a key is at most `before` in front of a query and at most `after` behind it, where their places
    /// are as far apart as their tokens are plus `shift`.
    pub(super) fn new(before: Option<usize>, after: Option<usize>, shift: i64) -> Self {
        let distance = |tokens: Option<usize>| tokens.map_or(FAR, |tokens| tokens.min(MOST_TOKENS) as i64);
        let first = (-distance(before)).saturating_add(shift).clamp(-FAR, FAR);
        let last = distance(after).saturating_add(shift).clamp(-FAR, FAR);
        Self { first, last }
    }

    /// Whether every pair is visible, whatever the tokens.
    pub fn is_all(self) -> bool {
        self == Self::ALL
    }

    /// Whether a query sees a key.
    pub fn sees(self, query: usize, key: usize) -> bool {
        self.is_all() || (self.first..=self.last).contains(&(key as i64 - query as i64))
    }

    /// Whether every one of the queries sees every one of the keys.
    pub fn covers(self, queries: Range<usize>, keys: Range<usize>) -> bool {
        self.is_all()
            || queries.is_empty()
            || keys.is_empty()
            || self.sees(queries.start, keys.end - 1) && self.sees(queries.end - 1, keys.start)
    }

    /// Those of the keys that one of the queries sees.
    pub fn seen_by(self, queries: Range<usize>, keys: Range<usize>) -> Range<usize> {
        if self.is_all() || queries.is_empty() {
            return keys;
        }
        within(keys, queries.start as i64 + self.first, queries.end as i64 + self.last)
    }

    /// Those of the queries that see a key.
    pub fn that_see(self, key: usize, queries: Range<usize>) -> Range<usize> {
        if self.is_all() {
            return queries;
        }
        within(queries, key as i64 - self.last, key as i64 - self.first + 1)
    }

    /// Number of visible pairs, or `None` if it cannot be counted.
    pub(super) fn pairs(self, queries: Range<usize>, keys: Range<usize>) -> Option<u64> {
        if self.is_all() {
            return (queries.len() as u64).checked_mul(keys.len() as u64);
        }
        // Keys that are at most `last` behind a query, and not those that are less than `first` behind it.
        let (count, width) = (queries.len() as i128, keys.len() as i128);
        let up_to = |last: i64| {
            let of_first_query = i128::from(last) + queries.start as i128 - keys.start as i128 + 1;
            ramp(of_first_query + count - 1, width) - ramp(of_first_query - 1, width)
        };
        u64::try_from((up_to(self.last) - up_to(self.first - 1)).max(0)).ok()
    }
}

/// `Σ min(i, most)` for i from 1 to `end`.
fn ramp(end: i128, most: i128) -> i128 {
    let end = end.max(0);
    let below = end.min(most);
    below * (below + 1) / 2 + (end - below) * most
}

/// Those of a range that are in `[first, end)`; empty, but inside of the range, if there are none.
fn within(range: Range<usize>, first: i64, end: i64) -> Range<usize> {
    // What no index of this machine can be lies behind the range.
    let index = |bound: i64| usize::try_from(bound.max(0)).unwrap_or(usize::MAX);
    let clamp = |bound: i64| index(bound).clamp(range.start, range.end);
    let start = clamp(first);
    start..clamp(end).max(start)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every question about small ranges is answered as pair by pair.
    #[test]
    fn answers_are_those_of_the_pairs() {
        let bands = (-7..7).flat_map(|first| (-7..7).map(move |last| Band { first, last })).chain([Band::ALL]);
        for band in bands {
            for (queries, keys) in [(3..8, 0..6), (0..5, 4..5), (2..2, 0..3), (0..3, 9..9), (0..1, 0..12)] {
                let seen = |query: usize, key: usize| {
                    let difference = key as i64 - query as i64;
                    band.first <= difference && difference <= band.last
                };
                let all = || queries.clone().flat_map(|query| keys.clone().map(move |key| (query, key)));
                let count = all().filter(|&(query, key)| seen(query, key)).count();
                assert_eq!(
                    band.pairs(queries.clone(), keys.clone()),
                    Some(count as u64),
                    "{band:?} {queries:?} {keys:?}"
                );
                assert_eq!(band.covers(queries.clone(), keys.clone()), count == queries.len() * keys.len());
                for (query, key) in all() {
                    assert_eq!(band.sees(query, key), seen(query, key));
                    assert_eq!(band.that_see(key, queries.clone()).contains(&query), seen(query, key));
                }
                if !queries.is_empty() {
                    let some = |key: &usize| queries.clone().any(|query| seen(query, *key));
                    let expected: Vec<usize> = keys.clone().filter(some).collect();
                    // A band of one diagonal or more has no gaps.
                    if band.first <= band.last {
                        assert_eq!(band.seen_by(queries.clone(), keys.clone()).collect::<Vec<_>>(), expected);
                    }
                }
            }
        }
    }

    #[test]
    fn windows_shift_with_the_places() {
        assert_eq!(Band::new(Some(2), Some(1), 10), Band { first: 8, last: 11 });
        assert!(Band::new(None, None, 0).is_all());
        let causal = Band::new(None, Some(0), -4);
        assert!(causal.sees(9, 5) && !causal.sees(9, 6) && causal.sees(1 << 40, 0));
        // A window wider than there can be tokens.
        assert!(Band::new(Some(usize::MAX), Some(usize::MAX), 5).sees(0, 1 << 50));
    }

    #[test]
    fn pairs_are_counted_without_overflow() {
        let tokens = 0..MOST_TOKENS;
        assert_eq!(Band::new(Some(0), Some(0), 0).pairs(tokens.clone(), tokens.clone()), Some(1 << 61));
        assert_eq!(Band::new(None, Some(0), 0).pairs(tokens.clone(), tokens), None);
    }
}
