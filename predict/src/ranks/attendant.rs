//! Lets ranks reach the leader while it computes.
//!
//! Where the network does not raise counters by itself, MPI does so only while the rank that holds them calls it: a leader
//! that computes would let all others wait for their next block. A thread of it calls MPI now and then.

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use mpi::point_to_point::Source;
use mpi::topology::{Communicator, SimpleCommunicator};

/// How long a rank may have to wait: much less than a block takes.
const PAUSE: Duration = Duration::from_micros(500);

/// The thread, until it is dropped.
pub(super) struct Attendant {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Attendant {
    /// Begins to call MPI, which must allow calls of several threads at once.
    pub(super) fn start() -> Self {
        let (stop, stopped) = channel();
        let thread = std::thread::spawn(move || {
            let world = SimpleCommunicator::world();
            while stopped.recv_timeout(PAUSE) == Err(RecvTimeoutError::Timeout) {
                // Whoever waits for a message finds it all the same.
                let _ = world.any_process().immediate_probe();
            }
        });
        Self { stop: Some(stop), thread: Some(thread) }
    }
}

impl Drop for Attendant {
    fn drop(&mut self) {
        self.stop.take();
        let _ = self.thread.take().map(JoinHandle::join);
    }
}
