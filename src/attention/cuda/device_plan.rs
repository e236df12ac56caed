//! A plan on a GPU: its schedule, uploaded once.
//!
//! Kept by the plan, so that a second call allocates nothing but its output. An entry belongs to one stream: what one
//! stream writes another must not read without being told.

use std::fmt;
use std::sync::{Arc, MutexGuard};

use candle_core::Result;
use candle_core::cuda::WrapErr;
use candle_core::cuda::cudarc::driver::{CudaSlice, CudaStream, DeviceRepr};

use super::scratch::{Buffers, Need, StreamId, StreamScratch};
use super::tuning::Row;
use crate::attention::gpu::{PlanKey as GpuPlanKey, Remembered};
use crate::plan::{KeySpan, KeyStep, ResolvedPlan, SlotReduction, StepItem, TileShape};

// SAFETY: plain numbers in C layout without padding, as `kernels/cuda/arguments.cuh` declares them.
unsafe impl DeviceRepr for StepItem {}
// SAFETY: as above.
unsafe impl DeviceRepr for KeyStep {}
// SAFETY: as above.
unsafe impl DeviceRepr for SlotReduction {}
// SAFETY: as above.
unsafe impl DeviceRepr for KeySpan {}

/// What an uploaded schedule depends on besides the plan.
pub(super) type PlanKey = GpuPlanKey<StreamId, Row>;

/// The uploaded schedules of one plan.
pub(crate) type DevicePlans = Remembered<DevicePlan>;

/// A schedule on a device.
pub(crate) struct DevicePlan {
    key: PlanKey,
    stream: Arc<CudaStream>,
    /// Number of work items.
    pub item_count: usize,
    /// `None` where there is nothing to upload.
    pub items: Option<CudaSlice<StepItem>>,
    pub steps: Option<CudaSlice<KeyStep>>,
    pub reduction_of_slot: Option<CudaSlice<SlotReduction>>,
    /// Which keys are rotated to where.
    pub rotation: Option<Rotation>,
    scratch: Arc<StreamScratch>,
    need: Need,
}

/// The keys that are rotated once per launch.
pub(crate) struct Rotation {
    pub spans: CudaSlice<KeySpan>,
    pub span_count: usize,
    /// Rows per batch row.
    pub rows: usize,
}

impl DevicePlan {
    pub(super) fn new(resolved: &ResolvedPlan, stream: &Arc<CudaStream>, key: PlanKey) -> Result<Self> {
        let schedule = key.schedule(resolved, TileShape { queries: key.tile.queries(), keys: key.tile.keys() });
        let (steps, key_rows) = (&schedule.steps, &schedule.key_rows);
        let slot_len = key.tile.queries() * (key.tile.head_dim() + 2);
        let row_bytes = key.heads * key.head_dim * key.element_bytes;
        let need = Need {
            partials: schedule.partial_slots * slot_len,
            arrivals: steps.reductions(),
            rotated: key_rows.as_ref().map_or(0, |rows| key.batch * rows.rows() * row_bytes),
        };
        let rotation = match key_rows {
            Some(rows) => {
                let (span_count, rows_per_batch) = (rows.spans().len(), rows.rows());
                upload(stream, rows.spans())?.map(|spans| Rotation { spans, span_count, rows: rows_per_batch })
            }
            None => None,
        };
        Ok(Self {
            item_count: steps.items().len(),
            items: upload(stream, steps.items())?,
            steps: upload(stream, steps.steps())?,
            reduction_of_slot: upload(stream, steps.reduction_of_slot())?,
            rotation,
            scratch: StreamScratch::of(stream),
            need,
            stream: stream.clone(),
            key,
        })
    }

    /// Whether it is the upload for this key.
    pub(super) fn is(&self, key: &PlanKey) -> bool {
        self.key == *key
    }

    /// The scratch memory, for one launch.
    ///
    /// # Errors
    /// There is not enough.
    pub(super) fn scratch(&self) -> Result<MutexGuard<'_, Buffers>> {
        self.scratch.lock(self.need)
    }
}

impl Drop for DevicePlan {
    fn drop(&mut self) {
        self.key.device.before_freeing(&self.stream);
    }
}

/// Copies numbers to the device; nothing if there are none.
fn upload<T: DeviceRepr>(stream: &Arc<CudaStream>, numbers: &[T]) -> Result<Option<CudaSlice<T>>> {
    if numbers.is_empty() { Ok(None) } else { stream.clone_htod(numbers).map(Some).w() }
}

impl fmt::Debug for DevicePlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DevicePlan").finish_non_exhaustive()
    }
}
