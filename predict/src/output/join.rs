//! `--join`: any number of processes of one command on one folder, on any number of hosts.
//!
//! ```text
//! holds the lock alone ── leader: reads inputs and body, begins the run ─┐
//!                                                                        ├─ shares the lock: takes blocks by claims
//! else: waits until it can share ── reads what the leader published ─────┘           │ no block is left
//!                    alone? ── no: the others finish ◄────────────────────────────────┤
//!                     yes ── claims of the dead go, what they left is predicted ─────┤
//!                                                                                    └─ nothing is left: finishes
//! ```
//!
//! The lock is all that tells who lives: the system takes it from a process that ends, however it ends.

use std::collections::VecDeque;
use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Error, Result, ensure};

use super::asked::Asked;
use super::blocks::Settled;
use super::claims::{Claims, JOIN_FOLDER};
use super::crew::Crew;
use super::disk::{Disk, metadata, open_itself, write_whole};
use super::lock::FolderLock;
use super::presence::{Presence, Pulse, check_alone, host};
use super::state::{Stage, State};
use crate::terminal::remark;

/// The file that says that all that a leader publishes is there.
const READY: &str = "ready";

/// The file that says what the leader was asked for.
const ASKED: &str = "asked.json";

/// One of the processes that work on a folder.
#[derive(Debug)]
pub(crate) struct Joined {
    /// Given up before the lock, which is what it stands for. None where nothing is left to do.
    presence: Option<Presence>,
    lock: FolderLock,
    folder: PathBuf,
    claims: Claims,
    leads: bool,
    pulse: Pulse,
}

impl Joined {
    /// Joins the processes that are at work in a folder, or is the first of them. Waits while the first reads its inputs,
    /// and while the last finishes.
    ///
    /// # Errors
    /// A folder that cannot be written or locked; processes on other hosts that no lock tells of.
    pub(crate) fn enter(folder: &Path) -> Result<Self> {
        Self::enter_as(folder, std::process::id(), Pulse::default())
    }

    pub(super) fn enter_as(folder: &Path, process: u32, pulse: Pulse) -> Result<Self> {
        let join = folder.join(JOIN_FOLDER);
        let context = || format!("--out: cannot create folder {}", join.display());
        std::fs::create_dir_all(folder).with_context(context)?;
        let lock = FolderLock::of(folder)?;
        let claims = Claims::of(folder);
        let (leads, complete) = wait_for_role(&lock, folder, process)?;
        let (folder, mut presence) = (folder.to_path_buf(), None);
        if !complete {
            match std::fs::create_dir(&join) {
                Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error).with_context(context),
                _ => ensure!(claims.exists()?, "--out: the folder {} goes at once", join.display()),
            }
            let host = host();
            presence = Some(Presence::announce(&join, &host, process, pulse)?);
            if leads {
                check_alone(&join, &host, pulse)?;
            }
        }
        Ok(Self { presence, lock, folder, claims, leads, pulse })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(JOIN_FOLDER).join(name)
    }
}

/// Waits until this process leads or may follow; whether it leads, and whether nothing is left to do.
fn wait_for_role(lock: &FolderLock, folder: &Path, process: u32) -> Result<(bool, bool)> {
    let ready = folder.join(JOIN_FOLDER).join(READY);
    let is_complete = || Ok::<_, Error>(State::read(folder)?.is_some_and(|state| state.stage == Stage::Complete));
    let mut told = false;
    loop {
        if lock.is_alone()? {
            if is_complete()? {
                lock.share()?;
                return Ok((false, true));
            }
            // What an earlier leader published is published again.
            if metadata(&ready)?.is_some() {
                std::fs::remove_file(&ready).with_context(|| format!("cannot remove {}", ready.display()))?;
            }
            return Ok((true, false));
        }
        if !std::mem::replace(&mut told, true) {
            remark(format_args!("note: others are at work in {}", folder.display()));
        }
        lock.share()?;
        let complete = is_complete()?;
        if complete || metadata(&ready)?.is_some() {
            return Ok((false, complete));
        }
        // Who led them is gone. They ask for the lock at different times, so that one gets it.
        lock.leave()?;
        std::thread::sleep(Duration::from_millis(10 + RandomState::new().hash_one(process) % 90));
    }
}

impl<D: Disk> Crew<D> for Joined {
    fn look(&self, _: &Path) -> Result<()> {
        Ok(())
    }

    fn agree(&mut self, disk: &D, asked: &Asked) -> Result<()> {
        match Crew::<D>::receive(self, ASKED)? {
            Some(first) => asked.check_same(&first).context("--join"),
            None => self.publish(disk, ASKED, &mut || asked.to_bytes()),
        }
    }

    fn enter(&mut self, folder: &Path) -> Result<()> {
        ensure!(folder == self.folder, "--join: {} is not {}", folder.display(), self.folder.display());
        Ok(())
    }

    fn leads(&self) -> bool {
        self.leads
    }

    fn has_work(&self) -> bool {
        self.presence.is_some()
    }

    fn receive(&mut self, name: &str) -> Result<Option<Vec<u8>>> {
        let path = self.path(name);
        // Where nothing is left to do, nothing is left to read.
        if self.leads || metadata(&path)?.is_none() {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        let read = open_itself(File::options().read(true), &path).and_then(|mut file| file.read_to_end(&mut bytes));
        read.with_context(|| format!("cannot read {}", path.display()))?;
        Ok(Some(bytes))
    }

    fn publish(&mut self, disk: &D, name: &str, make: &mut dyn FnMut() -> Result<Vec<u8>>) -> Result<()> {
        match self.leads {
            true => write_whole(disk, &self.path(name), &make()?),
            false => Ok(()),
        }
    }

    fn begin(&mut self, disk: &D) -> Result<()> {
        if self.leads {
            write_whole(disk, &self.path(READY), b"")?;
            self.lock.share()?;
        }
        Ok(())
    }

    /// Everybody begins elsewhere, so that few want the same block, and goes on from there, so that what one writes lies
    /// together.
    fn arrange(&self, wanted: &mut VecDeque<u64>) {
        if !wanted.is_empty() {
            let first = RandomState::new().hash_one(std::process::id()) % wanted.len() as u64;
            wanted.rotate_left(first as usize);
        }
    }

    fn take(&mut self, disk: &D, part: usize, wanted: &mut VecDeque<u64>) -> Result<Option<u64>> {
        while let Some(block) = wanted.pop_front() {
            if self.claims.take(disk, part, block)? {
                return Ok(Some(block));
            }
            // Where one is taken, others are.
            let taken = self.claims.taken(part)?;
            wanted.retain(|block| !taken.contains(block));
        }
        Ok(None)
    }

    fn settle(&mut self, disk: &D, settled: Vec<Settled>) -> Result<Vec<Settled>> {
        settled.iter().try_for_each(|settled| self.claims.settle(disk, settled))?;
        Ok(Vec::new())
    }

    fn leave(&mut self) -> Result<Option<Vec<Settled>>> {
        self.leads = self.lock.is_alone()?;
        if !self.leads {
            return Ok(None);
        }
        check_alone(&self.folder.join(JOIN_FOLDER), &host(), self.pulse)?;
        Ok(Some(Vec::new()))
    }

    fn disband(&mut self) {
        // Its file must not be open when the folder goes.
        self.presence = None;
    }
}
