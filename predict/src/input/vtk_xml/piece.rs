//! The parts of a `Piece`: points, cells, and arrays at both.

use std::collections::HashMap;

use anyhow::{Context, Result, bail, ensure};
use roxmltree::{Document, Node, NodeId};

use super::array::{Place, StoredNumbers};
use super::file::SharedFile;
use super::header::Header;
use super::skeleton::Skeleton;
use super::{child, children};
use crate::input::grid::{Array, Element, Integers, Kinds, Numbers, Piece, Points, Polyhedra, Section};

/// Numbers of an array of cells have no known count before its ends are read.
const UNKNOWN: Option<u64> = None;

/// Reads the pieces of one file.
pub(super) struct PieceReader<'a> {
    file: &'a SharedFile,
    header: Header,
    /// Where the text of each array lies.
    inline: HashMap<NodeId, std::ops::Range<u64>>,
    /// Where appended data begin, and whether they are raw.
    appended: Option<(u64, bool)>,
}

impl<'a> PieceReader<'a> {
    /// Knows where all numbers of the file lie.
    pub(super) fn new(file: &'a SharedFile, header: Header, document: &Document, skeleton: &Skeleton) -> Result<Self> {
        let arrays = document.descendants().filter(|node| node.has_tag_name("DataArray") || node.has_tag_name("Array"));
        let inline = arrays.map(|node| node.id()).zip(skeleton.inline.iter().cloned()).collect();
        let appended = match skeleton.appended {
            None => None,
            Some(start) => {
                let node = document.descendants().find(|node| node.has_tag_name("AppendedData"));
                match node.and_then(|node| node.attribute("encoding")) {
                    Some("raw") => Some((start, true)),
                    Some("base64") | None => Some((start, false)),
                    Some(other) => bail!("the encoding of the appended data must be raw or base64, got '{other}'"),
                }
            }
        };
        Ok(Self { file, header, inline, appended })
    }

    /// A piece of `PolyData`.
    pub(super) fn poly_data(&self, piece: Node) -> Result<Piece> {
        let kinds = [
            ("Verts", "NumberOfVerts", Kinds::Verts),
            ("Lines", "NumberOfLines", Kinds::Lines),
            ("Polys", "NumberOfPolys", Kinds::Polys),
            ("Strips", "NumberOfStrips", Kinds::Strips),
        ];
        let mut sections = Vec::new();
        for (name, attribute, kinds) in kinds {
            let cells = count(piece, attribute, Some(0))?;
            if cells > 0 {
                let node = child(piece, name).with_context(|| format!("there are {cells} {name}, but no <{name}>"))?;
                let connectivity = self.required(node, name, "connectivity", UNKNOWN)?;
                let offsets = self.required(node, name, "offsets", Some(cells))?;
                sections.push(Section { name, cells, connectivity, offsets, kinds });
            }
        }
        self.finish(piece, sections)
    }

    /// A piece of an `UnstructuredGrid`.
    pub(super) fn unstructured(&self, piece: Node) -> Result<Piece> {
        let (name, cells) = ("Cells", count(piece, "NumberOfCells", None)?);
        let mut sections = Vec::new();
        if cells > 0 {
            let node = child(piece, name).with_context(|| format!("there are {cells} cells, but no <{name}>"))?;
            let kinds = Kinds::Stored(self.required(node, name, "types", Some(cells))?, self.polyhedra(node, cells)?);
            let connectivity = self.required(node, name, "connectivity", UNKNOWN)?;
            let offsets = self.required(node, name, "offsets", Some(cells))?;
            sections.push(Section { name, cells, connectivity, offsets, kinds });
        }
        self.finish(piece, sections)
    }

    fn finish(&self, piece: Node, sections: Vec<Section>) -> Result<Piece> {
        let points = count(piece, "NumberOfPoints", None)?;
        let cells = sections.iter().try_fold(0u64, |sum, section| sum.checked_add(section.cells));
        let cells = cells.context("its cells are more than a file can hold")?;
        Ok(Piece {
            points: Points::new(self.points(piece, points)?, points),
            sections,
            point_arrays: self.arrays(piece, "PointData", points)?,
            cell_arrays: self.arrays(piece, "CellData", cells)?,
        })
    }

