//! A mesh in a `.vtk` file of the old form. It is read into memory.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use vtkio::Vtk;
use vtkio::model::{Attribute, Attributes, DataSet, IOBuffer, Piece as StoredPiece, VertexNumbers};

use super::grid::{Array, Floats, Grid, Integers, Kinds, Numbers, Piece, Points, Section, Singles};
use super::read_file;

/// Reads a file with PolyData or an UnstructuredGrid.
///
/// # Errors
/// A file that is damaged or holds other data.
pub(super) fn open(path: &Path) -> Result<Grid> {
    let name = || path.display().to_string();
    let bytes = read_file(path)?;
    read(&bytes).with_context(name)
}

fn read(bytes: &[u8]) -> Result<Grid> {
    // Numbers are big-endian in every version of the form.
    let file = Vtk::parse_legacy_be(bytes).map_err(|error| anyhow::anyhow!("not a readable VTK file: {error}"))?;
    let piece = match file.data {
        DataSet::UnstructuredGrid { pieces, .. } => {
            let grid = only(pieces)?;
            let kinds = grid.cells.types.iter().map(|&kind| kind as i64).collect();
            let stored = Kinds::Stored(Box::new(Integers(kinds)), None);
            let cells = section("Cells", Some(grid.cells.cell_verts), stored)?;
            let counted = cells.iter().map(|cells| cells.cells).sum::<u64>();
            let typed = grid.cells.types.len() as u64;
            ensure!(counted == typed, "there are {counted} cells, but {typed} types of cells");
            piece(grid.points, cells.into_iter().collect(), grid.data)?
        }
        DataSet::PolyData { pieces, .. } => {
            let surface = only(pieces)?;
            let sections = [
                section("Verts", surface.verts, Kinds::Verts)?,
                section("Lines", surface.lines, Kinds::Lines)?,
                section("Polys", surface.polys, Kinds::Polys)?,
                section("Strips", surface.strips, Kinds::Strips)?,
            ];
            piece(surface.points, sections.into_iter().flatten().collect(), surface.data)?
        }
        _ => bail!("it must hold POLYDATA or an UNSTRUCTURED_GRID"),
    };
    Grid::new(vec![piece])
}

/// Files of this form have one piece.
fn only<P>(pieces: Vec<StoredPiece<P>>) -> Result<P> {
    match pieces.into_iter().next() {
        Some(StoredPiece::Inline(piece)) => Ok(*piece),
        _ => bail!("it holds no mesh"),
    }
}

fn piece(points: IOBuffer, sections: Vec<Section>, data: Attributes) -> Result<Piece> {
    let mut points = floats(points).context("its points are no numbers")?;
    let numbers = points.count()?;
    ensure!(numbers % 3 == 0, "its points are {numbers} numbers, which are not three each");
    let count = numbers / 3;
    let cells = sections.iter().map(|section| section.cells).sum();
    Ok(Piece {
        points: Points::new(points, count),
        sections,
        point_arrays: arrays(data.point, count)?,
        cell_arrays: arrays(data.cell, cells)?,
    })
}

/// The cells of a section, if there are any.
fn section(name: &'static str, numbers: Option<VertexNumbers>, kinds: Kinds) -> Result<Option<Section>> {
    let Some(numbers) = numbers else { return Ok(None) };
    let (mut connectivity, mut offsets) = (Vec::new(), Vec::new());
    match numbers {
        VertexNumbers::Legacy { num_cells, vertices } => {
            let mut rest = vertices.as_slice();
            for cell in 0..num_cells {
                let cut = || format!("{name}: cell {cell} is cut off");
                let (&size, after) = rest.split_first().with_context(cut)?;
                let (corners, after) = after.split_at_checked(size as usize).with_context(cut)?;
                connectivity.extend(corners.iter().map(|&corner| i64::from(corner)));
                offsets.push(connectivity.len() as i64);
                rest = after;
            }
        }
        VertexNumbers::XML { connectivity: corners, offsets: ends } => {
            let whole = |numbers: Vec<u64>| numbers.into_iter().map(i64::try_from).collect::<Result<Vec<_>, _>>();
            connectivity = whole(corners).with_context(|| format!("{name}: a point is negative"))?;
            // The first of them is where the first cell begins.
            offsets = whole(ends).with_context(|| format!("{name}: an offset is negative"))?;
            if offsets.first() == Some(&0) {
                offsets.remove(0);
            }
        }
    }
    let cells = offsets.len() as u64;
    let (connectivity, offsets) = (Box::new(Integers(connectivity)), Box::new(Integers(offsets)));
    Ok((cells > 0).then_some(Section { name, cells, connectivity, offsets, kinds }))
}

