//! Which keys a work item stages: those of its tiles that are real and that one of its queries sees, in order.

use super::operands::{Keys, Operands, Source};
use super::strip::Seeing;
use crate::element::Element;
use crate::plan::{KeySource, KeyTile, TileClass, WorkItem};

/// A key that takes a place in a staged tile.
pub(super) struct VisibleKey<'a, T> {
    pub source: &'a Source<'a, T>,
    pub token: usize,
    /// Its row among the rotated keys.
    pub rotated: usize,
    /// The queries of the item that see it, or `None` where all see all keys.
    pub seeing: Option<Seeing>,
}

/// The keys of `item`, whose tiles are `key_tiles`.
pub(super) fn visible_keys<'a, T: Element>(
    operands: &'a Operands<'a, T>,
    item: &'a WorkItem,
    key_tiles: &'a [KeyTile],
) -> impl Iterator<Item = VisibleKey<'a, T>> {
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
) -> impl Iterator<Item = VisibleKey<'a, T>> {
    let batch = item.batch as usize;
    let class = source.padding.map_or(TileClass::Full, |bits| bits.class(batch, tile));
    // Only these have to be looked at one by one.
    let padding = source.padding.filter(|_| class == TileClass::Partial);
    let tokens = if class == TileClass::Empty { 0..0 } else { tile.tokens() };
    let first_rotated = match &source.keys {
        Keys::Given(_) => 0,
        Keys::Rotated(_, layout) => layout.row_of(tokens.start),
    };
    let start = tokens.start;
    tokens.filter_map(move |token| {
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
        Some(VisibleKey { source, token, rotated: first_rotated + token - start, seeing })
    })
}
