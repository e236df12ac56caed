//! Who works on a run, and who of them predicts what.
//!
//! A crew is one process or many. One of them leads: it checks what lies in the folder, creates the files and keeps
//! `run.json`, and whoever is the last finishes. All of them take blocks, predict them and write them to their places.

use std::collections::VecDeque;
use std::path::Path;

use anyhow::Result;

use super::asked::Asked;
use super::blocks::Settled;
use super::disk::metadata;
use super::lock::{FolderLock, LOCK_FILE};

/// The processes that work on one run, as one of them sees it.
pub(crate) trait Crew<D> {
    /// Checks that nobody else is at work in a folder that need not exist, without staying there.
    fn look(&self, folder: &Path) -> Result<()>;

    /// Makes sure that all are asked for the same, before anything is written.
    fn agree(&mut self, _disk: &D, _asked: &Asked) -> Result<()> {
        Ok(())
    }

    /// Keeps everybody else away from a folder that exists.
    fn enter(&mut self, folder: &Path) -> Result<()>;

    /// Whether this process reads all inputs and begins the run.
    fn leads(&self) -> bool;

    /// Whether anything is left to do.
    fn has_work(&self) -> bool {
        true
    }

    /// What the leader published under a name; nothing for the leader itself.
    fn receive(&mut self, name: &str) -> Result<Option<Vec<u8>>>;

    /// Gives what the leader `make`s to the others, if there may be any; the others call [`receive`](Self::receive) instead.
    fn publish(&mut self, disk: &D, name: &str, make: &mut dyn FnMut() -> Result<Vec<u8>>) -> Result<()>;

    /// Lets everybody work: the leader has begun the run, the others wait until it has.
    fn begin(&mut self, disk: &D) -> Result<()>;

    /// Puts blocks that are missing into the order in which this process should try them.
    fn arrange(&self, _wanted: &mut VecDeque<u64>) {}

    /// Takes a block of a part that nobody else takes out of those that are missing, which are the same for everybody.
    fn take(&mut self, disk: &D, part: usize, wanted: &mut VecDeque<u64>) -> Result<Option<u64>>;

    /// Tells that blocks are safe, and returns those that this process has to record, whoever predicted them.
    fn settle(&mut self, disk: &D, settled: Vec<Settled>) -> Result<Vec<Settled>>;

    /// Stops working. If this process is the last one, it gets what nobody has recorded yet.
    fn leave(&mut self) -> Result<Option<Vec<Settled>>>;

    /// Ends what the crew had in the folder beside its lock. Only the last process calls it.
    fn disband(&mut self) {}
}

/// A process without others.
#[derive(Debug, Default)]
pub(crate) struct Alone {
    lock: Option<FolderLock>,
}

impl<D> Crew<D> for Alone {
    fn look(&self, folder: &Path) -> Result<()> {
        // A folder without the file of the lock is held by nobody.
        let held = metadata(&folder.join(LOCK_FILE))?.is_some();
        held.then(|| FolderLock::acquire(folder)).transpose().map(drop)
    }

    fn enter(&mut self, folder: &Path) -> Result<()> {
        self.lock = Some(FolderLock::acquire(folder)?);
        Ok(())
    }

    fn leads(&self) -> bool {
        true
    }

    fn receive(&mut self, _: &str) -> Result<Option<Vec<u8>>> {
        Ok(None)
    }

    fn publish(&mut self, _: &D, _: &str, _: &mut dyn FnMut() -> Result<Vec<u8>>) -> Result<()> {
        Ok(())
    }

    fn begin(&mut self, _: &D) -> Result<()> {
        Ok(())
    }

    fn take(&mut self, _: &D, _: usize, wanted: &mut VecDeque<u64>) -> Result<Option<u64>> {
        Ok(wanted.pop_front())
    }

    fn settle(&mut self, _: &D, settled: Vec<Settled>) -> Result<Vec<Settled>> {
        Ok(settled)
    }

    fn leave(&mut self) -> Result<Option<Vec<Settled>>> {
        Ok(Some(Vec::new()))
    }
}
