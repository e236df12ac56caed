//! Numbers that lie one after the other, wherever they are kept.

use std::fmt;
use std::ops::Range;

use anyhow::{Context, Result};

/// Kinds of numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Element {
    Int8,
    UInt8,
    Int16,
    UInt16,
    Int32,
    UInt32,
    Int64,
    UInt64,
    Float32,
    Float64,
}

impl Element {
    /// The kind with a name; none for texts.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "Int8" => Self::Int8,
            "UInt8" => Self::UInt8,
            "Int16" => Self::Int16,
            "UInt16" => Self::UInt16,
            "Int32" => Self::Int32,
            "UInt32" => Self::UInt32,
            "Int64" => Self::Int64,
            "UInt64" => Self::UInt64,
            "Float32" => Self::Float32,
            "Float64" => Self::Float64,
            _ => return None,
        })
    }

    /// Bytes of a number.
    pub(crate) fn size(self) -> u64 {
        match self {
            Self::Int8 | Self::UInt8 => 1,
            Self::Int16 | Self::UInt16 => 2,
            Self::Int32 | Self::UInt32 | Self::Float32 => 4,
            Self::Int64 | Self::UInt64 | Self::Float64 => 8,
        }
    }

    /// Whether the numbers have no fractions.
    pub(crate) fn is_whole(self) -> bool {
        !matches!(self, Self::Float32 | Self::Float64)
    }
}

impl fmt::Display for Element {
    /// As VTK writes it.
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

/// Numbers that are read range by range, so that an array may be larger than the memory.
pub(crate) trait Numbers: Send {
    /// As what they are stored.
    fn element(&self) -> Element;

    /// How many there are.
    ///
    /// # Errors
    /// A file that ends early, is damaged or cannot be read.
    fn count(&mut self) -> Result<u64>;

    /// The bytes of some of the numbers as they are stored, little-endian.
    ///
    /// # Errors
    /// As [`count`](Self::count).
    fn bytes(&mut self, range: Range<u64>) -> Result<Vec<u8>>;

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
pub(crate) struct Floats(pub(crate) Vec<f64>);

/// Numbers of single precision in memory.
pub(crate) struct Singles(pub(crate) Vec<f32>);

/// Whole numbers in memory.
pub(crate) struct Integers(pub(crate) Vec<i64>);

impl Numbers for Floats {
    fn element(&self) -> Element {
        Element::Float64
    }

    fn count(&mut self) -> Result<u64> {
        Ok(self.0.len() as u64)
    }

    fn bytes(&mut self, range: Range<u64>) -> Result<Vec<u8>> {
        Ok(slice(&self.0, range)?.iter().flat_map(|number| number.to_le_bytes()).collect())
    }

    fn floats(&mut self, range: Range<u64>) -> Result<Vec<f64>> {
        Ok(slice(&self.0, range)?.to_vec())
    }

    fn integers(&mut self, _: Range<u64>) -> Result<Vec<i64>> {
        anyhow::bail!("the numbers must be integers, but they are stored with fractions")
    }
}

impl Numbers for Singles {
    fn element(&self) -> Element {
        Element::Float32
    }

    fn count(&mut self) -> Result<u64> {
        Ok(self.0.len() as u64)
    }

    fn bytes(&mut self, range: Range<u64>) -> Result<Vec<u8>> {
        Ok(slice(&self.0, range)?.iter().flat_map(|number| number.to_le_bytes()).collect())
    }

    fn floats(&mut self, range: Range<u64>) -> Result<Vec<f64>> {
        Ok(slice(&self.0, range)?.iter().map(|&number| f64::from(number)).collect())
    }

    fn integers(&mut self, _: Range<u64>) -> Result<Vec<i64>> {
        anyhow::bail!("the numbers must be integers, but they are stored with fractions")
    }
}

impl Numbers for Integers {
    fn element(&self) -> Element {
        Element::Int64
    }

    fn count(&mut self) -> Result<u64> {
        Ok(self.0.len() as u64)
    }

    fn bytes(&mut self, range: Range<u64>) -> Result<Vec<u8>> {
        Ok(slice(&self.0, range)?.iter().flat_map(|number| number.to_le_bytes()).collect())
    }

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
