//! A plan on a GPU: its schedule, uploaded once.
//!
//! Kept by the plan, so that a second call allocates nothing but its output. An entry belongs to one stream: what one
//! stream writes another must not read without being told.

use std::fmt;
use std::sync::Arc;

use candle_core::Result;
use candle_core::cuda::cudarc::driver::{CudaSlice, CudaStream, DeviceRepr};

use super::failure::Doing;
use super::scratch::{StreamId, StreamScratch, check_no_capture};
use super::tensor_map;
use crate::kernels::cuda::arguments::TensorMap;
use crate::kernels::cuda::tensor_map::TensorMapDescription;
use crate::kernels::schedule::{GpuSchedule, ScheduleInputs, ScheduleSizes};
use crate::plan::{KeySpan, KeyStep, ResolvedPlan, SlotReduction, StepItem};
use crate::recent::Recent;

// SAFETY: plain numbers in C layout without padding, as `kernels/cuda/arguments.cuh` declares them.
unsafe impl DeviceRepr for StepItem {}
// SAFETY: as above.
unsafe impl DeviceRepr for KeyStep {}
// SAFETY: as above.
unsafe impl DeviceRepr for SlotReduction {}
// SAFETY: as above.
unsafe impl DeviceRepr for KeySpan {}

/// The uploaded schedules of one plan.
pub(crate) type DevicePlans = Recent<(StreamId, ScheduleInputs), Arc<DevicePlan>, RECENT_UPLOADS>;

/// How many uploads a plan keeps: streams times a few batch sizes or masks.
const RECENT_UPLOADS: usize = 16;

/// What the maps of a launch describe.
type Descriptions = [Option<TensorMapDescription>; 4];

/// How many launches' maps an upload keeps: layers of a model, whose caches lie at addresses of their own.
const RECENT_MAPS: usize = 64;

/// A schedule on a device; a buffer is `None` where there is nothing to upload.
pub(crate) struct DevicePlan {
    id: StreamId,
    stream: Arc<CudaStream>,
    pub sizes: ScheduleSizes,
    pub items: Option<CudaSlice<StepItem>>,
    pub steps: Option<CudaSlice<KeyStep>>,
    pub reduction_of_slot: Option<CudaSlice<SlotReduction>>,
    /// Which keys are rotated to where.
    pub key_spans: Option<CudaSlice<KeySpan>>,
    /// Encoded tensor maps, by what they describe: addresses and shapes.
    maps: Recent<Descriptions, [TensorMap; 4], RECENT_MAPS>,
    /// The memory that launches on the stream write.
    pub scratch: Arc<StreamScratch>,
}

impl DevicePlan {
    pub(crate) fn new(
        resolved: &ResolvedPlan,
        stream: &Arc<CudaStream>,
        (id, inputs): &(StreamId, ScheduleInputs),
    ) -> Result<Self> {
        check_no_capture(stream)?;
        let GpuSchedule { steps, key_rows, sizes } = GpuSchedule::new(resolved, inputs);
        tracing::debug!(items = sizes.items, "schedule uploaded");
        Ok(Self {
            id: *id,
            sizes,
            items: upload(stream, steps.items())?,
            steps: upload(stream, steps.steps())?,
            reduction_of_slot: upload(stream, steps.reduction_of_slot())?,
            key_spans: upload(stream, key_rows.as_ref().map_or(&[], |rows| rows.spans()))?,
            maps: Recent::default(),
            scratch: StreamScratch::of(stream),
            stream: stream.clone(),
        })
    }

    /// Maps as the driver encodes them; layers whose tensors come to lie where those of an earlier call lay find them.
    ///
    /// # Errors
    /// The driver refuses a description.
    pub(crate) fn tensor_maps(&self, descriptions: &Descriptions) -> Result<[TensorMap; 4]> {
        self.maps.get(descriptions, || {
            let [input_keys, input_values, cache_keys, cache_values] = descriptions.map(tensor_map::encode);
            Ok([input_keys?, input_values?, cache_keys?, cache_values?])
        })
    }
}

impl Drop for DevicePlan {
    fn drop(&mut self) {
        self.id.before_freeing(&self.stream);
    }
}

/// Copies numbers to the device; nothing if there are none.
fn upload<T: DeviceRepr>(stream: &Arc<CudaStream>, numbers: &[T]) -> Result<Option<CudaSlice<T>>> {
    if numbers.is_empty() {
        return Ok(None);
    }
    stream.clone_htod(numbers).map(Some).doing(|| "cannot copy the schedule of a plan to GPU memory")
}

impl fmt::Debug for DevicePlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DevicePlan").field("sizes", &self.sizes).finish_non_exhaustive()
    }
}
