//! The faces of polyhedra, in both ways in which VTK writes them.

use std::ops::Range;

use anyhow::{Context, Result, bail, ensure};

use super::cells::{Cells, MOST_CORNERS, checked, ends};
use super::numbers::Numbers;
use super::shape::kind;

/// Faces read at once while the list of a polyhedron is followed; more are read when there are more.
const MOST_FACES: i64 = 1 << 20;

/// Where the faces of polyhedra are.
pub(crate) enum Polyhedra {
    /// For each polyhedron the number of its faces, then for each face the number of its points and the points: `faces`.
    /// Its end there, or -1 for other cells: `faceoffsets`.
    Stream { faces: Box<dyn Numbers>, offsets: Box<dyn Numbers> },
    /// Faces as cells are stored, and a list of faces for each polyhedron: what VTK writes since 9.4.
    Lists {
        face_connectivity: Box<dyn Numbers>,
        face_offsets: Box<dyn Numbers>,
        polyhedron_to_faces: Box<dyn Numbers>,
        polyhedron_offsets: Box<dyn Numbers>,
    },
}

impl Polyhedra {
    /// All of its arrays, by their names.
    pub(crate) fn numbers(&mut self) -> Vec<(&'static str, &mut Box<dyn Numbers>)> {
        match self {
            Self::Stream { faces, offsets } => vec![("faces", faces), ("faceoffsets", offsets)],
            Self::Lists { face_connectivity, face_offsets, polyhedron_to_faces, polyhedron_offsets } => vec![
                ("face_connectivity", face_connectivity),
                ("face_offsets", face_offsets),
                ("polyhedron_to_faces", polyhedron_to_faces),
                ("polyhedron_offsets", polyhedron_offsets),
            ],
        }
    }

    /// Fills the faces of some cells, whose kinds are known.
    pub(crate) fn read(&mut self, range: Range<u64>, kinds: &[u8], points: u64, cells: &mut Cells) -> Result<()> {
        match self {
            Self::Stream { faces, offsets } => {
                read_stream(faces.as_mut(), offsets.as_mut(), range, kinds, points, cells)
            }
            Self::Lists { face_connectivity, face_offsets, polyhedron_to_faces, polyhedron_offsets } => {
                let (start, lists) = ends(polyhedron_offsets.as_mut(), range, "Cells", "polyhedron_offsets")?;
                let last = lists.last().copied().unwrap_or(start);
                check_count(last - start, "polyhedron_offsets")?;
                let faces = polyhedron_to_faces.integers(start..last).context("Cells/polyhedron_to_faces")?;
                // Faces of neighbours follow each other, so they are read in runs.
                let mut at = 0;
                while at < faces.len() {
                    let run =
                        faces[at..].windows(2).take_while(|pair| pair[0].checked_add(1) == Some(pair[1])).count() + 1;
                    let first =
                        u64::try_from(faces[at]).ok().context("Cells/polyhedron_to_faces: a face is negative")?;
                    let (start, face_ends) =
                        ends(face_offsets.as_mut(), first..first + run as u64, "Cells", "face_offsets")?;
                    let last = face_ends.last().copied().unwrap_or(start);
                    // A list may name one face again and again.
                    check_count((last - start).saturating_add(cells.face_corners.len() as u64), "face_offsets")?;
                    let corners = face_connectivity.integers(start..last).context("Cells/face_connectivity")?;
                    let placed = cells.face_corners.len();
                    cells.face_corners.extend(checked(corners, points, "Cells", "face_connectivity")?);
                    cells.face_ends.extend(face_ends.into_iter().map(|end| placed + (end - start) as usize));
                    at += run;
                }
                cells.cell_faces = lists.into_iter().map(|end| (end - start) as usize).collect();
                Ok(())
            }
        }
    }
}

/// Refuses what only a file that is wrong has.
fn check_count(numbers: u64, array: &str) -> Result<()> {
    ensure!(
        numbers <= MOST_CORNERS,
        "Cells/{array}: polyhedra have {numbers} numbers, at most {MOST_CORNERS} can be read at once"
    );
    Ok(())
}

fn read_stream(
    faces: &mut dyn Numbers,
    offsets: &mut dyn Numbers,
    range: Range<u64>,
    kinds: &[u8],
    points: u64,
    cells: &mut Cells,
) -> Result<()> {
    let stored = offsets.integers(range.clone()).context("Cells/faceoffsets")?;
    let Some(first) = kinds.iter().position(|&kind| kind == kind::POLYHEDRON) else { return Ok(()) };
    let mut start = end_before(offsets, range.start + first as u64)?;
    let last = stored.iter().copied().max().unwrap_or(start);
    ensure!(start >= 0 && last >= start, "Cells/faceoffsets: a polyhedron ends at {last}, before it begins at {start}");
    check_count((last - start) as u64, "faceoffsets")?;
    let stream = faces.integers(start as u64..last as u64).context("Cells/faces")?;
    let origin = start;
    for (at, &end) in stored.iter().enumerate() {
        if kinds[at] == kind::POLYHEDRON {
            let cell = range.start + at as u64;
            let own = usize::try_from(start - origin).ok().zip(usize::try_from(end - origin).ok());
            let own = own.and_then(|(start, end)| stream.get(start..end));
            let own = own.with_context(|| {
                format!("Cells/faceoffsets: polyhedron {cell} ends at {end}, before it begins at {start}")
            })?;
            split_faces(own, cell, points, cells)?;
            start = end;
        }
        cells.cell_faces[at] = cells.face_ends.len();
    }
    Ok(())
}

/// Where the last polyhedron before a cell ends; 0 if there is none.
fn end_before(offsets: &mut dyn Numbers, cell: u64) -> Result<i64> {
    let mut end = cell;
    while end > 0 {
        let start = end.saturating_sub(MOST_FACES as u64);
        let stored = offsets.integers(start..end).context("Cells/faceoffsets")?;
        if let Some(&found) = stored.iter().rev().find(|&&offset| offset >= 0) {
            return Ok(found);
        }
        end = start;
    }
    Ok(0)
}

/// Takes the stream of one polyhedron apart.
fn split_faces(stream: &[i64], cell: u64, points: u64, cells: &mut Cells) -> Result<()> {
    let cut = || format!("Cells/faces: polyhedron {cell} is cut off");
    let (&count, mut rest) = stream.split_first().with_context(cut)?;
    for _ in 0..count {
        let (&size, after) = rest.split_first().with_context(cut)?;
        let size = usize::try_from(size).ok().filter(|&size| size <= after.len()).with_context(cut)?;
        let (corners, after) = after.split_at(size);
        cells.face_corners.extend(checked(corners.to_vec(), points, "Cells", "faces")?);
        cells.face_ends.push(cells.face_corners.len());
        rest = after;
    }
    if !rest.is_empty() {
        bail!("Cells/faces: {} numbers follow the {count} faces of polyhedron {cell}", rest.len());
    }
    Ok(())
}
