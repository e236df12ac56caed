//! The work list as a GPU reads it: padding and range tails resolved to a bit per key, empty tiles gone.
//!
//! A kernel walks over [`KeyStep`]s and looks at nothing else: no masks, no groups, no ranges. What it needs to know
//! about a tile comes in one read, and it never meets a tile without a visible key. Where no window depends on the order of
//! keys, tiles with hidden keys come last: a kernel then runs most steps without a look at what is hidden.

use std::cmp::Reverse;
use std::collections::HashMap;

use bytemuck::{Pod, Zeroable};

use super::{Band, KeyRows, KeySource, KeyTile, PaddingBits, PersistentBlocks, Reduction, TileSchedule, WorkItem};

/// Most keys of a tile that a step can describe.
pub const MAX_KEYS_PER_STEP: usize = 128;

/// Most keys of a narrow step, which kernels compute with products of that width.
pub const NARROW_KEYS: usize = 16;

/// A key tile with at least one visible key, as one batch row sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct KeyStep {
    /// Row of its first key in the keys of its source.
    pub key_row: u64,
    /// Row of its first value in the values of its source.
    pub value_row: u64,
    /// Bit `i` (of word `i / 64`): key `i` is inside the range and no padding.
    pub visible: [u64; MAX_KEYS_PER_STEP / 64],
    /// Which keys: a [`KeySource`] as a number.
    pub source: u32,
    /// Number of keys inside the range, 1 to [`MAX_KEYS_PER_STEP`].
    pub len: u32,
    /// Which of the visible keys a query sees. Key `i` is token `value_row + i`.
    pub band: Band,
}

/// A [`WorkItem`] in terms of steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct StepItem {
    /// First query token of the input.
    pub query_start: u64,
    /// Number of query tokens, at least 1.
    pub query_len: u32,
    /// Batch row.
    pub batch: u32,
    /// Head of the queries.
    pub head: u32,
    /// Head of the keys and values.
    pub kv_head: u32,
    /// First of its steps in [`StepSchedule::steps`].
    pub first_step: u32,
    /// One past the last of its steps; equal to the first if its queries see no key.
    pub last_step: u32,
    /// Slot of its partial result, or [`WorkItem::WHOLE`].
    pub partial_slot: u32,
    /// Of its steps, how many at the beginning have every key of a tile and none hidden.
    pub whole_steps: u32,
    /// Of its steps, how many at the end have no visible key but among the first [`NARROW_KEYS`].
    pub narrow_steps: u32,
    /// The item that a persistent block takes after this one, or [`StepItem::LAST`].
    pub next: u32,
}

impl StepItem {
    /// What the last item of a block says is next. Where blocks are not persistent, all items are last.
    pub const LAST: u32 = u32::MAX;
}

/// The query tile that a partial slot belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct SlotReduction {
    /// First query token of the input.
    pub query_start: u64,
    /// Number of query tokens.
    pub query_len: u32,
    /// Batch row.
    pub batch: u32,
    /// Head.
    pub head: u32,
    /// First slot of the tile's partial results.
    pub first_slot: u32,
    /// Number of its slots.
    pub slots: u32,
    /// Position of the tile among those whose keys were split.
    pub counter: u32,
}

/// What steps and items depend on besides the schedule.
#[derive(Debug, Clone, Copy)]
pub struct StepContext<'a> {
    /// Heads of queries that share a head of keys and values, at least 1.
    pub group: usize,
    /// Real tokens of the input.
    pub input_padding: Option<&'a PaddingBits>,
    /// Real tokens of the cache.
    pub cache_padding: Option<&'a PaddingBits>,
    /// Where the keys of the input lie, if they were copied.
    pub key_rows: Option<&'a KeyRows>,
}

/// Every head has keys and values of its own; no padding, no copies.
impl Default for StepContext<'_> {
    fn default() -> Self {
        Self { group: 1, input_padding: None, cache_padding: None, key_rows: None }
    }
}

