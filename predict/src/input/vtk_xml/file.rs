//! A file that is read at any place, and open only while somebody reads it.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, ensure};
use candle_mixed_attention::models::open_regular;

/// Shared by all arrays of a file. A file of any size is read through it in parts, so memory stays small; a mapped file
/// would count as memory in use, and one that shrinks meanwhile would end the program.
#[derive(Clone)]
pub(super) struct SharedFile {
    inner: Arc<Inner>,
}

struct Inner {
    path: PathBuf,
    length: u64,
    open: Mutex<Option<File>>,
}

impl SharedFile {
    /// A file of a known length.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let file = open_regular(path).with_context(|| format!("cannot open {}", path.display()))?;
        let length = file.metadata()?.len();
        let open = Mutex::new(Some(file));
        Ok(Self { inner: Arc::new(Inner { path: path.to_path_buf(), length, open }) })
    }

    /// Its bytes.
    pub(super) fn len(&self) -> u64 {
        self.inner.length
    }

    /// Closes it until the next read.
    pub(super) fn close(&self) {
        *self.lock() = None;
    }

    /// Reads exactly `length` bytes, which must lie in the file.
    pub(super) fn read(&self, at: u64, length: usize) -> Result<Vec<u8>> {
        let end = at.checked_add(length as u64);
        // Checked before memory is reserved.
        ensure!(
            end.is_some_and(|end| end <= self.len()),
            "truncated: {length} bytes are missing at byte {at}, the file has {}",
            self.len()
        );
        let mut bytes = vec![0; length];
        let mut open = self.lock();
        let mut file = match open.take() {
            Some(file) => file,
            None => open_regular(&self.inner.path)
                .with_context(|| format!("cannot open {} again", self.inner.path.display()))?,
        };
        file.seek(SeekFrom::Start(at))?;
        file.read_exact(&mut bytes)?;
        *open = Some(file);
        Ok(bytes)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<File>> {
        // Behind a poisoned lock is a file that is open or not, both of which are fine.
        self.inner.open.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}
