//! Memory that launches write and later launches on the same stream overwrite.
//!
//! All plans of a stream share it: what runs on a stream runs in order, so that no two launches use it at a time. It
//! grows to what the largest plan needs, and lives as long as the plans that were uploaded for the stream.

use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::thread::{self, ThreadId};

use candle_core::Result;
use candle_core::cuda::cudarc::driver::{CudaSlice, CudaStream, DeviceRepr, DriverError, sys};

use super::failure::Doing;
use crate::AttentionError;
use crate::kernels::cuda::launch::Scratch;
use crate::lock::lock;

/// The handle of the per-thread stream, which candle's devices use unless they are made with a stream of their own. It
/// stands for another stream in every thread.
const PER_THREAD: usize = 2;

/// What orders launches: a stream of a context.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StreamId {
    context: usize,
    stream: usize,
    /// Whose it is, if it is a per-thread stream.
    thread: Option<ThreadId>,
}

impl StreamId {
    /// The stream that the calling thread means by `stream`. Unique as long as `stream` is kept.
    pub(super) fn of(stream: &CudaStream) -> Self {
        let handle = stream.cu_stream() as usize;
        Self {
            context: stream.context().cu_ctx() as usize,
            stream: handle,
            thread: (handle == PER_THREAD).then(|| thread::current().id()),
        }
    }

    /// Prepares the calling thread to free memory of this stream, which happens in its context and in the order of the
    /// stream that its handle means there. If that is another stream, the last launch has to end first.
    pub(super) fn before_freeing(self, stream: &CudaStream) {
        let context = stream.context();
        // An error that is still recorded would keep the context from being bound.
        let earlier = context.check_err();
        context.record_err(context.bind_to_thread());
        if Self::of(stream) != self {
            context.record_err(context.synchronize());
        }
        context.record_err(earlier);
    }
}

/// Refuses what must not happen while a stream is captured into a graph: uploads, loading code, and memory that later
/// launches use, which a graph would not own.
///
/// # Errors
/// The stream is being captured.
pub(super) fn check_no_capture(stream: &CudaStream) -> Result<()> {
    match stream.capture_status().doing(|| "cannot ask whether the stream is captured")? {
        sys::CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE => Ok(()),
        _ => {
            let expected = "one that is not captured into a CUDA graph, the first time that a plan meets these sizes: run \
                            the plan once before capturing";
            Err(AttentionError::value("stream", expected, "one that is captured").into())
        }
    }
}

/// The scratch memory of one stream.
pub(crate) struct StreamScratch {
    id: StreamId,
    stream: Arc<CudaStream>,
    buffers: Mutex<Buffers>,
}

/// What launches write.
#[derive(Default)]
pub(super) struct Buffers {
    /// Partial results of split tiles.
    pub partials: Option<CudaSlice<f32>>,
    /// How many parts of each split tile have arrived; 0 between launches.
    pub arrivals: Option<CudaSlice<u32>>,
    /// What blocks carry of long sums.
    pub carried: Option<CudaSlice<f32>>,
    /// Rotated keys, as bytes.
    pub rotated: Option<CudaSlice<u8>>,
}

/// The scratch memory of every stream that some plan was uploaded for.
static OF_STREAMS: Mutex<Vec<Weak<StreamScratch>>> = Mutex::new(Vec::new());

impl StreamScratch {
    /// That of the stream that the calling thread means.
    pub(super) fn of(stream: &Arc<CudaStream>) -> Arc<Self> {
        let id = StreamId::of(stream);
        // Dropped behind the lock, because one that nobody else holds any more may wait for the device.
        let alive: Vec<Arc<Self>>;
        let mut known = lock(&OF_STREAMS);
        alive = known.iter().filter_map(Weak::upgrade).collect();
        known.retain(|scratch| scratch.strong_count() > 0);
        if let Some(scratch) = alive.iter().find(|scratch| scratch.id == id) {
            return scratch.clone();
        }
        let scratch = Arc::new(Self { id, stream: stream.clone(), buffers: Mutex::default() });
        known.push(Arc::downgrade(&scratch));
        scratch
    }

    /// Memory for one launch, or several that belong together: other threads of the stream wait while it is held.
    ///
    /// # Errors
    /// There is not enough.
    pub(super) fn lock(&self, need: Scratch) -> Result<MutexGuard<'_, Buffers>> {
        let mut buffers = lock(&self.buffers);
        let stream = &self.stream;
        // SAFETY: only kernels touch them, and they write each slot and row before they read it.
        grow(&mut buffers.partials, need.partials, stream, |len| unsafe { stream.alloc(len) })?;
        grow(&mut buffers.arrivals, need.arrivals, stream, |len| stream.alloc_zeros(len))?;
        // SAFETY: as above; a thread reads what it wrote itself.
        grow(&mut buffers.carried, need.carried, stream, |len| unsafe { stream.alloc(len) })?;
        // SAFETY: as above.
        grow(&mut buffers.rotated, need.rotated, stream, |len| unsafe { stream.alloc(len) })?;
        Ok(buffers)
    }
}

impl Drop for StreamScratch {
    fn drop(&mut self) {
        self.id.before_freeing(&self.stream);
    }
}

/// Makes a buffer hold at least `len` numbers. What it held is freed in the order of the stream: behind the launches that
/// use it.
fn grow<T: DeviceRepr>(
    buffer: &mut Option<CudaSlice<T>>,
    len: usize,
    stream: &CudaStream,
    make: impl FnOnce(usize) -> std::result::Result<CudaSlice<T>, DriverError>,
) -> Result<()> {
    if buffer.as_ref().map_or(0, CudaSlice::len) < len {
        check_no_capture(stream)?;
        let no_room = || "cannot allocate GPU memory for what launches write besides their results";
        stream.context().bind_to_thread().doing(no_room)?;
        *buffer = None;
        *buffer = Some(make(len).doing(no_room)?);
    }
    Ok(())
}