    fn points(&self, piece: Node, points: u64) -> Result<Box<dyn Numbers>> {
        if points == 0 {
            return Ok(Box::new(Integers(Vec::new())));
        }
        let node = child(piece, "Points").with_context(|| format!("there are {points} points, but no <Points>"))?;
        let mut arrays = children(node, "DataArray");
        let array = arrays.next().context("<Points> has no array")?;
        ensure!(arrays.next().is_none(), "<Points> has several arrays; files with several time steps are not read");
        let components = count(array, "NumberOfComponents", Some(3))?;
        ensure!(components == 3, "points must have 3 components, got {components}");
        let numbers = points.checked_mul(3).context("its points are more than a file can hold")?;
        self.numbers(array, Some(numbers)).context("Points")
    }

    /// The arrays of numbers at points or cells; texts are left out.
    fn arrays(&self, piece: Node, section: &'static str, rows: u64) -> Result<Vec<Array>> {
        let mut arrays = Vec::new();
        for node in child(piece, section).into_iter().flat_map(|node| children(node, "DataArray")) {
            let name = node.attribute("Name").unwrap_or_default().to_string();
            if Element::named(node.attribute("type").unwrap_or_default()).is_none() {
                continue;
            }
            let context = || format!("{section}/{name}");
            let components = count(node, "NumberOfComponents", Some(1)).with_context(context)?;
            let numbers = rows
                .checked_mul(components)
                .with_context(|| format!("{section}/{name} is larger than a file can be"))?;
            let components = usize::try_from(components)?;
            let numbers = self.numbers(node, Some(numbers)).with_context(context)?;
            arrays.push(Array { name, components, numbers });
        }
        Ok(arrays)
    }

    fn polyhedra(&self, cells: Node, count: u64) -> Result<Option<Polyhedra>> {
        let name = "Cells";
        let has = |array: &str| named(cells, array).is_some();
        if has("polyhedron_offsets") {
            return Ok(Some(Polyhedra::Lists {
                face_connectivity: self.required(cells, name, "face_connectivity", UNKNOWN)?,
                face_offsets: self.required(cells, name, "face_offsets", UNKNOWN)?,
                polyhedron_to_faces: self.required(cells, name, "polyhedron_to_faces", UNKNOWN)?,
                polyhedron_offsets: self.required(cells, name, "polyhedron_offsets", Some(count))?,
            }));
        }
        if has("faces") && has("faceoffsets") {
            let faces = self.required(cells, name, "faces", UNKNOWN)?;
            let offsets = self.required(cells, name, "faceoffsets", Some(count))?;
            return Ok(Some(Polyhedra::Stream { faces, offsets }));
        }
        Ok(None)
    }

    fn required(&self, section: Node, name: &str, array: &str, expected: Option<u64>) -> Result<Box<dyn Numbers>> {
        let node = named(section, array).with_context(|| format!("<{name}> has no array '{array}'"))?;
        self.numbers(node, expected).with_context(|| format!("{name}/{array}"))
    }

    fn numbers(&self, node: Node, expected: Option<u64>) -> Result<Box<dyn Numbers>> {
        let kind = node.attribute("type").unwrap_or_default();
        let element = Element::named(kind).with_context(|| format!("its type must be one of numbers, got '{kind}'"))?;
        let inline = || self.inline.get(&node.id()).cloned().unwrap_or(0..0);
        let place = match node.attribute("format") {
            Some("ascii") | None => Place::Text(inline()),
            Some("binary") => Place::Inline(inline()),
            Some("appended") => {
                let (start, raw) = self.appended.context("its numbers are appended, but there is no <AppendedData>")?;
                let start = start.checked_add(count(node, "offset", None)?).context("its offset is beyond any file")?;
                let length = self.file.len();
                ensure!(start <= length, "truncated: it begins at byte {start}, the file has {length}");
                if raw { Place::Raw(start) } else { Place::Base64(start) }
            }
            Some(other) => bail!("its format must be ascii, binary or appended, got '{other}'"),
        };
        Ok(Box::new(StoredNumbers::new(self.file, self.header, element, place, expected)))
    }
}

fn named<'a>(section: Node<'a, 'a>, name: &str) -> Option<Node<'a, 'a>> {
    children(section, "DataArray").find(|node| node.attribute("Name") == Some(name))
}

/// A number in an attribute.
fn count(node: Node, attribute: &str, default: Option<u64>) -> Result<u64> {
    let tag = node.tag_name().name();
    match (node.attribute(attribute), default) {
        (None, Some(default)) => Ok(default),
        (None, None) => bail!("<{tag}> has no {attribute}"),
        (Some(text), _) => text
            .trim()
            .parse()
            .ok()
            .with_context(|| format!("{attribute} of <{tag}> must be a whole number, got '{text}'")),
    }
}
