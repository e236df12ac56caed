//! Arrays in files, read range by range.

use std::ops::Range;

use anyhow::{Context, Result, bail, ensure};

use super::DIMENSIONS;

/// Numbers in rows of one width, read range by range.
pub(crate) trait Rows {
    /// How many rows there are.
    fn rows(&self) -> u64;

    /// Numbers in a row.
    fn width(&self) -> usize;

    /// Some of the rows, one after the other, in the precision of the file.
    fn read(&mut self, rows: Range<u64>) -> Result<Vec<f64>>;
}

/// An array in a file.
pub(crate) struct Table<R = Box<dyn Rows>> {
    name: String,
    source: R,
    /// Factor of all numbers.
    scale: f64,
}

impl Rows for Box<dyn Rows> {
    fn rows(&self) -> u64 {
        self.as_ref().rows()
    }

    fn width(&self) -> usize {
        self.as_ref().width()
    }

    fn read(&mut self, rows: Range<u64>) -> Result<Vec<f64>> {
        self.as_mut().read(rows)
    }
}

impl<R: Rows> Table<R> {
    /// An array that is called by the name of its file in errors.
    pub(crate) fn new(name: &str, source: R) -> Self {
        Self { name: name.to_string(), source, scale: 1.0 }
    }

    /// Multiplies all numbers from here on.
    pub(crate) fn scale(&mut self, by: f64) {
        self.scale *= by;
    }

    /// Number of rows.
    pub(crate) fn rows(&self) -> u64 {
        self.source.rows()
    }

    /// Numbers in a row.
    pub(crate) fn width(&self) -> usize {
        self.source.width()
    }

    /// Some of the rows, one after the other.
    pub(crate) fn read(&mut self, range: Range<u64>) -> Result<Vec<f32>> {
        let numbers = self.source.read(range.clone()).with_context(|| self.name.clone())?;
        let (expected, got) = ((range.end - range.start) * self.width() as u64, numbers.len());
        ensure!(got as u64 == expected, "{}: ends early: expected {expected} numbers, got {got}", self.name);
        Ok(numbers.into_iter().map(|number| (number * self.scale) as f32).collect())
    }

    /// Some of the rows, which must hold neither NaN nor infinity.
    pub(crate) fn read_finite(&mut self, range: Range<u64>) -> Result<Vec<f32>> {
        let (width, start) = (self.width(), range.start);
        let numbers = self.read(range)?;
        if let Some(at) = numbers.iter().position(|x| !x.is_finite()) {
            let (point, component) = (start + (at / width) as u64, at % width);
            let component = match width {
                DIMENSIONS => ["x", "y", "z"][component].to_string(),
                _ => format!("component {component}"),
            };
            bail!("{}: point {point} has {component} = {}; numbers must be finite", self.name, numbers[at]);
        }
        Ok(numbers)
    }

    /// Single rows, one after the other, in the order asked for.
    pub(crate) fn pick(&mut self, rows: &[usize]) -> Result<Vec<f32>> {
        // From the front to the back of the file, neighbours together, whatever the order of the result.
        let mut order: Vec<usize> = (0..rows.len()).collect();
        order.sort_unstable_by_key(|&at| rows[at]);
        let width = self.width();
        let mut picked = vec![0.0; rows.len() * width];
        for run in order.chunk_by(|&at, &next| rows[next] - rows[at] <= 1) {
            let (first, last) = (rows[run[0]], rows[run[run.len() - 1]]);
            let values = self.read(first as u64..last as u64 + 1)?;
            for &at in run {
                picked[at * width..][..width].copy_from_slice(&values[(rows[at] - first) * width..][..width]);
            }
        }
        Ok(picked)
    }
}

/// Rows and width of an array, which must be `[rows, width]`, or `[rows]` for numbers alone.
pub(super) fn shape_of_rows(shape: &[u64]) -> Result<(u64, usize)> {
    match *shape {
        [rows] => Ok((rows, 1)),
        [rows, width] if width > 0 => Ok((rows, usize::try_from(width)?)),
        _ => bail!("an array must have shape [points, components], got {shape:?}"),
    }
}
