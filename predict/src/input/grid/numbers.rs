//! Numbers that lie one after the other, wherever they are kept.

use std::ops::Range;

use anyhow::{Context, Result};

/// Numbers that are read range by range, so that an array may be larger than the memory.
pub(crate) trait Numbers: Send {
    /// Some of the numbers.
    ///
    /// # Errors
    /// A file that ends early, is damaged or cannot be read.
    fn floats(&mut self, range: Range<u64>) -> Result<Vec<f64>>;

    /// Some of the numbers, which must be whole.
    ///
    /// # Errors
    /// As [`floats`](Self::floats); numbers that are stored as anything but integers.
    fn integers(&mut self, range: Range<u64>) -> Result<Vec<i64>>;

    /// Closes what can be opened again, so that thousands of files may make one grid.
    fn close(&mut self) {}
}

/// Numbers in memory.
pub(crate) struct Floats(pub Vec<f64>);

/// Whole numbers in memory.
pub(crate) struct Integers(pub Vec<i64>);

impl Numbers for Floats {
    fn floats(&mut self, range: Range<u64>) -> Result<Vec<f64>> {
        Ok(slice(&self.0, range)?.to_vec())
    }

    fn integers(&mut self, _: Range<u64>) -> Result<Vec<i64>> {
        anyhow::bail!("the numbers must be integers, but they are stored with fractions")
    }
}

impl Numbers for Integers {
    fn floats(&mut self, range: Range<u64>) -> Result<Vec<f64>> {
        Ok(slice(&self.0, range)?.iter().map(|&number| number as f64).collect())
    }

    fn integers(&mut self, range: Range<u64>) -> Result<Vec<i64>> {
        Ok(slice(&self.0, range)?.to_vec())
    }
}

fn slice<T>(numbers: &[T], range: Range<u64>) -> Result<&[T]> {
    let bounds = usize::try_from(range.start).ok().zip(usize::try_from(range.end).ok());
    let part = bounds.and_then(|(start, end)| numbers.get(start..end));
    part.with_context(|| format!("ends early: expected {} numbers, got {}", range.end, numbers.len()))
}
