//! A surface or points in a `.ply` file, ASCII or binary.

use std::io::{BufRead, BufReader};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use candle_mixed_attention::models::open_regular;
use ply_rs_bw::parser::{Parser, Reader};
use ply_rs_bw::ply::{Property, PropertyAccess, PropertyAccessResult};

use crate::mesh::Mesh;

/// Names that programs give to the list of the corners of a face.
const CORNERS: [&str; 2] = ["vertex_indices", "vertex_index"];

/// A point, as far as the file says it.
struct Vertex([Option<f32>; 3]);

/// The corners of a face.
struct Face(Vec<i64>);

/// Anything else, which is passed over.
struct Other;

impl PropertyAccess for Vertex {
    fn new() -> Self {
        Self([None; 3])
    }

    fn set_property(&mut self, name: &str, property: Property) -> PropertyAccessResult {
        let Some(axis) = ["x", "y", "z"].iter().position(|axis| *axis == name) else {
            return PropertyAccessResult::Ignored;
        };
        self.0[axis] = match property {
            Property::Float(x) => Some(x),
            Property::Double(x) => Some(x as f32),
            Property::Char(x) => Some(x.into()),
            Property::UChar(x) => Some(x.into()),
            Property::Short(x) => Some(x.into()),
            Property::UShort(x) => Some(x.into()),
            Property::Int(x) => Some(x as f32),
            Property::UInt(x) => Some(x as f32),
            _ => None,
        };
        PropertyAccessResult::Set
    }
}

impl PropertyAccess for Face {
    fn new() -> Self {
        Self(Vec::new())
    }

    fn set_property(&mut self, name: &str, property: Property) -> PropertyAccessResult {
        if !CORNERS.contains(&name) {
            return PropertyAccessResult::Ignored;
        }
        fn widened<T: Into<i64>>(list: Vec<T>) -> Vec<i64> {
            list.into_iter().map(Into::into).collect()
        }
        self.0 = match property {
            Property::ListChar(list) => widened(list),
            Property::ListUChar(list) => widened(list),
            Property::ListShort(list) => widened(list),
            Property::ListUShort(list) => widened(list),
            Property::ListInt(list) => widened(list),
            Property::ListUInt(list) => widened(list),
            _ => return PropertyAccessResult::Ignored,
        };
        PropertyAccessResult::Set
    }
}

impl PropertyAccess for Other {
    fn new() -> Self {
        Self
    }
}

/// Reads the vertices and faces of a file, in their order.
///
/// # Errors
/// A file that is damaged, has no vertices, or a vertex that is not finite.
pub(super) fn read_ply(path: &Path) -> Result<Mesh> {
    let name = || path.display().to_string();
    let file = open_regular(path).with_context(|| format!("cannot open {}", name()))?;
    read(BufReader::new(file)).with_context(name)
}