/// A [`TileSchedule`] for a GPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepSchedule {
    items: Vec<StepItem>,
    steps: Vec<KeyStep>,
    reduction_of_slot: Vec<SlotReduction>,
    reductions: usize,
    blocks: usize,
}

impl StepSchedule {
    /// Resolves the tiles of a schedule for `batch` rows.
    ///
    /// Rows that see the same padding share their steps. Items stay longest first, counted in steps.
    ///
    /// # Panics
    /// Tiles of more than [`MAX_KEYS_PER_STEP`] keys.
    pub fn new(schedule: &TileSchedule, batch: usize, context: StepContext<'_>) -> Self {
        assert!(schedule.tile().keys <= MAX_KEYS_PER_STEP, "a step has {MAX_KEYS_PER_STEP} bits");
        let tiles = schedule.key_tiles();
        let shared = |padding: Option<&PaddingBits>| padding.is_none_or(|bits| bits.batch() == 1);
        let rows = if shared(context.input_padding) && shared(context.cache_padding) { batch.min(1) } else { batch };

        let mut steps = Vec::new();
        // Per row and tile: the number of steps before it.
        let mut before = Vec::with_capacity(rows * (tiles.len() + 1));
        let is_whole = |step: &KeyStep| visible_keys(step) == schedule.tile().keys;
        let is_narrow = |step: &KeyStep| !is_whole(step) && has_few_keys(step);
        for row in 0..rows {
            for list in schedule.key_lists() {
                let first = steps.len();
                for tile in &tiles[list.clone()] {
                    before.push(steps.len() as u32);
                    steps.extend(step(row, tile, context));
                }
                // Items name their steps by position, and those of one list share all of it: it may be ordered anew.
                if tiles[list.clone()].iter().all(|tile| tile.band.is_all()) {
                    steps[first..].sort_by_key(|step| (!is_whole(step), is_narrow(step)));
                }
            }
            before.push(steps.len() as u32);
        }
        let whole_until = ends_of_runs(&steps, is_whole);
        let narrow_from = starts_of_runs(&steps, is_narrow);
        let step_item = |item: &WorkItem| {
            let row = if rows == 1 { 0 } else { item.batch as usize };
            let of_row = &before[row * (tiles.len() + 1)..];
            let (first, last) = (of_row[item.first_key_tile as usize], of_row[item.last_key_tile as usize]);
            StepItem {
                query_start: item.query_start,
                query_len: item.query_len,
                batch: item.batch,
                head: item.head,
                kv_head: item.head / context.group as u32,
                first_step: first,
                last_step: last,
                partial_slot: item.partial_slot,
                whole_steps: whole_until[first as usize].min(last) - first,
                narrow_steps: last - narrow_from[last as usize].max(first),
                next: StepItem::LAST,
            }
        };
        let mut items: Vec<StepItem> = schedule.items().iter().map(step_item).collect();
        // Stable: equally long items stay in the order of the schedule.
        items.sort_by_key(|item| Reverse(u64::from(item.query_len) * u64::from(item.last_step - item.first_step)));

        let slot_reductions = |(counter, reduction): (usize, &Reduction)| {
            let of_slot = SlotReduction {
                query_start: reduction.query_start,
                query_len: reduction.query_len,
                batch: reduction.batch,
                head: reduction.head,
                first_slot: reduction.first_slot,
                slots: reduction.slots,
                counter: counter as u32,
            };
            std::iter::repeat_n(of_slot, reduction.slots as usize)
        };
        let reduction_of_slot = schedule.reductions().iter().enumerate().flat_map(slot_reductions).collect();
        let blocks = items.len();
        Self { items, steps, reduction_of_slot, reductions: schedule.reductions().len(), blocks }
    }

