//! How a part is shared out: in blocks of whole chunks.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

/// Blocks of a part at most. Hundreds of processes still get some tens each, and whatever is kept of every block stays small.
const MOST_BLOCKS: u64 = 4096;

/// A part cut into blocks, and these into chunks. Borders of chunks are multiples of their length, so that processes and
/// runs cut alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Blocks {
    points: u64,
    chunk: u64,
    /// Points of a block: whole chunks.
    length: u64,
}

/// A block whose every byte is safe on the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settled {
    /// The index of its part.
    pub(crate) part: usize,
    /// Which block of the part it is.
    pub(crate) block: u64,
    /// Its points.
    pub(crate) range: Range<u64>,
}

impl Blocks {
    /// Cuts so many points into chunks of at least one.
    pub(crate) fn new(points: u64, chunk: u64) -> Self {
        let chunk = chunk.max(1);
        let chunks = points.div_ceil(chunk).div_ceil(MOST_BLOCKS).max(1);
        Self { points, chunk, length: chunk.saturating_mul(chunks) }
    }

    /// How many there are.
    pub(crate) fn count(self) -> u64 {
        self.points.div_ceil(self.length)
    }

    /// The points of a block.
    pub(crate) fn range(self, block: u64) -> Range<u64> {
        let start = block.saturating_mul(self.length).min(self.points);
        start..start.saturating_add(self.length).min(self.points)
    }

    /// The chunks of some points.
    pub(crate) fn chunks(self, points: Range<u64>) -> impl Iterator<Item = Range<u64>> {
        let mut at = points.start;
        std::iter::from_fn(move || {
            let start = at;
            at = points.end.min((start / self.chunk + 1).saturating_mul(self.chunk));
            (start < points.end).then_some(start..at)
        })
    }
}

/// Blocks of a part on their way from being taken to being written.
#[derive(Debug)]
pub(crate) struct OpenBlocks {
    part: usize,
    blocks: Blocks,
    /// Chunks that nobody has begun.
    waiting: VecDeque<Range<u64>>,
    /// How many chunks of a block are not written.
    missing: BTreeMap<u64, usize>,
    written: Vec<Settled>,
}

impl OpenBlocks {
    /// None of a part yet.
    pub(crate) fn new(part: usize, blocks: Blocks) -> Self {
        Self { part, blocks, waiting: VecDeque::new(), missing: BTreeMap::new(), written: Vec::new() }
    }

    /// Adds what is missing of a block.
    pub(crate) fn open(&mut self, block: u64, missing: Vec<Range<u64>>) {
        let before = self.waiting.len();
        self.waiting.extend(missing.into_iter().flat_map(|gap| self.blocks.chunks(gap)));
        self.missing.insert(block, self.waiting.len() - before);
    }

    /// The next chunk to begin.
    pub(crate) fn next(&mut self) -> Option<Range<u64>> {
        self.waiting.pop_front()
    }

    /// Counts a chunk as written.
    pub(crate) fn count(&mut self, chunk: &Range<u64>) {
        let block = chunk.start / self.blocks.length;
        if let Some(missing) = self.missing.get_mut(&block) {
            *missing -= 1;
            if *missing == 0 {
                self.missing.remove(&block);
                self.written.push(Settled { part: self.part, block, range: self.blocks.range(block) });
            }
        }
    }

    /// The blocks whose last chunk was written since this was asked.
    pub(crate) fn take_written(&mut self) -> Vec<Settled> {
        std::mem::take(&mut self.written)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_and_their_chunks_are_all_points_once() {
        for (points, chunk) in [(0, 3), (1, 3), (11, 3), (12, 3), (40_000, 3), (100_000, 7), (5, u64::MAX)] {
            let blocks = Blocks::new(points, chunk);
            assert!(blocks.count() <= MOST_BLOCKS);
            let ranges = (0..blocks.count()).flat_map(|block| blocks.chunks(blocks.range(block)));
            let mut at = 0;
            for range in ranges {
                assert_eq!(range.start, at);
                assert!(!range.is_empty() && range.end - range.start <= chunk && range.start.is_multiple_of(chunk));
                at = range.end;
            }
            assert_eq!(at, points);
        }
        assert_eq!(Blocks::new(20, 5).chunks(3..12).collect::<Vec<_>>(), [3..5, 5..10, 10..12]);
    }

    #[test]
    fn a_block_is_written_with_the_last_of_its_chunks_in_any_order() {
        let blocks = Blocks { points: 17, chunk: 2, length: 6 };
        let mut open = OpenBlocks::new(1, blocks);
        open.open(0, vec![0..1, 3..6]);
        open.open(2, blocks.chunks(12..17).collect());
        let chunks: Vec<_> = std::iter::from_fn(|| open.next()).collect();
        assert_eq!(chunks, [0..1, 3..4, 4..6, 12..14, 14..16, 16..17]);
        for at in [5, 0, 3, 2, 4] {
            open.count(&chunks[at]);
        }
        assert_eq!(open.take_written(), [Settled { part: 1, block: 2, range: 12..17 }]);
        open.count(&chunks[1]);
        assert_eq!(open.take_written(), [Settled { part: 1, block: 0, range: 0..6 }]);
        assert!(open.take_written().is_empty());
    }
}
