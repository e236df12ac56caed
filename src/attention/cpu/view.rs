//! Strided views of a tensor's numbers.

use candle_core::Layout;

use crate::plan::WorkItem;
use crate::simd::Simd;

/// Bytes of a cache line.
const LINE: usize = 64;

/// A tensor `[batch, heads, tokens, head_dim]` whose channels are adjacent; the other strides are free, 0 included.
#[derive(Debug)]
pub(super) struct View<'a, T> {
    data: &'a [T],
    start: usize,
    batch_stride: usize,
    head_stride: usize,
    token_stride: usize,
    head_dim: usize,
}

impl<T> Clone for View<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for View<'_, T> {}

impl<'a, T> View<'a, T> {
    /// The view that a layout describes, or `None` if it has not four axes or its channels are not adjacent.
    pub(super) fn new(data: &'a [T], layout: &Layout) -> Option<Self> {
        let (&[.., head_dim], &[batch_stride, head_stride, token_stride, channel_stride]) =
            (layout.dims(), layout.stride())
        else {
            return None;
        };
        let adjacent = channel_stride == 1 || head_dim <= 1;
        let start = layout.start_offset();
        adjacent.then_some(Self { data, start, batch_stride, head_stride, token_stride, head_dim })
    }

    /// A view of rows `[batch, tokens, heads, head_dim]` without gaps.
    pub(super) fn of_rows(data: &'a [T], tokens: usize, heads: usize, head_dim: usize) -> Self {
        let token_stride = heads * head_dim;
        Self { data, start: 0, batch_stride: tokens * token_stride, head_stride: head_dim, token_stride, head_dim }
    }

    /// The channels of one token.
    #[inline(always)]
    pub(super) fn row(&self, batch: usize, head: usize, token: usize) -> &'a [T] {
        let first = self.start + batch * self.batch_stride + head * self.head_stride + token * self.token_stride;
        &self.data[first..first + self.head_dim]
    }

    /// Asks for the channels of a token that will be read soon.
    #[inline(always)]
    pub(super) fn prefetch<S: Simd>(&self, simd: S, batch: usize, head: usize, token: usize) {
        let row = self.row(batch, head, token);
        for byte in (0..size_of_val(row)).step_by(LINE) {
            simd.prefetch(row.as_ptr().cast::<u8>().wrapping_add(byte));
        }
    }
}

/// What is added to the scores of each key, `[batch or 1, heads or 1, tokens]` with adjacent tokens. An axis of 1 serves every
/// batch row or head of queries.
#[derive(Debug, Clone, Copy)]
pub(super) struct BiasView<'a> {
    data: &'a [f32],
    start: usize,
    batch_stride: usize,
    head_stride: usize,
}

impl<'a> BiasView<'a> {
    /// The view that a layout describes, or `None` if it has not three axes or its tokens are not adjacent.
    pub(super) fn new(data: &'a [f32], layout: &Layout) -> Option<Self> {
        let (&[batch, heads, tokens], &[batch_stride, head_stride, token_stride]) = (layout.dims(), layout.stride())
        else {
            return None;
        };
        let adjacent = token_stride == 1 || tokens <= 1;
        let stride = |dim: usize, stride: usize| if dim == 1 { 0 } else { stride };
        let (batch_stride, head_stride) = (stride(batch, batch_stride), stride(heads, head_stride));
        adjacent.then_some(Self { data, start: layout.start_offset(), batch_stride, head_stride })
    }

    /// That of one key for the queries of an item.
    #[inline(always)]
    pub(super) fn of(&self, item: &WorkItem, token: usize) -> f32 {
        let row = item.batch as usize * self.batch_stride + item.head as usize * self.head_stride;
        self.data[self.start + row + token]
    }
}

/// A RoPE table `[batch or 1, tokens, head_dim / 2, 2]` of (cos, sin).
#[derive(Debug, Clone, Copy)]
pub(super) struct RopeView<'a> {
    data: &'a [f32],
    start: usize,
    batch_stride: usize,
    token_stride: usize,
    head_dim: usize,
}

impl<'a> RopeView<'a> {
    /// The view that a layout describes, or `None` if the rows are not contiguous. A batch of 1 serves every row.
    pub(super) fn new(data: &'a [f32], layout: &Layout) -> Option<Self> {
        let (&[batch, _, pairs, 2], &[batch_stride, token_stride, pair_stride, 1]) = (layout.dims(), layout.stride())
        else {
            return None;
        };
        let contiguous = pair_stride == 2 || pairs <= 1;
        let batch_stride = if batch == 1 { 0 } else { batch_stride };
        let start = layout.start_offset();
        contiguous.then_some(Self { data, start, batch_stride, token_stride, head_dim: 2 * pairs })
    }

    /// The (cos, sin) pairs of one token, `head_dim` numbers.
    #[inline(always)]
    pub(super) fn row(&self, batch: usize, token: usize) -> &'a [f32] {
        let first = self.start + batch * self.batch_stride + token * self.token_stride;
        &self.data[first..first + self.head_dim]
    }
}
