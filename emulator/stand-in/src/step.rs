//! What a stream does.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use emulator::{DeviceMemory, Finding};

use crate::heap::Heap;

/// Something that a device does with its memory.
pub(crate) type Work = Arc<dyn Fn(&mut DeviceMemory) -> Result<(), Finding> + Send + Sync>;

/// What a stream does, one after the other.
#[derive(Clone)]
pub(crate) enum Step {
    Work(Work),
    /// Frees memory, which may be another device's.
    Free(u64, Arc<Mutex<Heap>>),
    /// Marks an event as reached.
    Record(Mark),
    /// Waits for an event that is recorded on another stream of the device.
    Wait(Mark, StreamId),
}

/// A point of a stream: reached once the event has counted as far.
#[derive(Clone, Debug)]
pub(crate) struct Mark {
    pub reached: Arc<AtomicU64>,
    pub number: u64,
}

impl Mark {
    pub(crate) fn is_reached(&self) -> bool {
        self.reached.load(Ordering::Relaxed) >= self.number
    }
}

/// A stream of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum StreamId {
    /// Handle 0: it waits for all that block, and they wait for it.
    Legacy,
    /// Handle 2, which every thread has of its own: its number.
    OfThread(u64),
    Created(u64),
}
