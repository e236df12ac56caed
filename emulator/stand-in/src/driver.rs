//! What a process has of the driver, and the one way into it.

use std::cell::Cell;
use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::thread::ThreadId;

use crate::calls::Calls;
use crate::code::{Function, Module};
use crate::device::{Device, thread_number};
use crate::failure::{Failure, Outcome};
use crate::step::{Mark, Step, StreamId};

/// A handle, as callers see it: an address that nobody looks behind.
pub(crate) type Handle = *mut c_void;

/// The stream of the calling thread.
const PER_THREAD: u64 = 2;

/// The legacy stream, by its other name.
const LEGACY: u64 = 1;

/// Counts as the kernel of all launches of candle's.
const CANDLE: &str = "candle";

/// An event.
#[derive(Debug, Default)]
pub(crate) struct Event {
    pub device: usize,
    reached: Arc<AtomicU64>,
    recorded: u64,
    /// Where it was recorded last.
    pub source: Option<StreamId>,
    /// Whether that was in a capture, so that it means nothing outside of it.
    pub captured: bool,
}

impl Event {
    pub(crate) fn new(device: usize) -> Self {
        Self { device, ..Self::default() }
    }

    /// The point that it was recorded at last.
    pub(crate) fn mark(&self) -> Mark {
        Mark { reached: self.reached.clone(), number: self.recorded }
    }

    /// A new point, on a stream.
    pub(crate) fn record(&mut self, source: StreamId) -> Mark {
        self.recorded += 1;
        self.source = Some(source);
        self.captured = false;
        self.mark()
    }
}

/// Everything.
#[derive(Debug)]
pub(crate) struct Driver {
    pub calls: Calls,
    pub devices: [Device; 2],
    pub events: HashMap<u64, Event>,
    pub modules: HashMap<u64, Module>,
    pub functions: HashMap<u64, Function>,
    /// Graphs, and what was instantiated of them.
    pub graphs: HashMap<u64, Vec<Step>>,
    /// Handles of cuBLAS and cuRAND, with those of their streams, which are what the thread means that uses them.
    pub tools: HashMap<u64, (usize, u64)>,
    /// Threads that have called, in the order of their first calls.
    threads: Vec<ThreadId>,
    last_handle: u64,
    /// How many kernels were launched.
    pub launches: u64,
    /// How many random numbers were given out.
    pub random_numbers: u64,
}

impl std::fmt::Debug for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Step")
    }
}

static DRIVER: LazyLock<Mutex<Driver>> = LazyLock::new(|| {
    Mutex::new(Driver {
        calls: Calls::default(),
        // An Ampere, and a Hopper.
        devices: [Device::new((8, 0)), Device::new((9, 0))],
        events: HashMap::new(),
        modules: HashMap::new(),
        functions: HashMap::new(),
        graphs: HashMap::new(),
        tools: HashMap::new(),
        threads: Vec::new(),
        last_handle: 0x1000,
        launches: 0,
        random_numbers: 0,
    })
});

thread_local! {
    /// The device whose context is current.
    static CURRENT: Cell<Option<usize>> = const { Cell::new(None) };
}

/// The driver, which one thread has at a time.
pub(crate) fn driver() -> MutexGuard<'static, Driver> {
    DRIVER.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A call: counted, perhaps made to fail, and if not, done.
pub(crate) fn call(name: &'static str, body: impl FnOnce(&mut Driver) -> Outcome) -> u32 {
    let mut driver = driver();
    let outcome = driver.calls.count(name).and_then(|()| body(&mut driver));
    outcome.err().map_or(0, |failure| failure.0)
}

/// The handle of the context of a device.
pub(crate) fn context_handle(device: usize) -> Handle {
    (0x100 + device * 0x100) as Handle
}

impl Driver {
    pub(crate) fn new_handle(&mut self) -> u64 {
        self.last_handle += 0x10;
        self.last_handle
    }

    /// The device of a context.
    pub(crate) fn device_of(&self, context: Handle) -> Outcome<usize> {
        let found = (0..self.devices.len()).find(|&device| context_handle(device) == context);
        found.ok_or(Failure::INVALID_CONTEXT)
    }

    /// The device whose context is current, which must not be broken.
    pub(crate) fn current(&mut self) -> Outcome<(usize, &mut Device)> {
        let number = current_device().ok_or(Failure::INVALID_CONTEXT)?;
        let device = &mut self.devices[number];
        device.check()?;
        Ok((number, device))
    }

    /// The stream that the calling thread means by a handle.
    pub(crate) fn stream(&mut self, handle: Handle) -> StreamId {
        match handle as u64 {
            0 | LEGACY => StreamId::Legacy,
            PER_THREAD => StreamId::OfThread(thread_number(&mut self.threads)),
            created => StreamId::Created(created),
        }
    }

    /// Puts work onto a stream of the current device.
    pub(crate) fn enqueue(&mut self, stream: Handle, step: Step) -> Outcome {
        let id = self.stream(stream);
        let (_, device) = self.current()?;
        device.enqueue(id, step)
    }

    pub(crate) fn count_launch(&mut self, function: &Function) {
        self.launches += 1;
        self.calls.count_launch(function.name());
        if function.is_candles() {
            self.calls.count_launch(CANDLE);
        }
    }

    pub(crate) fn event(&mut self, event: Handle) -> Outcome<&mut Event> {
        self.events.get_mut(&(event as u64)).ok_or(Failure::INVALID_HANDLE)
    }
}

/// The device whose context is current in the calling thread.
pub(crate) fn current_device() -> Option<usize> {
    CURRENT.get()
}

pub(crate) fn set_current_device(device: Option<usize>) {
    CURRENT.set(device);
}
