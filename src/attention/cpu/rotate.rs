//! RoPE on the CPU: neighbouring channels rotated in f32, queries while they are loaded, keys once per launch.

use rayon::prelude::*;

use super::element::Element;
use super::view::{RopeView, View};
use crate::plan::{KeySource, PlanRanges};

/// Rotates a row in place: `(x0, x1) → (x0 cos − x1 sin, x0 sin + x1 cos)`; `table` holds (cos, sin) per pair.
#[inline(always)]
pub(super) fn rotate_row(row: &mut [f32], table: &[f32]) {
    for (pair, angle) in row.chunks_exact_mut(2).zip(table.chunks_exact(2)) {
        let (x0, x1, cos, sin) = (pair[0], pair[1], angle[0], angle[1]);
        pair[0] = x0 * cos - x1 * sin;
        pair[1] = x0 * sin + x1 * cos;
    }
}

/// Where the rotated copy of each input key lies: the union of the plan's input key ranges, one after another.
#[derive(Debug)]
pub(super) struct RotatedLayout {
    /// `(first token, tokens, first row)`, ascending and disjoint.
    spans: Vec<(usize, usize, usize)>,
    rows: usize,
}

impl RotatedLayout {
    pub fn new(ranges: &PlanRanges) -> Self {
        let input = ranges.key_ranges().iter().filter(|range| range.source == KeySource::Input);
        let mut runs: Vec<(usize, usize)> = input.map(|range| (range.start, range.start + range.len)).collect();
        runs.sort_unstable();
        let mut spans: Vec<(usize, usize, usize)> = Vec::new();
        let mut rows = 0;
        for (start, end) in runs {
            match spans.last_mut() {
                Some((first, len, _)) if start <= *first + *len => {
                    let longer = (*len).max(end - *first);
                    rows += longer - *len;
                    *len = longer;
                }
                _ => {
                    spans.push((start, end - start, rows));
                    rows += end - start;
                }
            }
        }
        Self { spans, rows }
    }

    /// Number of rows per batch row.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The row of an input key token; rows of one key range are consecutive.
    pub fn row_of(&self, token: usize) -> usize {
        let after = self.spans.partition_point(|&(first, ..)| first <= token);
        self.spans.get(after.wrapping_sub(1)).map_or(0, |&(first, _, row)| row + token - first)
    }

    /// Rotates all input keys into `target [batch, rows, heads, head_dim]`.
    pub fn rotate<T: Element>(
        &self,
        keys: &View<'_, T>,
        rope: &RopeView<'_>,
        (heads, head_dim): (usize, usize),
        target: &mut [f32],
    ) {
        let token_len = heads * head_dim;
        if target.is_empty() || token_len == 0 {
            return;
        }
        let rotate_token = |(index, target): (usize, &mut [f32])| {
            let (batch, row) = (index / self.rows, index % self.rows);
            let after = self.spans.partition_point(|&(.., first)| first <= row);
            let (first, _, first_row) = self.spans[after - 1];
            let token = first + row - first_row;
            let table = rope.row(batch, token);
            for (head, target) in target.chunks_exact_mut(head_dim).enumerate() {
                T::widen(keys.row(batch, head, token), target);
                rotate_row(target, table);
            }
        };
        target.par_chunks_exact_mut(token_len).with_min_len(TOKENS_PER_TASK).enumerate().for_each(rotate_token);
    }
}

/// A task of the thread pool rotates at least this many tokens.
const TOKENS_PER_TASK: usize = 256;
