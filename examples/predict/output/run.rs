//! One run: its files from the first byte to their final names.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Map, Value};

use super::disk::{Disk, partial};
use super::layout::FileLayout;
use super::lock::FolderLock;
use super::npz::npz_bytes;
use super::safetensors::{POSITIONS, safetensors_layout};
use super::state::{PartState, STATE_FILE, State};
use super::vtk::vtp_layout;
use super::{FieldSpec, Predict};
use crate::mesh::Mesh;

/// Space that stays free beside the files: for `run.json`, pictures and the file system itself.
const SPARE_BYTES: u64 = 16 << 20;

/// Points of one domain and the files that hold them.
#[derive(Debug, Clone, PartialEq)]
pub struct Part {
    /// The name, for messages.
    pub name: String,
    /// Number of points.
    pub points: u64,
    /// The fields that are predicted there.
    pub fields: Vec<FieldSpec>,
    /// The files.
    pub files: Vec<FileLayout>,
    /// Bytes of what is made from them afterwards.
    later: u64,
}

/// What to do with what lies in the folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// Leave it alone and refuse to run.
    Refuse,
    /// Go on where a run was interrupted.
    Resume,
    /// Begin again; earlier results stay until the new ones are complete.
    Overwrite,
}

/// A run in its folder, which it keeps locked.
pub struct Run<D: Disk> {
    _lock: FolderLock,
    disk: D,
    folder: PathBuf,
    parts: Vec<Part>,
    state: State,
}

impl<D: Disk> Run<D> {
    /// Begins a run, or goes on with one.
    ///
    /// `inputs` are all that the result depends on; `chunk` is the number of points that are predicted at once.
    pub fn open(
        disk: D,
        folder: &Path,
        inputs: Map<String, Value>,
        chunk: u64,
        parts: Vec<Part>,
        existing: Existing,
    ) -> Result<Self> {
        ensure!(chunk > 0, "--chunk must be at least 1, got 0");
        parts.iter().try_for_each(Part::check_names)?;
        let state = State::new(inputs, chunk, parts.iter().map(Part::fresh_state).collect());
        std::fs::create_dir_all(folder).with_context(|| format!("--out: cannot create folder {}", folder.display()))?;
        let mut run = Self { _lock: FolderLock::acquire(folder)?, disk, folder: folder.to_path_buf(), parts, state };
        if existing == Existing::Overwrite {
            // A damaged state names nothing that could be in the way.
            run.state.replaced = State::read(folder).ok().flatten().map(State::into_names).unwrap_or_default();
        } else {
            let earlier = State::read(folder).context("--out")?;
            match (earlier, existing) {
                (Some(earlier), Existing::Resume) => {
                    earlier.check_same_run(&run.state)?;
                    run.state = earlier;
                    run.check_space()?;
                    return Ok(run);
                }
                (Some(_), _) => {
                    bail!("--out {} holds a run; --resume goes on with it, --overwrite begins again", folder.display())
                }
                (None, _) => run.refuse_other_files()?,
            }
        }
        run.begin()?;
        Ok(run)
    }

    /// Points that were safe on the disk when the run was opened, or are by now.
    pub fn done(&self) -> u64 {
        self.state.parts.iter().map(|part| part.done).sum()
    }

    /// Predicts what is missing of a part, and calls `progress` with the number of new points after each chunk.
    ///
    /// An error of the predictor ends the call; what was written before it stays, and `--resume` goes on from there.
    pub fn write_part(&mut self, name: &str, predictor: &mut dyn Predict, progress: &mut dyn FnMut(u64)) -> Result<()> {
        let Some(at) = self.parts.iter().position(|part| part.name == name) else {
            bail!("the run has no part '{name}'");
        };
        while self.state.parts[at].done < self.parts[at].points {
            let part = &self.parts[at];
            let start = self.state.parts[at].done;
            let range = start..part.points.min(start + self.state.chunk);
            let points = range.end - range.start;
            let context = || format!("{name}: points {} to {}", range.start, range.end);
            let chunk = predictor.predict(range.clone()).with_context(context)?;
            chunk.check(points, &part.fields).with_context(context)?;
            for file in &part.files {
                let path = partial(&self.folder.join(&file.name));
                for (offset, bytes) in file.chunk_pieces(range.clone(), &chunk) {
                    self.disk.write_at(&path, offset, &bytes).with_context(|| cannot_write(&path))?;
                }
                self.disk.sync(&path).with_context(|| cannot_write(&path))?;
            }
            self.state.parts[at].done = range.end;
            self.state.write(&self.disk, &self.folder)?;
            progress(points);
        }
        Ok(())
    }

    /// Gives all files their final names.
    ///
    /// # Errors
    /// A part is not complete, or a rename fails.
    pub fn finish(&mut self) -> Result<()> {
        if self.state.complete {
            return Ok(());
        }
        for part in &self.state.parts {
            ensure!(part.done == part.points, "part '{}': {} of {} points are done", part.name, part.done, part.points);
        }
        for file in self.parts.iter().flat_map(|part| &part.files) {
            let path = self.folder.join(&file.name);
            let partial = partial(&path);
            // A run that died between two renames has given some of the files their names already.
            if partial.exists() {
                self.disk.rename(&partial, &path).with_context(|| cannot_write(&path))?;
            }
        }
        self.state.complete = true;
        self.state.write(&self.disk, &self.folder)
    }

