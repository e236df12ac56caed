//! Meshes as files hold them: points and cells in pieces, with arrays at both, read range by range.
//!
//! | file | idea |
//! |---|---|
//! | `numbers.rs` | numbers that lie one after the other, in memory or in a file |
//! | `shape.rs` | the kinds of cells: nodes, faces, centres |
//! | `cells.rs` | which points make which cells |
//! | `polyhedra.rs` | faces of polyhedra |
//! | `points.rs` | points in any order |
//! | `measure.rs` | centres and sizes of cells |
//! | `outline.rs` | arrays as they came, for a file that goes out |

mod cells;
mod measure;
mod numbers;
mod outline;
mod points;
mod polyhedra;
mod section;
mod shape;

use std::collections::HashSet;
use std::ops::Range;

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;

pub(super) use cells::Cells;
use measure::{Located, centre, size, surface_faces};
pub(crate) use numbers::{Element, Floats, Integers, Numbers, Singles};
pub(crate) use outline::{Column, PieceOutline};
pub(crate) use points::Points;
pub(crate) use polyhedra::Polyhedra;
pub(crate) use section::{Kinds, Section};

use crate::mesh::Mesh;
use crate::vector::Vec3;

/// Cells whose points are in memory at once.
const CELLS_AT_ONCE: u64 = 1 << 13;

/// The array of the faces of a surface that tells the solid of each.
pub(crate) const SOLID: &str = "solid";

/// Where values of an array belong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Location {
    Cells,
    Points,
}

/// An array with one row for each point or cell.
pub(crate) struct Array {
    pub(crate) name: String,
    /// Numbers in a row.
    pub(crate) components: usize,
    pub(crate) numbers: Box<dyn Numbers>,
}

/// A part of a grid with points of its own.
pub(crate) struct Piece {
    pub(crate) points: Points,
    /// Cells in the order in which arrays at cells have their rows.
    pub(crate) sections: Vec<Section>,
    pub(crate) point_arrays: Vec<Array>,
    pub(crate) cell_arrays: Vec<Array>,
}

/// A mesh in one file or several.
pub(crate) struct Grid {
    pieces: Vec<Piece>,
    /// Points and cells before each piece, and in all.
    first_points: Vec<u64>,
    first_cells: Vec<u64>,
    /// The piece whose file is open.
    open: usize,
}

/// Faces of a grid, with the cells that they come from.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Surface {
    pub(crate) mesh: Mesh,
    /// The cell of every face of the mesh.
    pub(crate) cells: Vec<u64>,
}

impl Piece {
    fn cells(&self) -> u64 {
        self.sections.iter().map(|section| section.cells).sum()
    }

    fn arrays(&mut self, at: Location) -> &mut Vec<Array> {
        match at {
            Location::Cells => &mut self.cell_arrays,
            Location::Points => &mut self.point_arrays,
        }
    }

    /// Closes its file until the next read.
    pub(crate) fn close(&mut self) {
        self.points.close();
        for array in self.point_arrays.iter_mut().chain(&mut self.cell_arrays) {
            array.numbers.close();
        }
        for section in &mut self.sections {
            section.close();
        }
    }

    fn read_cells(&mut self, range: Range<u64>) -> Result<Cells> {
        let (mut cells, mut first) = (Cells::default(), 0);
        for section in &mut self.sections {
            let end = first + section.cells;
            let (from, to) = (range.start.clamp(first, end), range.end.clamp(first, end));
            if from < to {
                cells.append(section.read(from - first..to - first, self.points.len())?, 0);
            }
            first = end;
        }
        Ok(cells)
    }

    fn locate(&mut self, range: Range<u64>) -> Result<Located> {
        let cells = self.read_cells(range)?;
        let mut points = |corners: &[u64]| corners.iter().map(|&point| self.points.get(point)).collect::<Result<_>>();
        let (corners, face_corners) = (points(&cells.corners)?, points(&cells.face_corners)?);
        Ok(Located { cells, corners, face_corners })
    }
}

impl Grid {
    /// Joins pieces. Points and cells of a piece follow those of the piece before.
    ///
    /// # Errors
    /// More points or cells than 64 bits count.
    pub(crate) fn new(pieces: Vec<Piece>) -> Result<Self> {
        let sums = |count: &dyn Fn(&Piece) -> u64| {
            let mut sums = vec![0u64];
            for piece in &pieces {
                let sum = sums[sums.len() - 1].checked_add(count(piece));
                sums.push(
                    sum.filter(|&sum| sum < i64::MAX as u64)
                        .context("its pieces have more points or cells than a file can hold")?,
                );
            }
            Ok::<_, anyhow::Error>(sums)
        };
        let (first_points, first_cells) = (sums(&|piece| piece.points.len())?, sums(&Piece::cells)?);
        Ok(Self { pieces, first_points, first_cells, open: 0 })
    }

