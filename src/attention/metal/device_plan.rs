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

use crate::kernels::metal::dispatches::dispatches;
use crate::kernels::schedule::{GpuSchedule, ScheduleInputs, ScheduleSizes};
use crate::plan::{ResolvedPlan, StepItem};
use crate::recent::Recent;

/// The uploaded schedules of one plan.
pub(super) type DevicePlans = Recent<(DeviceId, ScheduleInputs), Arc<DevicePlan>, RECENT_UPLOADS>;

/// How many uploads a plan keeps: devices times a few batch sizes or masks.
const RECENT_UPLOADS: usize = 16;

/// A schedule on a device.
pub(super) struct DevicePlan {
    pub sizes: ScheduleSizes,
    /// The work items, in runs of one dispatch each.
    pub dispatches: Vec<Range<usize>>,
    pub items: Arc<Buffer>,
    pub steps: Arc<Buffer>,
    /// The tiles whose keys are split, if any are.
    pub split_tiles: Option<Arc<Buffer>>,
    /// The keys that are rotated once per launch, if any are.
    pub key_spans: Option<Arc<Buffer>>,
}

impl DevicePlan {
    pub(crate) fn new(
        resolved: &ResolvedPlan,
        device: &MetalDevice,
        inputs: &ScheduleInputs,
        steps_per_dispatch: u64,
    ) -> Result<Self> {
        let GpuSchedule { steps, key_rows, sizes } = GpuSchedule::new(resolved, inputs);
        tracing::debug!(items = sizes.items, "schedule uploaded");
        let split_tiles = (sizes.split_tiles > 0).then(|| upload(device, &steps.split_tiles()));
        let steps_of = |item: &StepItem| (item.last_step - item.first_step).into();
        Ok(Self {
            sizes,
            dispatches: dispatches(steps.items().iter().map(steps_of), steps_per_dispatch),
            items: upload(device, steps.items())?,
            steps: upload(device, steps.steps())?,
            split_tiles: split_tiles.transpose()?,
            key_spans: key_rows.map(|rows| upload(device, rows.spans())).transpose()?,
        })
    }
}

impl fmt::Debug for DevicePlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DevicePlan").field("sizes", &self.sizes).finish_non_exhaustive()
    }
}

/// Copies numbers to the device. A buffer has at least one.
fn upload<T: Pod>(device: &MetalDevice, numbers: &[T]) -> Result<Arc<Buffer>> {
    if numbers.is_empty() { device.new_buffer_with_data(&[T::zeroed()]) } else { device.new_buffer_with_data(numbers) }
}
