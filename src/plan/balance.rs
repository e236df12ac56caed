//! Work items for persistent blocks, dealt out and cut so that all blocks end at about the same time.
//!
//! Without cuts, items go, the longest first, to the block that has least to do. Most blocks then wait for the last round of
//! items to end. There, and only there, keys are split: for an end that is tried, items fill one block after the other
//! up to it; one that fits nowhere is cut at it, and the rest goes to another block. Of the ends that can be kept, bisection
//! finds the earliest; it is taken where it comes sooner by more than a cut may turn out to cost.
//!
//! Costs are estimates, in hundredths of a step of a whole tile; they come from the machine code of the kernel for Hopper
//! and latencies of its memory. They decide who computes what, never what is computed.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};
use std::ops::Range;

use super::StepItem;

/// A step whose tile has queries for all consumers.
const STEP: u64 = 100;
/// The part of it that does not depend on how many consumers have queries.
const STEP_BESIDES_CONSUMERS: u64 = 13;
/// A narrow step.
const NARROW_STEP: u64 = 15;
/// An item, besides its steps: queries come, the first scores and the last products overlap with nothing, output goes.
const ITEM: u64 = 115;
/// A part of an item, besides that: its sums are written and read again.
const PART: u64 = 58;

/// No part has fewer steps.
const LEAST_STEPS: u32 = 3;
/// With so many items per block the last round is too short to be worth a look.
const MOST_ITEMS_PER_BLOCK: usize = 64;
/// Ends that are tried.
const TRIALS: usize = 8;
/// What cuts must bring: one in so many.
const WORTH_ONE_IN: u64 = 50;

/// The blocks of a launch that take one item after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PersistentBlocks {
    /// How many run at a time, at least 1.
    pub count: usize,
    /// Consumers of a block, which share the queries of an item.
    pub consumers: usize,
    /// Queries of one consumer.
    pub consumer_queries: usize,
}

/// A run of the steps of an item: all of them, unless it is a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Piece {
    /// Position of the item.
    pub item: usize,
    /// Its steps.
    pub first_step: u32,
    /// One past the last of them.
    pub last_step: u32,
    is_part: bool,
}

impl PersistentBlocks {
    /// The pieces of each block in the order in which it computes them; blocks without any are left out.
    pub(super) fn deal(&self, items: &[StepItem], may_split: bool) -> Vec<Vec<Piece>> {
        let mut whole: Vec<Piece> = (0..items.len()).map(|item| whole_item(items, item)).collect();
        // Stable: equally long ones stay in order.
        whole.sort_by_cached_key(|piece| Reverse(self.cost(items, piece)));
        if whole.len() > MOST_ITEMS_PER_BLOCK * self.count {
            return self.back_and_forth(&whole);
        }
        let Some(uncut) = self.deal_until(items, &whole, u64::MAX) else { return self.back_and_forth(&whole) };
        let cost: u64 = whole.iter().map(|piece| self.cost(items, piece)).sum();
        let mut ends = cost / self.count as u64..uncut.end;
        let mut best = None;
        for _ in 0..if may_split { TRIALS } else { 0 } {
            if ends.start + ends.end / WORTH_ONE_IN >= uncut.end {
                break;
            }
            let end = ends.start.midpoint(ends.end);
            match self.deal_until(items, &whole, end) {
                Some(dealt) => {
                    ends.end = dealt.end;
                    best = Some(dealt);
                }
                None => ends.start = end,
            }
        }
        let is_worth = |dealt: &Dealt| dealt.end + uncut.end / WORTH_ONE_IN < uncut.end;
        best.filter(is_worth).unwrap_or(uncut).blocks
    }

    /// What a piece costs.
    pub(super) fn cost(&self, items: &[StepItem], piece: &Piece) -> u64 {
        let (wide, narrow) = kinds_of_steps(&items[piece.item], piece.first_step..piece.last_step);
        let steps = wide * self.step(&items[piece.item]) + narrow * NARROW_STEP;
        steps + ITEM + if piece.is_part { PART } else { 0 }
    }

    /// What a step of an item costs that is not narrow.
    fn step(&self, item: &StepItem) -> u64 {
        let consumers = (item.query_len as usize).div_ceil(self.consumer_queries).min(self.consumers);
        STEP_BESIDES_CONSUMERS + (STEP - STEP_BESIDES_CONSUMERS) * consumers as u64 / self.consumers as u64
    }

    /// Rounds over the list run back and forth, so that long and short items even out.
    fn back_and_forth(&self, whole: &[Piece]) -> Vec<Vec<Piece>> {
        let mut blocks = vec![Vec::new(); self.count.min(whole.len())];
        for (round, pieces) in whole.chunks(self.count).enumerate() {
            for (place, &piece) in pieces.iter().enumerate() {
                let block = if round % 2 == 0 { place } else { self.count - 1 - place };
                blocks[block].push(piece);
            }
        }
        blocks
    }

