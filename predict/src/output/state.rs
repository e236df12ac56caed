//! `run.json`: what a run is made of, and how far it is.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::blocks::Settled;
use super::disk::{Disk, metadata, write_whole};
use super::pack::packed_name;
use super::ranges::Ranges;

/// The name of the file in the folder of the run.
pub(super) const STATE_FILE: &str = "run.json";

/// Bytes of the file at most.
const LONGEST_STATE: u64 = 16 << 20;

/// Version of what the file means.
const VERSION: u32 = 3;

/// The progress of a run. Written only after the chunks that it counts are safe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct State {
    version: u32,
    /// All that the result depends on, by name; a run is resumed only with the same.
    pub(crate) inputs: Map<String, Value>,
    /// What else says how the result was made: files, options, times.
    #[serde(default)]
    pub(crate) origin: Map<String, Value>,
    /// Points per chunk.
    pub(crate) chunk: u64,
    /// The parts of the result.
    pub(crate) parts: Vec<PartState>,
    /// Which names the files have.
    pub(crate) stage: Stage,
    /// Files that were made from those of the parts, such as pictures.
    pub(crate) made: Vec<String>,
    /// Files of the run that this one takes the place of; they go when this one is complete.
    pub(crate) replaced: Vec<String>,
}

/// Which names the files of a run have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Stage {
    /// All of them their partial names.
    Predicting,
    /// All points are done; each file has its partial or its final name.
    Renaming,
    /// All of them their final names; what is made from them may be missing.
    Named,
    /// All of them their final names, and nothing is missing.
    Complete,
}

/// The progress of one part.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PartState {
    /// The name.
    pub(crate) name: String,
    /// Points altogether.
    pub(crate) points: u64,
    /// Points of which every byte is safe.
    pub(crate) done: Ranges,
    /// Names and bytes of the files.
    pub(crate) files: Vec<(String, u64)>,
}

impl State {
    /// The state of a run that has not begun.
    pub(crate) fn new(
        inputs: Map<String, Value>,
        origin: Map<String, Value>,
        chunk: u64,
        parts: Vec<PartState>,
    ) -> Self {
        Self {
            version: VERSION,
            inputs,
            origin,
            chunk,
            parts,
            stage: Stage::Predicting,
            made: Vec::new(),
            replaced: Vec::new(),
        }
    }

    /// Reads the state of a folder, if there is one.
    pub(crate) fn read(folder: &Path) -> Result<Option<Self>> {
        let path = folder.join(STATE_FILE);
        let Some(found) = metadata(&path)? else { return Ok(None) };
        let regular = found.is_file() && found.len() <= LONGEST_STATE;
        ensure!(regular, "{} is damaged: it is no file of a run; --overwrite begins again", path.display());
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let state: Self = serde_json::from_str(&text)
            .with_context(|| format!("{} is damaged; --overwrite begins again", path.display()))?;
        let found = state.version;
        ensure!(found == VERSION, "{}: version {found}, this program reads {VERSION}", path.display());
        let fits = state.parts.iter().all(|part| part.done.end() <= part.points);
        ensure!(fits, "{} is damaged: more is done than there is; --overwrite begins again", path.display());
        Ok(Some(state))
    }

    /// Counts points as done. What names none of them counts for nothing.
    pub(crate) fn record(&mut self, settled: impl IntoIterator<Item = Settled>) {
        for Settled { part, range, .. } in settled {
            if let Some(part) = self.parts.get_mut(part).filter(|part| range.end <= part.points) {
                part.done.insert(range);
            }
        }
    }

    /// Points that are safe, of how many.
    pub(crate) fn progress(&self) -> (u64, u64) {
        let sum = |count: fn(&PartState) -> u64| self.parts.iter().map(count).fold(0, u64::saturating_add);
        (sum(|part| part.done.count()), sum(|part| part.points))
    }

    /// Names of all files that the run writes or replaces.
    pub(crate) fn into_names(self) -> Vec<String> {
        let of_parts = self.parts.into_iter().flat_map(|part| part.files);
        let of_parts = of_parts.flat_map(|(name, _)| [packed_name(&name), name]);
        of_parts.chain(self.made).chain(self.replaced).collect()
    }

    /// Replaces the state of a folder in one step.
    pub(crate) fn write(&self, disk: &impl Disk, folder: &Path) -> Result<()> {
        write_whole(disk, &folder.join(STATE_FILE), &serde_json::to_vec_pretty(self)?)
    }

    /// Checks that `fresh`, the state of the run as it is asked for now, is that of the run that was begun.
    pub(crate) fn check_same_run(&self, fresh: &Self) -> Result<()> {
        let names = self.inputs.keys().chain(fresh.inputs.keys());
        for name in names {
            let (before, now) = (self.inputs.get(name), fresh.inputs.get(name));
            if before != now {
                let show = |value: Option<&Value>| value.map_or("absent".to_string(), Value::to_string);
                bail!("{name} was {} when the run began and is {} now", show(before), show(now));
            }
        }
        for (before, now) in self.parts.iter().zip(&fresh.parts) {
            let same = (&before.name, before.points, &before.files) == (&now.name, now.points, &now.files);
            ensure!(same, "the files of part '{}' differ from those of the run that was begun", now.name);
        }
        let (before, now) = (self.parts.len(), fresh.parts.len());
        ensure!(before == now, "the run was begun with {before} parts and has {now} now");
        Ok(())
    }
}
