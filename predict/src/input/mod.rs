//! What the command reads: bodies as meshes, points as meshes or arrays.
//!
//! | file | idea |
//! |---|---|
//! | `table.rs`, `open.rs` | arrays of numbers, read range by range; which reader opens one |
//! | `npy.rs`, `npz.rs`, `safetensors.rs`, `torch.rs` | files of such arrays |
//! | `grid/` | meshes of any cells, read range by range |
//! | `vtk_xml/` | `.vtp`, `.vtu`, `.pvtp`, `.pvtu` as such meshes |
//! | `legacy_vtk.rs` | `.vtk` as such a mesh, in memory |
//! | `sites.rs` | cells or points of such a mesh as places of a prediction |
//! | `stl/`, `ply.rs`, `obj.rs` | surfaces in memory |
//! | `foreign.rs` | what a file is that is not what its name says |
//!
//! A file that cannot be used is refused with its name, what was expected and what came. Points are read range by range,
//! so that a file larger than the memory can be streamed.

mod foreign;
mod grid;
mod legacy_vtk;
mod npy;
mod npz;
mod obj;
mod open;
mod ply;
mod safetensors;
mod sites;
mod stl;
mod table;
mod torch;
mod vtk_xml;
mod weld;

use std::io::Read;
use std::ops::Range;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use candle_mixed_attention::models::ab_upt::sample_indices;
use candle_mixed_attention::models::open_regular;

pub(crate) use grid::{Column, Grid, Location, PieceOutline, SOLID};
pub(crate) use safetensors::tensor_names;
pub(crate) use sites::Sites;
#[cfg(test)]
pub(crate) use table::Rows;
pub(crate) use table::Table;

#[cfg(test)]
pub(crate) use vtk_xml::tests::writer;

use crate::mesh::Mesh;

/// Coordinates of a point.
const DIMENSIONS: usize = 3;

/// What files may be called.
const EXTENSIONS: [&str; 14] =
    ["stl", "obj", "ply", "vtp", "vtu", "pvtp", "pvtu", "vtk", "npy", "npz", "safetensors", "pt", "th", "pth"];

/// Reads a surface into memory.
type ReadSurface = fn(&Path) -> Result<Mesh>;

/// Files with a surface and nothing else.
const SURFACES: [(&str, ReadSurface); 3] = [("stl", stl::read_stl), ("obj", obj::read_obj), ("ply", ply::read_ply)];

/// A file with points, or with a mesh.
pub(crate) enum Input {
    /// A surface in memory, predicted at its vertices.
    Mesh(Mesh),
    /// A mesh of any cells, predicted at cells or points.
    Sites(Box<Sites>),
    /// Points without faces.
    Points(Table),
}

impl Input {
    /// Opens a file by its extension; behind `#` stands the name of one of several arrays. `at` says whether the cells or
    /// the points of a mesh are meant, where the file leaves the choice.
    ///
    /// # Errors
    /// A file that cannot be read or does not hold what its name says; a mesh without such places.
    pub(crate) fn open(argument: &str, at: Option<Location>) -> Result<Self> {
        let (file, tensor) = split_name(argument);
        let path = Path::new(file);
        if tensor.is_none() {
            for (extension, read) in SURFACES {
                if has_extension(file, &[extension]) {
                    let mesh = read(path)?;
                    return Ok(match at {
                        Some(Location::Cells) => Self::Sites(Box::new(Sites::of_mesh(file, &mesh)?)),
                        _ => Self::Mesh(mesh),
                    });
                }
            }
            if let Some(grid) = open_grid(path)? {
                return Ok(Self::Sites(Box::new(Sites::new(file, grid, at)?)));
            }
        }
        let table = Table::open(file, tensor)?;
        let width = table.width();
        ensure!(
            width == DIMENSIONS,
            "{file}: positions must have shape [points, {DIMENSIONS}], got {width} numbers each"
        );
        ensure!(table.rows() > 0, "{file}: holds no points");
        Ok(Self::Points(table))
    }

    /// Multiplies all coordinates from here on.
    pub(crate) fn scale(&mut self, by: f64) {
        match self {
            _ if by == 1.0 => {}
            Self::Mesh(mesh) => mesh.scale(by),
            Self::Sites(sites) => sites.scale(by),
            Self::Points(table) => table.scale(by),
        }
    }

    /// Number of points, of vertices, or of cells.
    pub(crate) fn len(&self) -> u64 {
        match self {
            Self::Mesh(mesh) => mesh.points().len() as u64,
            Self::Sites(sites) => sites.len(),
            Self::Points(table) => table.rows(),
        }
    }