    /// The same for persistent blocks: block `i` begins with item `i`, and each item names its successor. Keys are split on
    /// the way if they may.
    ///
    /// # Panics
    /// Keys that are split already.
    pub fn dealt_out(self, blocks: &PersistentBlocks, may_split: bool) -> Self {
        assert_eq!(self.reductions, 0, "keys are split here and not before");
        let dealt = blocks.deal(&self.items, may_split);
        let mut parts = vec![0u32; self.items.len()];
        dealt.iter().flatten().for_each(|piece| parts[piece.item] += 1);
        // Per item that is cut: its first slot and its place among those that are.
        let (mut slots, mut reduction_of_slot, mut reductions) = (0, Vec::new(), 0);
        let mut next_slot = vec![WorkItem::WHOLE; self.items.len()];
        for (item, (&parts, next_slot)) in self.items.iter().zip(parts.iter().zip(&mut next_slot)) {
            if parts > 1 {
                *next_slot = slots;
                let reduction = SlotReduction {
                    query_start: item.query_start,
                    query_len: item.query_len,
                    batch: item.batch,
                    head: item.head,
                    first_slot: slots,
                    slots: parts,
                    counter: reductions,
                };
                reduction_of_slot.extend(std::iter::repeat_n(reduction, parts as usize));
                slots += parts;
                reductions += 1;
            }
        }
        // The parts of an item have slots in the order of their keys.
        let mut pieces: Vec<(usize, u32)> =
            dealt.iter().flatten().map(|piece| (piece.item, piece.first_step)).collect();
        pieces.sort_unstable();
        let slot_of: HashMap<(usize, u32), u32> = pieces
            .into_iter()
            .filter(|&(item, _)| parts[item] > 1)
            .map(|piece| {
                let slot = next_slot[piece.0];
                next_slot[piece.0] += 1;
                (piece, slot)
            })
            .collect();

        let mut items: Vec<StepItem> = Vec::with_capacity(parts.iter().map(|&parts| parts as usize).sum());
        let longest = dealt.iter().map(Vec::len).max().unwrap_or(0);
        // Where the item that a block has taken last stands.
        let mut last = vec![None; dealt.len()];
        for round in 0..longest {
            for (pieces, last) in dealt.iter().zip(&mut last) {
                let Some(piece) = pieces.get(round) else { continue };
                let item = self.items[piece.item];
                let place = items.len();
                if let Some(before) = last.replace(place) {
                    let before: &mut StepItem = &mut items[before];
                    before.next = place as u32;
                }
                let whole_until = item.first_step + item.whole_steps;
                let narrow_from = item.last_step - item.narrow_steps;
                items.push(StepItem {
                    first_step: piece.first_step,
                    last_step: piece.last_step,
                    partial_slot: slot_of.get(&(piece.item, piece.first_step)).copied().unwrap_or(WorkItem::WHOLE),
                    whole_steps: whole_until.clamp(piece.first_step, piece.last_step) - piece.first_step,
                    narrow_steps: piece.last_step - narrow_from.clamp(piece.first_step, piece.last_step),
                    ..item
                });
            }
        }
        Self { items, reduction_of_slot, reductions: reductions as usize, blocks: dealt.len(), ..self }
    }

    /// The work items, longest first, or as they were [dealt out](Self::dealt_out).
    pub fn items(&self) -> &[StepItem] {
        &self.items
    }

    /// How many blocks a launch has: one per item, unless they were [dealt out](Self::dealt_out).
    pub fn blocks(&self) -> usize {
        self.blocks
    }

    /// The steps that the items refer to.
    pub fn steps(&self) -> &[KeyStep] {
        &self.steps
    }

    /// The query tile that each partial slot belongs to.
    pub fn reduction_of_slot(&self) -> &[SlotReduction] {
        &self.reduction_of_slot
    }

    /// Number of query tiles whose keys were split.
    pub fn reductions(&self) -> usize {
        self.reductions
    }

    /// The query tiles whose keys were split, once each.
    pub fn split_tiles(&self) -> Vec<SlotReduction> {
        let mut tiles = self.reduction_of_slot.clone();
        tiles.dedup_by_key(|tile| tile.counter);
        tiles
    }

