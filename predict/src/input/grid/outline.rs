//! A grid as it goes out again: its arrays as they came.

use std::ops::Range;

use anyhow::{Context, Result};

use super::numbers::{Element, Numbers};
use super::{Grid, Kinds, Location, Piece};

/// An array that is copied, by where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Column {
    pub name: String,
    pub element: Element,
    /// Numbers in a row.
    pub components: usize,
    pub rows: u64,
    piece: usize,
    place: Place,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Points,
    /// Of a section, the list of its points, their ends, its kinds of cells, and the lists of polyhedra.
    Connectivity(usize),
    Offsets(usize),
    Types(usize),
    Faces(usize, usize),
    /// One of the arrays at points or cells.
    Array(Location, usize),
}

/// A piece, as far as a file of it needs to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PieceOutline {
    pub points: Column,
    pub sections: Vec<SectionOutline>,
    pub point_arrays: Vec<Column>,
    pub cell_arrays: Vec<Column>,
}

/// Cells in one pair of arrays, with what else says which they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SectionOutline {
    /// `Cells`, `Polys` and so on.
    pub name: &'static str,
    pub cells: u64,
    pub columns: Vec<Column>,
}

impl PieceOutline {
    /// Number of cells.
    pub(crate) fn cells(&self) -> u64 {
        self.sections.iter().map(|section| section.cells).sum()
    }

    /// The arrays at points or cells.
    pub(crate) fn arrays(&self, at: Location) -> &[Column] {
        match at {
            Location::Cells => &self.cell_arrays,
            Location::Points => &self.point_arrays,
        }
    }
}

impl Column {
    /// Bytes of a row.
    pub(crate) fn width(&self) -> u64 {
        self.element.size() * self.components as u64
    }
}

impl Grid {
    /// All that a file of this grid holds, with the lengths of its arrays.
    ///
    /// # Errors
    /// A file that is damaged or cannot be read.
    pub(crate) fn outline(&mut self) -> Result<Vec<PieceOutline>> {
        let several = self.pieces.len() > 1;
        let outline = |(at, piece): (usize, &mut Piece)| {
            let outline = piece.outline(at)?;
            if several {
                piece.close();
            }
            Ok(outline)
        };
        self.pieces.iter_mut().enumerate().map(outline).collect()
    }

    /// The bytes of some rows of an array, little-endian.
    ///
    /// # Errors
    /// A file that is damaged or cannot be read.
    pub(crate) fn copy(&mut self, column: &Column, rows: Range<u64>) -> Result<Vec<u8>> {
        self.turn_to(column.piece);
        let piece = &mut self.pieces[column.piece];
        let numbers = rows.start * column.components as u64..rows.end * column.components as u64;
        let bytes = match column.place {
            Place::Points => piece.points.bytes(rows),
            Place::Connectivity(section) => piece.sections[section].connectivity.bytes(numbers),
            Place::Offsets(section) => piece.sections[section].offsets.bytes(numbers),
            Place::Types(section) => match &mut piece.sections[section].kinds {
                Kinds::Stored(kinds, _) => kinds.bytes(numbers),
                _ => Ok(Vec::new()),
            },
            Place::Faces(section, list) => match &mut piece.sections[section].kinds {
                Kinds::Stored(_, Some(polyhedra)) => polyhedra.numbers()[list].1.bytes(numbers),
                _ => Ok(Vec::new()),
            },
            Place::Array(at, array) => piece.arrays(at)[array].numbers.bytes(numbers),
        };
        bytes.with_context(|| format!("array '{}'", column.name))
    }
}

impl Piece {
    fn outline(&mut self, piece: usize) -> Result<PieceOutline> {
        let points = Column {
            name: "Points".to_string(),
            element: self.points.element(),
            components: 3,
            rows: self.points.len(),
            piece,
            place: Place::Points,
        };
        let list = |name: &str, numbers: &mut Box<dyn Numbers>, place: Place| -> Result<Column> {
            let rows = numbers.count().with_context(|| format!("Cells/{name}"))?;
            Ok(Column { name: name.to_string(), element: numbers.element(), components: 1, rows, piece, place })
        };
        let mut sections = Vec::new();
        for (at, section) in self.sections.iter_mut().enumerate() {
            let mut columns = vec![
                list("connectivity", &mut section.connectivity, Place::Connectivity(at))?,
                list("offsets", &mut section.offsets, Place::Offsets(at))?,
            ];
            if let Kinds::Stored(kinds, polyhedra) = &mut section.kinds {
                columns.push(list("types", kinds, Place::Types(at))?);
                for (number, (name, numbers)) in polyhedra.iter_mut().flat_map(|lists| lists.numbers()).enumerate() {
                    columns.push(list(name, numbers, Place::Faces(at, number))?);
                }
            }
            sections.push(SectionOutline { name: section.name, cells: section.cells, columns });
        }
        let (points_count, cells) = (self.points.len(), self.cells());
        let mut arrays = |at: Location, rows: u64| -> Vec<Column> {
            let column = |(number, array): (usize, &mut super::Array)| Column {
                name: array.name.clone(),
                element: array.numbers.element(),
                components: array.components,
                rows,
                piece,
                place: Place::Array(at, number),
            };
            self.arrays(at).iter_mut().enumerate().map(column).collect()
        };
        let point_arrays = arrays(Location::Points, points_count);
        let cell_arrays = arrays(Location::Cells, cells);
        Ok(PieceOutline { points, sections, point_arrays, cell_arrays })
    }
}
