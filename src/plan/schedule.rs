//! From ranges to work items: how a launch is cut into tiles.
//!
//! Every backend runs the same list. A work item is one tile of queries of one head and batch row, together with the
//! key tiles it walks over. Items are ordered longest first, so that the last ones to start are short; among equals the
//! order is batch, head, query, so that neighbours share keys in the cache hierarchy.
//!
//! # When keys are split
//! A launch with fewer items than workers leaves workers idle. Then, and only then, the keys of each item are cut into
//! the number of parts that ends soonest: `items · parts` parts take `⌈items · parts / workers⌉` rounds, each as long as a
//! part; of equally good numbers, the smallest. 123 items on 132 workers stay whole, because two parts each would take
//! two rounds of half the length; 70 items are cut in three. No part has fewer than [`MIN_KEY_TILES_PER_SPLIT`] key
//! tiles: a part costs a pass over its accumulator when the parts are combined, which that many tiles outweigh. Parts of
//! one item have consecutive slots for their partial results, and a [`Reduction`] names them. (Where blocks are persistent,
//! `balance.rs` splits keys instead, when it knows which of them are visible.)

use std::collections::HashMap;
use std::ops::Range;

use super::{Band, KeySource, PlanRanges};

/// An item is never split into parts of fewer key tiles than this.
pub(super) const MIN_KEY_TILES_PER_SPLIT: usize = 4;

/// Tile sizes of a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TileShape {
    /// Query tokens of a work item, at least 1.
    pub queries: usize,
    /// Key tokens of a step of its main loop, at least 1.
    pub keys: usize,
}

impl TileShape {
    /// Numbers of a partial result: per query, `head_dim` sums, a maximum and a sum of weights.
    pub const fn slot_floats(&self, head_dim: usize) -> usize {
        self.queries * (head_dim + 2)
    }
}

/// A run of at most [`TileShape::keys`] key tokens inside one key range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct KeyTile {
    /// First token in its source.
    pub start: u64,
    /// Number of tokens, at least 1.
    pub len: u32,
    /// Which keys.
    pub source: KeySource,
    /// Which of them a query sees.
    pub band: Band,
}

impl KeyTile {
    /// Its tokens in its source.
    pub fn tokens(&self) -> Range<usize> {
        self.start as usize..self.start as usize + self.len as usize
    }
}

/// One unit of work: a tile of queries of one head and batch row, and the key tiles it sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct WorkItem {
    /// First query token of the input.
    pub query_start: u64,
    /// Number of query tokens, at least 1.
    pub query_len: u32,
    /// Batch row.
    pub batch: u32,
    /// Head.
    pub head: u32,
    /// First of its key tiles in [`TileSchedule::key_tiles`].
    pub first_key_tile: u32,
    /// One past the last of its key tiles.
    pub last_key_tile: u32,
    /// Slot of its partial result, or [`WorkItem::WHOLE`] if it sees all keys of its queries.
    pub partial_slot: u32,
}

impl WorkItem {
    /// The partial slot of an item that is not split: it writes its output itself.
    pub const WHOLE: u32 = u32::MAX;

    /// Its query tokens.
    pub fn queries(&self) -> Range<usize> {
        self.query_start as usize..self.query_start as usize + self.query_len as usize
    }

    /// Its key tiles in [`TileSchedule::key_tiles`].
    pub fn key_tiles(&self) -> Range<usize> {
        self.first_key_tile as usize..self.last_key_tile as usize
    }
}

/// The parts of one query tile whose keys were split.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Reduction {
    /// First query token of the input.
    pub query_start: u64,
    /// Number of query tokens.
    pub query_len: u32,
    /// Batch row.
    pub batch: u32,
    /// Head.
    pub head: u32,
    /// First slot of its partial results.
    pub first_slot: u32,
    /// Number of slots.
    pub slots: u32,
}

/// The work list of one launch.
///
/// Every visible (query, key) pair of every head and batch row is in exactly one work item, as often as the plan counts
/// it. With windows, the key tiles of an item also hold pairs that are not visible: [`KeyTile::band`] tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TileSchedule {
    tile: TileShape,
    key_tiles: Vec<KeyTile>,
    key_lists: Vec<Range<usize>>,
    items: Vec<WorkItem>,
    reductions: Vec<Reduction>,
}

