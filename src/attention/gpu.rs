//! A checked call as the GPU backends see it.

use candle_core::Layout;

use super::call::Arguments;
use crate::kernels::call::CallShape;
use crate::kernels::schedule::ScheduleInputs;
use crate::plan::TileShape;

/// An operand of the op on a device.
pub(crate) type Operand<'a, S> = (&'a S, &'a Layout);

/// The operands of the op on a device, `[batch, heads, tokens, head_dim]`. Where a plan has no input keys, `keys` and
/// `values` are there and mean nothing.
pub(crate) struct Operands<'a, S> {
    pub queries: Operand<'a, S>,
    pub keys: Operand<'a, S>,
    pub values: Operand<'a, S>,
}

impl Arguments {
    /// The call in numbers.
    pub(crate) fn shape(&self) -> CallShape {
        let ranges = self.resolved.ranges();
        CallShape {
            batch: self.batch,
            heads: self.heads,
            kv_heads: self.kv_heads,
            tokens: ranges.input_tokens(),
            cache_tokens: ranges.cache_tokens(),
            input_keys: ranges.has_input_keys(),
            head_dim: self.head_dim,
            scale: self.scale,
        }
    }

    /// What the schedule of a GPU depends on.
    pub(crate) fn schedule_inputs(&self, tile: TileShape, workers: usize) -> ScheduleInputs {
        ScheduleInputs {
            tile,
            // One worker: no item is split.
            workers: if self.invariant { 1 } else { workers },
            persistent: None,
            batch: self.batch,
            heads: self.heads,
            group: self.group(),
            rotated: self.rope.is_some(),
            input_padding: self.padding.clone(),
            cache_padding: self.cache.as_ref().and_then(|cache| cache.padding.clone()),
        }
    }
}
