//! Who may write into a folder.

use std::fs::{File, TryLockError};
use std::io;
#[cfg(not(unix))]
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
#[cfg(unix)]
use rustix::io::Errno;

use super::disk::open_itself;
use crate::terminal::remark;

/// The file that a run holds locked. It stays behind, empty: removing it would let two runs hold two files of one name.
pub(super) const LOCK_FILE: &str = ".run.lock";

/// The right to write into a folder, alone or with others. The system takes it back when the process ends, however it ends.
#[derive(Debug)]
pub(crate) struct FolderLock {
    file: File,
    folder: PathBuf,
}

impl FolderLock {
    /// Locks a folder that exists, for this process alone. Where the file system knows no locks, as Lustre without `flock`, a
    /// remark says that nothing keeps a second run away.
    ///
    /// # Errors
    /// Another run holds it.
    pub(super) fn acquire(folder: &Path) -> Result<Self> {
        let lock = Self::of(folder)?;
        match lock.attempt()? {
            Attempt::Locked => {}
            Attempt::Held => bail!("--out {}: another run is writing there", folder.display()),
            Attempt::NoLocks(error) => remark(format_args!(
                "warning: --out {}: the file system knows no locks ({error}); see to it that no other run writes there",
                folder.display()
            )),
        }
        Ok(lock)
    }

    /// Locks a folder that exists, for this process alone, as soon as nobody else holds it.
    ///
    /// # Errors
    /// The file system has no locks, or fails.
    pub(crate) fn wait(folder: &Path) -> Result<Self> {
        let lock = Self::of(folder)?;
        lock.file.lock().or_else(|error| lock.refuse(error))?;
        Ok(lock)
    }

    /// The lock of a folder that exists, which this process does not hold yet.
    pub(super) fn of(folder: &Path) -> Result<Self> {
        let path = folder.join(LOCK_FILE);
        let file = open_itself(File::options().create(true).truncate(false).write(true), &path);
        let file = file.with_context(|| format!("--out: cannot lock {}", path.display()))?;
        Ok(Self { file, folder: folder.to_path_buf() })
    }

    /// Whether this process holds the lock alone from here on. If it does not, it does not hold it at all, even if it
    /// [shared](Self::share) it before: of several processes that ask, one is the last.
    ///
    /// # Errors
    /// The file system has no locks, or fails.
    pub(super) fn is_alone(&self) -> Result<bool> {
        // Given up first: where locks are exchanged in one step, two that wait for each other would both be refused.
        self.leave()?;
        match self.attempt()? {
            Attempt::Locked => Ok(true),
            Attempt::Held => Ok(false),
            Attempt::NoLocks(error) => self.refuse(error).map(|()| false),
        }
    }

    /// Holds the lock together with others, as soon as nobody holds it alone.
    ///
    /// # Errors
    /// As [`is_alone`](Self::is_alone).
    pub(super) fn share(&self) -> Result<()> {
        self.file.lock_shared().or_else(|error| self.refuse(error))
    }

    /// Holds it no longer.
    pub(super) fn leave(&self) -> Result<()> {
        self.file.unlock().or_else(|error| self.refuse(error))
    }

    /// What joint work needs and the file system has not.
    fn refuse(&self, error: io::Error) -> Result<()> {
        let folder = self.folder.display();
        if knows_no_locks(&error) {
            bail!(
                "--join: the file system of --out {folder} knows no locks ({error}), which tell who is at work: choose a \
                 folder elsewhere, have this one mounted with locks (Lustre: -o flock), or start one process without --join"
            );
        }
        Err(error).with_context(|| self.context())
    }

    fn attempt(&self) -> Result<Attempt> {
        Attempt::of(self.file.try_lock()).with_context(|| self.context())
    }

    fn context(&self) -> String {
        format!("--out: cannot lock {}", self.folder.join(LOCK_FILE).display())
    }
}

/// What came of trying to lock a file.
#[derive(Debug)]
enum Attempt {
    Locked,
    /// By another process.
    Held,
    /// The file system has none.
    NoLocks(io::Error),
}

impl Attempt {
    fn of(tried: std::result::Result<(), TryLockError>) -> io::Result<Self> {
        match tried {
            Ok(()) => Ok(Self::Locked),
            Err(TryLockError::WouldBlock) => Ok(Self::Held),
            Err(TryLockError::Error(error)) if knows_no_locks(&error) => Ok(Self::NoLocks(error)),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

/// Whether an error says that there is no such thing, rather than that it failed.
fn knows_no_locks(error: &io::Error) -> bool {
    #[cfg(unix)]
    return matches!(Errno::from_io_error(error), Some(Errno::NOSYS | Errno::OPNOTSUPP));
    #[cfg(not(unix))]
    return error.kind() == ErrorKind::Unsupported;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_one_runs() {
        let folder = tempfile::tempdir().unwrap();
        let first = FolderLock::acquire(folder.path()).unwrap();
        let error = FolderLock::acquire(folder.path()).unwrap_err().to_string();
        assert!(error.contains("another run is writing there"), "{error}");
        drop(first);
        FolderLock::acquire(folder.path()).unwrap();
    }

    #[test]
    fn of_several_that_share_a_folder_one_is_the_last() {
        let folder = tempfile::tempdir().unwrap();
        let locks = [0; 3].map(|_| FolderLock::of(folder.path()).unwrap());
        assert!(locks[0].is_alone().unwrap() && !locks[1].is_alone().unwrap());
        locks.iter().for_each(|lock| lock.share().unwrap());
        assert!(FolderLock::acquire(folder.path()).is_err());
        assert_eq!([0, 1, 2].map(|at| locks[at].is_alone().unwrap()), [false, false, true]);
        assert!(!locks[0].is_alone().unwrap());
    }

    #[cfg(unix)]
    #[test]
    fn joint_work_without_locks_is_refused_with_a_way_out() {
        let folder = tempfile::tempdir().unwrap();
        let lock = FolderLock::of(folder.path()).unwrap();
        let error = lock.refuse(Errno::NOSYS.into()).unwrap_err().to_string();
        assert!(error.contains("knows no locks") && error.contains("start one process without --join"), "{error}");
        let failed = format!("{:#}", lock.refuse(Errno::IO.into()).unwrap_err());
        assert!(failed.starts_with("--out: cannot lock "), "{failed}");
    }

    /// Such a file system cannot be had in a test: its answer is.
    #[cfg(unix)]
    #[test]
    fn a_file_system_without_locks_is_told_from_one_that_fails() {
        let of = |errno: Errno| Attempt::of(Err(TryLockError::Error(errno.into())));
        for none in [Errno::NOSYS, Errno::OPNOTSUPP] {
            assert!(matches!(of(none), Ok(Attempt::NoLocks(_))), "{none:?}");
        }
        for failed in [Errno::IO, Errno::NOLCK, Errno::STALE] {
            assert_eq!(of(failed).unwrap_err().raw_os_error(), Some(failed.raw_os_error()));
        }
    }
}