impl TileSchedule {
    /// Cuts ranges into work items for `batch` rows and `heads` heads on a machine that runs `workers` items at a time.
    ///
    /// # Panics
    /// With 2³² rows or heads, or more.
    pub fn new(ranges: &PlanRanges, batch: usize, heads: usize, tile: TileShape, workers: usize) -> Self {
        let in_32_bits = |count: usize| u32::try_from(count).is_ok();
        assert!(in_32_bits(batch) && in_32_bits(heads), "{batch} rows and {heads} heads are too many for a schedule");
        let largest = u32::MAX as usize;
        let tile = TileShape { queries: tile.queries.clamp(1, largest), keys: tile.keys.clamp(1, largest) };
        let (key_tiles, key_lists, query_tiles) = tiles(ranges, tile);
        let busy = query_tiles.iter().filter(|queries| !queries.key_tiles.is_empty()).count();
        let busy = busy.saturating_mul(batch).saturating_mul(heads);
        let longest = query_tiles.iter().map(|queries| queries.key_tiles.len()).max().unwrap_or(0);
        let wanted_parts = parts_that_end_soonest(busy, workers, longest / MIN_KEY_TILES_PER_SPLIT);

        // However many rows there are, without queries there is nothing to do.
        let batch = if query_tiles.is_empty() { 0 } else { batch };
        let mut items = Vec::with_capacity(query_tiles.len() * batch * heads);
        let mut reductions = Vec::new();
        let mut slots = 0u32;
        for row in 0..batch as u32 {
            for head in 0..heads as u32 {
                for &QueryTile { query_start, query_len, key_tiles: ref tiles } in &query_tiles {
                    let parts = wanted_parts.min(tiles.len() / MIN_KEY_TILES_PER_SPLIT).max(1);
                    for part in 0..parts {
                        let cut = |part: usize| (tiles.start + tiles.len() * part / parts) as u32;
                        items.push(WorkItem {
                            query_start,
                            query_len,
                            batch: row,
                            head,
                            first_key_tile: cut(part),
                            last_key_tile: cut(part + 1),
                            partial_slot: if parts > 1 { slots + part as u32 } else { WorkItem::WHOLE },
                        });
                    }
                    if parts > 1 {
                        let (first_slot, slots_of_tile) = (slots, parts as u32);
                        reductions.push(Reduction {
                            query_start,
                            query_len,
                            batch: row,
                            head,
                            first_slot,
                            slots: slots_of_tile,
                        });
                        slots += slots_of_tile;
                    }
                }
            }
        }
        // Stable, so that equally long items stay in batch, head, query order.
        items.sort_by_key(|item| std::cmp::Reverse(u64::from(item.query_len) * item.key_tiles().len() as u64));
        Self { tile, key_tiles, key_lists, items, reductions }
    }

    /// The tile sizes it was made for.
    pub fn tile(&self) -> TileShape {
        self.tile
    }

    /// The key tiles that the items refer to.
    pub fn key_tiles(&self) -> &[KeyTile] {
        &self.key_tiles
    }

    /// Runs of key tiles, one after the other: what a query tile sees is a part of one of them, and without windows all
    /// of it.
    pub fn key_lists(&self) -> &[Range<usize>] {
        &self.key_lists
    }

    /// The work items, longest first.
    pub fn items(&self) -> &[WorkItem] {
        &self.items
    }

    /// The query tiles whose partial results must be combined.
    pub fn reductions(&self) -> &[Reduction] {
        &self.reductions
    }

    /// Number of partial results.
    pub fn partial_slots(&self) -> usize {
        self.reductions.last().map_or(0, |reduction| (reduction.first_slot + reduction.slots) as usize)
    }
}

/// A tile of queries, for any head and batch row, and the key tiles that it sees.
struct QueryTile {
    query_start: u64,
    query_len: u32,
    key_tiles: Range<usize>,
}

