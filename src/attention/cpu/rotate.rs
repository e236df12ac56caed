//! RoPE on the CPU: neighbouring channels rotated in f32, queries while they are loaded, keys once per launch.

use rayon::prelude::*;

use super::view::{RopeView, View};
use crate::element::Element;
use crate::plan::KeyRows;

/// Rotates a row in place: `(x0, x1) → (x0 cos − x1 sin, x0 sin + x1 cos)`; `table` holds (cos, sin) per pair.
#[inline(always)]
pub(super) fn rotate_row(row: &mut [f32], table: &[f32]) {
    for (pair, angle) in row.chunks_exact_mut(2).zip(table.chunks_exact(2)) {
        let (x0, x1, cos, sin) = (pair[0], pair[1], angle[0], angle[1]);
        pair[0] = x0 * cos - x1 * sin;
        pair[1] = x0 * sin + x1 * cos;
    }
}

/// Rotates all input keys into `target [batch, rows, heads, head_dim]`.
pub(super) fn rotate_keys<T: Element>(
    rows: &KeyRows,
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
        let (batch, row) = (index / rows.rows(), (index % rows.rows()) as u64);
        let span = rows.span_of_row(row);
        let token = (span.first_token + row - span.first_row) as usize;
        let table = rope.row(batch, token);
        for (head, target) in target.chunks_exact_mut(head_dim).enumerate() {
            T::widen(keys.row(batch, head, token), target);
            rotate_row(target, table);
        }
    };
    target.par_chunks_exact_mut(token_len).with_min_len(TOKENS_PER_TASK).enumerate().for_each(rotate_token);
}

/// A task of the thread pool rotates at least this many tokens.
const TOKENS_PER_TASK: usize = 256;
