//! Results for ParaView: VTK's XML files with appended raw data.
//!
//! Numbers lie in the file as they lie in memory, each array behind its length, so the place of every value follows from
//! the number of points. A mesh of any cells goes out as it came, piece by piece, with the fields at its cells or points;
//! its arrays are copied. A surface in memory comes with its faces; points without faces come as one poly-vertex cell,
//! which ParaView shows at once and which costs 8 bytes per point.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::rc::Rc;

use super::FieldSpec;
use super::codec::Codec;
use super::document::{Document, OFFSET};
use super::layout::{Copied, FileLayout, RowSource};
use super::pack::Packing;
use crate::input::{Column, Grid, Location, PieceOutline, SOLID};
use crate::mesh::Mesh;

/// What the places of a prediction are, as far as a picture of them needs to know.
#[derive(Clone)]
pub(crate) enum Shape<'a> {
    /// Points alone.
    Cloud,
    /// The vertices of a mesh, in its order.
    Vertices(&'a Mesh),
    /// The cells or the points of a mesh in a file.
    Grid(GridShape<'a>),
}

/// A mesh in a file, with what of it goes out again.
#[derive(Clone)]
pub(crate) struct GridShape<'a> {
    pub(crate) grid: Rc<RefCell<Grid>>,
    pub(crate) outline: &'a [PieceOutline],
    /// Where the fields are.
    pub(crate) at: Location,
    pub(crate) kept: &'a Kept,
    /// The solid of each cell, if the file does not tell it.
    pub(crate) solid_of_cells: &'a [i32],
    /// Names of the solids that its array of faces numbers.
    pub(crate) solids: &'a [String],
}

/// Which arrays of a mesh go out with it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) all: bool,
    pub(crate) named: BTreeSet<String>,
}

impl Kept {
    fn holds(&self, name: &str) -> bool {
        self.all || self.named.contains(name)
    }
}

impl<'a> From<Option<&'a Mesh>> for Shape<'a> {
    fn from(mesh: Option<&'a Mesh>) -> Self {
        mesh.map_or(Self::Cloud, Self::Vertices)
    }
}

impl Shape<'_> {
    /// The extension of its files: a mesh with cells of any kind is no PolyData.
    pub(crate) fn extension(&self) -> &'static str {
        match self {
            Self::Grid(shape) if shape.is_unstructured() => "vtu",
            _ => "vtp",
        }
    }
}

impl GridShape<'_> {
    fn is_unstructured(&self) -> bool {
        self.outline.iter().flat_map(|piece| &piece.sections).any(|section| section.name == CELLS)
    }
}

/// The name of the one list of cells of an UnstructuredGrid.
const CELLS: &str = "Cells";

/// The lists of cells of PolyData, with the attribute that counts each.
const LISTS: [(&str, &str); 4] =
    [("Verts", "NumberOfVerts"), ("Lines", "NumberOfLines"), ("Strips", "NumberOfStrips"), ("Polys", "NumberOfPolys")];

/// Polyhedra as lists of faces came with this version of the form.
const VERSION_OF_LISTS: &str = "2.3";

/// An array of the appended section.
enum Data {
    /// So many rows from the first one on.
    Rows(RowSource, std::ops::Range<u64>),
    Fixed(Vec<u8>),
    Copied(Copied),
}

impl Data {
    fn len(&self) -> u64 {
        match self {
            Self::Rows(source, rows) => (rows.end - rows.start) * source.width(),
            Self::Fixed(bytes) => bytes.len() as u64,
            Self::Copied(copied) => copied.rows * copied.width,
        }
    }
}

/// Arrays of the appended section, as the XML names them.
#[derive(Default)]
struct Arrays(Vec<Data>);

impl Arrays {
    /// Adds an array, and returns the element that describes it.
    fn add(&mut self, kind: impl std::fmt::Display, name: &str, components: usize, data: Data) -> String {
        let array = self.0.len();
        self.0.push(data);
        let name = escape(name);
        format!(
            r#"<DataArray type="{kind}" Name="{name}" NumberOfComponents="{components}" format="appended" {OFFSET}{array}{OFFSET}/>"#
        )
    }

    fn copied(&mut self, grid: &Rc<RefCell<Grid>>, name: &str, column: &Column) -> String {
        let (grid, source) = (grid.clone(), column.clone());
        let read = Rc::new(move |rows| grid.borrow_mut().copy(&source, rows));
        let copied = Copied { rows: column.rows, width: column.width(), read };
        self.add(column.element, name, column.components, Data::Copied(copied))
    }

    fn fields(&mut self, fields: &[FieldSpec], rows: std::ops::Range<u64>) -> Vec<String> {
        let field = |(at, field): (usize, &FieldSpec)| {
            let source = RowSource::Field(at, field.components);
            self.add("Float32", &field.name, field.components, Data::Rows(source, rows.clone()))
        };
        fields.iter().enumerate().map(field).collect()
    }