    /// Whether some step has fewer visible keys than the tile of `keys` keys that it stands for.
    pub fn has_partial_steps(&self, keys: usize) -> bool {
        self.steps.iter().any(|step| visible_keys(step) < keys)
    }

    /// Whether in some step a query sees only some of the visible keys.
    pub fn has_windows(&self) -> bool {
        self.steps.iter().any(|step| !step.band.is_all())
    }
}

/// For each position from the first step to past the last, where the run of such steps that begins there ends.
fn ends_of_runs(steps: &[KeyStep], belongs: impl Fn(&KeyStep) -> bool) -> Vec<u32> {
    let mut ends = vec![steps.len() as u32; steps.len() + 1];
    for (position, step) in steps.iter().enumerate().rev() {
        ends[position] = if belongs(step) { ends[position + 1] } else { position as u32 };
    }
    ends
}

/// For each position from the first step to past the last, where the run of such steps that ends there begins.
fn starts_of_runs(steps: &[KeyStep], belongs: impl Fn(&KeyStep) -> bool) -> Vec<u32> {
    let mut starts = vec![0; steps.len() + 1];
    for (position, step) in steps.iter().enumerate() {
        starts[position + 1] = if belongs(step) { starts[position] } else { position as u32 + 1 };
    }
    starts
}

/// Whether only a few keys at the beginning of a step are visible.
fn has_few_keys(step: &KeyStep) -> bool {
    step.visible[0] >> NARROW_KEYS == 0 && step.visible[1..].iter().all(|&word| word == 0)
}

/// How many keys of a step are visible.
fn visible_keys(step: &KeyStep) -> usize {
    step.visible.iter().map(|word| word.count_ones() as usize).sum()
}

