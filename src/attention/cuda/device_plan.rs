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

use super::tuning::Sm80Row;
use crate::plan::{
    KeyRows, KeySpan, KeyStep, PaddingBits, ResolvedPlan, SlotReduction, StepContext, StepItem, StepSchedule, TileShape,
};

// SAFETY: plain numbers in C layout without padding, as `kernels/cuda/arguments.cuh` declares them.
unsafe impl DeviceRepr for StepItem {}
// SAFETY: as above.
unsafe impl DeviceRepr for KeyStep {}
// SAFETY: as above.
unsafe impl DeviceRepr for SlotReduction {}
// SAFETY: as above.
unsafe impl DeviceRepr for KeySpan {}

/// What an uploaded schedule depends on besides the plan.
#[derive(Clone)]
pub(super) struct PlanKey {
    pub device: DeviceId,
    pub batch: usize,
    pub heads: usize,
    pub head_dim: usize,
    pub row: &'static Sm80Row,
    /// Blocks that run at a time.
    pub workers: usize,
    /// Whether the keys of the input are rotated.
    pub rotated: bool,
    pub input_padding: Option<Arc<PaddingBits>>,
    pub cache_padding: Option<Arc<PaddingBits>>,
}

impl PartialEq for PlanKey {
    /// Masks are compared by identity: layers share one, and comparing every bit on each call would cost more than the
    /// rare upload of an equal one.
    fn eq(&self, other: &Self) -> bool {
        let same = |left: &Option<Arc<PaddingBits>>, right: &Option<Arc<PaddingBits>>| match (left, right) {
            (Some(left), Some(right)) => Arc::ptr_eq(left, right),
            (None, None) => true,
            _ => false,
        };
        let numbers = |key: &Self| (key.device, key.batch, key.heads, key.head_dim, key.row, key.workers, key.rotated);
        numbers(self) == numbers(other)
            && same(&self.input_padding, &other.input_padding)
            && same(&self.cache_padding, &other.cache_padding)
    }
}

/// A schedule on a device.
pub(super) struct DevicePlan {
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
pub(super) struct Rotation {
    pub spans: CudaSlice<KeySpan>,
    pub span_count: usize,
    /// Rows per batch row.
    pub rows: usize,
}

/// Memory that launches write and the next launch on the same stream overwrites.
pub(super) struct Scratch {
    /// Partial results of split tiles.
    pub partials: Option<CudaSlice<f32>>,
    /// How many parts of each split tile have arrived; 0 between launches.
    pub arrivals: Option<CudaSlice<u32>>,
    /// Rotated keys `[batch, rows, heads, head_dim]`, as bytes.
    pub rotated: Option<CudaSlice<u8>>,
}

impl DevicePlan {
    fn new(resolved: &ResolvedPlan, device: &CudaDevice, key: PlanKey) -> Result<Self> {
        let tile = TileShape { queries: key.row.queries(), keys: key.row.keys };
        let schedule = resolved.schedule(key.batch, key.heads, tile, key.workers);
        let key_rows = key.rotated.then(|| KeyRows::new(resolved.ranges())).filter(|rows| rows.rows() > 0);
        let context = StepContext {
            input_padding: key.input_padding.as_deref(),
            cache_padding: key.cache_padding.as_deref(),
            key_rows: key_rows.as_ref(),
        };
        let steps = StepSchedule::new(&schedule, key.batch, context);

        let stream = device.cuda_stream();
        let slot_len = key.row.queries() * (key.row.head_dim + 2);
        let partials = schedule.partial_slots() * slot_len;
        let arrivals = vec![0u32; steps.reductions()];
        let row_bytes = key.heads * key.head_dim * key.row.element_bytes;
        let rotated = key_rows.as_ref().map_or(0, |rows| key.batch * rows.rows() * row_bytes);
        let scratch = Scratch {
            partials: uninitialised(&stream, partials)?,
            arrivals: upload(&stream, &arrivals)?,
            rotated: uninitialised(&stream, rotated)?,
        };
        let rotation = match &key_rows {
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

    /// The scratch memory, for one launch.
    pub fn scratch(&self) -> MutexGuard<'_, Scratch> {
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

/// The uploaded schedules of one plan, newest last.
#[derive(Default)]
pub(crate) struct DevicePlans {
    known: Mutex<Vec<Arc<DevicePlan>>>,
}

/// How many uploads a plan remembers: threads and devices times a few batch sizes.
const REMEMBERED: usize = 32;

impl DevicePlans {
    /// The upload for this key and thread; made on the first call.
    pub(super) fn get(&self, resolved: &ResolvedPlan, device: &CudaDevice, key: PlanKey) -> Result<Arc<DevicePlan>> {
        let thread = thread::current().id();
        let find = |known: &Vec<Arc<DevicePlan>>| known.iter().find(|p| p.thread == thread && p.key == key).cloned();
        // A poisoned lock only means that another thread panicked between two complete states of the list.
        if let Some(known) = find(&self.known.lock().unwrap_or_else(|poisoned| poisoned.into_inner())) {
            return Ok(known);
        }
        let plan = Arc::new(DevicePlan::new(resolved, device, key)?);
        let mut known = self.known.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let forgotten = (known.len() == REMEMBERED).then(|| known.remove(0));
        known.push(plan.clone());
        drop(known);
        // Outside of the lock: it may wait for the device.
        drop(forgotten);
        Ok(plan)
    }
}

impl fmt::Debug for DevicePlans {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DevicePlans").finish_non_exhaustive()
    }
}