/// The key tiles of all ranges, the runs of them that are seen together, and the query tiles that refer to them.
fn tiles(ranges: &PlanRanges, tile: TileShape) -> (Vec<KeyTile>, Vec<Range<usize>>, Vec<QueryTile>) {
    let mut key_tiles = Vec::new();
    let mut key_lists = Vec::new();
    let mut query_tiles = Vec::new();
    // Patterns share their list of keys between query ranges, and so do the tiles.
    let mut tiles_of_keys: HashMap<(usize, usize), Range<usize>> = HashMap::new();
    for queries in ranges.query_ranges() {
        let tiles = tiles_of_keys.entry((queries.keys.start, queries.keys.end)).or_insert_with(|| {
            let first = key_tiles.len();
            for range in ranges.keys_of(queries) {
                key_tiles.extend((0..range.len).step_by(tile.keys).map(|offset| KeyTile {
                    start: (range.start + offset) as u64,
                    len: tile.keys.min(range.len - offset) as u32,
                    source: range.source,
                    band: range.band,
                }));
            }
            key_lists.push(first..key_tiles.len());
            first..key_tiles.len()
        });
        for offset in (0..queries.len).step_by(tile.queries) {
            let start = queries.start + offset;
            let len = tile.queries.min(queries.len - offset);
            query_tiles.push(QueryTile {
                query_start: start as u64,
                query_len: len as u32,
                key_tiles: seen_tiles(&key_tiles, tiles.clone(), &(start..start + len)),
            });
        }
    }
    (key_tiles, key_lists, query_tiles)
}

/// The run of key tiles without those at either end that none of the queries sees.
fn seen_tiles(key_tiles: &[KeyTile], tiles: Range<usize>, queries: &Range<usize>) -> Range<usize> {
    let is_seen = |tile: &KeyTile| !tile.band.seen_by(queries.clone(), tile.tokens()).is_empty();
    let (first, of_range) = (tiles.start, &key_tiles[tiles]);
    match (of_range.iter().position(is_seen), of_range.iter().rposition(is_seen)) {
        (Some(start), Some(last)) => first + start..first + last + 1,
        _ => first..first,
    }
}

