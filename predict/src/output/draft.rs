//! A run before it changes anything: what is asked for, compared with what lies in the folder.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Map, Value};

use super::disk::{Disk, allocated, metadata, partial};
use super::layout::FileLayout;
use super::part::Part;
use super::state::{Stage, State};

/// Space that stays free beside the files: for `run.json`, pictures and the file system itself.
const SPARE_BYTES: u64 = 16 << 20;

/// What to do with what lies in the folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Existing {
    /// Leave it alone and refuse to run.
    Refuse,
    /// Go on where a run was interrupted.
    Resume,
    /// Begin again; earlier results stay until the new ones are complete.
    Overwrite,
    /// Begin a run, or go on with one, together with other processes.
    Join,
    /// Work on a run that another process has begun or goes on with, which was asked for the same.
    Follow,
}

/// A run that is asked for.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    /// Where its files go.
    pub(crate) folder: PathBuf,
    /// All that the result depends on, by name.
    pub(crate) inputs: Map<String, Value>,
    /// What else says how the result was made; a run may be resumed with another.
    pub(crate) origin: Map<String, Value>,
    /// The number of points that are predicted at once.
    pub(crate) chunk: u64,
    /// What is to be written.
    pub(crate) parts: Vec<Part>,
    /// What to do with what lies in the folder.
    pub(crate) existing: Existing,
}

/// A run before it changes anything.
pub(super) struct Draft {
    pub(super) folder: PathBuf,
    pub(super) parts: Vec<Part>,
    pub(super) state: State,
    /// Whether it goes on with an earlier one.
    pub(super) resumed: bool,
}

/// What a run still needs of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Space {
    /// Bytes that it will write.
    pub(crate) needed: u64,
    /// Bytes that can be written, with what it removes before.
    pub(crate) free: u64,
}

impl Draft {
    pub(super) fn new(request: Request) -> Result<Self> {
        let Request { folder, inputs, origin, chunk, parts, existing } = request;
        ensure!(chunk > 0, "--chunk must be at least 1, got 0");
        parts.iter().try_for_each(Part::check_names)?;
        let state = State::new(inputs, origin, chunk, parts.iter().map(Part::fresh_state).collect());
        let mut draft = Self { folder: folder.clone(), parts, state, resumed: false };
        if existing == Existing::Overwrite {
            // A damaged state names nothing that could be in the way.
            draft.state.replaced = State::read(&folder).ok().flatten().map(State::into_names).unwrap_or_default();
            return Ok(draft);
        }
        match (State::read(&folder).context("--out")?, existing) {
            (Some(earlier), Existing::Resume | Existing::Join) => {
                let option = if existing == Existing::Join { "--join" } else { "--resume" };
                earlier.check_same_run(&draft.state).context(option)?;
                // Chunks of another size fill the same places.
                let fresh = std::mem::replace(&mut draft.state, earlier);
                draft.resumed = true;
                if draft.state.stage == Stage::Predicting {
                    draft.state.origin = fresh.origin;
                }
                draft.state.chunk = chunk;
                draft.check_files()?;
            }
            (Some(earlier), Existing::Follow) => {
                (draft.state, draft.resumed) = (earlier, true);
                draft.check_files()?;
            }
            (None, Existing::Follow) => bail!("--out {}: the run that was begun there is gone", folder.display()),
            (Some(_), _) => {
                bail!("--out {} holds a run; --resume goes on with it, --overwrite begins again", folder.display())
            }
            (None, _) => draft.refuse_other_files()?,
        }
        Ok(draft)
    }

    /// Every file with its partial and its final name.
    pub(super) fn files(&self) -> impl Iterator<Item = (PathBuf, PathBuf, &FileLayout)> {
        self.parts.iter().flat_map(|part| &part.files).map(|file| {
            let path = self.folder.join(&file.name);
            (partial(&path), path, file)
        })
    }

    /// Checks that every file is there, under the name that the stage allows, and as long as it was created.
    pub(super) fn check_files(&self) -> Result<()> {
        for (partial, whole, file) in self.files() {
            let (path, found) = match self.state.stage {
                Stage::Predicting => (&partial, metadata(&partial)?),
                Stage::Named | Stage::Complete => (&whole, metadata(&whole)?),
                Stage::Renaming => match metadata(&partial)? {
                    Some(found) => (&partial, Some(found)),
                    None => (&whole, metadata(&whole)?),
                },
            };
            let name = path.display();
            // How long a packed file is was not known beforehand.
            let packed = file.packing().is_some() && *path == whole;
            match found.map(|found| (found.is_file(), found.len())) {
                Some((true, length)) if packed || length == file.len() => {}
                Some((false, _)) => bail!("{name} is damaged: it is no regular file; --overwrite begins again"),
                Some((true, length)) => {
                    bail!("{name} is damaged: {length} bytes of {}; --overwrite begins again", file.len())
                }
                None => bail!("{name} is missing; --overwrite begins again"),
            }
        }
        Ok(())
    }

    fn refuse_other_files(&self) -> Result<()> {
        for (_, path, _) in self.files() {
            let found = metadata(&path)?.is_some();
            ensure!(!found, "{} exists and belongs to no run; --overwrite replaces it", path.display());
        }
        Ok(())
    }

    /// Files are created without taking space, so what is missing of them must still fit.
    pub(super) fn check_space(&self, disk: &impl Disk) -> Result<Space> {
        let total: u64 = self.parts.iter().map(Part::bytes).sum();
        let mut taken = 0;
        for (partial, _, file) in self.files() {
            taken += match metadata(&partial)? {
                Some(found) => allocated(&found).min(file.len()),
                // Where a partial file has gone, the whole one has its place.
                None if self.resumed => file.len(),
                None => 0,
            };
        }
        let free = disk.free_space(existing_folder(&self.folder)?).context("--out: cannot ask for free disk space")?;
        let space = match self.resumed {
            true => Space { needed: total - taken, free },
            // It removes what an earlier run left before it writes, so that much is free too.
            false => Space { needed: total + SPARE_BYTES, free: free + taken },
        };
        ensure!(
            matches!(self.state.stage, Stage::Named | Stage::Complete) || space.free >= space.needed,
            "--out {}: the run needs {} of disk space, {} are free",
            self.folder.display(),
            human_bytes(space.needed),
            human_bytes(space.free)
        );
        Ok(space)
    }
}

/// What of the path is there already. A relative path ends in the folder of the process, which has no name there.
pub(super) fn existing_folder(path: &Path) -> Result<&Path> {
    let existing = path.ancestors().find(|part| part.exists()).unwrap_or(Path::new("."));
    let (wanted, found) = (path.display(), existing.display());
    ensure!(
        existing.is_dir() || existing != path,
        "--out {wanted}: there is a file of this name; results need a folder"
    );
    ensure!(existing.is_dir(), "--out: cannot create folder {wanted}: {found} is a file");
    Ok(existing)
}

/// A number of bytes for people.
pub(crate) fn human_bytes(bytes: u64) -> String {
    indicatif::HumanBytes(bytes).to_string()
}
