//! Which keys a work item stages: those of its tiles that are real and that one of its queries sees, in order.

use std::ops::Range;

use super::operands::{Keys, Operands, Source};
use super::strip::Seeing;
use crate::element::Element;
use crate::plan::{KeySource, KeyTile, TileClass, WorkItem};

/// Keys one after another in their source that take places in staged tiles.
pub(super) struct VisibleKeys<'a, T> {
    pub source: &'a Source<'a, T>,
    pub tokens: Range<usize>,
    /// The row of the first among the rotated keys; the others follow.
    pub first_rotated: usize,
    /// The queries of the item that see them, or `None` where all see all keys.
    pub seeing: Option<Seeing>,
}

impl<T> VisibleKeys<'_, T> {
    /// Cuts off the first `most` keys, or all.
    #[inline(always)]
    pub(super) fn take(&mut self, most: usize) -> Self {
        let Self { source, first_rotated, seeing, .. } = *self;
        let count = self.tokens.len().min(most);
        let tokens = self.tokens.start..self.tokens.start + count;
        self.tokens.start += count;
        self.first_rotated += count;
        Self { source, tokens, first_rotated, seeing }
    }
}

/// The keys of `item`, whose tiles are `key_tiles`: those of a tile together, unless they have to be looked at one by one.
pub(super) fn visible_keys<'a, T: Element>(
    operands: &'a Operands<'a, T>,
    item: &'a WorkItem,
    key_tiles: &'a [KeyTile],
) -> impl Iterator<Item = VisibleKeys<'a, T>> {
    let windowed = key_tiles.iter().any(|tile| !tile.band.covers(item.queries(), tile.tokens()));
    key_tiles.iter().flat_map(move |tile| {
        let source = match tile.source {
            KeySource::Input => operands.input.as_ref(),
            KeySource::Cache => operands.cache.as_ref(),
        };
        // The arguments were checked against the plan: a source that it names is there.
        source.into_iter().flat_map(move |source| of_tile(source, item, tile, windowed))
    })
}

/// The keys of one tile.
fn of_tile<'a, T: Element>(
    source: &'a Source<'a, T>,
    item: &'a WorkItem,
    tile: &'a KeyTile,
    windowed: bool,
) -> impl Iterator<Item = VisibleKeys<'a, T>> {
    let batch = item.batch as usize;
    let class = source.padding.map_or(TileClass::Full, |bits| bits.class(batch, tile));
    let padding = source.padding.filter(|_| class == TileClass::Partial);
    let tokens = if class == TileClass::Empty { 0..0 } else { tile.tokens() };
    let first_rotated = match &source.keys {
        Keys::Given(_) => 0,
        Keys::Rotated(_, layout) => layout.row_of(tokens.start),
    };
    let start = tokens.start;
    let some = move |tokens: Range<usize>, seeing| VisibleKeys {
        source,
        first_rotated: first_rotated + tokens.start - start,
        tokens,
        seeing,
    };
    let one_by_one = windowed || padding.is_some();
    let (together, alone) = if one_by_one { (0..0, tokens) } else { (tokens, 0..0) };
    let together = Some(together).filter(|tokens| !tokens.is_empty()).map(|tokens| some(tokens, None));
    let alone = alone.filter_map(move |token| {
        if padding.is_some_and(|bits| !bits.is_real(batch, token)) {
            return None;
        }
        let mut seeing = None;
        if windowed {
            let seen_by = tile.band.that_see(token, item.queries());
            if seen_by.is_empty() {
                return None;
            }
            let row = |query: usize| (query - item.query_start as usize) as u32;
            seeing = Some(Seeing { first: row(seen_by.start), end: row(seen_by.end) });
        }
        Some(some(token..token + 1, seeing))
    });
    together.into_iter().chain(alone)
}
