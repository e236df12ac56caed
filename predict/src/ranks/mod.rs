//! A crew of processes that an MPI launcher started together.
//!
//! Rank 0 leads: it holds the lock of the folder, reads inputs and body, keeps `run.json` and finishes. What the others need
//! reaches them by broadcast, blocks are handed out by a counter that each rank raises in one step, and whoever has written
//! a block tells rank 0. When a rank ends with an error, all end.

mod attendant;
mod counters;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use mpi::environment::{Universe, processor_name};
use mpi::point_to_point::{Destination, Source};
use mpi::topology::{Communicator, SimpleCommunicator};
use mpi::traits::{CommunicatorCollectives, Root};
use mpi::{Rank, Threading};

use crate::output::{Alone, Asked, Crew, LocalDisk, Settled};
use attendant::Attendant;
use counters::Counters;

const LEADER: Rank = 0;

/// What messages about written blocks are marked with.
const WRITTEN: mpi::Tag = 1;

/// In the place of a part: the rank has told all.
const NOTHING_MORE: u64 = u64::MAX;

/// In the place of a length: the leader has failed before all agreed on a run, and nothing more of it comes.
const GIVEN_UP: u64 = u64::MAX;

/// Bytes that are broadcast at once: MPI counts in 31 bits, and pieces of this size take no longer than large ones.
const PIECE: usize = 1 << 20;

/// How long a rank sleeps between looks at whether others are ready.
const NAP: Duration = Duration::from_millis(5);

/// How far the ranks have come with the present run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// None is under way for this rank.
    Idle,
    /// All but the leader wait for what it publishes.
    Preparing,
    /// The leader has failed, which all know.
    GivenUp,
    /// All know that they are asked for the same.
    Agreed,
}

/// MPI from its beginning to its end.
pub(crate) struct World {
    world: SimpleCommunicator,
    stage: Rc<Cell<Stage>>,
    /// Kept until all ranks end in order: dropping them waits for all, and a rank with an error must not wait.
    counters: Rc<RefCell<Vec<Rc<Counters>>>>,
    /// Of the leader of several ranks.
    attendant: Option<Attendant>,
    /// Ends MPI when it is dropped.
    universe: Option<Universe>,
}

impl World {
    /// Begins MPI.
    ///
    /// # Errors
    /// It was begun before, or allows no calls of several threads.
    pub(crate) fn start() -> Result<Self> {
        let started = mpi::initialize_with_threading(Threading::Multiple).context("MPI was begun before")?;
        let (universe, threading) = started;
        let world = universe.world();
        ensure!(
            world.size() == 1 || threading == Threading::Multiple,
            "{} allows no calls of several threads at once (MPI_THREAD_MULTIPLE), which the leading rank makes",
            Self::library()
        );
        let attendant = (world.size() > 1 && world.rank() == LEADER).then(Attendant::start);
        let stage = Rc::new(Cell::new(Stage::Idle));
        Ok(Self { world, stage, counters: Rc::default(), attendant, universe: Some(universe) })
    }

    pub(crate) fn size(&self) -> usize {
        self.world.size() as usize
    }

    /// Whether this is the rank that speaks.
    pub(crate) fn leads(&self) -> bool {
        self.world.rank() == LEADER
    }

    /// What MPI calls itself: "Open MPI v4.1.4", "MPICH 4.0.2".
    pub(crate) fn library() -> String {
        let told = mpi::environment::library_version().unwrap_or_default();
        let first = told.split([',', '\n', '\0']).next().unwrap_or_default();
        first.split_whitespace().filter(|word| *word != "Version:").collect::<Vec<_>>().join(" ")
    }

    /// This process, for messages.
    pub(crate) fn name(&self) -> String {
        let host = processor_name().unwrap_or_default();
        format!("rank {} of {} on {host}", self.world.rank(), self.world.size())
    }

    /// Ends all ranks.
    pub(crate) fn abort(&self) -> ! {
        self.world.abort(1)
    }

    /// After an error of this rank in a run: whether no other rank waits for it, so that all can begin another run.
    pub(crate) fn gives_up(&self) -> bool {
        if self.stage.get() == Stage::Preparing && self.leads() {
            self.stage.set(Stage::GivenUp);
            self.world.process_at_rank(LEADER).broadcast_into(&mut { GIVEN_UP });
        }
        matches!(self.stage.get(), Stage::GivenUp | Stage::Idle)
    }

    /// The crew of all ranks for a run.
    pub(crate) fn crew(&self) -> Ranks {
        self.stage.set(Stage::Preparing);
        Ranks {
            world: SimpleCommunicator::world(),
            stage: self.stage.clone(),
            alone: Alone::default(),
            counters: None,
            kept: self.counters.clone(),
            taken: Vec::new(),
            ended: 0,
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.abort();
        }
        wait_for_all(&self.world);
        self.attendant.take();
        self.counters.take();
        self.universe.take();
    }
}

/// Waits until all ranks are here, asleep: a barrier of MPI would keep a core busy that the leader may need.
fn wait_for_all(world: &SimpleCommunicator) {
    let mut barrier = world.immediate_barrier();
    while let Err(open) = barrier.test() {
        barrier = open;
        std::thread::sleep(NAP);
    }
}

