//! One run at a time in a folder.

use std::fs::{File, TryLockError};
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::disk::open_itself;

/// The file that a run holds locked. It stays behind, empty: removing it would let two runs hold two files of one name.
pub(super) const LOCK_FILE: &str = ".run.lock";

/// The right to write into a folder. The system takes it back when the process ends, however it ends.
#[derive(Debug)]
pub(super) struct FolderLock {
    _file: File,
}

impl FolderLock {
    /// Locks a folder that exists.
    ///
    /// # Errors
    /// Another run holds it.
    pub(super) fn acquire(folder: &Path) -> Result<Self> {
        let path = folder.join(LOCK_FILE);
        let context = || format!("--out: cannot lock {}", path.display());
        let file =
            open_itself(File::options().create(true).truncate(false).write(true), &path).with_context(context)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => bail!("--out {}: another run is writing there", folder.display()),
            Err(TryLockError::Error(error)) => Err(error).with_context(context),
        }
    }
}
