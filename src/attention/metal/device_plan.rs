//! A plan on an Apple GPU: its schedule, uploaded once.
//!
//! Kept by the plan, and shared by all threads: candle encodes the work of a device in one order, and its encoder puts
//! barriers between launches that touch the same memory. The scratch memory of launches comes from candle's buffers of
//! the device, which it hands out again as soon as a call has been encoded: all plans share it, and a second call
//! allocates nothing but its output.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use bytemuck::Pod;
use candle_core::metal_backend::DeviceId;
use candle_core::{MetalDevice, Result};
use candle_metal_kernels::metal::Buffer;

use super::arguments::slot_floats;
use super::dispatches::dispatches;
use super::tuning::Row;
use crate::attention::gpu::{PlanKey as GpuPlanKey, Remembered};
use crate::plan::{ResolvedPlan, StepItem, TileShape};

/// What an uploaded schedule depends on besides the plan.
pub(super) type PlanKey = GpuPlanKey<DeviceId, &'static Row>;

/// The uploaded schedules of one plan.
pub(crate) type DevicePlans = Remembered<DevicePlan>;

/// A schedule on a device.
pub(crate) struct DevicePlan {
    pub(super) key: PlanKey,
    /// The work items, in runs of one dispatch each.
    pub(super) dispatches: Vec<Range<usize>>,
    pub(super) items: Arc<Buffer>,
    pub(super) steps: Arc<Buffer>,
    /// Whether some steps have keys that are not visible.
    pub(super) has_partial_steps: bool,
    /// `None` if no keys are split.
    pub(super) split: Option<Split>,
    /// `None` if no keys are rotated.
    pub(super) rotation: Option<Rotation>,
}

/// Query tiles whose keys are split.
pub(super) struct Split {
    pub tiles: Arc<Buffer>,
    pub tile_count: usize,
    /// How many numbers the partial results are.
    pub partials: usize,
}

/// The keys that are rotated once per launch.
pub(super) struct Rotation {
    pub spans: Arc<Buffer>,
    pub span_count: usize,
    /// Rows per batch row.
    pub rows: usize,
}

impl DevicePlan {
    pub(super) fn new(
        resolved: &ResolvedPlan,
        device: &MetalDevice,
        key: PlanKey,
        steps_per_dispatch: u64,
    ) -> Result<Self> {
        let row = key.tile;
        let schedule = key.schedule(resolved, TileShape { queries: row.queries(), keys: row.keys });
        let steps = &schedule.steps;
        let split_tiles = steps.split_tiles();
        let split = match split_tiles.len() {
            0 => None,
            tile_count => {
                let partials = schedule.partial_slots * slot_floats(row.queries(), key.head_dim);
                Some(Split { tiles: upload(device, &split_tiles)?, tile_count, partials })
            }
        };
        let rotation = match &schedule.key_rows {
            None => None,
            Some(rows) => {
                let spans = upload(device, rows.spans())?;
                Some(Rotation { spans, span_count: rows.spans().len(), rows: rows.rows() })
            }
        };
        Ok(Self {
            dispatches: dispatches(steps.items().iter().map(step_count), steps_per_dispatch),
            items: upload(device, steps.items())?,
            steps: upload(device, steps.steps())?,
            has_partial_steps: steps.has_partial_steps(row.keys),
            split,
            rotation,
            key,
        })
    }
}

impl fmt::Debug for DevicePlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DevicePlan").finish_non_exhaustive()
    }
}

fn step_count(item: &StepItem) -> u64 {
    (item.last_step - item.first_step).into()
}

/// Copies numbers to the device. A buffer has at least one.
fn upload<T: Pod>(device: &MetalDevice, numbers: &[T]) -> Result<Arc<Buffer>> {
    if numbers.is_empty() { device.new_buffer_with_data(&[T::zeroed()]) } else { device.new_buffer_with_data(numbers) }
}