    /// A surface in memory; what its faces are called becomes an array of them, as [`SOLID`].
    pub(crate) fn of_mesh(mesh: &Mesh) -> Result<Self> {
        let (points, faces) = (mesh.points().len() as u64, mesh.ends().len() as u64);
        let whole = |numbers: Vec<i64>| Box::new(Integers(numbers));
        let section = Section {
            name: "Polys",
            cells: faces,
            connectivity: whole(mesh.corners().iter().map(|&corner| i64::from(corner)).collect()),
            offsets: whole(mesh.ends().iter().map(|&end| end as i64).collect()),
            kinds: Kinds::Polys,
        };
        let solids = mesh.face_groups().iter().map(|&group| i64::from(group)).collect();
        let solids = Array { name: SOLID.to_string(), components: 1, numbers: whole(solids) };
        let numbers = Singles(mesh.points().as_flattened().to_vec());
        Self::new(vec![Piece {
            points: Points::new(Box::new(numbers), points),
            sections: vec![section],
            point_arrays: Vec::new(),
            cell_arrays: if mesh.groups().is_empty() { Vec::new() } else { vec![solids] },
        }])
    }

    /// Lines through points, so many of them for each line.
    pub(crate) fn of_lines(points: Vec<[f32; 3]>, lengths: &[usize]) -> Result<Self> {
        let count = points.len() as u64;
        let mut end = 0;
        let ends = lengths.iter().map(|&length| {
            end += length as i64;
            end
        });
        let section = Section {
            name: "Lines",
            cells: lengths.len() as u64,
            offsets: Box::new(Integers(ends.collect())),
            connectivity: Box::new(Integers((0..count as i64).collect())),
            kinds: Kinds::Lines,
        };
        Self::new(vec![Piece {
            points: Points::new(Box::new(Singles(points.into_flattened())), count),
            sections: if lengths.is_empty() { Vec::new() } else { vec![section] },
            point_arrays: Vec::new(),
            cell_arrays: Vec::new(),
        }])
    }

    /// Multiplies all coordinates from here on.
    pub(crate) fn scale(&mut self, by: f64) {
        self.pieces.iter_mut().for_each(|piece| piece.points.scale(by));
    }

    /// Number of points.
    pub(crate) fn points(&self) -> u64 {
        self.first_points[self.pieces.len()]
    }

    /// Number of cells.
    pub(crate) fn cells(&self) -> u64 {
        self.first_cells[self.pieces.len()]
    }

    /// Number of rows of arrays.
    pub(crate) fn rows(&self, at: Location) -> u64 {
        match at {
            Location::Cells => self.cells(),
            Location::Points => self.points(),
        }
    }

    /// Name and components of the arrays that every piece has, in the order of the first one with any points or cells.
    pub(crate) fn arrays(&self, at: Location) -> Vec<(String, usize)> {
        let of = |piece: &Piece| -> Vec<(String, usize)> {
            let arrays = match at {
                Location::Cells => &piece.cell_arrays,
                Location::Points => &piece.point_arrays,
            };
            arrays.iter().map(|array| (array.name.clone(), array.components)).collect()
        };
        // Pieces without points, which some programs write, need not have arrays.
        let mut lists = self.pieces.iter().filter(|piece| piece.points.len() > 0).map(of);
        let first = lists.next().unwrap_or_default();
        lists.fold(first, |mut common, list| {
            let known: HashSet<&(String, usize)> = list.iter().collect();
            common.retain(|array| known.contains(array));
            common
        })
    }

    /// Some of the points.
    ///
    /// # Errors
    /// A file that is damaged or cannot be read; the same holds for all that follow.
    pub(crate) fn read_points(&mut self, range: Range<u64>) -> Result<Vec<Vec3>> {
        self.gather(Location::Points, range, |piece, range, _| piece.points.read(range))
    }

    /// Some of the rows of an array, one after the other.
    pub(crate) fn read_array(&mut self, at: Location, name: &str, range: Range<u64>) -> Result<Vec<f64>> {
        self.gather(at, range, |piece, range, _| {
            let mut own = piece.arrays(at).iter_mut().filter(|array| array.name == name);
            let array = own.next().with_context(|| format!("there is no array '{name}'"))?;
            ensure!(own.next().is_none(), "there are several arrays '{name}'");
            let components = array.components as u64;
            array
                .numbers
                .floats(range.start * components..range.end * components)
                .with_context(|| format!("array '{name}'"))
        })
    }

    /// Some of the cells, with points numbered through all pieces.
    pub(crate) fn read_cells(&mut self, range: Range<u64>) -> Result<Cells> {
        let mut cells = Cells::default();
        self.each_piece(Location::Cells, range, |piece, range, before| {
            cells.append(piece.read_cells(range)?, before.points);
            Ok(())
        })?;
        Ok(cells)
    }

    /// The centres of some cells.
    pub(crate) fn centres(&mut self, range: Range<u64>) -> Result<Vec<Vec3>> {
        self.measured(range, centre)
    }

