//! One run: its files from the first byte to their final names.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail, ensure};
use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Map, Value};

use super::codec::Codec;
use super::disk::{Disk, allocated, check_writable, metadata, partial};
use super::layout::FileLayout;
use super::lock::{FolderLock, LOCK_FILE};
use super::npz::npz_bytes;
use super::safetensors::{POSITIONS, safetensors_layout};
use super::state::{PartState, STATE_FILE, Stage, State};
use super::vtk::{Shape, vtk_layout};
use super::{FieldSpec, Predict};
use crate::progress::Progress;

/// Space that stays free beside the files: for `run.json`, pictures and the file system itself.
const SPARE_BYTES: u64 = 16 << 20;

/// Bytes that are copied at once.
const COPIED_AT_ONCE: u64 = 4 << 20;

/// Points of one domain and the files that hold them.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Part {
    /// The name, for messages.
    pub(crate) name: String,
    /// Number of points.
    pub(crate) points: u64,
    /// The fields that are predicted there.
    pub(crate) fields: Vec<FieldSpec>,
    /// The files.
    pub(crate) files: Vec<FileLayout>,
    /// Bytes of what is made from them afterwards.
    later: u64,
}

/// What to do with what lies in the folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Existing {
    /// Leave it alone and refuse to run.
    Refuse,
    /// Go on where a run was interrupted.
    Resume,
    /// Begin again; earlier results stay until the new ones are complete.
    Overwrite,
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

/// A run in its folder, which it keeps locked.
pub(crate) struct Run<D: Disk> {
    _lock: FolderLock,
    disk: D,
    draft: Draft,
    unsafe_at_most: Limits,
}

/// What may be lost when a run is killed: chunks are made safe together, because each time costs as much as predicting some
/// thousand points.
#[derive(Debug, Clone, Copy)]
struct Limits {
    bytes: u64,
    time: Duration,
}

const LIMITS: Limits = Limits { bytes: 64 << 20, time: Duration::from_secs(1) };

/// A run before it changes anything.
struct Draft {
    folder: PathBuf,
    parts: Vec<Part>,
    state: State,
    /// Whether it goes on with an earlier one.
    resumed: bool,
}

/// What a run still needs of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Space {
    /// Bytes that it will write.
    pub(crate) needed: u64,
    /// Bytes that can be written, with what it removes before.
    pub(crate) free: u64,
}

impl<D: Disk> Run<D> {
    /// Begins a run, or goes on with one.
    pub(crate) fn open(disk: D, request: Request) -> Result<Self> {
        let folder = &request.folder;
        existing_folder(folder)?;
        std::fs::create_dir_all(folder).with_context(|| format!("--out: cannot create folder {}", folder.display()))?;
        let lock = FolderLock::acquire(folder)?;
        let draft = Draft::new(request)?;
        draft.check_space(&disk)?;
        let run = Self { _lock: lock, disk, draft, unsafe_at_most: LIMITS };
        if !run.draft.resumed {
            run.begin()?;
        }
        Ok(run)
    }

    /// Checks all that [`open`](Self::open) would check, and changes nothing.
    pub(crate) fn rehearse(disk: &D, request: Request) -> Result<Space> {
        let folder = &request.folder;
        let existing = existing_folder(folder)?;
        check_writable(existing).with_context(|| format!("--out: cannot write into {}", existing.display()))?;
        // A folder without the file of the lock is held by nobody.
        let held = metadata(&folder.join(LOCK_FILE))?.is_some();
        let _lock = held.then(|| FolderLock::acquire(folder)).transpose()?;
        Draft::new(request)?.check_space(disk)
    }

    /// Points that were safe on the disk when the run was opened, or are by now.
    pub(crate) fn done(&self) -> u64 {
        self.draft.state.parts.iter().map(|part| part.done).sum()
    }