fn read(file: impl BufRead) -> Result<Mesh> {
    let damaged = "not a readable PLY file";
    let mut reader = Reader::new(file);
    let (vertices_of, faces_of, others_of) = (Parser::<Vertex>::new(), Parser::<Face>::new(), Parser::<Other>::new());
    let header = vertices_of.read_header(&mut reader).context(damaged)?;
    let (mut vertices, mut faces) = (Vec::new(), Vec::new());
    for element in header.elements.values() {
        // They would take no bytes of the file, however many there are.
        let empty = element.properties.is_empty() && element.count > 0;
        ensure!(!empty, "its {} elements '{}' have no properties", element.count, element.name);
        match element.name.as_str() {
            "vertex" => {
                vertices = vertices_of.read_payload_for_element(&mut reader, element, &header).context(damaged)?
            }
            "face" => faces = faces_of.read_payload_for_element(&mut reader, element, &header).context(damaged)?,
            _ => drop(others_of.read_payload_for_element(&mut reader, element, &header).context(damaged)?),
        }
    }
    let mut points = Vec::with_capacity(vertices.len());
    for (number, Vertex(coordinates)) in vertices.into_iter().enumerate() {
        let [Some(x), Some(y), Some(z)] = coordinates else { bail!("vertex {number} has no x, y and z as numbers") };
        ensure!([x, y, z].iter().all(|x| x.is_finite()), "vertex {number} is {:?}; it must be finite", [x, y, z]);
        points.push([x, y, z]);
    }
    ensure!(!points.is_empty(), "holds no vertices");
    let count = points.len();
    let mut mesh = Mesh::new(points);
    for (number, Face(corners)) in faces.into_iter().enumerate() {
        let known = |&corner: &i64| u32::try_from(corner).ok().filter(|&corner| (corner as usize) < count);
        let corners: Option<Vec<u32>> = corners.iter().map(known).collect();
        let corners =
            corners.with_context(|| format!("face {number} has a corner that is none of the {count} vertices"))?;
        ensure!(corners.len() > 2, "face {number} has {} corners; faces have three or more", corners.len());
        mesh.push_face(&corners);
    }
    Ok(mesh)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "ply\nformat ascii 1.0\ncomment made by hand\nelement vertex 4\nproperty double x\nproperty float y\n\
                        property float z\nproperty uchar red\nelement face 2\nproperty uchar quality\n\
                        property list uchar int vertex_index\nelement edge 1\nproperty int a\nend_header\n\
                        0 0 0 9\n1 0 0 9\n1 1 0 9\n0 1 0.5 9\n7 3 0 1 2\n7 4 0 1 2 3\n5\n";

    #[test]
    fn vertices_and_faces_keep_their_order() {
        let mesh = read(TEXT.as_bytes()).unwrap();
        assert_eq!(mesh.points(), [[0., 0., 0.], [1., 0., 0.], [1., 1., 0.], [0., 1., 0.5]]);
        assert_eq!(mesh.faces().collect::<Vec<_>>(), [&[0, 1, 2][..], &[0, 1, 2, 3]]);
    }

    #[test]
    fn every_way_to_write_a_mesh_gives_the_same() {
        let expected = read(TEXT.as_bytes()).unwrap();
        let header = |vertex: &str, face: &str| format!("ply\nformat ascii 1.0\n{vertex}{face}end_header\n");
        let (vertex, face) = (
            "element vertex 4\nproperty float x\nproperty float y\nproperty float z\n",
            "element face 2\nproperty list uchar int vertex_indices\n",
        );
        let (points, faces) = ("0 0 0\n1 0 0\n1 1 0\n0 1 0.5\n", "3 0 1 2\n4 0 1 2 3\n");
        let plain = header(vertex, face) + points + faces;
        let cases = [
            ("plain", plain.clone()),
            ("names of types with their bits", plain.replace("uchar int", "uint8 int32").replace("float", "float32")),
            ("double precision", plain.replace("float", "double")),
            ("unsigned corners", plain.replace("uchar int", "uchar uint")),
            ("short lists", plain.replace("uchar int", "int short")),
            ("comments and information", plain.replace("element v", "comment a b\nobj_info made by hand\nelement v")),
            (
                "normals and colours",
                header(
                    &(vertex.to_string() + "property float nx\nproperty uchar red\n"),
                    &(face.to_string() + "property uchar red\n"),
                ) + &points.replace('\n', " 0.5 255\n")
                    + &faces.replace('\n', " 7\n"),
            ),
            (
                "coordinates in another order",
                header("element vertex 4\nproperty float z\nproperty float x\nproperty float y\n", face)
                    + "0 0 0\n0 1 0\n0 1 1\n0.5 0 1\n"
                    + faces,
            ),
            ("faces first", header(face, vertex) + faces + points),
            (
                "another list before the corners",
                plain
                    .replace("element face 2\n", "element face 2\nproperty list uchar float texture\n")
                    .replace("3 0 1 2\n4 0", "2 0.5 0.5 3 0 1 2\n0 4 0"),
            ),
            (
                "another element behind",
                plain.replace("end_header", "element edge 1\nproperty int a\nend_header") + "4\n",
            ),
            ("other ends of lines", plain.replace('\n', "\r\n")),
        ];
        for (what, text) in cases {
            let mesh = read(text.as_bytes()).unwrap_or_else(|error| panic!("{what}: {error:#}"));
            assert_eq!(mesh, expected, "{what}");
        }
    }

    #[test]
    fn both_binary_forms_are_read() {
        for (form, big) in [("binary_little_endian", false), ("binary_big_endian", true)] {
            let mut bytes = format!(
                "ply\nformat {form} 1.0\nelement vertex 3\nproperty float x\nproperty float y\nproperty float z\n\
                 element face 1\nproperty list uchar uint vertex_indices\nend_header\n"
            )
            .into_bytes();
            let mut number = |number: [u8; 4]| {
                let mut number = number;
                if big {
                    number.reverse();
                }
                bytes.extend(number);
            };
            [0f32, 0., 0., 1., 0., 0., 0., 1., 0.].into_iter().for_each(|x| number(x.to_le_bytes()));
            bytes.push(3);
            for corner in [2u32, 1, 0] {
                let corner = if big { corner.to_be_bytes() } else { corner.to_le_bytes() };
                bytes.extend(corner);
            }
            let mesh = read(bytes.as_slice()).unwrap();
            assert_eq!(mesh.points(), [[0., 0., 0.], [1., 0., 0.], [0., 1., 0.]]);
            assert_eq!(mesh.faces().next().unwrap(), [2, 1, 0]);
            assert!(read(&bytes[..bytes.len() - 1]).is_err());
        }
    }

    #[test]
    fn damage_is_refused() {
        let cases = [
            (TEXT.replace("3 0 1 2", "3 0 1 4"), "face 0 has a corner that is none of the 4 vertices"),
            (TEXT.replace("3 0 1 2", "3 0 1 -1"), "face 0 has a corner"),
            (TEXT.replace("3 0 1 2", "2 0 1"), "face 0 has 2 corners"),
            (TEXT.replace("1 1 0 9", "1 nan 0 9"), "not a readable PLY file"),
            (TEXT.replace("property float y", "property float v"), "vertex 0 has no x, y and z"),
            (TEXT.replace("element vertex 4", "element vertex 400"), "not a readable PLY file"),
            (TEXT.replace("1 0 0 9", "1 zero 0 9"), "not a readable PLY file"),
            ("ply\nformat ascii 1.0\nend_header\n".to_string(), "holds no vertices"),
            (
                "ply\nformat binary_little_endian 1.0\nelement vertex 4611686018427387904\nend_header\n".to_string(),
                "its 4611686018427387904 elements 'vertex' have no properties",
            ),
            ("no ply".to_string(), "not a readable PLY file"),
        ];
        for (text, expected) in cases {
            let message = format!("{:#}", read(text.as_bytes()).unwrap_err());
            assert!(message.contains(expected), "{message}");
        }
    }
}
