//! Cells of a file, read range by range.

use std::ops::Range;

use anyhow::{Result, bail, ensure};

use super::cells::{Cells, MOST_CORNERS, before, checked, ends};
use super::numbers::Numbers;
use super::polyhedra::Polyhedra;
use super::shape::{dimension_of, kind, shape_of};

/// Consecutive cells of a file, in one pair of arrays.
pub(crate) struct Section {
    /// What errors call it: `Cells`, `Polys` and so on.
    pub name: &'static str,
    pub cells: u64,
    /// Points of all cells.
    pub connectivity: Box<dyn Numbers>,
    /// End of every cell in `connectivity`.
    pub offsets: Box<dyn Numbers>,
    pub kinds: Kinds,
}

/// What says of which kind a cell is.
pub(crate) enum Kinds {
    /// An array, and the faces of those that are polyhedra.
    Stored(Box<dyn Numbers>, Option<Polyhedra>),
    /// Its number of points: one point or several, or that of a line, of a face, of a strip of triangles.
    Verts,
    Lines,
    Polys,
    Strips,
}

/// Types of cells that are read at once.
const MOST_TYPES: usize = 1 << 16;

impl Section {
    /// Closes what can be opened again.
    pub(crate) fn close(&mut self) {
        self.connectivity.close();
        self.offsets.close();
        if let Kinds::Stored(numbers, polyhedra) = &mut self.kinds {
            numbers.close();
            polyhedra.iter_mut().flat_map(Polyhedra::numbers).for_each(|(_, numbers)| numbers.close());
        }
    }

    /// The largest dimension of its cells.
    pub(crate) fn dimension(&mut self) -> Result<u8> {
        Ok(match &mut self.kinds {
            _ if self.cells == 0 => 0,
            Kinds::Verts => 0,
            Kinds::Lines => 1,
            Kinds::Polys | Kinds::Strips => 2,
            Kinds::Stored(numbers, _) => {
                let (mut largest, mut start) = (0, 0);
                while start < self.cells && largest < 3 {
                    let end = self.cells.min(start + MOST_TYPES as u64);
                    let kinds = numbers.integers(start..end).map_err(|error| error.context("Cells/types"))?;
                    let dimensions = kinds.into_iter().filter_map(|kind| dimension_of(u8::try_from(kind).ok()?));
                    largest = dimensions.fold(largest, u8::max);
                    start = end;
                }
                largest
            }
        })
    }

    /// Some of the cells; every point lies below `points`.
    pub(crate) fn read(&mut self, range: Range<u64>, points: u64) -> Result<Cells> {
        let name = self.name;
        let (start, ends) = ends(self.offsets.as_mut(), range.clone(), name, "offsets")?;
        let last = ends.last().copied().unwrap_or(start);
        ensure!(
            last - start <= MOST_CORNERS,
            "{name}/offsets: cells {} to {} have {} points, at most {MOST_CORNERS} can be read at once",
            range.start,
            range.end,
            last - start
        );
        let corners =
            self.connectivity.integers(start..last).map_err(|error| error.context(format!("{name}/connectivity")))?;
        let corners = checked(corners, points, name, "connectivity")?;
        let ends: Vec<usize> = ends.into_iter().map(|end| (end - start) as usize).collect();
        let mut cells = Cells { corners, cell_faces: vec![0; ends.len()], ends, ..Cells::default() };
        let sizes = (0..cells.ends.len()).map(|cell| cells.ends[cell] - before(&cells.ends, cell));
        cells.kinds = match &mut self.kinds {
            Kinds::Verts => sizes.map(|size| if size == 1 { kind::VERTEX } else { kind::POLY_VERTEX }).collect(),
            Kinds::Lines => sizes.map(|size| if size == 2 { kind::LINE } else { kind::POLY_LINE }).collect(),
            Kinds::Strips => sizes.map(|_| kind::TRIANGLE_STRIP).collect(),
            Kinds::Polys => sizes.map(kind_of_face).collect(),
            Kinds::Stored(numbers, polyhedra) => {
                let kinds = numbers.integers(range.clone()).map_err(|error| error.context(format!("{name}/types")))?;
                for (at, (&number, size)) in kinds.iter().zip(sizes).enumerate() {
                    let cell = range.start + at as u64;
                    let Ok(kind) = u8::try_from(number) else {
                        bail!("cell {cell} has type {number}; VTK knows none above 255")
                    };
                    if let Some(shape) = shape_of(kind) {
                        let nodes = shape.nodes;
                        ensure!(size == nodes, "cell {cell} of type {kind} must have {nodes} points, got {size}");
                    }
                }
                let kinds: Vec<u8> = kinds.into_iter().map(|number| number as u8).collect();
                if kinds.contains(&kind::POLYHEDRON) {
                    let Some(polyhedra) = polyhedra else {
                        bail!("{name}: there are polyhedra (type 42), but no arrays of their faces")
                    };
                    polyhedra.read(range, &kinds, points, &mut cells)?;
                }
                kinds
            }
        };
        Ok(cells)
    }
}

fn kind_of_face(size: usize) -> u8 {
    match size {
        3 => kind::TRIANGLE,
        4 => kind::QUAD,
        _ => kind::POLYGON,
    }
}