    /// Predicts what is missing of a part, and calls `progress` with the number of new points after each chunk.
    ///
    /// An error of the predictor ends the call; what was written before it stays, and `--resume` goes on from there.
    pub(crate) fn write_part(
        &mut self,
        name: &str,
        predictor: &mut dyn Predict,
        progress: &mut dyn FnMut(u64),
    ) -> Result<()> {
        let Some(at) = self.draft.parts.iter().position(|part| part.name == name) else {
            bail!("the run has no part '{name}'");
        };
        // Points that are written, and what of them is not safe yet.
        let (mut written, mut bytes, mut since) = (self.draft.state.parts[at].done, 0, Instant::now());
        while written < self.draft.parts[at].points {
            let part = &self.draft.parts[at];
            let range = written..part.points.min(written.saturating_add(self.draft.state.chunk));
            let points = range.end - range.start;
            let context = || format!("{name}: points {} to {}", range.start, range.end);
            let chunk = match predictor
                .predict(range.clone())
                .and_then(|chunk| chunk.check(points, &part.fields).map(|()| chunk))
            {
                Ok(chunk) => chunk,
                Err(error) => {
                    // The chunks before it are good.
                    self.make_safe(at, written)?;
                    return Err(error).with_context(context);
                }
            };
            for file in &part.files {
                let path = partial(&self.draft.folder.join(&file.name));
                for (offset, piece) in file.chunk_pieces(range.clone(), &chunk) {
                    self.disk.write_at(&path, offset, &piece).with_context(|| cannot_write(&path))?;
                    bytes += piece.len() as u64;
                }
            }
            written = range.end;
            let Limits { bytes: most, time } = self.unsafe_at_most;
            if written == part.points || bytes >= most || since.elapsed() >= time {
                self.make_safe(at, written)?;
                (bytes, since) = (0, Instant::now());
            }
            progress(points);
        }
        Ok(())
    }

    /// Counts the points of a part that are written, once they would survive a power cut.
    fn make_safe(&mut self, at: usize, written: u64) -> Result<()> {
        if written == self.draft.state.parts[at].done {
            return Ok(());
        }
        for file in &self.draft.parts[at].files {
            let path = partial(&self.draft.folder.join(&file.name));
            self.disk.sync(&path).with_context(|| cannot_write(&path))?;
        }
        self.draft.state.parts[at].done = written;
        self.draft.state.write(&self.disk, &self.draft.folder)
    }

    /// The same run, with every chunk made safe on its own.
    #[cfg(test)]
    pub(crate) fn with_every_chunk_safe(mut self) -> Self {
        self.unsafe_at_most = Limits { bytes: 0, time: Duration::ZERO };
        self
    }

    /// Notes the names of files that will be made from those of the parts, before they are: whatever happens then, a later
    /// run knows them as this one's.
    ///
    /// # Errors
    /// The note cannot be written.
    pub(crate) fn announce(&mut self, names: impl IntoIterator<Item = String>) -> Result<()> {
        let before = self.draft.state.made.len();
        for name in names {
            if !self.draft.state.made.contains(&name) {
                self.draft.state.made.push(name);
            }
        }
        if self.draft.state.made.len() == before {
            return Ok(());
        }
        self.draft.state.write(&self.disk, &self.draft.folder)
    }

    /// Notes how many points were predicted, and in how many seconds. A run that was complete keeps what it knew.
    pub(crate) fn predicted(&mut self, points: u64, seconds: f64) {
        if points > 0 {
            self.draft.state.origin.extend(times(points, seconds));
        }
    }

    /// Gives all files their final names.
    ///
    /// # Errors
    /// A part is not complete, or a rename fails.
    pub(crate) fn finish(&mut self) -> Result<()> {
        if self.draft.state.stage == Stage::Complete {
            return Ok(());
        }
        for part in &self.draft.state.parts {
            ensure!(part.done == part.points, "part '{}': {} of {} points are done", part.name, part.done, part.points);
        }
        self.draft.check_files()?;
        // Only now may a partial file be missing: it has its final name.
        self.enter(Stage::Renaming)?;
        for (partial, path, file) in self.draft.files() {
            if metadata(&partial)?.is_none() {
                continue;
            }
            match file.packing() {
                None => self.disk.rename(&partial, &path).with_context(|| cannot_write(&path))?,
                Some(packing) => {
                    packing.pack(&self.disk, &partial, &path)?;
                    self.disk.remove(&partial).with_context(|| format!("cannot remove {}", partial.display()))?;
                }
            }
        }
        self.enter(Stage::Complete)
    }

