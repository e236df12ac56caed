//! Which blocks processes have taken: a file for each, empty until every byte of the block is safe.
//!
//! A file that must not exist yet is created in one step on every file system, so that no block is taken twice. Its later
//! content says which points are safe, so that it means the same to a run in chunks of another size.

use std::collections::BTreeSet;
use std::fs::{DirEntry, File};
use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::blocks::Settled;
use super::disk::{Disk, metadata, open_itself};

/// The folder, in that of the run, of all that processes tell each other. It goes when the run is complete.
pub(super) const JOIN_FOLDER: &str = ".join";

/// What names of claims begin with.
const CLAIM: &str = "claim";

/// What a claim ends with whose block is safe.
const SAFE: &str = "are safe\n";

/// Bytes of a claim at most.
const LONGEST_CLAIM: u64 = 80;

/// The claims on the blocks of a run.
#[derive(Debug)]
pub(super) struct Claims {
    folder: PathBuf,
}

impl Claims {
    /// Those of the run in a folder.
    pub(super) fn of(run: &Path) -> Self {
        Self { folder: run.join(JOIN_FOLDER) }
    }

    fn path(&self, part: usize, block: u64) -> PathBuf {
        self.folder.join(format!("{CLAIM}.{part}.{block}"))
    }

    /// Takes a block, unless somebody has it.
    pub(super) fn take(&self, disk: &impl Disk, part: usize, block: u64) -> Result<bool> {
        let path = self.path(part, block);
        disk.create_new(&path).with_context(|| format!("cannot create {}", path.display()))
    }

    /// Says that a block that was taken is safe.
    pub(super) fn settle(&self, disk: &impl Disk, settled: &Settled) -> Result<()> {
        let path = self.path(settled.part, settled.block);
        let Range { start, end } = settled.range;
        let written = disk.write_at(&path, 0, format!("points {start} to {end} {SAFE}").as_bytes());
        written.and_then(|()| disk.sync(&path)).with_context(|| format!("cannot write {}", path.display()))
    }

    /// The blocks of a part that are taken.
    pub(super) fn taken(&self, part: usize) -> Result<BTreeSet<u64>> {
        let found = self.all()?.into_iter().filter(|(claimed, ..)| *claimed == part);
        Ok(found.map(|(_, block, _)| block).collect())
    }

    /// All points that are safe.
    pub(super) fn settled(&self) -> Result<Vec<Settled>> {
        let mut settled = Vec::new();
        for (part, block, entry) in self.all()? {
            let (path, mut text) = (entry.path(), String::new());
            let read = open_itself(File::options().read(true), &path)
                .and_then(|file| file.take(LONGEST_CLAIM).read_to_string(&mut text));
            read.with_context(|| format!("cannot read {}", path.display()))?;
            settled.extend(points(&text).map(|range| Settled { part, block, range }));
        }
        Ok(settled)
    }

    /// Lets all claims go.
    pub(super) fn forget(&self, disk: &impl Disk) -> Result<()> {
        self.remove(disk, |name| name.starts_with(CLAIM))
    }

    /// Removes the folder with all that is in it.
    pub(super) fn remove_folder(&self, disk: &impl Disk) -> Result<()> {
        self.remove(disk, |_| true)?;
        match self.exists()? {
            true => std::fs::remove_dir(&self.folder).with_context(|| self.context()),
            false => Ok(()),
        }
    }

    fn remove(&self, disk: &impl Disk, goes: impl Fn(&str) -> bool) -> Result<()> {
        for entry in self.entries()?.iter().filter(|entry| entry.file_name().to_str().is_none_or(&goes)) {
            let path = entry.path();
            disk.remove(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
        Ok(())
    }

    /// Parts, blocks and files of all claims.
    fn all(&self) -> Result<Vec<(usize, u64, DirEntry)>> {
        let parse = |entry: DirEntry| {
            let name = entry.file_name();
            let mut words = name.to_str()?.split('.');
            let (kind, part, block) = (words.next()?, words.next()?.parse().ok()?, words.next()?.parse().ok()?);
            (kind == CLAIM && words.next().is_none()).then_some((part, block, entry))
        };
        Ok(self.entries()?.into_iter().filter_map(parse).collect())
    }

    fn entries(&self) -> Result<Vec<DirEntry>> {
        if !self.exists()? {
            return Ok(Vec::new());
        }
        let entries = std::fs::read_dir(&self.folder).and_then(Iterator::collect::<std::io::Result<_>>);
        entries.with_context(|| self.context())
    }

    /// Whether the folder is there.
    pub(super) fn exists(&self) -> Result<bool> {
        let Some(found) = metadata(&self.folder)? else { return Ok(false) };
        ensure!(found.is_dir(), "{} is in the way: it is no folder of a run", self.folder.display());
        Ok(true)
    }

    fn context(&self) -> String {
        self.folder.display().to_string()
    }
}

/// The points that a claim says are safe. One that was not written to its end says nothing.
fn points(text: &str) -> Option<Range<u64>> {
    let (start, rest) = text.strip_prefix("points ")?.split_once(" to ")?;
    let (end, rest) = rest.split_once(' ')?;
    (rest == SAFE).then_some(start.parse().ok()?..end.parse().ok()?)
}

#[cfg(test)]
mod tests {
    use super::super::disk::LocalDisk;
    use super::*;

    #[test]
    fn a_block_is_taken_once_and_safe_when_its_claim_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let claims = Claims::of(folder.path());
        assert_eq!(claims.settled().unwrap(), []);
        claims.remove_folder(&LocalDisk).unwrap();
        std::fs::create_dir(folder.path().join(JOIN_FOLDER)).unwrap();
        assert!(claims.take(&LocalDisk, 1, 7).unwrap());
        assert!(!claims.take(&LocalDisk, 1, 7).unwrap());
        assert!(claims.take(&LocalDisk, 0, 7).unwrap() && claims.take(&LocalDisk, 1, 8).unwrap());
        assert_eq!(claims.taken(1).unwrap(), BTreeSet::from([7, 8]));
        let settled = Settled { part: 1, block: 7, range: 21..24 };
        claims.settle(&LocalDisk, &settled).unwrap();
        assert_eq!(claims.settled().unwrap(), [settled]);
        claims.forget(&LocalDisk).unwrap();
        assert!(claims.taken(1).unwrap().is_empty());
        claims.remove_folder(&LocalDisk).unwrap();
        assert!(!folder.path().join(JOIN_FOLDER).exists());
    }

    #[test]
    fn a_claim_that_was_cut_off_says_nothing() {
        let whole = format!("points 3 to 12 {SAFE}");
        assert_eq!(points(&whole), Some(3..12));
        for length in 0..whole.len() {
            assert_eq!(points(&whole[..length]), None);
        }
        assert_eq!(points(&format!("points 3 to x {SAFE}")), None);
    }

    #[test]
    #[cfg(unix)]
    fn a_link_in_place_of_the_folder_is_not_followed() {
        let (folder, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::write(elsewhere.path().join("claim.0.0"), "mine").unwrap();
        std::os::unix::fs::symlink(elsewhere.path(), folder.path().join(JOIN_FOLDER)).unwrap();
        let error = Claims::of(folder.path()).remove_folder(&LocalDisk).unwrap_err().to_string();
        assert!(error.contains("is no folder of a run"), "{error}");
        assert!(elsewhere.path().join("claim.0.0").exists());
    }
}
