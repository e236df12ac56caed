//! A body as an STL mesh, binary or ASCII.
//!
//! The reader behind it stops at the first `endsolid` and takes every file that starts with `solid` for ASCII. Both would
//! lose triangles without a word, so that is settled here before it reads.

use std::io::Cursor;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use crate::mesh::Mesh;

/// Bytes of a binary file before its triangles: a free text and their number.
const BINARY_HEADER: usize = 84;

/// Bytes of the free text alone.
const BINARY_TEXT: usize = 80;

/// Bytes of a triangle in a binary file.
const BINARY_TRIANGLE: usize = 50;

/// Reads a mesh and merges equal vertices.
///
/// # Errors
/// A file that is truncated, empty, damaged, holds several solids or a coordinate that is not finite.
pub fn read_stl(path: &Path) -> Result<Mesh> {
    let name = || path.display().to_string();
    let bytes = std::fs::read(path).with_context(|| format!("cannot open {}", name()))?;
    parse(bytes).with_context(name)
}

fn parse(bytes: Vec<u8>) -> Result<Mesh> {
    let bytes = match promised_length(&bytes) {
        // The free text of a binary file may begin with "solid", so the length decides, and the text is blanked.
        Some(promised) if promised == bytes.len() => [&[b' '; BINARY_TEXT], &bytes[BINARY_TEXT..]].concat(),
        promised => match bytes.strip_prefix(b"solid") {
            Some(rest) if rest.first().is_none_or(u8::is_ascii_whitespace) && rest.is_ascii() => {
                refuse_second_solid(rest)?;
                // A nameless "solid" lacks the blank that the reader looks for.
                [b"solid ", rest].concat()
            }
            _ => match promised {
                None => bail!("not an STL file: {} bytes, but a binary header alone has {BINARY_HEADER}", bytes.len()),
                Some(promised) if promised > bytes.len() => {
                    bail!("truncated, or not an STL file: its header promises {promised} bytes, got {}", bytes.len())
                }
                Some(promised) => bail!("{} bytes follow the last triangle", bytes.len() - promised),
            },
        },
    };
    let mut reader = Cursor::new(&bytes);
    let mut count = 0;
    for triangle in stl_io::create_stl_reader(&mut reader)? {
        let corners = triangle.with_context(|| format!("triangle {count}"))?.vertices.map(|vertex| vertex.0);
        let finite = corners.as_flattened().iter().all(|x| x.is_finite());
        ensure!(finite, "triangle {count} has vertices {corners:?}; they must be finite");
        count += 1;
    }
    ensure!(count > 0, "holds no triangles");

    let indexed = stl_io::read_stl(&mut Cursor::new(&bytes))?;
    let mut mesh = Mesh::new(indexed.vertices.iter().map(|vertex| vertex.0).collect());
    for face in &indexed.faces {
        mesh.push_face(&face.vertices.map(|vertex| vertex as u32));
    }
    Ok(mesh)
}

/// The length that a binary file with this header has.
fn promised_length(bytes: &[u8]) -> Option<usize> {
    let count = bytes.get(BINARY_TEXT..BINARY_HEADER)?.try_into().ok()?;
    let triangles = usize::try_from(u32::from_le_bytes(count)).ok()?;
    triangles.checked_mul(BINARY_TRIANGLE)?.checked_add(BINARY_HEADER)
}

fn refuse_second_solid(text: &[u8]) -> Result<()> {
    let mut lines = text.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii);
    let ended = lines.any(|line| line.starts_with(b"endsolid"));
    ensure!(ended, "truncated: there is no 'endsolid'");
    let rest: Vec<_> = lines.filter(|line| !line.is_empty()).collect();
    if rest.is_empty() {
        return Ok(());
    }
    let solids = 1 + rest.iter().filter(|line| line.starts_with(b"solid")).count();
    bail!("holds {solids} solids and {} lines after the first; merge them into one solid", rest.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CORNERS: [[f32; 3]; 4] = [[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]];
    const TETRAHEDRON: [[usize; 3]; 4] = [[0, 2, 1], [0, 1, 3], [1, 2, 3], [0, 3, 2]];

    fn binary() -> Vec<u8> {
        let mut bytes = Vec::new();
        let triangle = |corners: [usize; 3]| stl_io::Triangle {
            normal: stl_io::Normal::new([0.0; 3]),
            vertices: corners.map(|corner| stl_io::Vertex::new(CORNERS[corner])),
        };
        stl_io::write_stl(&mut bytes, TETRAHEDRON.map(triangle).iter()).unwrap();
        bytes
    }

    fn ascii(name: &str) -> String {
        let mut text = format!("solid{name}\n");
        for corners in TETRAHEDRON {
            text += "facet normal 0 0 0\nouter loop\n";
            for [x, y, z] in corners.map(|corner| CORNERS[corner]) {
                text += &format!("vertex {x} {y} {z}\n");
            }
            text += "endloop\nendfacet\n";
        }
        text + &format!("endsolid{name}\n")
    }

    #[test]
    fn binary_and_ascii_give_the_same_mesh() {
        let expected = parse(binary()).unwrap();
        assert_eq!((expected.points().len(), expected.faces().count()), (4, 4));
        assert_eq!(parse(ascii(" body").into_bytes()).unwrap(), expected);
        assert_eq!(parse(ascii("").into_bytes()).unwrap(), expected);
        assert_eq!(parse(ascii(" body").replace('\n', "\r\n").into_bytes()).unwrap(), expected);
    }

    #[test]
    fn a_binary_file_may_begin_with_solid() {
        let mut bytes = binary();
        bytes[..12].copy_from_slice(b"solid binary");
        assert_eq!(parse(bytes).unwrap(), parse(binary()).unwrap());
    }

    #[test]
    fn what_would_lose_triangles_is_refused() {
        let (whole, text) = (binary(), ascii(" body"));
        let nan = {
            let mut bytes = binary();
            bytes[BINARY_HEADER + 12..][..4].copy_from_slice(&f32::NAN.to_le_bytes());
            bytes
        };
        let mut none = binary();
        none.truncate(BINARY_HEADER);
        none[BINARY_TEXT..].fill(0);
        let cases = [
            ((ascii(" one") + &ascii(" two")).into_bytes(), "holds 2 solids"),
            (whole[..whole.len() - 1].to_vec(), "promises 284 bytes, got 283"),
            ([whole.as_slice(), b"tail"].concat(), "4 bytes follow the last triangle"),
            (text.as_bytes()[..text.len() / 2].to_vec(), "truncated: there is no 'endsolid'"),
            (text.replacen("vertex 1", "vertex one", 1).into_bytes(), "triangle 0"),
            (nan, "triangle 0 has vertices"),
            (none, "holds no triangles"),
            (b"solid empty\nendsolid empty\n".to_vec(), "holds no triangles"),
            (b"noise".to_vec(), "not an STL file: 5 bytes"),
            (Vec::new(), "not an STL file: 0 bytes"),
        ];
        for (bytes, expected) in cases {
            let message = format!("{:#}", parse(bytes).unwrap_err());
            assert!(message.contains(expected), "{message}");
        }
    }
}