    /// The surface whose vertices are predicted, if it is one.
    pub(crate) fn mesh(&self) -> Option<&Mesh> {
        match self {
            Self::Sites(sites) if sites.at() == Location::Cells => None,
            _ => self.surface(),
        }
    }

    /// The surface, if it is one, whether its vertices or its faces are predicted.
    pub(crate) fn surface(&self) -> Option<&Mesh> {
        match self {
            Self::Mesh(mesh) => Some(mesh),
            Self::Sites(sites) => sites.surface().map(|surface| &surface.mesh),
            Self::Points(_) => None,
        }
    }

    /// Tells the solid of each face of a surface.
    pub(crate) fn set_solids(&mut self, names: Vec<String>, of_faces: Vec<u32>) {
        match self {
            Self::Mesh(mesh) => mesh.set_groups(names, of_faces),
            Self::Sites(sites) => sites.set_solids(names, of_faces),
            Self::Points(_) => {}
        }
    }

    /// Whether it is a mesh with cells that have a volume.
    pub(crate) fn is_volume(&self) -> bool {
        matches!(self, Self::Sites(sites) if sites.is_volume())
    }

    /// A line that says what of a file is predicted, where that was chosen by what it holds.
    pub(crate) fn remark(&self) -> Option<String> {
        match self {
            Self::Sites(sites) => sites.remark(),
            Self::Mesh(_) | Self::Points(_) => None,
        }
    }

    /// What its places are: points or cells.
    pub(crate) fn called(&self) -> &'static str {
        match self {
            Self::Sites(sites) if sites.at() == Location::Cells => "cells",
            _ => "points",
        }
    }

    /// Some of the points.
    pub(crate) fn read(&mut self, range: Range<u64>) -> Result<Vec<[f32; 3]>> {
        match self {
            Self::Mesh(mesh) => Ok(mesh.points()[range.start as usize..range.end as usize].to_vec()),
            Self::Sites(sites) => Ok(sites.positions().read_finite(range)?.as_chunks().0.to_vec()),
            Self::Points(table) => Ok(table.read_finite(range)?.as_chunks().0.to_vec()),
        }
    }

    /// `count` random points by a seed, in random order: of a surface, points spread evenly over its area; of other files,
    /// some of the points, or all if there are not more.
    pub(crate) fn draw(&mut self, count: usize, seed: u64) -> Result<Vec<[f32; 3]>> {
        if let Some(mesh) = self.surface() {
            return mesh.sample(count, seed);
        }
        let rows = usize::try_from(self.len()).context("more points than this machine can address")?;
        let indices = sample_indices(rows, count, seed);
        let picked = match self {
            Self::Mesh(_) => Vec::new(),
            Self::Sites(sites) => sites.positions().pick(&indices)?,
            Self::Points(table) => table.pick(&indices)?,
        };
        Ok(picked.as_chunks().0.to_vec())
    }
}

/// A mesh of any cells, if the extension is one of theirs.
fn open_grid(path: &Path) -> Result<Option<Grid>> {
    let file = path.to_string_lossy();
    Ok(if has_extension(&file, &vtk_xml::EXTENSIONS) {
        Some(vtk_xml::open(path)?)
    } else if has_extension(&file, &["vtk"]) {
        Some(legacy_vtk::open(path)?)
    } else {
        None
    })
}

/// Reads a whole file, unless it is something that need not end.
fn read_file(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = open_regular(path).and_then(|mut file| file.read_to_end(&mut bytes));
    read.with_context(|| format!("cannot open {}", path.display()))?;
    Ok(bytes)
}

/// The file and the name of a tensor in it, if `#` separates them and is not a part of the name of the file.
fn split_name(argument: &str) -> (&str, Option<&str>) {
    match argument.rsplit_once('#') {
        Some((file, tensor)) if !Path::new(argument).exists() => (file, Some(tensor)),
        _ => (argument, None),
    }
}

fn has_extension(file: &str, expected: &[&str]) -> bool {
    let extension = Path::new(file).extension();
    extension.is_some_and(|extension| expected.iter().any(|expected| extension.eq_ignore_ascii_case(expected)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_no_points_are_refused() {
        let cases = [
            ("body.step", "expected a file named"),
            ("missing.npy", "cannot open missing.npy"),
            ("missing.stl", "cannot open missing.stl"),
            ("missing.vtu", "cannot open missing.vtu"),
            ("points.npy#positions", "holds one array, without a name"),
            ("body.stl#positions", "holds no arrays"),
            ("points", "expected a file named"),
        ];
        for (argument, expected) in cases {
            let message = format!("{:#}", Input::open(argument, None).err().unwrap());
            assert!(message.contains(expected), "{message}");
        }
    }
}