    /// Deals out, longest first, with cuts where a block would not end in time. `None`: that would need shorter parts.
    fn deal_until(&self, items: &[StepItem], whole: &[Piece], end: u64) -> Option<Dealt> {
        let mut waiting = whole.iter().copied().peekable();
        // What was cut off, the longest on top.
        let mut rests: BinaryHeap<(u64, Reverse<usize>, u32)> = BinaryHeap::new();
        // When blocks end, and which.
        let mut loads: BTreeSet<(u64, usize)> = (0..self.count).map(|block| (0, block)).collect();
        let mut blocks = vec![Vec::new(); self.count];
        loop {
            let longest_rest = rests.peek().map_or(0, |rest| rest.0);
            let piece = match waiting.next_if(|piece| self.cost(items, piece) >= longest_rest) {
                Some(piece) => piece,
                None => match rests.pop() {
                    Some((_, Reverse(item), first_step)) => {
                        Piece { first_step, is_part: true, ..whole_item(items, item) }
                    }
                    None => break,
                },
            };
            let cost = self.cost(items, &piece);
            // The fullest block that it fits into, so that others have room for longer ones; without an end, the emptiest.
            let latest = if end == u64::MAX { None } else { end.checked_sub(cost) };
            let fullest = latest.and_then(|latest| loads.range(..=(latest, usize::MAX)).next_back().copied());
            let (load, block) = fullest.or_else(|| loads.first().copied())?;
            loads.remove(&(load, block));
            let mut taken = piece;
            if cost > end - load {
                let room = (end - load).checked_sub(ITEM + PART)?;
                let fit = u32::try_from(room / self.step(&items[piece.item])).unwrap_or(u32::MAX);
                let most = (piece.last_step - piece.first_step).checked_sub(LEAST_STEPS)?;
                let steps = fit.min(most);
                if steps < LEAST_STEPS {
                    return None;
                }
                taken = Piece { last_step: piece.first_step + steps, is_part: true, ..piece };
                let rest = Piece { first_step: taken.last_step, is_part: true, ..piece };
                rests.push((self.cost(items, &rest), Reverse(rest.item), rest.first_step));
            }
            blocks[block].push(taken);
            loads.insert((load + self.cost(items, &taken), block));
        }
        blocks.retain(|pieces| !pieces.is_empty());
        let end = loads.last()?.0;
        Some(Dealt { end, blocks })
    }
}

/// Who computes what, and when the last block ends.
struct Dealt {
    end: u64,
    blocks: Vec<Vec<Piece>>,
}

fn whole_item(items: &[StepItem], item: usize) -> Piece {
    Piece { item, first_step: items[item].first_step, last_step: items[item].last_step, is_part: false }
}

/// How many of some steps of an item are wide, and narrow.
fn kinds_of_steps(item: &StepItem, steps: Range<u32>) -> (u64, u64) {
    let narrow_from = (item.last_step - item.narrow_steps).clamp(steps.start, steps.end);
    (u64::from(narrow_from - steps.start), u64::from(steps.end - narrow_from))
}

#[cfg(test)]
mod tests {
    use bytemuck::Zeroable;

    use super::*;

    const BLOCKS: PersistentBlocks = PersistentBlocks { count: 132, consumers: 3, consumer_queries: 64 };

    /// Items of so many queries and steps, one after the other.
    fn items(sizes: impl IntoIterator<Item = (u32, u32)>) -> Vec<StepItem> {
        let mut first_step = 0;
        let item = |(query_len, steps)| {
            let item = StepItem { query_len, first_step, last_step: first_step + steps, ..StepItem::zeroed() };
            first_step = item.last_step;
            item
        };
        sizes.into_iter().map(item).collect()
    }

    /// The end of the last block, after a check that every step of every item is dealt out once and in parts that are long
    /// enough.
    fn end(items: &[StepItem], may_split: bool) -> u64 {
        let blocks = BLOCKS.deal(items, may_split);
        assert!(blocks.len() <= BLOCKS.count && blocks.iter().all(|pieces| !pieces.is_empty()));
        let mut pieces: Vec<&Piece> = blocks.iter().flatten().collect();
        pieces.sort_by_key(|piece| (piece.item, piece.first_step));
        let mut pieces = pieces.into_iter().peekable();
        for (number, item) in items.iter().enumerate() {
            let (mut reached, mut parts) = (item.first_step, 0);
            while let Some(piece) = pieces.next_if(|piece| piece.item == number) {
                assert_eq!(piece.first_step, reached);
                assert!(!piece.is_part || piece.last_step - piece.first_step >= LEAST_STEPS);
                (reached, parts) = (piece.last_step, parts + 1);
            }
            assert!(reached == item.last_step && parts >= 1 && (parts == 1 || may_split));
        }
        let end_of = |pieces: &Vec<Piece>| pieces.iter().map(|piece| BLOCKS.cost(items, piece)).sum();
        blocks.iter().map(end_of).max().unwrap_or(0)
    }

    #[test]
    fn every_step_is_dealt_out_once_and_cuts_only_bring_the_end_forward() {
        for count in [0, 1, 2, 70, 123, 131, 132, 133, 200, 264, 300, 1026, 9000] {
            for longest in [0, 1, 5, 8, 40] {
                let sizes = (0..count).map(|item| (1 + item * 61 % 192, item * 17 % (longest + 1)));
                let items = items(sizes);
                assert!(end(&items, true) <= end(&items, false), "{count} items of up to {longest} steps");
            }
        }
    }

    #[test]
    fn one_item_is_shared_by_all_blocks_and_equal_rounds_stay_whole() {
        let one = items([(192, 400)]);
        assert!(end(&one, true) * 50 < end(&one, false));
        // Every block has two items: no cut can help.
        let even = items([(192, 32); 264]);
        assert!(BLOCKS.deal(&even, true).iter().flatten().all(|piece| !piece.is_part));
        // One more than that, and a third round is nearly saved.
        let odd = items([(192, 32); 265]);
        assert!(end(&odd, true) * 10 < end(&odd, false) * 8);
    }
}
