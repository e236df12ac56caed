//! A device: its streams, and the work that waits on them.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::ThreadId;

use emulator::FindingKind;

use crate::failure::{Failure, Outcome};
use crate::heap::Heap;
use crate::step::{Mark, Step, StreamId, Work};

#[derive(Default)]
pub(crate) struct Stream {
    steps: VecDeque<Step>,
    /// What was captured so far.
    pub capture: Option<Capture>,
    /// Waits for the legacy stream, and the other way round.
    pub blocking: bool,
}

/// A graph in the making.
#[derive(Default)]
pub(crate) struct Capture {
    pub steps: Vec<Step>,
    /// Something happened that must not happen in a capture.
    pub is_invalid: bool,
}

pub(crate) struct Device {
    pub capability: (i32, i32),
    heap: Arc<Mutex<Heap>>,
    pub streams: BTreeMap<StreamId, Stream>,
    /// Holders of the primary context.
    pub holders: u32,
    /// What broke the context, and why.
    broken: Option<(Failure, String)>,
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Device").field("capability", &self.capability).finish_non_exhaustive()
    }
}

impl Stream {
    pub(crate) fn new(blocking: bool) -> Self {
        Self { blocking, ..Self::default() }
    }
}

impl Device {
    pub(crate) fn new(capability: (i32, i32)) -> Self {
        Self { capability, heap: Arc::default(), streams: BTreeMap::new(), holders: 0, broken: None }
    }

    /// Its memory, which work of other devices reaches, too.
    pub(crate) fn shared_heap(&self) -> Arc<Mutex<Heap>> {
        self.heap.clone()
    }

    pub(crate) fn heap(&self) -> MutexGuard<'_, Heap> {
        self.heap.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What broke the context.
    pub(crate) fn finding(&self) -> Option<&str> {
        self.broken.as_ref().map(|(_, text)| text.as_str())
    }

    /// Forgets what broke the context, which a process cannot do with a GPU.
    pub(crate) fn repair(&mut self) {
        self.broken = None;
    }

    /// # Errors
    /// The context is broken: it stays so.
    pub(crate) fn check(&self) -> Outcome {
        self.broken.as_ref().map_or(Ok(()), |(failure, _)| Err(*failure))
    }

    pub(crate) fn stream(&mut self, id: StreamId) -> Outcome<&mut Stream> {
        match id {
            StreamId::Legacy | StreamId::OfThread(_) => Ok(self.streams.entry(id).or_insert_with(|| Stream::new(true))),
            StreamId::Created(_) => self.streams.get_mut(&id).ok_or(Failure::INVALID_HANDLE),
        }
    }

    /// Puts a step behind everything that a stream has to do, or into the graph that it is captured into.
    pub(crate) fn enqueue(&mut self, id: StreamId, step: Step) -> Outcome {
        let stream = self.stream(id)?;
        if let Some(capture) = &mut stream.capture {
            capture.steps.push(step);
            return Ok(());
        }
        stream.steps.push_back(step);
        if id == StreamId::Legacy {
            self.run_blocking();
        }
        Ok(())
    }

    /// Whether something is captured. What would wait, or has effects that no graph can have, must not happen then.
    ///
    /// # Errors
    /// A stream is captured, and its capture is invalid from now on.
    pub(crate) fn refuse_in_capture(&mut self, only: Option<StreamId>) -> Outcome {
        let mut captures = self.streams.iter_mut().filter(|(id, _)| only.is_none_or(|only| only == **id));
        let captured = captures.find_map(|(_, stream)| stream.capture.as_mut());
        captured.map_or(Ok(()), |capture| {
            capture.is_invalid = true;
            Err(Failure::STREAM_CAPTURE_UNSUPPORTED)
        })
    }

    /// Does all that a stream has to do.
    pub(crate) fn run(&mut self, id: StreamId) {
        while self.run_step(id) {}
    }

    /// Does all that any stream has to do.
    pub(crate) fn run_all(&mut self) {
        let ids: Vec<_> = self.streams.keys().copied().collect();
        ids.into_iter().for_each(|id| self.run(id));
    }

    /// Goes on with a stream until a point of it is reached.
    pub(crate) fn run_until(&mut self, id: StreamId, mark: &Mark) {
        while !mark.is_reached() && self.run_step(id) {}
    }

    /// Does the next thing that a stream has to do; whether there was one.
    fn run_step(&mut self, id: StreamId) -> bool {
        let Some(step) = self.streams.get_mut(&id).and_then(|stream| stream.steps.pop_front()) else { return false };
        match step {
            Step::Work(work) => self.work(&work),
            Step::Free(address, heap) => {
                if heap.lock().unwrap_or_else(PoisonError::into_inner).free(address).is_err() {
                    self.break_by(Failure::ILLEGAL_ADDRESS, format!("{address:#x} is freed and not allocated"));
                }
            }
            Step::Record(mark) => mark.reached.store(mark.number, Ordering::Relaxed),
            Step::Wait(mark, source) => self.run_until(source, &mark),
        }
        true
    }

    /// Does all that a stream has to do; on the legacy stream, what all that block have to do.
    pub(crate) fn run_in_order(&mut self, id: StreamId) {
        if id == StreamId::Legacy { self.run_blocking() } else { self.run(id) }
    }

    fn run_blocking(&mut self) {
        let blocking: Vec<_> = self.streams.iter().filter(|(_, stream)| stream.blocking).map(|(id, _)| *id).collect();
        blocking.into_iter().for_each(|id| self.run(id));
    }

    /// Copies to the host now.
    pub(crate) fn read(&mut self, address: u64, bytes: usize) -> Outcome<Vec<u8>> {
        self.check()?;
        let copy = self.heap().memory()?.read(address, bytes);
        match copy {
            Ok(copy) => Ok(copy),
            Err(finding) => {
                self.break_by(Failure::ILLEGAL_ADDRESS, finding.to_string());
                Err(Failure::ILLEGAL_ADDRESS)
            }
        }
    }

    /// Does something now.
    pub(crate) fn work(&mut self, work: &Work) {
        if self.broken.is_some() {
            return;
        }
        let outcome = self.heap().memory().map(|memory| work(memory));
        match outcome {
            Ok(Ok(())) => {}
            Ok(Err(finding)) => {
                let outside = finding.kind == FindingKind::OutOfBounds;
                let failure = if outside { Failure::ILLEGAL_ADDRESS } else { Failure::LAUNCH_FAILED };
                self.break_by(failure, finding.to_string());
            }
            Err(failure) => self.break_by(failure, "no memory".to_string()),
        }
    }

    fn break_by(&mut self, failure: Failure, text: String) {
        eprintln!("the GPU that is stood in for: {text}");
        self.broken.get_or_insert((failure, text));
    }
}

/// The number of a thread among those that called.
pub(crate) fn thread_number(known: &mut Vec<ThreadId>) -> u64 {
    let me = std::thread::current().id();
    let number = known.iter().position(|&thread| thread == me).unwrap_or_else(|| {
        known.push(me);
        known.len() - 1
    });
    number as u64
}