    fn finish(self, name: String, document: Document, codec: Option<Codec>) -> FileLayout {
        let mut offsets = vec![0];
        for data in &self.0 {
            offsets.push(offsets[offsets.len() - 1] + 8 + data.len());
        }
        let opening = document.opening(&offsets, None).into_bytes();
        let mut file = FileLayout::new(name).fixed(opening);
        let mut arrays = Vec::new();
        for data in self.0 {
            let length = data.len();
            file = file.fixed(length.to_le_bytes().to_vec());
            arrays.push((file.len(), length));
            file = match data {
                Data::Rows(source, rows) => file.rows(source, rows),
                Data::Fixed(bytes) => file.fixed(bytes),
                Data::Copied(copied) => file.copied(copied),
            };
        }
        file.fixed(document.closing().into()).packed(codec.map(|codec| Packing { codec, document, arrays }))
    }
}

/// A file with the fields of `places` places of a shape.
pub(crate) fn vtk_layout(
    stem: &str,
    places: u64,
    fields: &[FieldSpec],
    shape: &Shape,
    codec: Option<Codec>,
) -> FileLayout {
    let mut arrays = Arrays::default();
    let (kind, version, body) = match shape {
        Shape::Cloud => ("PolyData", "1.0", cloud(&mut arrays, places, fields)),
        Shape::Vertices(mesh) if mesh.faces().next().is_none() => {
            ("PolyData", "1.0", cloud(&mut arrays, places, fields))
        }
        Shape::Vertices(mesh) => ("PolyData", "1.0", surface(&mut arrays, mesh, places, fields)),
        Shape::Grid(shape) => {
            let columns = || shape.outline.iter().flat_map(|piece| &piece.sections).flat_map(|list| &list.columns);
            let lists = columns().any(|column| column.name == "polyhedron_offsets");
            let kind = if shape.is_unstructured() { "UnstructuredGrid" } else { "PolyData" };
            (kind, if lists { VERSION_OF_LISTS } else { "1.0" }, pieces(&mut arrays, shape, fields))
        }
    };
    arrays.finish(format!("{stem}.{}", shape.extension()), Document { kind, version, body }, codec)
}

/// Points alone.
fn cloud(arrays: &mut Arrays, places: u64, fields: &[FieldSpec]) -> String {
    let points = vec![arrays.add("Float32", "Points", 3, Data::Rows(RowSource::Position, 0..places))];
    let values = arrays.fields(fields, 0..places);
    let ends = Data::Fixed((places as i64).to_le_bytes().to_vec());
    let cells = vec![
        arrays.add("Int64", "connectivity", 1, Data::Rows(RowSource::Index, 0..places)),
        arrays.add("Int64", "offsets", 1, ends),
    ];
    let lists = vec![("Verts", 1, cells)];
    poly_data(places, points, (active(fields), values), (String::new(), Vec::new()), lists)
}

/// The vertices of a surface in memory, with its faces.
fn surface(arrays: &mut Arrays, mesh: &Mesh, places: u64, fields: &[FieldSpec]) -> String {
    let points = vec![arrays.add("Float32", "Points", 3, Data::Rows(RowSource::Position, 0..places))];
    let values = arrays.fields(fields, 0..places);
    let corners = mesh.corners().iter().flat_map(|&corner| i64::from(corner).to_le_bytes()).collect();
    let ends = mesh.ends().iter().flat_map(|&end| (end as i64).to_le_bytes()).collect();
    let cells = vec![
        arrays.add("Int64", "connectivity", 1, Data::Fixed(corners)),
        arrays.add("Int64", "offsets", 1, Data::Fixed(ends)),
    ];
    let mut of_faces = Vec::new();
    if !mesh.groups().is_empty() {
        let numbers = mesh.face_groups().iter().flat_map(|group| group.to_le_bytes()).collect();
        of_faces.push(arrays.add("UInt32", SOLID, 1, Data::Fixed(numbers)));
    }
    let lists = vec![("Polys", mesh.ends().len() as u64, cells)];
    solid_names(mesh.groups()) + &poly_data(places, points, (active(fields), values), (String::new(), of_faces), lists)
}

