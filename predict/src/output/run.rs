//! One run: its files from the first byte to their final names.

use std::collections::VecDeque;
use std::ops::Range;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail, ensure};
use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::Value;

use super::asked::Asked;
use super::blocks::{Blocks, OpenBlocks, Settled};
use super::chunk::{Chunk, Predict};
use super::claims::Claims;
use super::crew::Crew;
use super::disk::{Disk, check_writable, metadata, partial};
use super::draft::{Draft, Existing, Request, Space, existing_folder};
use super::state::{STATE_FILE, Stage, State};
use crate::progress::Progress;

/// Bytes that are copied at once.
const COPIED_AT_ONCE: u64 = 4 << 20;

/// A run in its folder, from which its crew keeps others away.
pub(crate) struct Run<D: Disk> {
    crew: Box<dyn Crew<D>>,
    disk: D,
    draft: Draft,
    unsafe_at_most: Limits,
}

/// How a process leaves a run whose blocks are all taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Leaving {
    /// Others are still at work, or have finished it.
    Others,
    /// It is the last, and so many points were left by processes that are gone.
    Missing(u64),
    /// It is the last, all points are done, and it finishes.
    Last,
}

/// What may be lost when a run is killed: chunks are made safe together, because each time costs as much as predicting some
/// thousand points.
#[derive(Debug, Clone, Copy)]
struct Limits {
    bytes: u64,
    time: Duration,
}

const LIMITS: Limits = Limits { bytes: 64 << 20, time: Duration::from_secs(1) };

impl<D: Disk> Run<D> {
    /// Begins a run, or goes on with one.
    pub(crate) fn open(disk: D, request: Request, mut crew: Box<dyn Crew<D>>) -> Result<Self> {
        crew.agree(&disk, &Asked::of(&request))?;
        let folder = &request.folder;
        existing_folder(folder)?;
        std::fs::create_dir_all(folder).with_context(|| format!("--out: cannot create folder {}", folder.display()))?;
        crew.enter(folder)?;
        if !crew.leads() {
            crew.begin(&disk)?;
            let draft = Draft::new(Request { existing: Existing::Follow, ..request })?;
            return Ok(Self { crew, disk, draft, unsafe_at_most: LIMITS });
        }
        let draft = Draft::new(request)?;
        draft.check_space(&disk)?;
        let mut run = Self { crew, disk, draft, unsafe_at_most: LIMITS };
        match run.draft.resumed {
            true => run.collect()?,
            false => run.create()?,
        }
        run.crew.begin(&run.disk)?;
        Ok(run)
    }

    /// Checks all that [`open`](Self::open) would check, and changes nothing.
    pub(crate) fn rehearse(disk: &D, request: Request, crew: &dyn Crew<D>) -> Result<Space> {
        let folder = &request.folder;
        let existing = existing_folder(folder)?;
        check_writable(existing).with_context(|| format!("--out: cannot write into {}", existing.display()))?;
        crew.look(folder)?;
        Draft::new(request)?.check_space(disk)
    }

    /// Points that were safe on the disk when the run was opened, or are by now.
    pub(crate) fn done(&self) -> u64 {
        self.draft.state.progress().0
    }

    /// Predicts what is missing of a part and what nobody else takes, and calls `progress` with the number of new points
    /// after each chunk; of a crew that tells this process, with those of the others, too.
    ///
    /// An error of the predictor ends the call; blocks that were written before it stay, and `--resume` goes on from there.
    pub(crate) fn write_part(
        &mut self,
        name: &str,
        predictor: &mut dyn Predict,
        progress: &mut dyn FnMut(u64),
    ) -> Result<()> {
        let Some(at) = self.draft.parts.iter().position(|part| part.name == name) else {
            bail!("the run has no part '{name}'");
        };
        let blocks = Blocks::new(self.draft.parts[at].points, self.draft.state.chunk);
        let is_missing = |block: &u64| !self.draft.state.parts[at].done.gaps(blocks.range(*block)).is_empty();
        let mut wanted = (0..blocks.count()).filter(is_missing).collect();
        self.crew.arrange(&mut wanted);
        let (mut open, mut under_way) = (OpenBlocks::new(at, blocks), 0);
        let (mut unsafe_bytes, mut since) = (0, Instant::now());
        loop {
            let next =
                if under_way < predictor.width() { self.next_chunk(&mut open, blocks, at, &mut wanted)? } else { None };
            let (range, predicted) = match next {
                Some(range) => match predictor.begin(range.clone()).transpose() {
                    Some(predicted) => (range, predicted),
                    None => {
                        under_way += 1;
                        continue;
                    }
                },
                None if under_way == 0 => break,
                None => {
                    under_way -= 1;
                    predictor.end()?
                }
            };
            match self.write_chunk(at, &range, predicted) {
                Ok(bytes) => unsafe_bytes += bytes,
                Err(error) => {
                    // The blocks before it are good.
                    self.make_safe(at, open.take_written())?;
                    return Err(error);
                }
            }
            open.count(&range);
            progress(range.end - range.start);
            let Limits { bytes, time } = self.unsafe_at_most;
            if unsafe_bytes >= bytes || since.elapsed() >= time {
                self.make_safe_and_tell(at, open.take_written(), progress)?;
                (unsafe_bytes, since) = (0, Instant::now());
            }
        }
        self.make_safe_and_tell(at, open.take_written(), progress)
    }