/// All ranks, as one of them sees them.
pub(crate) struct Ranks {
    world: SimpleCommunicator,
    stage: Rc<Cell<Stage>>,
    /// The folder is the leader's alone.
    alone: Alone,
    /// The next block of each part, by its place among those that are missing.
    counters: Option<Rc<Counters>>,
    /// Where they are kept.
    kept: Rc<RefCell<Vec<Rc<Counters>>>>,
    /// How many of those are behind this rank.
    taken: Vec<u64>,
    /// Ranks that have told the leader all, as far as it knows.
    ended: Rank,
}

impl Ranks {
    fn is_leader(&self) -> bool {
        self.world.rank() == LEADER
    }

    /// Gives the leader's bytes to all ranks.
    fn broadcast(&self, bytes: &mut Vec<u8>) -> Result<()> {
        let root = self.world.process_at_rank(LEADER);
        let mut length = bytes.len() as u64;
        root.broadcast_into(&mut length);
        if length == GIVEN_UP {
            self.stage.set(Stage::GivenUp);
            bail!("rank {LEADER} has failed");
        }
        bytes.resize(usize::try_from(length).context("more bytes than this host can address")?, 0);
        bytes.chunks_mut(PIECE).for_each(|piece| root.broadcast_into(piece));
        Ok(())
    }

    /// Takes what ranks have told the leader. `all` waits until each has told all.
    fn hear(&mut self, all: bool) -> Result<Vec<Settled>> {
        let (anyone, mut settled) = (self.world.any_process(), Vec::new());
        loop {
            if anyone.immediate_probe_with_tag(WRITTEN).is_none() {
                if !all || self.ended + 1 >= self.world.size() {
                    return Ok(settled);
                }
                std::thread::sleep(NAP);
                continue;
            }
            let mut told = [0_u64; 4];
            anyone.receive_into_with_tag(&mut told[..], WRITTEN);
            match told {
                [NOTHING_MORE, ..] => self.ended += 1,
                [part, block, start, end] => {
                    settled.push(Settled { part: usize::try_from(part)?, block, range: start..end });
                }
            }
        }
    }

    fn tell(&self, message: [u64; 4]) {
        self.world.process_at_rank(LEADER).send_with_tag(&message[..], WRITTEN);
    }
}

impl Crew<LocalDisk> for Ranks {
    fn look(&self, folder: &Path) -> Result<()> {
        Crew::<LocalDisk>::look(&self.alone, folder)
    }

    fn agree(&mut self, _: &LocalDisk, asked: &Asked) -> Result<()> {
        let mut bytes = if self.is_leader() { asked.to_bytes()? } else { Vec::new() };
        self.broadcast(&mut bytes)?;
        asked.check_same(&bytes).context("differs from rank 0")?;
        // Whoever differs does not come here, and ends all.
        self.world.barrier();
        self.stage.set(Stage::Agreed);
        // Those of an earlier run: all ranks are here.
        self.kept.borrow_mut().clear();
        let counters = Rc::new(Counters::new(&self.world, asked.parts())?);
        self.kept.borrow_mut().push(counters.clone());
        self.counters = Some(counters);
        self.taken = vec![0; asked.parts()];
        Ok(())
    }

    fn enter(&mut self, folder: &Path) -> Result<()> {
        match self.is_leader() {
            true => Crew::<LocalDisk>::enter(&mut self.alone, folder),
            false => Ok(()),
        }
    }

    fn leads(&self) -> bool {
        self.is_leader()
    }

    fn receive(&mut self, _: &str) -> Result<Option<Vec<u8>>> {
        if self.is_leader() {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        self.broadcast(&mut bytes)?;
        Ok(Some(bytes))
    }

    fn publish(&mut self, _: &LocalDisk, _: &str, make: &mut dyn FnMut() -> Result<Vec<u8>>) -> Result<()> {
        match self.is_leader() {
            true => self.broadcast(&mut make()?),
            false => Ok(()),
        }
    }

    fn begin(&mut self, _: &LocalDisk) -> Result<()> {
        wait_for_all(&self.world);
        Ok(())
    }

    fn take(&mut self, _: &LocalDisk, part: usize, wanted: &mut VecDeque<u64>) -> Result<Option<u64>> {
        let counters = self.counters.as_ref().context("the ranks have not agreed on what to do")?;
        let next = counters.next(part);
        // All ranks want the same blocks in the same order.
        let skipped = usize::try_from(next - self.taken[part])?;
        self.taken[part] = next + 1;
        wanted.drain(..skipped.min(wanted.len()));
        Ok(wanted.pop_front())
    }

    fn settle(&mut self, _: &LocalDisk, mut settled: Vec<Settled>) -> Result<Vec<Settled>> {
        if self.is_leader() {
            settled.extend(self.hear(false)?);
            return Ok(settled);
        }
        for Settled { part, block, range } in settled {
            self.tell([part as u64, block, range.start, range.end]);
        }
        Ok(Vec::new())
    }

    fn leave(&mut self) -> Result<Option<Vec<Settled>>> {
        if self.is_leader() {
            let settled = self.hear(true)?;
            ensure!(self.ended + 1 >= self.world.size(), "a rank has gone");
            self.stage.set(Stage::Idle);
            return Ok(Some(settled));
        }
        self.tell([NOTHING_MORE; 4]);
        self.stage.set(Stage::Idle);
        Ok(None)
    }
}