/// A mesh of a file, piece by piece.
fn pieces(arrays: &mut Arrays, shape: &GridShape, fields: &[FieldSpec]) -> String {
    let GridShape { grid, outline, at, kept, solid_of_cells, solids } = shape;
    let mut body = solid_names(solids);
    let (mut first, mut first_cell) = (0, 0);
    for piece in *outline {
        let points = vec![arrays.copied(grid, "Points", &piece.points)];
        let rows = match at {
            Location::Cells => piece.cells(),
            Location::Points => piece.points.rows,
        };
        let places = first..first + rows;
        let cells = first_cell..first_cell + piece.cells() as usize;
        first_cell = cells.end;
        first += rows;
        let mut section = |here: Location| -> Section {
            let (mut attributes, mut values) = (String::new(), Vec::new());
            if here == *at {
                (attributes, values) = (active(fields), arrays.fields(fields, places.clone()));
            }
            let kept = piece.arrays(here).iter().filter(|column| kept.holds(&column.name) || column.name == SOLID);
            for column in kept {
                let taken = fields.iter().any(|field| field.name == column.name);
                let name = if taken { format!("{}_original", column.name) } else { column.name.clone() };
                values.push(arrays.copied(grid, &name, column));
            }
            if here == Location::Cells && !solid_of_cells.is_empty() {
                let numbers = solid_of_cells[cells.clone()].iter().flat_map(|solid| solid.to_le_bytes()).collect();
                values.push(arrays.add("Int32", SOLID, 1, Data::Fixed(numbers)));
            }
            (attributes, values)
        };
        let (of_points, of_cells) = (section(Location::Points), section(Location::Cells));
        let mut lists = Vec::new();
        for section in &piece.sections {
            let columns = section.columns.iter().map(|column| arrays.copied(grid, &column.name, column)).collect();
            lists.push((section.name, section.cells, columns));
        }
        body += &if shape.is_unstructured() {
            let counts = format!(r#"NumberOfCells="{}""#, piece.cells());
            if lists.is_empty() {
                lists.push((CELLS, 0, empty_cells(arrays)));
            }
            piece_of(piece.points.rows, &counts, points, of_points, of_cells, lists)
        } else {
            poly_data(piece.points.rows, points, of_points, of_cells, lists)
        };
    }
    body
}

/// A piece without cells has their lists all the same.
fn empty_cells(arrays: &mut Arrays) -> Vec<String> {
    [("Int64", "connectivity"), ("Int64", "offsets"), ("UInt8", "types")]
        .map(|(kind, name)| arrays.add(kind, name, 1, Data::Fixed(Vec::new())))
        .to_vec()
}

/// The attributes and the arrays of a section.
type Section = (String, Vec<String>);

/// The name, the cells and the arrays of a list of cells.
type List<'a> = (&'a str, u64, Vec<String>);

fn poly_data(points: u64, positions: Vec<String>, of_points: Section, of_cells: Section, lists: Vec<List>) -> String {
    let count = |name: &str| lists.iter().filter(|(list, ..)| *list == name).map(|(_, cells, _)| cells).sum::<u64>();
    let counts: Vec<_> = LISTS.iter().map(|(name, counted)| format!(r#"{counted}="{}""#, count(name))).collect();
    piece_of(points, &counts.join(" "), positions, of_points, of_cells, lists)
}

fn piece_of(
    points: u64,
    counts: &str,
    positions: Vec<String>,
    (active_points, of_points): Section,
    (active_cells, of_cells): Section,
    lists: Vec<List>,
) -> String {
    let mut text = format!("\n    <Piece NumberOfPoints=\"{points}\" {counts}>");
    let mut section = |name: &str, attributes: &str, arrays: Vec<String>| {
        let _ = write!(text, "\n      <{name}{attributes}>");
        arrays.iter().for_each(|array| {
            let _ = write!(text, "\n        {array}");
        });
        let _ = write!(text, "\n      </{name}>");
    };
    section("Points", "", positions);
    section("PointData", &active_points, of_points);
    section("CellData", &active_cells, of_cells);
    lists.into_iter().for_each(|(name, _, arrays)| section(name, "", arrays));
    text + "\n    </Piece>"
}

/// What ParaView shows first.
fn active(fields: &[FieldSpec]) -> String {
    let first = |attribute: &str, components: usize| {
        let field = fields.iter().find(|field| field.components == components);
        field.map_or(String::new(), |field| format!(r#" {attribute}="{}""#, escape(&field.name)))
    };
    first("Scalars", 1) + &first("Vectors", 3)
}

/// The names of solids, by the numbers of the array [`SOLID`]. A text of VTK is a list of bytes that ends with 0.
fn solid_names(names: &[String]) -> String {
    if names.is_empty() {
        return String::new();
    }
    let bytes = names.iter().flat_map(|name| name.bytes().chain([0]));
    let text: Vec<_> = bytes.map(|byte| byte.to_string()).collect();
    let (count, text) = (names.len(), text.join(" "));
    format!(
        r#"
    <FieldData>
      <Array type="String" Name="solid names" NumberOfTuples="{count}" format="ascii">{text}</Array>
    </FieldData>"#
    )
}

fn escape(name: &str) -> String {
    name.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;")
}
