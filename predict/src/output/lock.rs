//! One run at a time in a folder.

use std::fs::{File, TryLockError};
use std::io;
#[cfg(not(unix))]
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context, Result, bail};
#[cfg(unix)]
use rustix::io::Errno;

use super::disk::open_itself;
use crate::terminal::remark;

/// The file that a run holds locked. It stays behind, empty: removing it would let two runs hold two files of one name.
pub(super) const LOCK_FILE: &str = ".run.lock";

/// The right to write into a folder. The system takes it back when the process ends, however it ends.
#[derive(Debug)]
pub(super) struct FolderLock {
    _file: File,
}

impl FolderLock {
    /// Locks a folder that exists. Where the file system knows no locks, as Lustre without `flock`, a remark says that
    /// nothing keeps a second run away.
    ///
    /// # Errors
    /// Another run holds it.
    pub(super) fn acquire(folder: &Path) -> Result<Self> {
        let path = folder.join(LOCK_FILE);
        let context = || format!("--out: cannot lock {}", path.display());
        let file =
            open_itself(File::options().create(true).truncate(false).write(true), &path).with_context(context)?;
        match Attempt::of(file.try_lock()).with_context(context)? {
            Attempt::Locked => {}
            Attempt::Held => bail!("--out {}: another run is writing there", folder.display()),
            Attempt::NoLocks(error) => remark(format_args!(
                "warning: --out {}: the file system knows no locks ({error}); see to it that no other run writes there",
                folder.display()
            )),
        }
        Ok(Self { _file: file })
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
