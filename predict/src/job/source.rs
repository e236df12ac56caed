//! Points, read once before anything is computed.

use std::ops::Range;

use anyhow::{Context, Result, bail, ensure};
use candle_mixed_attention::models::PositionStatistics;
use crc32fast::Hasher;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Border, Scans};
use crate::input::{Input, Location};
use crate::progress::Progress;
use crate::terminal::remark;

/// A file, and the option that named it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Named {
    pub(crate) option: String,
    pub(crate) file: String,
    /// Factor of its coordinates.
    pub(crate) scale: f64,
}

impl Named {
    /// A file in the units that it has.
    pub(crate) fn new(option: impl Into<String>, file: impl Into<String>) -> Self {
        Self { option: option.into(), file: file.into(), scale: 1.0 }
    }

    /// What errors call it.
    pub(crate) fn told(&self) -> String {
        format!("{} {}", self.option, self.file)
    }
}

/// A file of points that are all finite and, but for those that are dropped or moved, inside the box of the statistics.
pub(crate) struct Source {
    pub(crate) input: Input,
    /// Smallest and largest coordinates of what is predicted.
    pub(crate) bounds: [[f32; 3]; 2],
    checksum: u32,
    border: Border,
}

/// What is known of points that were all read.
#[derive(Debug, Serialize, Deserialize)]
struct Found {
    /// Infinite where all points are dropped.
    bounds: [[f32; 3]; 2],
    checksum: u32,
    /// Points outside the box.
    strays: u64,
}

impl Found {
    fn read(
        option: &str,
        name: &str,
        input: &mut Input,
        statistics: &PositionStatistics,
        border: &Border,
        chunk: u64,
    ) -> Result<Self> {
        let (mut hasher, mut start, mut strays) = (Hasher::new(), 0, 0);
        let mut bounds = [[f32::INFINITY; 3], [f32::NEG_INFINITY; 3]];
        let progress = Progress::reading(&format!("reading {name}"), input.len());
        while start < input.len() {
            let end = input.len().min(start + chunk);
            let mut points = input.read(start..end).with_context(|| option.to_string())?;
            hasher.update(bytemuck::cast_slice(&points));
            let outside = border.clamp(&mut points);
            let in_box = statistics.normalise(name, points.as_flattened());
            in_box.map_err(|error| error.counted_from(start))?;
            let dropped = if border.drops() { outside.as_slice() } else { &[] };
            for (_, point) in points.into_iter().enumerate().filter(|(at, _)| dropped.binary_search(at).is_err()) {
                for (axis, x) in point.into_iter().enumerate() {
                    bounds[0][axis] = bounds[0][axis].min(x);
                    bounds[1][axis] = bounds[1][axis].max(x);
                }
            }
            strays += outside.len() as u64;
            progress.add(end - start);
            start = end;
        }
        progress.clear();
        hasher.update(bytemuck::cast_slice(input.surface().map_or(&[][..], |mesh| mesh.corners())));
        Ok(Self { bounds, checksum: hasher.finalize(), strays })
    }
}

/// Some points of a source.
pub(crate) struct Points {
    /// As they are in the file.
    pub(crate) positions: Vec<[f32; 3]>,
    /// As the network may see them.
    pub(crate) bounded: Vec<[f32; 3]>,
    /// Those whose fields are not told, by their place in both lists.
    pub(crate) dropped: Vec<usize>,
}

impl Source {
    /// Opens a file and reads all of its points, or the centres of its cells, unless another process has; `at` says which,
    /// where the file leaves the choice.
    pub(crate) fn open(
        named: &Named,
        at: Option<Location>,
        statistics: &PositionStatistics,
        border: &Border,
        chunk: u64,
        scans: &Scans,
    ) -> Result<Self> {
        let mut input = Input::open(&named.file, at).context(named.option.clone())?;
        input.scale(named.scale);
        let (option, name) = (&named.option, named.told());
        let at = at.map(|at| format!("{at:?}"));
        let about = json!({"scale": named.scale, "at": at, "outside": border.name(), "statistics": statistics});
        let read = || Found::read(option, &name, &mut input, statistics, border, chunk);
        let found = scans.once(&named.file, about, read)?;
        Self::of(&name, input, found, border)
    }

    /// Reads all points of an input, of an option; `name` is what errors call both.
    pub(crate) fn scan(
        option: &str,
        name: &str,
        mut input: Input,
        statistics: &PositionStatistics,
        border: &Border,
        chunk: u64,
    ) -> Result<Self> {
        let found = Found::read(option, name, &mut input, statistics, border, chunk)?;
        Self::of(name, input, found, border)
    }

    fn of(name: &str, input: Input, found: Found, border: &Border) -> Result<Self> {
        let Found { bounds, checksum, strays } = found;
        let count = input.len();
        ensure!(!border.drops() || strays < count, "{name}: all {count} points lie outside the box of the statistics");
        if let Some(told) = border.told(strays, count) {
            remark(format_args!("note: {name}: {told}"));
        }
        Ok(Self { input, bounds, checksum, border: border.clone() })
    }

    /// Some of the points.
    pub(crate) fn read(&mut self, range: Range<u64>) -> Result<Points> {
        let positions = self.input.read(range)?;
        let mut bounded = positions.clone();
        let mut dropped = self.border.clamp(&mut bounded);
        if !self.border.drops() {
            dropped.clear();
        }
        Ok(Points { positions, bounded, dropped })
    }

    /// Random points as [`Input::draw`] gives them, without those that are dropped.
    pub(crate) fn draw(&mut self, count: usize, seed: u64) -> Result<Vec<[f32; 3]>> {
        let mut points = self.input.draw(count, seed)?;
        let outside = self.border.clamp(&mut points);
        if self.border.drops() {
            for at in outside.into_iter().rev() {
                points.remove(at);
            }
        }
        Ok(points)
    }

    /// Puts the faces of a surface into patches.
    ///
    /// # Errors
    /// As [`Sites::patch_by`](crate::input::Sites::patch_by); points, and surfaces without arrays.
    pub(crate) fn patch_by(&mut self, array: &str) -> Result<()> {
        match &mut self.input {
            Input::Sites(sites) => sites.patch_by(array),
            Input::Mesh(_) | Input::Points(_) => bail!("the file of the surface has no arrays at cells"),
        }
    }

    /// Whether some of its points may be left out.
    pub(crate) fn drops(&self) -> bool {
        self.border.drops()
    }

    /// What tells these points from others, whatever their file is called.
    pub(crate) fn identity(&self) -> Value {
        json!({"points": self.input.len(), "crc32": format!("{:08x}", self.checksum)})
    }
}