/// The step of one tile, unless no key of it is visible.
fn step(row: usize, tile: &KeyTile, context: StepContext<'_>) -> Option<KeyStep> {
    let (padding, key_rows) = match tile.source {
        KeySource::Input => (context.input_padding, context.key_rows),
        KeySource::Cache => (context.cache_padding, None),
    };
    let mut visible = [0u64; MAX_KEYS_PER_STEP / 64];
    for (word, bits) in visible.iter_mut().enumerate() {
        let len = (tile.len as usize).saturating_sub(64 * word).min(64);
        let start = tile.start as usize + 64 * word;
        *bits = match padding {
            None if len == 64 => u64::MAX,
            None => (1 << len) - 1,
            Some(padding) => padding.bits(row, start, len),
        };
    }
    let key_row = key_rows.map_or(tile.start, |rows| rows.row_of(tile.start as usize) as u64);
    let any = visible.iter().any(|&bits| bits != 0);
    any.then_some(KeyStep {
        key_row,
        value_row: tile.start,
        visible,
        source: tile.source as u32,
        len: tile.len,
        band: tile.band,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{AttentionPattern, AttentionPlan, PlanRanges, ResolvedPlan, TileShape, TokenSpec};

    const TILE: TileShape = TileShape { queries: 32, keys: 16 };

    /// 40 anchors, 10 others that nobody sees, 30 more anchors.
    fn plan() -> AttentionPlan {
        let tokens = [TokenSpec::new("a", 40), TokenSpec::new("b", 10), TokenSpec::new("c", 30)];
        let patterns = [AttentionPattern::queries(["a", "b", "c"]).attend_to(["a", "c"])];
        AttentionPlan::new(tokens, patterns).unwrap()
    }

    /// The keys that an item sees, as (row of the keys, row of the values).
    fn seen(schedule: &StepSchedule, item: &StepItem) -> Vec<(u64, u64)> {
        let steps = &schedule.steps()[item.first_step as usize..item.last_step as usize];
        let keys = |step: &KeyStep| {
            let step = *step;
            let visible = move |i: &u64| step.visible[*i as usize / 64] >> (i % 64) & 1 == 1;
            (0..MAX_KEYS_PER_STEP as u64).filter(visible).map(move |i| (step.key_row + i, step.value_row + i))
        };
        steps.iter().flat_map(keys).collect()
    }

    #[test]
    fn steps_hold_exactly_the_real_keys_of_each_row() {
        let plan = plan();
        let resolved = plan.resolve(None).unwrap();
        let schedule = TileSchedule::new(resolved.ranges(), 2, 3, TILE, 1);
        let real = |row: usize, token: usize| row == 1 || token.is_multiple_of(3) && !(16..32).contains(&token);
        let padding = PaddingBits::new(2, 80, real);
        let context = StepContext { input_padding: Some(&padding), ..StepContext::default() };
        let steps = StepSchedule::new(&schedule, 2, context);
        assert_eq!(steps.items().len(), schedule.items().len());
        for item in steps.items() {
            let keys = (0..40).chain(50..80).filter(|&token| real(item.batch as usize, token));
            let expected: Vec<(u64, u64)> = keys.map(|token| (token as u64, token as u64)).collect();
            let mut seen = seen(&steps, item);
            seen.sort_unstable();
            assert_eq!(seen, expected);
        }
    }

    #[test]
    fn copied_keys_are_read_at_their_rows_and_values_in_place() {
        let plan = plan();
        let resolved = plan.resolve(None).unwrap();
        let rows = KeyRows::new(resolved.ranges());
        assert_eq!(rows.rows(), 70);
        let schedule = TileSchedule::new(resolved.ranges(), 1, 1, TILE, 1);
        let steps = StepSchedule::new(&schedule, 1, StepContext { key_rows: Some(&rows), ..StepContext::default() });
        let expected: Vec<(u64, u64)> = (0..40).map(|i| (i, i)).chain((0..30).map(|i| (40 + i, 50 + i))).collect();
        for item in steps.items() {
            let mut seen = seen(&steps, item);
            seen.sort_unstable();
            assert_eq!(seen, expected);
        }
    }

    #[test]
    fn whole_steps_come_first_and_are_counted() {
        // 2 whole tiles and 8 keys, 1 whole tile and 14 keys.
        let plan = plan();
        let resolved = plan.resolve(None).unwrap();
        let schedule = TileSchedule::new(resolved.ranges(), 1, 2, TILE, 1);
        let lens = |steps: &StepSchedule| steps.steps().iter().map(|step| step.len).collect::<Vec<_>>();
        let steps = StepSchedule::new(&schedule, 1, StepContext::default());
        assert_eq!(lens(&steps), [16, 16, 16, 8, 14]);
        assert!(steps.items().iter().all(|item| (item.first_step, item.last_step, item.whole_steps) == (0, 5, 3)));
        // A hidden key in the first tile, for one of two rows.
        let padding = PaddingBits::new(2, 80, |row, token| row == 1 || token != 3);
        let context = StepContext { input_padding: Some(&padding), ..StepContext::default() };
        let steps = StepSchedule::new(&schedule_of_rows(&resolved, 2), 2, context);
        assert_eq!(lens(&steps), [16, 16, 16, 8, 14, 16, 16, 16, 8, 14]);
        for item in steps.items() {
            assert_eq!(item.whole_steps, 2 + item.batch);
        }
        // Parts of split keys: a cut may come before the last whole step.
        let schedule = TileSchedule::new(&split(), 1, 1, TILE, 2);
        let steps = StepSchedule::new(&schedule, 1, StepContext::default());
        assert_eq!(lens(&steps), [vec![16; 8], vec![4]].concat());
        let with_keys = steps.items().iter().filter(|item| item.first_step < item.last_step);
        let mut parts: Vec<_> = with_keys.map(|item| (item.first_step, item.whole_steps)).collect();
        parts.sort_unstable();
        assert_eq!(parts, [(0, 4), (4, 4)]);
    }

    fn schedule_of_rows(resolved: &ResolvedPlan, batch: usize) -> TileSchedule {
        TileSchedule::new(resolved.ranges(), batch, 1, TILE, 1)
    }

    /// 32 queries that see a tail of 4 keys and 8 whole tiles.
    fn split() -> PlanRanges {
        let tokens = [("queries", 32), ("few", 4), ("gap", 1), ("keys", 128), ("nothing", 0)];
        let patterns = [
            AttentionPattern::queries(["queries"]).attend_to(["few", "keys"]),
            AttentionPattern::queries(["few", "gap", "keys", "nothing"]).attend_to(["nothing"]),
        ];
        let tokens = tokens.map(|(name, size)| TokenSpec::new(name, size));
        AttentionPlan::new(tokens, patterns).unwrap().resolve(None).unwrap().ranges().clone()
    }

    #[test]
    fn windows_keep_the_order_of_their_keys() {
        let tokens = [TokenSpec::new("a", 40), TokenSpec::new("b", 30)];
        let causal = AttentionPattern::queries(["a", "b"]).attend_to(["a", "b"]).causal();
        let plan = AttentionPlan::new(tokens, [causal]).unwrap();
        let resolved = plan.resolve(None).unwrap();
        let schedule = TileSchedule::new(resolved.ranges(), 1, 1, TILE, 1);
        let hidden = PaddingBits::new(1, 70, |_, token| token != 3);
        let context = StepContext { input_padding: Some(&hidden), ..StepContext::default() };
        let steps = StepSchedule::new(&schedule, 1, context);
        let rows: Vec<u64> = steps.steps().iter().map(|step| step.key_row).collect();
        assert_eq!(rows, [0, 16, 32, 48, 64]);
        assert!(steps.items().iter().all(|item| item.whole_steps == 0));
    }

    #[test]
    fn steps_are_partial_at_tails_and_padding_only() {
        let plan = plan();
        let resolved = plan.resolve(None).unwrap();
        let steps = |keys, padding: Option<&PaddingBits>| {
            let tile = TileShape { queries: 32, keys };
            let schedule = TileSchedule::new(resolved.ranges(), 1, 1, tile, 1);
            let context = StepContext { input_padding: padding, ..StepContext::default() };
            StepSchedule::new(&schedule, 1, context).has_partial_steps(keys)
        };
        // 40 and 30 keys.
        assert!(!steps(10, None) && !steps(2, None) && steps(16, None) && steps(4, None));
        let first = PaddingBits::new(1, 80, |_, token| token >= 10);
        let odd = PaddingBits::new(1, 80, |_, token| token != 3);
        assert!(!steps(10, Some(&first)) && steps(10, Some(&odd)));
    }

    #[test]
    fn rows_of_one_padding_share_their_steps() {
        let plan = plan();
        let resolved = plan.resolve(None).unwrap();
        let schedule = TileSchedule::new(resolved.ranges(), 4, 1, TILE, 1);
        let padding = PaddingBits::new(1, 80, |_, token| token < 75);
        let context = StepContext { input_padding: Some(&padding), ..StepContext::default() };
        let steps = StepSchedule::new(&schedule, 4, context);
        assert_eq!(steps.steps().len(), StepSchedule::new(&schedule, 4, StepContext::default()).steps().len());
    }

    #[test]
    fn every_slot_knows_its_reduction() {
        let plan = plan();
        let resolved = plan.resolve(None).unwrap();
        let tile = TileShape { queries: 80, keys: 4 };
        let schedule = TileSchedule::new(resolved.ranges(), 1, 2, tile, 8);
        let steps = StepSchedule::new(&schedule, 1, StepContext::default());
        assert_eq!(steps.reduction_of_slot().len(), schedule.partial_slots());
        for (slot, reduction) in steps.reduction_of_slot().iter().enumerate() {
            assert!((reduction.first_slot..reduction.first_slot + reduction.slots).contains(&(slot as u32)));
            assert!((reduction.counter as usize) < steps.reductions());
        }
        let tiles = steps.split_tiles();
        assert!(tiles.len() == steps.reductions() && steps.reductions() > 0);
        assert_eq!(tiles.iter().map(|tile| tile.slots as usize).sum::<usize>(), schedule.partial_slots());
    }
}
