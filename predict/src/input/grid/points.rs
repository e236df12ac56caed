//! Points in any order, of an array that is read from front to back.

use std::ops::Range;

use anyhow::{Context, Result};

use super::numbers::{Element, Numbers};
use crate::vector::{Vec3, scaled};

/// Points that are read at once.
const PAGE: u64 = 1 << 14;

/// Pages that are kept: 48 MiB of single precision, twice as much of double precision.
const PAGES: u64 = 256;

/// Points as they are stored, before they are scaled.
enum Page {
    Single(Vec<[f32; 3]>),
    Double(Vec<Vec3>),
}

impl Page {
    fn get(&self, at: usize) -> Vec3 {
        match self {
            Self::Single(points) => points[at].map(f64::from),
            Self::Double(points) => points[at],
        }
    }
}

/// The points of a piece, of which the last ones used stay in memory. Cells are near their neighbours in a file, so a mesh
/// that is larger is read about once.
pub(crate) struct Points {
    numbers: Box<dyn Numbers>,
    count: u64,
    /// Factor of all coordinates, which turns the units of the file into those of the user.
    scale: f64,
    /// A page lies in the slot of its number modulo the number of slots, so that no run of pages displaces itself.
    slots: Vec<Option<(u64, Page)>>,
}

impl Points {
    /// Points with three numbers each.
    pub(crate) fn new(numbers: Box<dyn Numbers>, count: u64) -> Self {
        Self { numbers, count, scale: 1.0, slots: (0..PAGES.min(count.div_ceil(PAGE))).map(|_| None).collect() }
    }

    /// Number of points.
    pub(crate) fn len(&self) -> u64 {
        self.count
    }

    /// Closes the file behind it.
    pub(crate) fn close(&mut self) {
        self.numbers.close();
    }

    /// Multiplies all coordinates from here on.
    pub(crate) fn scale(&mut self, by: f64) {
        self.scale *= by;
    }

    /// Some of the points, one after the other.
    pub(crate) fn read(&mut self, range: Range<u64>) -> Result<Vec<Vec3>> {
        let mut points = self.stored(range)?;
        if self.scale != 1.0 {
            points.as_flattened_mut().iter_mut().for_each(|x| *x *= self.scale);
        }
        Ok(points)
    }

    fn stored(&mut self, range: Range<u64>) -> Result<Vec<Vec3>> {
        let numbers = self.numbers.floats(range.start * 3..range.end * 3).context("Points")?;
        Ok(numbers.as_chunks().0.to_vec())
    }

    /// As what the bytes of a copy are stored.
    pub(crate) fn element(&self) -> Element {
        match self.numbers.element() {
            Element::Float32 => Element::Float32,
            // Whole numbers too: VTK takes points of both kinds of fractions alone.
            _ => Element::Float64,
        }
    }

    /// The bytes of some points, little-endian.
    pub(crate) fn bytes(&mut self, range: Range<u64>) -> Result<Vec<u8>> {
        if self.scale == 1.0 && self.numbers.element() == self.element() {
            return self.numbers.bytes(range.start * 3..range.end * 3).context("Points");
        }
        let points = self.read(range)?;
        let numbers = points.as_flattened().iter();
        Ok(match self.element() {
            Element::Float32 => numbers.flat_map(|&x| (x as f32).to_le_bytes()).collect(),
            _ => numbers.flat_map(|x| x.to_le_bytes()).collect(),
        })
    }

    /// One of the points.
    pub(crate) fn get(&mut self, point: u64) -> Result<Vec3> {
        let page = point / PAGE;
        let slot = (page % PAGES) as usize;
        if self.slots[slot].as_ref().is_none_or(|(held, _)| *held != page) {
            let start = page * PAGE;
            let points = self.stored(start..self.count.min(start + PAGE))?;
            let points = match self.numbers.element() {
                Element::Float32 => Page::Single(points.iter().map(|point| point.map(|x| x as f32)).collect()),
                _ => Page::Double(points),
            };
            self.slots[slot] = Some((page, points));
        }
        let (_, points) = self.slots[slot].as_ref().context("Points: nothing was read")?;
        Ok(scaled(points.get((point % PAGE) as usize), self.scale))
    }
}