    /// Ends the run with the names of what was made from its files, and removes what a run left that it replaces: old
    /// results beside new ones would be taken for theirs.
    ///
    /// # Errors
    /// A file cannot be removed.
    pub fn conclude(mut self, made: impl IntoIterator<Item = String>) -> Result<()> {
        for name in made {
            if !self.state.made.contains(&name) {
                self.state.made.push(name);
            }
        }
        let replaced = std::mem::take(&mut self.state.replaced);
        let kept = self.state.clone().into_names();
        // Only files of this folder, whatever the earlier state says.
        let own = |name: &String| Path::new(name).file_name().is_some_and(|file| file == name.as_str());
        for name in replaced.into_iter().filter(|name| own(name) && !kept.contains(name)) {
            let path = self.folder.join(name);
            if path.exists() {
                self.disk.remove(&path).with_context(|| format!("cannot remove {}", path.display()))?;
            }
        }
        self.state.write(&self.disk, &self.folder)
    }

    /// Creates all files at their full length. The state comes last: without it there is nothing to resume.
    fn begin(&self) -> Result<()> {
        let state = self.folder.join(STATE_FILE);
        if state.exists() {
            self.disk.remove(&state).with_context(|| format!("cannot remove {}", state.display()))?;
        }
        self.remove_partial_files()?;
        self.check_space()?;
        for file in self.parts.iter().flat_map(|part| &part.files) {
            let path = partial(&self.folder.join(&file.name));
            self.disk.create(&path, file.len()).with_context(|| cannot_write(&path))?;
            for (offset, bytes) in file.fixed_pieces() {
                self.disk.write_at(&path, offset, bytes).with_context(|| cannot_write(&path))?;
            }
            self.disk.sync(&path).with_context(|| cannot_write(&path))?;
        }
        self.state.write(&self.disk, &self.folder)
    }

    /// What an interrupted run left, which counts for nothing without its state.
    fn remove_partial_files(&self) -> Result<()> {
        for file in self.parts.iter().flat_map(|part| &part.files) {
            let path = partial(&self.folder.join(&file.name));
            if path.exists() {
                self.disk.remove(&path).with_context(|| format!("cannot remove {}", path.display()))?;
            }
        }
        Ok(())
    }

    fn refuse_other_files(&self) -> Result<()> {
        for file in self.parts.iter().flat_map(|part| &part.files) {
            let path = self.folder.join(&file.name);
            ensure!(!path.exists(), "{} exists and belongs to no run; --overwrite replaces it", path.display());
        }
        Ok(())
    }

    /// Files are created without taking space, so what is missing of them must still fit.
    fn check_space(&self) -> Result<()> {
        let missing: u64 = self
            .parts
            .iter()
            .zip(&self.state.parts)
            .filter(|(part, _)| part.points > 0)
            .map(|(part, state)| {
                let bytes: u64 = part.files.iter().map(FileLayout::len).sum();
                (bytes as f64 * (part.points - state.done) as f64 / part.points as f64) as u64 + part.later
            })
            .sum();
        let free = self.disk.free_space(&self.folder).context("--out: cannot ask for free disk space")?;
        let needed = missing + SPARE_BYTES;
        ensure!(
            self.state.complete || free >= needed,
            "--out {}: the run needs {} of disk space, {} are free",
            self.folder.display(),
            human_bytes(needed),
            human_bytes(free)
        );
        Ok(())
    }
}

impl Part {
    /// A part in two files, `<name>.vtp` with the faces of the mesh and `<name>.safetensors`; `npz` says whether the
    /// latter becomes an `.npz` file too.
    pub fn new(name: &str, points: u64, fields: Vec<FieldSpec>, mesh: Option<&Mesh>, npz: bool) -> Self {
        let files = vec![
            vtp_layout(&format!("{name}.vtp"), points, &fields, mesh),
            safetensors_layout(&format!("{name}.safetensors"), points, &fields),
        ];
        let later = if npz { npz_bytes(points, &fields) } else { 0 };
        Self { name: name.to_string(), points, fields, files, later }
    }

    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(FileLayout::len).sum::<u64>() + self.later
    }

    /// Every array of a file needs a name of its own; the positions have one already.
    fn check_names(&self) -> Result<()> {
        let mut names = vec![POSITIONS];
        for field in &self.fields {
            ensure!(!names.contains(&field.name.as_str()), "part '{}': two arrays named '{}'", self.name, field.name);
            names.push(&field.name);
        }
        Ok(())
    }

    fn fresh_state(&self) -> PartState {
        let files = self.files.iter().map(|file| (file.name.clone(), file.len())).collect();
        PartState { name: self.name.clone(), points: self.points, done: 0, files }
    }
}

fn cannot_write(path: &Path) -> String {
    format!("cannot write {}", path.display())
}

/// A number of bytes for people.
pub fn human_bytes(bytes: u64) -> String {
    indicatif::HumanBytes(bytes).to_string()
}
