//! What the kernels of a call walk over, and which calls share it.

use std::sync::Arc;

use crate::plan::{KeyRows, PaddingBits, PersistentBlocks, ResolvedPlan, StepContext, StepSchedule, TileShape};

/// Everything that a schedule depends on besides the plan: equal inputs, equal schedules.
///
/// Masks are compared by content, so that one made anew for each call finds its schedule. Their hashes come first: only
/// the bits of equal ones are looked at, and not of those that layers share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScheduleInputs {
    /// The tile of the attention kernel.
    pub tile: TileShape,
    /// Work items that run at a time; 1: no keys are split.
    pub workers: usize,
    /// The blocks of a kernel that takes one item after the other.
    pub persistent: Option<PersistentBlocks>,
    /// Batch rows.
    pub batch: usize,
    /// Heads of the queries.
    pub heads: usize,
    /// Heads of queries that share a head of keys and values, at least 1.
    pub group: usize,
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
    /// Blocks that begin with one.
    pub blocks: usize,
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
    /// Whether some queries see only some of the visible keys of a step.
    pub has_windows: bool,
    /// Steps of the item that has most.
    pub most_steps: usize,
}

impl GpuSchedule {
    /// The schedule of a plan for these inputs.
    pub fn new(resolved: &ResolvedPlan, inputs: &ScheduleInputs) -> Self {
        // Persistent blocks split keys when they share their work.
        let workers = if inputs.persistent.is_some() { 1 } else { inputs.workers };
        let tiles = resolved.schedule(inputs.batch, inputs.heads, inputs.tile, workers);
        let key_rows = inputs.rotated.then(|| KeyRows::new(resolved.ranges())).filter(|rows| rows.rows() > 0);
        let context = StepContext {
            group: inputs.group,
            input_padding: inputs.input_padding.as_deref(),
            cache_padding: inputs.cache_padding.as_deref(),
            key_rows: key_rows.as_ref(),
        };
        let steps = StepSchedule::new(&tiles, inputs.batch, context);
        let steps = match &inputs.persistent {
            Some(blocks) => steps.dealt_out(blocks, inputs.workers > 1),
            None => steps,
        };
        let sizes = ScheduleSizes {
            items: steps.items().len(),
            blocks: steps.blocks(),
            partial_slots: steps.reduction_of_slot().len(),
            split_tiles: steps.reductions(),
            key_spans: key_rows.as_ref().map_or(0, |rows| rows.spans().len()),
            rotated_rows: key_rows.as_ref().map_or(0, KeyRows::rows),
            has_partial_steps: steps.has_partial_steps(inputs.tile.keys),
            has_windows: steps.has_windows(),
            most_steps: steps.items().iter().map(|item| item.last_step - item.first_step).max().unwrap_or(0) as usize,
        };
        Self { steps, key_rows, sizes }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::convert::Infallible;

    use super::*;
    use crate::recent::Recent;
    use crate::{AttentionPattern, AttentionPlan, TokenSpec};

    /// What a backend keeps of a plan.
    type Uploads = Recent<(&'static str, ScheduleInputs), Arc<GpuSchedule>, 4>;

    fn plan() -> AttentionPlan {
        let tokens = [TokenSpec::new("anchors", 40), TokenSpec::new("queries", 30)];
        let patterns = [AttentionPattern::queries(["anchors", "queries"]).attend_to(["anchors"])];
        AttentionPlan::new(tokens, patterns).unwrap()
    }

    fn inputs(batch: usize, rotated: bool, last_real: Option<usize>) -> ScheduleInputs {
        let padding = |last| Arc::new(PaddingBits::new(1, 70, |_, token| token <= last));
        ScheduleInputs {
            tile: TileShape { queries: 32, keys: 16 },
            workers: 1,
            persistent: None,
            batch,
            heads: 2,
            group: 1,
            rotated,
            input_padding: last_real.map(padding),
            cache_padding: None,
        }
    }

    #[test]
    fn equal_calls_are_uploaded_once() {
        let plan = plan();
        let uploads = Cell::new(0);
        // A clone of the plan, resolved anew, and a mask made anew for each call.
        let call = |device: &'static str, inputs: ScheduleInputs| {
            let resolved = plan.clone().resolve(None).unwrap();
            let key = (device, inputs);
            let made = resolved.kept::<Uploads>().get(&key, || {
                uploads.set(uploads.get() + 1);
                Ok::<_, Infallible>(Arc::new(GpuSchedule::new(&resolved, &key.1)))
            });
            assert!(made.is_ok());
            uploads.get()
        };
        let equal = [(); 3].map(|()| call("first", inputs(1, true, Some(33))));
        assert_eq!(equal, [1; 3]);
        assert_eq!(call("second", inputs(1, true, Some(33))), 2);
        assert_eq!(call("first", inputs(2, true, Some(33))), 3);
        assert_eq!(call("first", inputs(1, true, Some(32))), 4);
        assert_eq!(call("first", inputs(1, true, Some(33))), 4);
        assert_eq!(call("first", inputs(1, false, None)), 5);
    }

    #[test]
    fn sizes_count_what_there_is() {
        let resolved = plan().resolve(None).unwrap();
        let schedule = GpuSchedule::new(&resolved, &inputs(1, true, None));
        // 70 tokens in tiles of 32, for 2 heads; 40 keys in tiles of 16.
        let expected = ScheduleSizes {
            items: 2 * 3,
            blocks: 2 * 3,
            partial_slots: 0,
            split_tiles: 0,
            key_spans: 1,
            rotated_rows: 40,
            has_partial_steps: true,
            has_windows: false,
            most_steps: 3,
        };
        assert_eq!(schedule.sizes, expected);
        assert_eq!(GpuSchedule::new(&resolved, &inputs(1, false, None)).sizes.rotated_rows, 0);
    }
}
