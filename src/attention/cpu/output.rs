//! Where results go: whole items to the output, parts of split ones to slots that are combined at the end.

use std::marker::PhantomData;

use crate::element::Element;
use crate::plan::{Reduction, WorkItem};
use crate::simd::Exponent;

/// The extents of the output.
#[derive(Debug, Clone, Copy)]
pub(super) struct OutputShape {
    pub batch: usize,
    pub tokens: usize,
    pub heads: usize,
    pub head_dim: usize,
}

impl OutputShape {
    fn rows(&self) -> usize {
        self.batch * self.tokens * self.heads
    }

    fn len(&self) -> usize {
        self.rows() * self.head_dim
    }

    /// The row of one token and head.
    fn row(&self, batch: usize, token: usize, head: usize) -> usize {
        (batch * self.tokens + token) * self.heads + head
    }
}

/// What a launch returns: rows `[batch, tokens, heads, head_dim]` and, if wanted, the log-sum-exp of each row's scores,
/// `[batch, tokens, heads]`.
pub(super) struct Results<T> {
    pub output: Vec<T>,
    pub log_sum_exp: Option<Vec<f32>>,
    shape: OutputShape,
}

impl<T: Element> Results<T> {
    pub(super) fn new(shape: OutputShape, with_log_sum_exp: bool) -> Self {
        let log_sum_exp = with_log_sum_exp.then(|| vec![f32::NEG_INFINITY; shape.rows()]);
        Self { output: vec![T::ZERO; shape.len()], log_sum_exp, shape }
    }
}

/// A pointer that several threads write through, each to places of its own.
#[derive(Clone, Copy)]
struct Shared<T>(*mut T);

// SAFETY: threads only write, and only to places that the schedule gives to one work item; see `Target`.
unsafe impl<T: Send> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Shared<T> {}

/// Where work items write.
///
/// Invariant: `output` points to `shape.len()` numbers, `log_sum_exp` to one for each of its rows and `partial` to the
/// slots, all borrowed for `'a`; the schedule gives each (batch, token, head) to one whole item, or each slot to one part.
pub(super) struct Target<'a, T> {
    output: Shared<T>,
    shape: OutputShape,
    log_sum_exp: Option<(Shared<f32>, Exponent)>,
    partial: Shared<f32>,
    slot_len: usize,
    borrowed: PhantomData<&'a mut T>,
}

impl<'a, T> Target<'a, T> {
    /// Lends `results`, and `partial`, whose slots have `slot_len` numbers.
    pub(super) fn new(
        results: &'a mut Results<T>,
        exponent: Exponent,
        partial: &'a mut [f32],
        slot_len: usize,
    ) -> Self {
        let shape = results.shape;
        assert_eq!(results.output.len(), shape.len());
        let log_sum_exp = results.log_sum_exp.as_mut().map(|numbers| {
            assert_eq!(numbers.len(), shape.rows());
            (Shared(numbers.as_mut_ptr()), exponent)
        });
        let (output, partial) = (Shared(results.output.as_mut_ptr()), Shared(partial.as_mut_ptr()));
        Self { output, shape, log_sum_exp, partial, slot_len, borrowed: PhantomData }
    }
}

