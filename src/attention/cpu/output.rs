//! Where results go: whole items to the output, parts of split ones to slots that are combined at the end.

use std::marker::PhantomData;

use super::element::Element;
use super::item::Sink;
use crate::plan::{Reduction, WorkItem};

/// The extents of the output.
#[derive(Debug, Clone, Copy)]
pub(super) struct OutputShape {
    pub batch: usize,
    pub tokens: usize,
    pub heads: usize,
    pub head_dim: usize,
}

impl OutputShape {
    pub fn len(&self) -> usize {
        self.batch * self.tokens * self.heads * self.head_dim
    }

    /// Offset of the channels of one token and head.
    fn offset(&self, batch: usize, token: usize, head: usize) -> usize {
        ((batch * self.tokens + token) * self.heads + head) * self.head_dim
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
/// Invariant: `output` points to `shape.len()` numbers and `partial` to the slots, both borrowed for `'a`; the schedule
/// gives each (batch, token, head) to one whole item, or each slot to one part.
pub(super) struct Target<'a, T> {
    output: Shared<T>,
    shape: OutputShape,
    partial: Shared<f32>,
    slot_len: usize,
    borrowed: PhantomData<&'a mut T>,
}

impl<'a, T> Target<'a, T> {
    /// Lends `output` of this shape, and `partial`, whose slots have `slot_len` numbers.
    pub fn new(output: &'a mut [T], shape: OutputShape, partial: &'a mut [f32], slot_len: usize) -> Self {
        assert_eq!(output.len(), shape.len());
        let (output, partial) = (Shared(output.as_mut_ptr()), Shared(partial.as_mut_ptr()));
        Self { output, shape, partial, slot_len, borrowed: PhantomData }
    }
}

/// Writes rows of a whole item to the output.
pub(super) struct WholeSink<'a, T> {
    pub target: &'a Target<'a, T>,
    pub item: &'a WorkItem,
}

impl<T: Element> Sink for WholeSink<'_, T> {
    #[inline(always)]
    fn write(&mut self, row: usize, channels: &[f32], _: f32, sum: f32) {
        let (item, shape) = (self.item, self.target.shape);
        let token = item.query_start as usize + row;
        let offset = shape.offset(item.batch as usize, token, item.head as usize);
        assert!(channels.len() == shape.head_dim && offset + shape.head_dim <= shape.len());
        // SAFETY: inside the output by the assertion; no other item writes this token and head.
        let target = unsafe { std::slice::from_raw_parts_mut(self.target.output.0.add(offset), shape.head_dim) };
        T::narrow_times(channels, normalisation(sum), target);
    }
}

/// Writes rows of a part of a split item to its slot: `head_dim` channels, maximum and sum per row.
pub(super) struct PartialSink<'a, T> {
    pub target: &'a Target<'a, T>,
    pub item: &'a WorkItem,
}

impl<T: Element> Sink for PartialSink<'_, T> {
    #[inline(always)]
    fn write(&mut self, row: usize, channels: &[f32], maximum: f32, sum: f32) {
        let row_len = channels.len() + 2;
        assert!((row + 1) * row_len <= self.target.slot_len);
        let offset = self.item.partial_slot as usize * self.target.slot_len + row * row_len;
        // SAFETY: inside the item's slot by the assertion; the schedule numbers `partial_slots` slots and gives each to
        // one item.
        let target = unsafe { std::slice::from_raw_parts_mut(self.target.partial.0.add(offset), row_len) };
        target[..channels.len()].copy_from_slice(channels);
        (target[channels.len()], target[channels.len() + 1]) = (maximum, sum);
    }
}

/// What turns sums of values into the result: 0 where no key was visible.
#[inline(always)]
fn normalisation(sum: f32) -> f32 {
    if sum == 0.0 { 0.0 } else { 1.0 / sum }
}

/// Combines the parts of one query tile: `Σ_i 2^(m_i − m) O_i / Σ_i 2^(m_i − m) l_i` with `m = max m_i`.
pub(super) fn combine<T: Element>(
    reduction: &Reduction,
    partial: &[f32],
    slot_len: usize,
    shape: OutputShape,
    output: &mut [T],
) {
    let row_len = shape.head_dim + 2;
    let mut channels = vec![0f32; shape.head_dim];
    for row in 0..reduction.query_len as usize {
        let slots = reduction.first_slot as usize..(reduction.first_slot + reduction.slots) as usize;
        let parts = slots.map(|slot| partial[slot * slot_len + row * row_len..][..row_len].split_at(shape.head_dim));
        let maximum = parts.clone().fold(f32::NEG_INFINITY, |maximum, (_, state)| maximum.max(state[0]));
        channels.fill(0.0);
        let mut sum = 0.0;
        // A part without a visible key has sum 0 and is left out, so that `−∞ − −∞` never comes up.
        for (part, state) in parts.filter(|(_, state)| state[1] != 0.0) {
            let weight = (state[0] - maximum).exp2();
            sum += weight * state[1];
            channels.iter_mut().zip(part).for_each(|(channel, part)| *channel += weight * part);
        }
        let token = reduction.query_start as usize + row;
        let offset = shape.offset(reduction.batch as usize, token, reduction.head as usize);
        T::narrow_times(&channels, normalisation(sum), &mut output[offset..offset + shape.head_dim]);
    }
}