    fn enter(&mut self, stage: Stage) -> Result<()> {
        self.draft.state.stage = stage;
        self.draft.state.write(&self.disk, &self.draft.folder)
    }

    /// Ends the run, and removes what a run left that it replaces: old results beside new ones would be taken for theirs.
    /// What was being made when a run was killed goes too.
    ///
    /// # Errors
    /// A file cannot be removed.
    pub(crate) fn conclude(mut self) -> Result<()> {
        let replaced = std::mem::take(&mut self.draft.state.replaced);
        let kept = self.draft.state.clone().into_names();
        let own = |name: &&String| is_plain(name);
        let path = |name: &String| self.draft.folder.join(name);
        let old = replaced.iter().filter(own).filter(|name| !kept.contains(name)).map(path);
        let halves = replaced.iter().chain(&kept).filter(own).map(|name| partial(&path(name)));
        for path in old.chain(halves) {
            if metadata(&path)?.is_some() {
                self.disk.remove(&path).with_context(|| format!("cannot remove {}", path.display()))?;
            }
        }
        self.draft.state.write(&self.disk, &self.draft.folder)
    }

    /// Creates all files at their full length. The state comes last: without it there is nothing to resume.
    fn begin(&self) -> Result<()> {
        let state = self.draft.folder.join(STATE_FILE);
        let partials = self.draft.files().map(|(partial, ..)| partial);
        // What an interrupted run left counts for nothing without its state.
        let replaced = self.draft.state.replaced.iter().filter(|name| is_plain(name));
        let replaced = replaced.map(|name| partial(&self.draft.folder.join(name)));
        for path in [state].into_iter().chain(partials).chain(replaced) {
            if metadata(&path)?.is_some() {
                self.disk.remove(&path).with_context(|| format!("cannot remove {}", path.display()))?;
            }
        }
        let copied = self.draft.files().flat_map(|(.., file)| file.copied_pieces());
        let bar = Progress::bytes("copying", copied.map(|(_, copied)| copied.rows * copied.width).sum());
        for (path, _, file) in self.draft.files() {
            self.disk.create(&path, file.len()).with_context(|| cannot_write(&path))?;
            for (offset, bytes) in file.fixed_pieces() {
                self.disk.write_at(&path, offset, bytes).with_context(|| cannot_write(&path))?;
            }
            for (offset, copied) in file.copied_pieces() {
                let at_once = (COPIED_AT_ONCE / copied.width.max(1)).max(1);
                let mut row = 0;
                while row < copied.rows {
                    let end = copied.rows.min(row + at_once);
                    let bytes = (copied.read)(row..end)?;
                    let (expected, got) = ((end - row) * copied.width, bytes.len());
                    ensure!(got as u64 == expected, "{}: {got} bytes were read, expected {expected}", file.name);
                    let place = offset + row * copied.width;
                    self.disk.write_at(&path, place, &bytes).with_context(|| cannot_write(&path))?;
                    bar.add(bytes.len() as u64);
                    row = end;
                }
            }
            self.disk.sync(&path).with_context(|| cannot_write(&path))?;
        }
        bar.clear();
        self.draft.state.write(&self.disk, &self.draft.folder)
    }
}