impl<T: Element> Target<'_, T> {
    /// Takes one row of an item: the sums of its channels, the maximum of its scores (before the scale) and the sum of its
    /// weights. The result is `channels / sum`, or 0 where the sum is 0: no key was visible.
    #[inline(always)]
    pub(super) fn write(&self, item: &WorkItem, row: usize, channels: &[f32], maximum: f32, sum: f32) {
        if item.partial_slot == WorkItem::WHOLE {
            self.write_result(item, row, channels, maximum, sum);
        } else {
            self.write_part(item, row, channels, maximum, sum);
        }
    }

    /// A row of a whole item, to the output.
    #[inline(always)]
    fn write_result(&self, item: &WorkItem, row: usize, channels: &[f32], maximum: f32, sum: f32) {
        let shape = self.shape;
        let token = item.query_start as usize + row;
        let row = shape.row(item.batch as usize, token, item.head as usize);
        let offset = row * shape.head_dim;
        assert!(channels.len() == shape.head_dim && offset + shape.head_dim <= shape.len());
        // SAFETY: inside the output by the assertion; no other item writes this token and head.
        let target = unsafe { std::slice::from_raw_parts_mut(self.output.0.add(offset), shape.head_dim) };
        T::narrow_times(channels, normalisation(sum), target);
        if let Some((numbers, exponent)) = self.log_sum_exp {
            // SAFETY: there is a number for each row of the output.
            unsafe { *numbers.0.add(row) = exponent.log_sum_exp(maximum, f64::from(sum)) };
        }
    }

    /// A row of a part of a split item, to its slot: `head_dim` channels, maximum and sum.
    #[inline(always)]
    fn write_part(&self, item: &WorkItem, row: usize, channels: &[f32], maximum: f32, sum: f32) {
        let row_len = channels.len() + 2;
        assert!((row + 1) * row_len <= self.slot_len);
        let offset = item.partial_slot as usize * self.slot_len + row * row_len;
        // SAFETY: inside the item's slot by the assertion; the schedule numbers `partial_slots` slots and gives each to
        // one item.
        let target = unsafe { std::slice::from_raw_parts_mut(self.partial.0.add(offset), row_len) };
        target[..channels.len()].copy_from_slice(channels);
        (target[channels.len()], target[channels.len() + 1]) = (maximum, sum);
    }
}

/// What turns sums of values into the result: 0 where no key was visible.
#[inline(always)]
fn normalisation(sum: f32) -> f32 {
    if sum == 0.0 { 0.0 } else { 1.0 / sum }
}

/// Combines the parts of one query tile: `Σ_i 2^(s (m_i − m)) O_i / Σ_i 2^(s (m_i − m)) l_i` with `m = max m_i`.
pub(super) fn combine<T: Element>(
    reduction: &Reduction,
    exponent: Exponent,
    partial: &[f32],
    slot_len: usize,
    results: &mut Results<T>,
) {
    let shape = results.shape;
    let row_len = shape.head_dim + 2;
    // There may be as many parts as threads.
    let mut totals = vec![0f64; shape.head_dim];
    let mut channels = vec![0f32; shape.head_dim];
    for row in 0..reduction.query_len as usize {
        let slots = reduction.first_slot as usize..(reduction.first_slot + reduction.slots) as usize;
        let parts = slots.map(|slot| partial[slot * slot_len + row * row_len..][..row_len].split_at(shape.head_dim));
        let maximum = parts.clone().fold(f32::NEG_INFINITY, |maximum, (_, state)| maximum.max(state[0]));
        totals.fill(0.0);
        let mut sum = 0.0;
        // A part without a visible key has sum 0 and is left out, so that `−∞ − −∞` never comes up.
        for (part, state) in parts.filter(|(_, state)| state[1] != 0.0) {
            let weight = (f64::from(exponent.factor) * (f64::from(state[0]) - f64::from(maximum))).exp2();
            sum += weight * f64::from(state[1]);
            totals.iter_mut().zip(part).for_each(|(total, part)| *total += weight * f64::from(*part));
        }
        let token = reduction.query_start as usize + row;
        let row = shape.row(reduction.batch as usize, token, reduction.head as usize);
        channels.iter_mut().zip(&totals).for_each(|(channel, total)| *channel = *total as f32);
        let target = &mut results.output[row * shape.head_dim..][..shape.head_dim];
        T::narrow_times(&channels, normalisation(sum as f32), target);
        if let Some(numbers) = &mut results.log_sum_exp {
            numbers[row] = exponent.log_sum_exp(maximum, sum);
        }
    }
}
