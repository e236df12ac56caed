//! Causal and sliding windows: which keys a query sees by their places.

use serde::{Deserialize, Serialize};

use super::band::{Band, MOST_TOKENS};
use super::ranges::PatternRanges;
use super::{KeyRange, KeySource};
use crate::error::PlanError;

/// How far a query sees from its own place.
///
/// Places count the tokens of all groups that the pattern names, each once: cached groups first, in the order of the cache,
/// then input groups in the order of the input. Groups of other patterns do not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct AttentionWindow {
    /// How many places a key may be in front of the query; `None`: any number.
    #[serde(default)]
    pub left: Option<usize>,
    /// How many places a key may be behind the query; `None`: any number.
    #[serde(default)]
    pub right: Option<usize>,
}

impl AttentionWindow {
    /// Whether every query sees every key.
    pub fn is_unlimited(&self) -> bool {
        *self == Self::default()
    }

    /// What is inside this window and another.
    pub(super) fn narrowed(self, left: Option<usize>, right: Option<usize>) -> Self {
        let smaller = |a: Option<usize>, b: Option<usize>| a.into_iter().chain(b).min();
        Self { left: smaller(self.left, left), right: smaller(self.right, right) }
    }
}

/// A group that a pattern names, where it lies in its source.
pub(super) type Group = KeyRange;

/// The ranges of pattern `number`, whose window limits what its queries see: one entry for each run of queries that lie side
/// by side. `groups` are all that the pattern names.
///
/// Keys are in the order of their places, so that those which a tile of queries sees lie side by side.
///
/// # Errors
/// More tokens than windows can count.
pub(super) fn windowed_ranges(
    number: usize,
    window: AttentionWindow,
    mut groups: Vec<Group>,
    mut queries: Vec<(usize, usize)>,
    mut keys: Vec<Group>,
) -> Result<Vec<PatternRanges>, PlanError> {
    let order = |group: &Group| (group.source == KeySource::Input, group.start);
    groups.sort_unstable_by_key(|group| (order(group), group.len));
    groups.dedup();
    let too_many = || PlanError::TooManyTokensForWindow { pattern: number, limit: MOST_TOKENS };
    let mut places = Vec::with_capacity(groups.len());
    let mut place = 0usize;
    for group in &groups {
        let ends = [group.start.checked_add(group.len), place.checked_add(group.len)];
        if ends.iter().any(|end| end.is_none_or(|end| end > MOST_TOKENS)) {
            return Err(too_many());
        }
        places.push(place);
        place += group.len;
    }
    // The place of a token of a group less the token.
    let shift = |source: KeySource, start: usize| {
        let first = groups.iter().position(|group| group.source == source && group.start == start);
        first.map_or(0, |index| places[index] as i64 - start as i64)
    };

    keys.sort_by_key(order);
    queries.sort_unstable();
    queries.retain(|&(_, len)| len > 0);
    // Groups that lie side by side in the input do so in their places.
    queries.dedup_by(|next, last| {
        let side_by_side = last.0 + last.1 == next.0;
        last.1 += if side_by_side { next.1 } else { 0 };
        side_by_side
    });
    let of_run = |(start, len): (usize, usize)| {
        let asking = start..start + len;
        let visible = |keys: &Group| {
            let shift = shift(KeySource::Input, start) - shift(keys.source, keys.start);
            let band = Band::new(window.left, window.right, shift);
            let tokens = band.seen_by(asking.clone(), keys.start..keys.start + keys.len);
            let band = if band.covers(asking.clone(), tokens.clone()) { Band::ALL } else { band };
            KeyRange { source: keys.source, start: tokens.start, len: tokens.len(), band }
        };
        PatternRanges { queries: vec![(start, len)], keys: keys.iter().map(visible).collect() }
    };
    Ok(queries.into_iter().map(of_run).collect())
}
