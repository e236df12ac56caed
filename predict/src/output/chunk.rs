//! What a predictor returns for a range of points.

use std::ops::Range;

use anyhow::{Result, bail, ensure};

/// Name and width of a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FieldSpec {
    /// The name of its array in the files.
    pub name: String,
    /// 1 for a scalar, 3 for a vector.
    pub components: usize,
}

impl FieldSpec {
    /// A field of some components.
    pub(crate) fn new(name: impl Into<String>, components: usize) -> Self {
        Self { name: name.into(), components }
    }
}

/// Positions and fields of consecutive points, in physical units.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Chunk {
    /// The positions.
    pub points: Vec<[f32; 3]>,
    /// The values of every field, point after point, in the order of the field specs.
    pub fields: Vec<Vec<f32>>,
}

/// The flow at any range of a fixed list of points.
pub(crate) trait Predict {
    /// Ranges that should be begun before one is ended.
    fn width(&self) -> usize {
        1
    }

    /// Begins to predict the points of `range`, whose fields depend on the range alone; those that are known at once are
    /// returned.
    fn begin(&mut self, range: Range<u64>) -> Result<Option<Chunk>>;

    /// Ends one of the ranges that were begun and not known at once, whichever is ready first. The outer error says that
    /// there is none.
    fn end(&mut self) -> Result<(Range<u64>, Result<Chunk>)> {
        bail!("nothing was begun that is not ended")
    }
}

impl<F: FnMut(Range<u64>) -> Result<Chunk>> Predict for F {
    fn begin(&mut self, range: Range<u64>) -> Result<Option<Chunk>> {
        self(range).map(Some)
    }
}

impl Chunk {
    /// Checks that the chunk holds `points` points and every field for each of them.
    pub(super) fn check(&self, points: u64, fields: &[FieldSpec]) -> Result<()> {
        let got = self.points.len();
        ensure!(got as u64 == points, "the predictor returned {got} positions for {points} points");
        let (expected, got) = (fields.len(), self.fields.len());
        ensure!(got == expected, "the predictor returned {got} fields, expected {expected}");
        for (field, values) in fields.iter().zip(&self.fields) {
            let (name, expected, got) = (&field.name, points * field.components as u64, values.len());
            ensure!(got as u64 == expected, "field '{name}': the predictor returned {got} values, expected {expected}");
        }
        Ok(())
    }
}
