//! Points, read once before anything is computed.

use anyhow::{Context, Result};
use candle_mixed_attention::models::PositionStatistics;
use crc32fast::Hasher;
use serde_json::{Value, json};

use crate::input::{Input, Location};

/// A file, and the option that named it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Named {
    pub option: String,
    pub file: String,
}

/// A file of points that are all finite and inside the box of the statistics.
pub(crate) struct Source {
    pub input: Input,
    /// Smallest and largest coordinates.
    pub bounds: [[f32; 3]; 2],
    checksum: u32,
}

impl Source {
    /// Opens a file and reads all of its points, or the centres of its cells; `at` says which, where the file leaves the
    /// choice.
    pub(crate) fn open(
        named: &Named,
        at: Option<Location>,
        statistics: &PositionStatistics,
        chunk: u64,
    ) -> Result<Self> {
        let Named { option, file } = named;
        Self::scan(option, Input::open(file, at).context(option.clone())?, statistics, chunk)
    }

    /// Reads all points of an input; `option` is what errors call it.
    pub(crate) fn scan(option: &str, mut input: Input, statistics: &PositionStatistics, chunk: u64) -> Result<Self> {
        let (mut hasher, mut start) = (Hasher::new(), 0);
        let mut bounds = [[f32::INFINITY; 3], [f32::NEG_INFINITY; 3]];
        while start < input.len() {
            let end = input.len().min(start + chunk);
            let points = input.read(start..end).with_context(|| option.to_string())?;
            let in_box = statistics.normalise(option, points.as_flattened());
            in_box.map_err(|error| error.counted_from(start))?;
            hasher.update(bytemuck::cast_slice(&points));
            for point in points {
                for (axis, x) in point.into_iter().enumerate() {
                    bounds[0][axis] = bounds[0][axis].min(x);
                    bounds[1][axis] = bounds[1][axis].max(x);
                }
            }
            start = end;
        }
        hasher.update(bytemuck::cast_slice(input.surface().map_or(&[][..], |mesh| mesh.corners())));
        Ok(Self { input, bounds, checksum: hasher.finalize() })
    }

    /// What tells these points from others, whatever their file is called.
    pub(crate) fn identity(&self) -> Value {
        json!({"points": self.input.len(), "crc32": format!("{:08x}", self.checksum)})
    }
}
