//! From ranges to work items: how a launch is cut into tiles.
//!
//! Every backend runs the same list. A work item is one tile of queries of one head and batch row, together with the
//! key tiles it walks over. Items are ordered longest first, so that the last ones to start are short; among equals the
//! order is batch, head, query, so that neighbours share keys in the cache hierarchy.
//!
//! # When keys are split
//! A launch with fewer items than workers leaves workers idle. Then, and only then, the keys of each item are cut into
//! `⌈workers / items⌉` parts, but never into parts of fewer than [`MIN_KEY_TILES_PER_SPLIT`] key tiles: a part costs a
//! pass over its accumulator when the parts are combined, which that many tiles outweigh. Parts of one item have
//! consecutive slots for their partial results, and a [`Reduction`] names them.

use std::collections::HashMap;
use std::ops::Range;

use super::{KeySource, PlanRanges};

/// An item is never split into parts of fewer key tiles than this.
pub const MIN_KEY_TILES_PER_SPLIT: usize = 4;

/// Tile sizes of a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TileShape {
    /// Query tokens of a work item, at least 1.
    pub queries: usize,
    /// Key tokens of a step of its main loop, at least 1.
    pub keys: usize,
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
/// it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TileSchedule {
    tile: TileShape,
    key_tiles: Vec<KeyTile>,
    items: Vec<WorkItem>,
    reductions: Vec<Reduction>,
}

impl TileSchedule {
    /// Cuts ranges into work items for `batch` rows and `heads` heads on a machine that runs `workers` items at a time.
    pub fn new(ranges: &PlanRanges, batch: usize, heads: usize, tile: TileShape, workers: usize) -> Self {
        let tile = TileShape { queries: tile.queries.max(1), keys: tile.keys.max(1) };
        let mut key_tiles = Vec::new();
        // Patterns share their list of keys between query ranges, and so do the tiles.
        let mut tiles_of_keys: HashMap<(usize, usize), Range<usize>> = HashMap::new();
        let mut tiles_of_queries = Vec::with_capacity(ranges.query_ranges().len());
        for queries in ranges.query_ranges() {
            let tiles = tiles_of_keys.entry((queries.keys.start, queries.keys.end)).or_insert_with(|| {
                let first = key_tiles.len();
                for range in ranges.keys_of(queries) {
                    key_tiles.extend((0..range.len).step_by(tile.keys).map(|offset| KeyTile {
                        start: (range.start + offset) as u64,
                        len: tile.keys.min(range.len - offset) as u32,
                        source: range.source,
                    }));
                }
                first..key_tiles.len()
            });
            tiles_of_queries.push(tiles.clone());
        }

        let query_tiles: usize = ranges.query_ranges().iter().map(|queries| queries.len.div_ceil(tile.queries)).sum();
        let count = query_tiles * batch * heads;
        let wanted_parts = if count == 0 { 1 } else { workers.div_ceil(count).max(1) };

        let mut items = Vec::with_capacity(count);
        let mut reductions = Vec::new();
        let mut slots = 0u32;
        for row in 0..batch as u32 {
            for head in 0..heads as u32 {
                for (queries, tiles) in ranges.query_ranges().iter().zip(&tiles_of_queries) {
                    let parts = wanted_parts.min(tiles.len() / MIN_KEY_TILES_PER_SPLIT).max(1);
                    for offset in (0..queries.len).step_by(tile.queries) {
                        let query_start = (queries.start + offset) as u64;
                        let query_len = tile.queries.min(queries.len - offset) as u32;
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
                            let (first_slot, parts) = (slots, parts as u32);
                            reductions.push(Reduction {
                                query_start,
                                query_len,
                                batch: row,
                                head,
                                first_slot,
                                slots: parts,
                            });
                            slots += parts;
                        }
                    }
                }
            }
        }
        // Stable, so that equally long items stay in batch, head, query order.
        items.sort_by_key(|item| std::cmp::Reverse(u64::from(item.query_len) * item.key_tiles().len() as u64));
        Self { tile, key_tiles, items, reductions }
    }

    /// The tile sizes it was made for.
    pub fn tile(&self) -> TileShape {
        self.tile
    }

    /// The key tiles that the items refer to.
    pub fn key_tiles(&self) -> &[KeyTile] {
        &self.key_tiles
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
