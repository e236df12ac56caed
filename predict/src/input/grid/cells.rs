//! Which points make which cells.

use std::ops::Range;

use anyhow::{Result, bail, ensure};

use super::numbers::Numbers;

/// Points of cells that are read at once. Only a file that is wrong, or one with a cell of more points than that, has more.
pub(super) const MOST_CORNERS: u64 = 1 << 24;

/// Some consecutive cells of a grid.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Cells {
    /// What VTK calls the type of each cell.
    pub(crate) kinds: Vec<u8>,
    /// Points of all cells, one cell after the other.
    pub(crate) corners: Vec<u64>,
    /// End of every cell in `corners`.
    pub(crate) ends: Vec<usize>,
    /// Points of the faces of all polyhedra, one face after the other.
    pub(crate) face_corners: Vec<u64>,
    /// End of every face in `face_corners`.
    pub(crate) face_ends: Vec<usize>,
    /// End of every cell in `face_ends`. Cells that are no polyhedra have no faces there.
    pub(crate) cell_faces: Vec<usize>,
}

impl Cells {
    /// Number of cells.
    pub(crate) fn len(&self) -> usize {
        self.kinds.len()
    }

    /// The points of a cell, in the order of its kind.
    pub(crate) fn corners_of(&self, cell: usize) -> &[u64] {
        &self.corners[before(&self.ends, cell)..self.ends[cell]]
    }

    /// Appends cells whose points are counted from another one.
    pub(super) fn append(&mut self, other: Self, first_point: u64) {
        let (corners, face_corners, faces) = (self.corners.len(), self.face_corners.len(), self.face_ends.len());
        self.kinds.extend(other.kinds);
        self.corners.extend(other.corners.into_iter().map(|point| point + first_point));
        self.ends.extend(other.ends.into_iter().map(|end| end + corners));
        self.face_corners.extend(other.face_corners.into_iter().map(|point| point + first_point));
        self.face_ends.extend(other.face_ends.into_iter().map(|end| end + face_corners));
        self.cell_faces.extend(other.cell_faces.into_iter().map(|end| end + faces));
    }
}

/// Where an element of a list of ends begins.
pub(super) fn before(ends: &[usize], at: usize) -> usize {
    at.checked_sub(1).map_or(0, |before| ends[before])
}

/// Where a range of elements begins in the numbers behind `ends`, and the end of each.
pub(super) fn ends(
    numbers: &mut dyn Numbers,
    range: Range<u64>,
    section: &str,
    array: &str,
) -> Result<(u64, Vec<u64>)> {
    let context = |error: anyhow::Error| error.context(format!("{section}/{array}"));
    let from = range.start.saturating_sub(1);
    let mut stored = numbers.integers(from..range.end).map_err(context)?.into_iter();
    let start = if range.start == 0 { 0 } else { stored.next().unwrap_or_default() };
    let (mut ends, mut last) = (Vec::with_capacity(stored.len()), start);
    for (at, end) in stored.enumerate() {
        let element = range.start + at as u64;
        ensure!(
            end >= last && last >= 0,
            "{section}/{array}: element {element} ends at {end}, before it begins at {last}"
        );
        ends.push(end as u64);
        last = end;
    }
    Ok((start as u64, ends))
}

/// Numbers of points, if all of them are below `points`.
pub(super) fn checked(numbers: Vec<i64>, points: u64, section: &str, array: &str) -> Result<Vec<u64>> {
    let beyond = numbers.iter().find(|&&number| u64::try_from(number).map_or(true, |number| number >= points));
    if let Some(number) = beyond {
        bail!("{section}/{array}: there is no point {number}; the piece has {points}");
    }
    Ok(numbers.into_iter().map(|number| number as u64).collect())
}
