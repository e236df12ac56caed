//! Where a copy of the input keys lies: the union of the plan's input key ranges, without gaps.
//!
//! Backends that rotate keys once per launch rotate only what is a key of any query, into rows of this layout.

use bytemuck::{Pod, Zeroable};

use super::{KeySource, PlanRanges};

/// A run of key tokens and its rows in the copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct KeySpan {
    /// First token of the input.
    pub first_token: u64,
    /// First row of the copy.
    pub first_row: u64,
    /// Number of tokens, at least 1.
    pub len: u64,
}

/// The rows of all input keys; spans are ascending and disjoint in tokens and in rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRows {
    spans: Vec<KeySpan>,
}

impl KeyRows {
    /// Collects the input keys of all query ranges.
    pub fn new(ranges: &PlanRanges) -> Self {
        let input = ranges.key_ranges().iter().filter(|range| range.source == KeySource::Input && range.len > 0);
        let mut runs: Vec<(u64, u64)> =
            input.map(|range| (range.start as u64, (range.start + range.len) as u64)).collect();
        runs.sort_unstable();
        let mut spans: Vec<KeySpan> = Vec::new();
        for (start, end) in runs {
            let rows = spans.last().map_or(0, |span| span.first_row + span.len);
            match spans.last_mut() {
                Some(span) if start <= span.first_token + span.len => span.len = span.len.max(end - span.first_token),
                _ => spans.push(KeySpan { first_token: start, first_row: rows, len: end - start }),
            }
        }
        Self { spans }
    }

    /// The runs of tokens.
    pub fn spans(&self) -> &[KeySpan] {
        &self.spans
    }

    /// Number of rows per batch row.
    pub fn rows(&self) -> usize {
        self.spans.last().map_or(0, |span| (span.first_row + span.len) as usize)
    }

    /// The row of an input key token; rows of one key range are consecutive.
    ///
    /// For tokens that are no key the answer means nothing.
    pub fn row_of(&self, token: usize) -> usize {
        let token = token as u64;
        let after = self.spans.partition_point(|span| span.first_token <= token);
        let row = |span: &KeySpan| (span.first_row + token - span.first_token) as usize;
        self.spans.get(after.wrapping_sub(1)).map_or(0, row)
    }

    /// The span that holds a row.
    ///
    /// # Panics
    /// There is no such row.
    pub fn span_of_row(&self, row: u64) -> &KeySpan {
        let after = self.spans.partition_point(|span| span.first_row <= row);
        &self.spans[after - 1]
    }
}
