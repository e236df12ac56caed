//! The few things that a run does to a disk, so that tests can let it die before any of them.

use std::ffi::OsString;
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Changes to files. A step either happens or fails; only `write_at` may happen in part.
pub(crate) trait Disk {
    /// Creates a file of `length` zero bytes, in the place of whatever has its name.
    fn create(&self, path: &Path, length: u64) -> io::Result<()>;

    /// Creates an empty file, unless there is something of its name; whether it did. Of several processes one does.
    fn create_new(&self, path: &Path) -> io::Result<bool>;

    /// Writes into an existing file.
    fn write_at(&self, path: &Path, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Returns when all that was written to the file would survive a power cut.
    fn sync(&self, path: &Path) -> io::Result<()>;

    /// Gives a file its final name, in one step that would survive a power cut.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Bytes that can still be written in a folder.
    fn free_space(&self, folder: &Path) -> io::Result<u64>;
}

/// The file system.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct LocalDisk;

impl Disk for LocalDisk {
    fn create(&self, path: &Path, length: u64) -> io::Result<()> {
        // A new file, not the one that a link of this name may lead to.
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => OpenOptions::new().write(true).create_new(true).open(path)?.set_len(length),
        }
    }

    fn create_new(&self, path: &Path) -> io::Result<bool> {
        match OpenOptions::new().write(true).create_new(true).open(path) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn write_at(&self, path: &Path, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut file = open_itself(OpenOptions::new().write(true), path)?;
        file.seek(SeekFrom::Start(offset))?;
        file.write_all(bytes)
    }

    fn sync(&self, path: &Path) -> io::Result<()> {
        open_itself(OpenOptions::new().write(true), path)?.sync_all()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)?;
        sync_folder(to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)?;
        sync_folder(path)
    }

    fn free_space(&self, folder: &Path) -> io::Result<u64> {
        available_space(folder)
    }
}

#[cfg(not(target_family = "wasm"))]
use fs4::available_space;

/// Nobody tells it to WebAssembly.
#[cfg(target_family = "wasm")]
fn available_space(_: &Path) -> io::Result<u64> {
    Ok(u64::MAX)
}

/// Opens a file, but not what a link of its name leads to: whoever may write into a folder of results could plant one.
pub(super) fn open_itself(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    #[cfg(unix)]
    let options = std::os::unix::fs::OpenOptionsExt::custom_flags(options, rustix::fs::OFlags::NOFOLLOW.bits() as i32);
    options.open(path)
}

/// Checks that files can be made in a folder, without making one.
pub(super) fn check_writable(folder: &Path) -> io::Result<()> {
    #[cfg(unix)]
    rustix::fs::access(folder, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK)?;
    #[cfg(not(unix))]
    if std::fs::metadata(folder)?.permissions().readonly() {
        return Err(ErrorKind::PermissionDenied.into());
    }
    Ok(())
}

/// A new name is safe only when the folder that holds it is synced. Windows has no such step.
fn sync_folder(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) if cfg!(unix) => File::open(folder)?.sync_all(),
        _ => Ok(()),
    }
}

/// The name of a file while it is being written.
pub(super) fn partial(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".partial");
    name.into()
}

/// What the system says about a file, if it is there; about a link, and not about what it leads to.
pub(super) fn metadata(path: &Path) -> Result<Option<Metadata>> {
    match std::fs::symlink_metadata(path) {
        Ok(metadata) => Ok(Some(metadata)),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot look at {}", path.display())),
    }
}

/// Bytes of disk space that a file takes, which are fewer than its length where nothing was written yet. Systems that do
/// not say it count as if nothing was.
#[cfg(unix)]
pub(super) fn allocated(metadata: &Metadata) -> u64 {
    // Blocks have this size whatever the file system.
    std::os::unix::fs::MetadataExt::blocks(metadata) * 512
}

#[cfg(not(unix))]
pub(super) fn allocated(_: &Metadata) -> u64 {
    0
}

/// Writes a whole file: under its partial name first, then in one step under its own.
pub(crate) fn write_whole(disk: &impl Disk, path: &Path, bytes: &[u8]) -> Result<()> {
    let partial = partial(path);
    let written = disk.create(&partial, 0).and_then(|()| disk.write_at(&partial, 0, bytes));
    let synced = written.and_then(|()| disk.sync(&partial));
    synced.and_then(|()| disk.rename(&partial, path)).with_context(|| format!("cannot write {}", path.display()))
}