/// Numbers in the precision that they came in, or in double precision.
fn floats(data: IOBuffer) -> Option<Box<dyn Numbers>> {
    Some(match data {
        IOBuffer::F32(numbers) => Box::new(Singles(numbers)),
        other => Box::new(Floats(other.cast_into::<f64>()?)),
    })
}

fn arrays(attributes: Vec<Attribute>, rows: u64) -> Result<Vec<Array>> {
    let mut arrays = Vec::new();
    for attribute in attributes {
        let named = match attribute {
            Attribute::DataArray(array) => vec![(array.name.clone(), array.num_comp(), array.data)],
            Attribute::Field { data_array, .. } => {
                data_array.into_iter().map(|array| (array.name.clone(), array.num_comp(), array.data)).collect()
            }
        };
        for (name, components, data) in named {
            // Arrays of bits or texts, and tables of colours, which have other rows.
            let Some(mut numbers) = floats(data) else { continue };
            if numbers.count()? == rows * components as u64 {
                arrays.push(Array { name, components, numbers });
            }
        }
    }
    Ok(arrays)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::input::grid::Location;

    const POINTS: &str = "POINTS 5 float\n0 0 0 1 0 0 1 1 0\n0 1 0 0.5 0.5 1\n";
    const OLD: &str = "CELLS 2 10\n4 0 1 2 4\n4 0 2 3 4\nCELL_TYPES 2\n10\n10\n";
    const NEW: &str =
        "CELLS 3 8\nOFFSETS vtktypeint64\n0 4 8\nCONNECTIVITY vtktypeint64\n0 1 2 4 0 2 3 4\nCELL_TYPES 2\n10\n10\n";
    const DATA: &str = "CELL_DATA 2\nSCALARS p float 1\nLOOKUP_TABLE default\n1.5 2.5\nFIELD FieldData 1\nid 1 2 int\n7 8\n\
                        POINT_DATA 5\nVECTORS U double\n1 2 3 4 5 6 7 8 9 10 11 12 13 14 15\n";

    fn file(version: &str, kind: &str, rest: &str) -> String {
        format!("# vtk DataFile Version {version}\nby hand\nASCII\nDATASET {kind}\n{rest}")
    }

    #[test]
    fn cells_of_both_versions_are_read_with_their_data() {
        for (version, cells) in [("3.0", OLD), ("5.1", NEW)] {
            let text = file(version, "UNSTRUCTURED_GRID", &format!("{POINTS}{cells}{DATA}"));
            let mut grid = read(text.as_bytes()).unwrap();
            assert_eq!((grid.points(), grid.cells()), (5, 2), "{version}");
            assert_eq!(grid.read_cells(1..2).unwrap().corners, [0, 2, 3, 4]);
            assert_eq!(grid.arrays(Location::Cells), [("p".to_string(), 1), ("id".to_string(), 1)]);
            assert_eq!(grid.read_array(Location::Cells, "p", 0..2).unwrap(), [1.5, 2.5]);
            assert_eq!(grid.read_array(Location::Cells, "id", 1..2).unwrap(), [8.0]);
            assert_eq!(grid.read_array(Location::Points, "U", 4..5).unwrap(), [13.0, 14.0, 15.0]);
            let sizes = grid.sizes(0..2).unwrap();
            assert!(sizes.iter().all(|size| (size - 1.0 / 6.0).abs() < 1e-12), "{sizes:?}");
        }
    }

    #[test]
    fn binary_files_are_read() {
        let floats = |numbers: &[f32]| numbers.iter().flat_map(|x| x.to_be_bytes()).collect::<Vec<u8>>();
        let ints = |numbers: &[i32]| numbers.iter().flat_map(|x| x.to_be_bytes()).collect::<Vec<u8>>();
        let longs = |numbers: &[i64]| numbers.iter().flat_map(|x| x.to_be_bytes()).collect::<Vec<u8>>();
        let points = floats(&[0., 0., 0., 1., 0., 0., 1., 1., 0., 0., 1., 0., 0.5, 0.5, 1.]);
        let old = [b"CELLS 2 10\n".to_vec(), ints(&[4, 0, 1, 2, 4, 4, 0, 2, 3, 4])].concat();
        let new = [
            b"CELLS 3 8\nOFFSETS vtktypeint64\n".to_vec(),
            longs(&[0, 4, 8]),
            b"\nCONNECTIVITY vtktypeint64\n".to_vec(),
            longs(&[0, 1, 2, 4, 0, 2, 3, 4]),
        ]
        .concat();
        for (version, cells) in [("3.0", old), ("5.1", new)] {
            let bytes = [
                format!(
                    "# vtk DataFile Version {version}\nby hand\nBINARY\nDATASET UNSTRUCTURED_GRID\nPOINTS 5 float\n"
                )
                .into_bytes(),
                points.clone(),
                b"\n".to_vec(),
                cells,
                b"\nCELL_TYPES 2\n".to_vec(),
                ints(&[10, 10]),
                b"\nCELL_DATA 2\nSCALARS p float 1\nLOOKUP_TABLE default\n".to_vec(),
                floats(&[1.5, 2.5]),
                b"\n".to_vec(),
            ]
            .concat();
            let mut grid = read(&bytes).unwrap_or_else(|error| panic!("{version}: {error:#}"));
            assert_eq!(grid.read_points(4..5).unwrap(), [[0.5, 0.5, 1.0]], "{version}");
            assert_eq!(grid.read_cells(1..2).unwrap().corners, [0, 2, 3, 4], "{version}");
            assert_eq!(grid.read_array(Location::Cells, "p", 0..2).unwrap(), [1.5, 2.5], "{version}");
            assert!(read(&bytes[..bytes.len() / 2]).is_err());
        }
    }

    #[test]
    fn surfaces_are_read() {
        let cells = "VERTICES 1 2\n1 4\nPOLYGONS 2 9\n3 0 1 4\n4 0 1 2 3\n";
        let mut grid = read(file("3.0", "POLYDATA", &format!("{POINTS}{cells}")).as_bytes()).unwrap();
        assert_eq!(grid.read_cells(0..3).unwrap().kinds, [1, 5, 9]);
        assert_eq!(grid.surface().unwrap().cells, [1, 2]);
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        let cases = [
            ("no VTK".to_string(), "not a readable VTK file"),
            (
                file(
                    "3.0",
                    "UNSTRUCTURED_GRID",
                    &format!("{POINTS}{}", OLD.replace("CELL_TYPES 2\n10\n10", "CELL_TYPES 1\n10")),
                ),
                "types of cells",
            ),
            (file("3.0", "POLYDATA", &format!("{POINTS}POLYGONS 1 3\n3 0 1\n")), "Polys: cell 0 is cut off"),
        ];
        for (text, expected) in cases {
            let message = format!("{:#}", read(text.as_bytes()).err().unwrap());
            assert!(message.contains(expected), "expected '{expected}', got '{message}'");
        }
    }
}