impl Draft {
    fn new(request: Request) -> Result<Self> {
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
            (Some(earlier), Existing::Resume) => {
                earlier.check_same_run(&draft.state)?;
                // Chunks of another size fill the same places.
                let fresh = std::mem::replace(&mut draft.state, earlier);
                draft.resumed = true;
                if draft.state.stage == Stage::Predicting {
                    draft.state.origin = fresh.origin;
                }
                draft.state.chunk = chunk;
                draft.check_files()?;
            }
            (Some(_), _) => {
                bail!("--out {} holds a run; --resume goes on with it, --overwrite begins again", folder.display())
            }
            (None, _) => draft.refuse_other_files()?,
        }
        Ok(draft)
    }

    /// Every file with its partial and its final name.
    fn files(&self) -> impl Iterator<Item = (PathBuf, PathBuf, &FileLayout)> {
        self.parts.iter().flat_map(|part| &part.files).map(|file| {
            let path = self.folder.join(&file.name);
            (partial(&path), path, file)
        })
    }

    /// Checks that every file is there, under the name that the stage allows, and as long as it was created.
    fn check_files(&self) -> Result<()> {
        for (partial, whole, file) in self.files() {
            let (path, found) = match self.state.stage {
                Stage::Predicting => (&partial, metadata(&partial)?),
                Stage::Complete => (&whole, metadata(&whole)?),
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
    fn check_space(&self, disk: &impl Disk) -> Result<Space> {
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
            self.state.stage == Stage::Complete || space.free >= space.needed,
            "--out {}: the run needs {} of disk space, {} are free",
            self.folder.display(),
            human_bytes(space.needed),
            human_bytes(space.free)
        );
        Ok(space)
    }
}

impl Part {
    /// A part in two files: `<name>.vtp` or `<name>.vtu` with the mesh, packed if a codec is given, and
    /// `<name>.safetensors`; `npz` says whether the latter becomes an `.npz` file too.
    pub(crate) fn new<'a>(
        name: &str,
        points: u64,
        fields: Vec<FieldSpec>,
        shape: impl Into<Shape<'a>>,
        npz: bool,
        codec: Option<Codec>,
    ) -> Self {
        let files = vec![
            vtk_layout(name, points, &fields, &shape.into(), codec),
            safetensors_layout(&format!("{name}.safetensors"), points, &fields),
        ];
        let packed = files.iter().filter_map(|file| Some(file.packing()?.most_bytes(file.len()))).sum::<u64>();
        let later = packed + if npz { npz_bytes(points, &fields) } else { 0 };
        Self { name: name.to_string(), points, fields, files, later }
    }

    /// Bytes of all files.
    pub(crate) fn bytes(&self) -> u64 {
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

/// Whether a name is that of a file of the folder, whatever the earlier state says.
fn is_plain(name: &str) -> bool {
    Path::new(name).file_name().is_some_and(|file| file == name)
}

/// What of the path is there already. A relative path ends in the folder of the process, which has no name there.
fn existing_folder(path: &Path) -> Result<&Path> {
    let existing = path.ancestors().find(|part| part.exists()).unwrap_or(Path::new("."));
    let (wanted, found) = (path.display(), existing.display());
    ensure!(
        existing.is_dir() || existing != path,
        "--out {wanted}: there is a file of this name; results need a folder"
    );
    ensure!(existing.is_dir(), "--out: cannot create folder {wanted}: {found} is a file");
    Ok(existing)
}

/// What a run knows of itself when all is predicted.
fn times(points: u64, seconds: f64) -> [(String, Value); 4] {
    let ended = DateTime::<Utc>::from(SystemTime::now()).to_rfc3339_opts(SecondsFormat::Secs, true);
    let values: [(&str, Value); 4] = [
        ("predicted", ended.into()),
        ("points", points.into()),
        ("seconds", ((seconds * 1e3).round() / 1e3).into()),
        ("points_per_second", ((points as f64 / seconds.max(1e-9)).round()).into()),
    ];
    values.map(|(name, value)| (name.to_string(), value))
}

fn cannot_write(path: &Path) -> String {
    format!("cannot write {}", path.display())
}

/// A number of bytes for people.
pub(crate) fn human_bytes(bytes: u64) -> String {
    indicatif::HumanBytes(bytes).to_string()
}
