//! What the work items of a launch read: queries, keys and values of the input and of the cache, rotation and scale.

use super::view::{BiasView, RopeView, View};
use crate::plan::{KeyRows, PaddingBits, TileSchedule, WorkItem};
use crate::simd::Exponent;

/// What the work items of a launch share.
pub(super) struct Operands<'a, T> {
    pub schedule: &'a TileSchedule,
    pub queries: View<'a, T>,
    /// Keys, values and padding of the input tokens, unless all keys are cached.
    pub input: Option<Source<'a, T>>,
    /// Keys, values and padding of the cache.
    pub cache: Option<Source<'a, T>>,
    /// Rotation of the queries.
    pub rope: Option<RopeView<'a>>,
    /// How differences of scores become weights.
    pub exponent: Exponent,
    /// Factor of the scores.
    pub scale: f32,
    pub head_dim: usize,
    /// Heads of queries that share a head of keys and values.
    pub group: usize,
}

impl<T> Operands<'_, T> {
    /// Whether keys of the input or of the cache have biases.
    pub(super) fn has_bias(&self) -> bool {
        [&self.input, &self.cache].into_iter().flatten().any(|source| source.bias.is_some())
    }
}

/// Keys and values of one [`KeySource`].
pub(super) struct Source<'a, T> {
    pub keys: Keys<'a, T>,
    pub values: View<'a, T>,
    pub padding: Option<&'a PaddingBits>,
    /// What is added to the scores of each key.
    pub bias: Option<BiasView<'a>>,
    /// Whether the batch has one row that serves all.
    pub broadcast: bool,
}

impl<T> Source<'_, T> {
    /// The batch row and the head that an item reads, whose queries have so many heads to each of the keys.
    #[inline(always)]
    pub(super) fn batch_and_head(&self, item: &WorkItem, group: usize) -> (usize, usize) {
        (if self.broadcast { 0 } else { item.batch as usize }, item.head as usize / group)
    }
}

/// Where the keys are read.
pub(super) enum Keys<'a, T> {
    /// As they came: without RoPE, or from a cache.
    Given(View<'a, T>),
    /// From the copy that was rotated at the start of the launch.
    Rotated(View<'a, f32>, &'a KeyRows),
}