    /// The next chunk of the blocks that were taken, or of another one.
    fn next_chunk(
        &mut self,
        open: &mut OpenBlocks,
        blocks: Blocks,
        at: usize,
        wanted: &mut VecDeque<u64>,
    ) -> Result<Option<Range<u64>>> {
        if let Some(range) = open.next() {
            return Ok(Some(range));
        }
        let Some(block) = self.crew.take(&self.disk, at, wanted)? else { return Ok(None) };
        open.open(block, self.draft.state.parts[at].done.gaps(blocks.range(block)));
        Ok(open.next())
    }

    /// Writes a chunk to its places; the number of its bytes.
    fn write_chunk(&self, at: usize, range: &Range<u64>, predicted: Result<Chunk>) -> Result<u64> {
        let part = &self.draft.parts[at];
        let checked = predicted.and_then(|chunk| chunk.check(range.end - range.start, &part.fields).map(|()| chunk));
        let chunk = checked.with_context(|| format!("{}: points {} to {}", part.name, range.start, range.end))?;
        let mut bytes = 0;
        for file in &part.files {
            let path = partial(&self.draft.folder.join(&file.name));
            for (offset, piece) in file.chunk_pieces(range.clone(), &chunk) {
                self.disk.write_at(&path, offset, &piece).with_context(|| cannot_write(&path))?;
                bytes += piece.len() as u64;
            }
        }
        Ok(bytes)
    }

    /// As [`make_safe`](Self::make_safe), and calls `progress` with what others have done.
    fn make_safe_and_tell(&mut self, at: usize, written: Vec<Settled>, progress: &mut dyn FnMut(u64)) -> Result<()> {
        match self.make_safe(at, written)? {
            0 => {}
            others => progress(others),
        }
        Ok(())
    }

    /// Counts blocks of a part that are written, once they would survive a power cut. Returns how many points of others were
    /// counted with them.
    fn make_safe(&mut self, at: usize, written: Vec<Settled>) -> Result<u64> {
        if written.is_empty() {
            return Ok(0);
        }
        for file in &self.draft.parts[at].files {
            let path = partial(&self.draft.folder.join(&file.name));
            self.disk.sync(&path).with_context(|| cannot_write(&path))?;
        }
        let own = points_of(&written);
        let settled = self.crew.settle(&self.disk, written)?;
        let all = points_of(&settled);
        self.record(settled)?;
        Ok(all.saturating_sub(own))
    }

    fn record(&mut self, settled: Vec<Settled>) -> Result<()> {
        if settled.is_empty() {
            return Ok(());
        }
        self.draft.state.record(settled);
        self.draft.state.write(&self.disk, &self.draft.folder)
    }

    /// Counts the blocks whose claims say that they are safe, and lets all claims go: whoever made them is gone, or is
    /// about to ask for the lock that this process has alone.
    fn collect(&mut self) -> Result<()> {
        let claims = Claims::of(&self.draft.folder);
        self.record(claims.settled()?)?;
        claims.forget(&self.disk)
    }

    /// To be called when no block is left: says who finishes, and calls `progress` with what others tell only now.
    ///
    /// # Errors
    /// What others have done cannot be read.
    pub(crate) fn leave(&mut self, progress: &mut dyn FnMut(u64)) -> Result<Leaving> {
        let Some(settled) = self.crew.leave()? else { return Ok(Leaving::Others) };
        progress(points_of(&settled));
        // Another process may have been the last one before, and have counted claims.
        let folder = &self.draft.folder;
        let mut known = State::read(folder)?.with_context(|| format!("--out {}: the run is gone", folder.display()))?;
        known.origin = std::mem::take(&mut self.draft.state.origin);
        let before = std::mem::replace(&mut self.draft.state, known).stage;
        if self.draft.state.stage == Stage::Complete && before != Stage::Complete {
            return Ok(Leaving::Others);
        }
        self.record(settled)?;
        self.collect()?;
        let (done, points) = self.draft.state.progress();
        if done == points {
            return Ok(Leaving::Last);
        }
        self.crew.begin(&self.disk)?;
        Ok(Leaving::Missing(points - done))
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
        if matches!(self.draft.state.stage, Stage::Named | Stage::Complete) {
            return Ok(());
        }
        for part in &self.draft.state.parts {
            let (done, points) = (part.done.count(), part.points);
            ensure!(done == points, "part '{}': {done} of {points} points are done", part.name);
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
        self.enter(Stage::Named)
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
        self.crew.disband();
        Claims::of(&self.draft.folder).remove_folder(&self.disk)?;
        self.enter(Stage::Complete)
    }

    /// Creates all files at their full length. The state comes last: without it there is nothing to resume.
    fn create(&self) -> Result<()> {
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
        Claims::of(&self.draft.folder).forget(&self.disk)?;
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

/// Whether a name is that of a file of the folder, whatever the earlier state says.
fn is_plain(name: &str) -> bool {
    Path::new(name).file_name().is_some_and(|file| file == name)
}

fn points_of(settled: &[Settled]) -> u64 {
    settled.iter().map(|Settled { range, .. }| range.end - range.start).sum()
}

/// Points of the run in a folder that are safe, of how many, whoever predicted them; nothing where there is no run.
pub(crate) fn progress(folder: &Path) -> Result<Option<(u64, u64)>> {
    let Some(mut state) = State::read(folder)? else { return Ok(None) };
    state.record(Claims::of(folder).settled()?);
    Ok(Some(state.progress()))
}

/// The files that were made from the results in a folder, if these are complete.
pub(crate) fn made_of_complete(folder: &Path) -> Result<Option<Vec<String>>> {
    Ok(State::read(folder)?.filter(|state| state.stage == Stage::Complete).map(|state| state.made))
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
