//! Results for ParaView: VTK PolyData (`.vtp`) with appended raw data.
//!
//! Numbers lie in the file as they lie in memory, each array behind its length, so the place of every value follows from
//! the number of points. A mesh comes with its faces, and fields at cells are fields of the faces; points without faces come as one poly-vertex cell, which ParaView
//! shows at once and which costs 8 bytes per point.

use super::FieldSpec;
use super::layout::{FileLayout, RowSource};
use crate::mesh::Mesh;

/// What the places of a prediction are, as far as a picture of them needs to know.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Shape<'a> {
    /// Points alone.
    Cloud,
    /// The vertices of a mesh, in its order.
    Vertices(&'a Mesh),
    /// The faces of a mesh, in its order.
    Faces(&'a Mesh),
}

impl<'a> From<Option<&'a Mesh>> for Shape<'a> {
    fn from(mesh: Option<&'a Mesh>) -> Self {
        mesh.map_or(Self::Cloud, Self::Vertices)
    }
}

/// An array of the appended section.
enum Data {
    Rows(RowSource),
    Fixed(Vec<u8>),
}

/// Builds the XML header and the appended section side by side.
struct Writer {
    points: u64,
    arrays: Vec<Data>,
    /// Offset of the next array in the appended section.
    offset: u64,
}

impl Writer {
    /// Adds an array, and returns the element that describes it.
    fn array(&mut self, kind: &str, name: &str, components: usize, data: Data) -> String {
        let length = match &data {
            Data::Rows(source) => self.points * source.width(),
            Data::Fixed(bytes) => bytes.len() as u64,
        };
        let offset = self.offset;
        self.offset += 8 + length;
        self.arrays.push(data);
        let name = escape(name);
        format!(
            r#"<DataArray type="{kind}" Name="{name}" NumberOfComponents="{components}" format="appended" offset="{offset}"/>"#
        )
    }
}

/// A `.vtp` file with the fields of `places` places of a shape.
pub(crate) fn vtp_layout<'a>(name: &str, places: u64, fields: &[FieldSpec], shape: impl Into<Shape<'a>>) -> FileLayout {
    let shape = shape.into();
    let mut writer = Writer { points: places, arrays: Vec::new(), offset: 0 };
    let (points, positions) = match shape {
        Shape::Cloud | Shape::Vertices(_) => (places, Data::Rows(RowSource::Position)),
        Shape::Faces(mesh) => {
            let vertices = mesh.points();
            let bytes = vertices.as_flattened().iter().flat_map(|x| x.to_le_bytes()).collect();
            (vertices.len() as u64, Data::Fixed(bytes))
        }
    };
    let positions = writer.array("Float32", "Points", 3, positions);
    let mut values: Vec<_> = fields
        .iter()
        .enumerate()
        .map(|(at, field)| {
            let source = RowSource::Field(at, field.components);
            writer.array("Float32", &field.name, field.components, Data::Rows(source))
        })
        .collect();
    let first = |attribute: &str, components: usize| {
        let field = fields.iter().find(|field| field.components == components);
        field.map_or(String::new(), |field| format!(r#" {attribute}="{}""#, escape(&field.name)))
    };
    let active = first("Scalars", 1) + &first("Vectors", 3);

    let mesh = match shape {
        Shape::Cloud => None,
        Shape::Vertices(mesh) | Shape::Faces(mesh) => Some(mesh),
    };
    let faces = mesh.filter(|mesh| mesh.faces().next().is_some());
    let (tag, count, corners, ends) = match faces {
        Some(mesh) => ("Polys", ("0", mesh.ends().len()), mesh.corners().to_vec(), mesh.ends().to_vec()),
        None => ("Verts", ("1", 0), Vec::new(), vec![points as usize]),
    };
    let (verts, polys) = count;
    let corners = match faces {
        Some(_) => Data::Fixed(corners.iter().flat_map(|&corner| i64::from(corner).to_le_bytes()).collect()),
        None => Data::Rows(RowSource::Index),
    };
    let corners = writer.array("Int64", "connectivity", 1, corners);
    let ends = Data::Fixed(ends.iter().flat_map(|&end| (end as i64).to_le_bytes()).collect());
    let ends = writer.array("Int64", "offsets", 1, ends);
    let mut of_faces = Vec::new();
    let mut names = String::new();
    if let Some(mesh) = faces.filter(|mesh| !mesh.groups().is_empty()) {
        let numbers = mesh.face_groups().iter().flat_map(|group| group.to_le_bytes()).collect();
        of_faces.push(writer.array("UInt32", "solid", 1, Data::Fixed(numbers)));
        names = solid_names(mesh);
    }
    let (active_points, active_faces) = match shape {
        Shape::Faces(_) => (String::new(), active),
        Shape::Cloud | Shape::Vertices(_) => (active, String::new()),
    };
    if let Shape::Faces(_) = shape {
        of_faces.splice(0..0, values.drain(..));
    }
    let of_faces = match of_faces.is_empty() {
        true => String::new(),
        false => {
            format!("\n      <CellData{active_faces}>\n        {}\n      </CellData>", of_faces.join("\n        "))
        }
    };

    let opening = format!(
        r#"<?xml version="1.0"?>
<VTKFile type="PolyData" version="1.0" byte_order="LittleEndian" header_type="UInt64">
  <PolyData>{names}
    <Piece NumberOfPoints="{points}" NumberOfVerts="{verts}" NumberOfLines="0" NumberOfStrips="0" NumberOfPolys="{polys}">
      <Points>
        {positions}
      </Points>
      <PointData{active_points}>
        {values}
      </PointData>{of_faces}
      <{tag}>
        {corners}
        {ends}
      </{tag}>
    </Piece>
  </PolyData>
  <AppendedData encoding="raw">
    _"#,
        values = values.join("\n        ")
    );
    let mut file = FileLayout::new(name).fixed(opening.into_bytes());
    for data in writer.arrays {
        file = match data {
            Data::Rows(source) => file.fixed((places * source.width()).to_le_bytes().to_vec()).rows(source, places),
            Data::Fixed(bytes) => file.fixed((bytes.len() as u64).to_le_bytes().to_vec()).fixed(bytes),
        };
    }
    file.fixed(b"\n  </AppendedData>\n</VTKFile>\n".to_vec())
}

/// The names of the solids of a mesh, by the numbers of the array `solid`. A text of VTK is a list of bytes that ends with 0.
fn solid_names(mesh: &Mesh) -> String {
    let bytes = mesh.groups().iter().flat_map(|name| name.bytes().chain([0]));
    let text: Vec<_> = bytes.map(|byte| byte.to_string()).collect();
    let (count, text) = (mesh.groups().len(), text.join(" "));
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