/// Into how many parts, at most `most`, each of `items` equally long items is best cut on so many workers.
fn parts_that_end_soonest(items: usize, workers: usize, most: usize) -> usize {
    if items == 0 || items >= workers {
        return 1;
    }
    let rounds = |parts: usize| (items * parts).div_ceil(workers);
    // The time is rounds / parts. Beyond twice as many parts as fill the workers once, little is left to gain.
    let sooner = |a: &usize, b: &usize| (rounds(*a) * b).cmp(&(rounds(*b) * a));
    (1..=most.min(2 * workers.div_ceil(items))).min_by(sooner).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{AttentionPattern, AttentionPlan, TokenSpec};

    const TILE: TileShape = TileShape { queries: 32, keys: 16 };

    /// One group of `queries` tokens that sees one of `keys` tokens, which sees nothing but an empty group.
    fn ranges(queries: usize, keys: usize) -> PlanRanges {
        let tokens = [TokenSpec::new("query", queries), TokenSpec::new("key", keys), TokenSpec::new("nothing", 0)];
        let patterns = [
            AttentionPattern::queries(["query"]).attend_to(["key"]),
            AttentionPattern::queries(["key", "nothing"]).attend_to(["nothing"]),
        ];
        AttentionPlan::new(tokens, patterns).unwrap().resolve(None).unwrap().ranges().clone()
    }

    /// Into how many parts the keys of the queries of [`ranges`] are split.
    fn parts(queries: usize, keys: usize, workers: usize) -> usize {
        let schedule = TileSchedule::new(&ranges(queries, keys), 1, 1, TILE, workers);
        schedule.items().iter().filter(|item| item.query_start == 0).count()
    }

    #[test]
    fn keys_are_split_only_when_workers_would_be_idle() {
        // 1 tile of queries, and tiles of keys that ask for nothing and are no work.
        assert_eq!(parts(32, 128, 1), 1);
        // 2 workers want 2 parts of at least 4 of the 8 key tiles.
        assert_eq!(parts(32, 128, 2), 2);
        // One key tile less, and a part would be too short.
        assert_eq!(parts(32, 112, 2), 1);
        // However many workers there are, no part has fewer than 4 key tiles.
        assert_eq!(parts(32, 16 * 4 * 7, 1_000_000), 7);
    }

    #[test]
    fn parts_that_gain_nothing_are_not_made() {
        assert_eq!(parts_that_end_soonest(123, 132, 100), 1);
        assert_eq!(parts_that_end_soonest(132, 132, 100), 1);
        assert_eq!(parts_that_end_soonest(70, 132, 100), 3);
        assert_eq!(parts_that_end_soonest(66, 132, 100), 2);
        assert_eq!(parts_that_end_soonest(1, 132, 16), 16);
        assert_eq!(parts_that_end_soonest(0, 132, 16), 1);
        // The length of a launch never exceeds that of one without parts.
        for items in 1..140usize {
            let parts = parts_that_end_soonest(items, 132, 64);
            assert!((items * parts).div_ceil(132) <= parts * items.div_ceil(132), "{items} items in {parts} parts");
        }
    }

    #[test]
    fn parts_have_slots_of_their_own() {
        let schedule = TileSchedule::new(&ranges(40, 256), 2, 3, TILE, 64);
        let mut slots: Vec<u32> =
            schedule.items().iter().map(|item| item.partial_slot).filter(|&slot| slot != WorkItem::WHOLE).collect();
        slots.sort_unstable();
        assert!(!slots.is_empty());
        assert_eq!(slots, (0..schedule.partial_slots() as u32).collect::<Vec<_>>());
        let reduced: Vec<u32> = schedule
            .reductions()
            .iter()
            .flat_map(|reduction| reduction.first_slot..reduction.first_slot + reduction.slots)
            .collect();
        assert_eq!(reduced, slots);
    }

    #[test]
    fn items_come_longest_first_and_neighbours_stay_together() {
        let schedule = TileSchedule::new(&ranges(100, 64), 2, 2, TILE, 1);
        let pairs = |item: &WorkItem| u64::from(item.query_len) * item.key_tiles().len() as u64;
        assert!(schedule.items().is_sorted_by_key(|item| std::cmp::Reverse(pairs(item))));
        let full = schedule.items().iter().filter(|item| pairs(item) == 32 * 4);
        assert!(full.is_sorted_by_key(|item| (item.batch, item.head, item.query_start)));
    }

    #[test]
    fn query_ranges_of_one_pattern_share_key_tiles() {
        let groups = 100;
        let name = |group: usize| format!("group_{group}");
        let tokens: Vec<_> = (0..groups).map(|group| TokenSpec::new(name(group), 16)).collect();
        // Every other group asks in each pattern, so that no neighbours merge.
        let asking = |odd: usize| (0..groups).filter(move |group| group % 2 == odd).map(name);
        let patterns = [
            AttentionPattern::queries(asking(0)).attend_to([name(0)]),
            AttentionPattern::queries(asking(1)).attend_to([name(1)]),
        ];
        let plan = AttentionPlan::new(tokens, patterns).unwrap();
        let schedule = TileSchedule::new(plan.resolve(None).unwrap().ranges(), 1, 1, TILE, 1);
        assert_eq!(schedule.items().len(), groups);
        assert_eq!(schedule.key_tiles().len(), 2);
    }

    #[test]
    fn offsets_do_not_overflow_32_bits() {
        let tokens = [TokenSpec::new("anchors", 4), TokenSpec::new("queries", 5_000_000_000)];
        let patterns = [AttentionPattern::queries(["anchors", "queries"]).attend_to(["anchors"])];
        let plan = AttentionPlan::new(tokens, patterns).unwrap();
        let tile = TileShape { queries: 1 << 31, keys: 16 };
        let schedule = TileSchedule::new(plan.resolve(None).unwrap().ranges(), 1, 1, tile, 1);
        assert_eq!(schedule.items().iter().map(|item| u64::from(item.query_len)).sum::<u64>(), 5_000_000_004);
        assert_eq!(schedule.items().iter().map(|item| item.query_start).max(), Some(1 << 32));
        assert_eq!(plan.visible_pairs(), Ok(20_000_000_016));
    }
}
