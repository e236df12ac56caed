//! What the kernels of a call walk over, and which calls share it.

use std::sync::Arc;

use crate::plan::{KeyRows, PaddingBits, ResolvedPlan, StepContext, StepSchedule, TileShape};

/// Everything that a schedule depends on besides the plan: equal inputs, equal schedules.
///
/// Masks are compared by content, so that one made anew for each call finds its schedule. Their hashes come first: only
/// the bits of equal ones are looked at, and not of those that layers share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScheduleInputs {
    /// The tile of the attention kernel.
    pub tile: TileShape,
    /// Work items that run at a time.
    pub workers: usize,
    /// Batch rows.
    pub batch: usize,
    /// Heads.
    pub heads: usize,
    /// Whether the keys of the input are rotated.
    pub rotated: bool,
    /// Real tokens of the input.
    pub input_padding: Option<Arc<PaddingBits>>,
    /// Real tokens of the cache.
    pub cache_padding: Option<Arc<PaddingBits>>,
}

/// What the kernels of a call walk over, to be uploaded.
#[derive(Debug)]
pub struct GpuSchedule {
    /// Of the attention kernel.
    pub steps: StepSchedule,
    /// Where rotated keys lie; `None` if there are none.
    pub key_rows: Option<KeyRows>,
    /// How much there is of everything.
    pub sizes: ScheduleSizes,
}

/// How much there is of everything in a schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScheduleSizes {
    /// Work items.
    pub items: usize,
    /// Partial results.
    pub partial_slots: usize,
    /// Query tiles whose keys are split.
    pub split_tiles: usize,
    /// Runs of keys that are rotated.
    pub key_spans: usize,
    /// Keys that are rotated, per batch row.
    pub rotated_rows: usize,
    /// Whether some steps have keys that are not visible.
    pub has_partial_steps: bool,
}

impl GpuSchedule {
    /// The schedule of a plan for these inputs.
    pub fn new(resolved: &ResolvedPlan, inputs: &ScheduleInputs) -> Self {
        let tiles = resolved.schedule(inputs.batch, inputs.heads, inputs.tile, inputs.workers);
        let key_rows = inputs.rotated.then(|| KeyRows::new(resolved.ranges())).filter(|rows| rows.rows() > 0);
        let context = StepContext {
            input_padding: inputs.input_padding.as_deref(),
            cache_padding: inputs.cache_padding.as_deref(),
            key_rows: key_rows.as_ref(),
        };
        let steps = StepSchedule::new(&tiles, inputs.batch, context);
        let sizes = ScheduleSizes {
            items: steps.items().len(),
            partial_slots: tiles.partial_slots(),
            split_tiles: steps.reductions(),
            key_spans: key_rows.as_ref().map_or(0, |rows| rows.spans().len()),
            rotated_rows: key_rows.as_ref().map_or(0, KeyRows::rows),
            has_partial_steps: steps.has_partial_steps(inputs.tile.keys),
        };
        Self { steps, key_rows, sizes }
    }
}