    /// The lengths, areas or volumes of some cells, each by its dimension; 0 for points.
    pub(crate) fn sizes(&mut self, range: Range<u64>) -> Result<Vec<f64>> {
        self.measured(range, size)
    }

    /// The largest dimension of a cell: 3 where there are volumes, 0 for points alone or nothing.
    pub(crate) fn dimension(&mut self) -> Result<u8> {
        let mut largest = 0;
        for section in self.pieces.iter_mut().flat_map(|piece| &mut piece.sections) {
            largest = largest.max(section.dimension()?);
        }
        Ok(largest)
    }

    /// All faces: cells that are faces, and the triangles of strips.
    pub(crate) fn surface(&mut self) -> Result<Surface> {
        let points = self.points();
        ensure!(u32::try_from(points).is_ok(), "a surface can have {} points, got {points}", u32::MAX);
        let mut mesh_points = Vec::new();
        for start in (0..points).step_by(CELLS_AT_ONCE as usize) {
            let part = self.read_points(start..points.min(start + CELLS_AT_ONCE))?;
            mesh_points.extend(part.into_iter().map(|point| point.map(|x| x as f32)));
        }
        let (mut mesh, mut owners) = (Mesh::new(mesh_points), Vec::new());
        let mut first = 0;
        for piece in 0..self.pieces.len() {
            for section in 0..self.pieces[piece].sections.len() {
                let Section { cells, ref kinds, .. } = self.pieces[piece].sections[section];
                // Points and lines have no faces, and a single one can have all points of the file.
                if !matches!(kinds, Kinds::Verts | Kinds::Lines) {
                    self.add_faces(first..first + cells, &mut mesh, &mut owners)?;
                }
                first += cells;
            }
        }
        Ok(Surface { mesh, cells: owners })
    }

    fn add_faces(&mut self, range: Range<u64>, mesh: &mut Mesh, owners: &mut Vec<u64>) -> Result<()> {
        for start in range.clone().step_by(CELLS_AT_ONCE as usize) {
            let cells = self.read_cells(start..range.end.min(start + CELLS_AT_ONCE))?;
            for cell in 0..cells.len() {
                for face in surface_faces(&cells, cell)? {
                    let face: Vec<u32> = face.into_iter().map(|point| point as u32).collect();
                    mesh.push_face(&face);
                    owners.push(start + cell as u64);
                }
            }
        }
        Ok(())
    }

    fn measured<T>(&mut self, range: Range<u64>, measure: impl Fn(&Located, usize) -> Result<T>) -> Result<Vec<T>> {
        self.gather(Location::Cells, range, |piece, range, before| {
            let mut results = Vec::with_capacity((range.end - range.start) as usize);
            for start in range.clone().step_by(CELLS_AT_ONCE as usize) {
                let located = piece.locate(start..range.end.min(start + CELLS_AT_ONCE))?;
                for cell in 0..located.cells.len() {
                    let at = || format!("cell {}", before.cells + start + cell as u64);
                    results.push(measure(&located, cell).with_context(at)?);
                }
            }
            Ok(results)
        })
    }

    /// What the pieces return for their parts of a range, one after the other.
    fn gather<T>(
        &mut self,
        at: Location,
        range: Range<u64>,
        mut read: impl FnMut(&mut Piece, Range<u64>, Before) -> Result<Vec<T>>,
    ) -> Result<Vec<T>> {
        let mut gathered = Vec::new();
        self.each_piece(at, range, |piece, range, before| {
            gathered.extend(read(piece, range, before)?);
            Ok(())
        })?;
        Ok(gathered)
    }

    /// Closes the file of another piece before this one is read.
    fn turn_to(&mut self, piece: usize) {
        if self.open != piece {
            self.pieces[self.open].close();
            self.open = piece;
        }
    }

    /// Visits the pieces that have a part of a range.
    fn each_piece(
        &mut self,
        at: Location,
        range: Range<u64>,
        mut visit: impl FnMut(&mut Piece, Range<u64>, Before) -> Result<()>,
    ) -> Result<()> {
        let firsts = match at {
            Location::Cells => self.first_cells.clone(),
            Location::Points => self.first_points.clone(),
        };
        let start = firsts.partition_point(|&first| first <= range.start).saturating_sub(1);
        for piece in start..self.pieces.len() {
            let (first, end) = (firsts[piece], firsts[piece + 1]);
            let (from, to) = (range.start.clamp(first, end), range.end.clamp(first, end));
            if from >= to {
                continue;
            }
            self.turn_to(piece);
            let before = Before { points: self.first_points[piece], cells: self.first_cells[piece] };
            visit(&mut self.pieces[piece], from - first..to - first, before)?;
            if to == range.end {
                break;
            }
        }
        Ok(())
    }
}

/// Points and cells in the pieces before one.
struct Before {
    points: u64,
    cells: u64,
}
