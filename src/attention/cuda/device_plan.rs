//! A plan on a GPU: its schedule, uploaded once, and the scratch memory of its launches.
//!
//! Kept by the plan, so that a second call allocates nothing but its output. An entry belongs to one thread: candle
//! gives each thread a stream of its own, and what one stream writes another must not read without being told.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, ThreadId};

use candle_core::cuda::cudarc::driver::{CudaSlice, CudaStream, DeviceRepr};
use candle_core::cuda::{DeviceId, WrapErr};
use candle_core::{CudaDevice, Result};

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
pub(super) type PlanKey = GpuPlanKey<DeviceId, Row>;

/// The uploaded schedules of one plan.
pub(crate) type DevicePlans = Remembered<DevicePlan>;

/// A schedule on a device.
pub(crate) struct DevicePlan {
    key: PlanKey,
    thread: ThreadId,
    stream: Arc<CudaStream>,
    /// Number of work items.
    pub item_count: usize,
    /// `None` where there is nothing to upload.
    pub items: Option<CudaSlice<StepItem>>,
    pub steps: Option<CudaSlice<KeyStep>>,
    pub reduction_of_slot: Option<CudaSlice<SlotReduction>>,
    /// Which keys are rotated to where.
    pub rotation: Option<Rotation>,
    scratch: Mutex<Scratch>,
}

/// The keys that are rotated once per launch.
pub(crate) struct Rotation {
    pub spans: CudaSlice<KeySpan>,
    pub span_count: usize,
    /// Rows per batch row.
    pub rows: usize,
}

/// Memory that launches write and the next launch on the same stream overwrites.
pub(crate) struct Scratch {
    /// Partial results of split tiles.
    pub partials: Option<CudaSlice<f32>>,
    /// How many parts of each split tile have arrived; 0 between launches.
    pub arrivals: Option<CudaSlice<u32>>,
    /// Rotated keys `[batch, rows, heads, head_dim]`, as bytes.
    pub rotated: Option<CudaSlice<u8>>,
}

impl DevicePlan {
    pub(super) fn new(resolved: &ResolvedPlan, device: &CudaDevice, key: PlanKey) -> Result<Self> {
        let schedule = key.schedule(resolved, TileShape { queries: key.tile.queries(), keys: key.tile.keys() });
        let (steps, key_rows) = (&schedule.steps, &schedule.key_rows);
        let stream = device.cuda_stream();
        let slot_len = key.tile.queries() * (key.tile.head_dim() + 2);
        let partials = schedule.partial_slots * slot_len;
        let arrivals = vec![0u32; steps.reductions()];
        let row_bytes = key.heads * key.head_dim * key.element_bytes;
        let rotated = key_rows.as_ref().map_or(0, |rows| key.batch * rows.rows() * row_bytes);
        let scratch = Scratch {
            partials: uninitialised(&stream, partials)?,
            arrivals: upload(&stream, &arrivals)?,
            rotated: uninitialised(&stream, rotated)?,
        };
        let rotation = match key_rows {
            Some(rows) => {
                let (span_count, rows_per_batch) = (rows.spans().len(), rows.rows());
                upload(&stream, rows.spans())?.map(|spans| Rotation { spans, span_count, rows: rows_per_batch })
            }
            None => None,
        };
        Ok(Self {
            thread: thread::current().id(),
            item_count: steps.items().len(),
            items: upload(&stream, steps.items())?,
            steps: upload(&stream, steps.steps())?,
            reduction_of_slot: upload(&stream, steps.reduction_of_slot())?,
            rotation,
            scratch: Mutex::new(scratch),
            stream,
            key,
        })
    }

    /// Whether it is the upload for this key that the calling thread may use.
    pub(super) fn is(&self, key: &PlanKey) -> bool {
        self.thread == thread::current().id() && self.key == *key
    }

    /// The scratch memory, for one launch.
    pub(super) fn scratch(&self) -> MutexGuard<'_, Scratch> {
        // A poisoned lock only means that a launch did not happen; launches leave nothing behind on the host.
        self.scratch.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Drop for DevicePlan {
    /// Memory is freed in the order of the stream of the thread that drops it. If that is not the thread that launched,
    /// its last launch has to end first.
    fn drop(&mut self) {
        if thread::current().id() != self.thread {
            let context = self.stream.context();
            context.record_err(context.synchronize());
        }
    }
}

/// Copies numbers to the device; nothing if there are none.
fn upload<T: DeviceRepr>(stream: &Arc<CudaStream>, numbers: &[T]) -> Result<Option<CudaSlice<T>>> {
    if numbers.is_empty() { Ok(None) } else { stream.clone_htod(numbers).map(Some).w() }
}

/// Memory for `len` numbers, to be written by the device before it reads them; nothing if there are none.
fn uninitialised<T: DeviceRepr>(stream: &Arc<CudaStream>, len: usize) -> Result<Option<CudaSlice<T>>> {
    if len == 0 {
        return Ok(None);
    }
    // SAFETY: only kernels touch it, and they write each slot and row before they read it.
    unsafe { stream.alloc(len) }.map(Some).w()
}

impl fmt::Debug for DevicePlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DevicePlan").finish_non_exhaustive()
    }
}
