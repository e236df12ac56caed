//! A surface in a `.obj` file.
//!
//! Faces of any number of corners are read, with the names of their objects and groups; normals, colours, materials and
//! curves are not. Vertices are merged where they are equal, and those of no face are left out, so the vertices of results
//! are in another order than those of the file.

use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use candle_mixed_attention::models::open_regular;
use tobj::LoadOptions;

use super::weld::Welder;
use crate::mesh::Mesh;

/// Reads a mesh. The names of objects and groups become its groups, if there are several.
///
/// # Errors
/// A file that is damaged or holds no faces.
pub(super) fn read_obj(path: &Path) -> Result<Mesh> {
    let name = || path.display().to_string();
    let file = open_regular(path).with_context(|| format!("cannot open {}", name()))?;
    read(BufReader::new(file)).with_context(name)
}

fn read(file: impl BufRead) -> Result<Mesh> {
    let mut shape = Shape { file, line: Vec::new(), kept: Vec::new(), taken: 0, vertices: 0, refused: None };
    let loaded = tobj::load_obj_buf(&mut shape, &LoadOptions::default(), |_| Ok(Default::default()));
    if let Some(refused) = shape.refused {
        bail!(refused);
    }
    let (models, _) = loaded.context("not a readable OBJ file")?;
    let named = models.iter().any(|model| model.name != models[0].name);
    let mut welder = Welder::default();
    for model in &models {
        let mesh = &model.mesh;
        if named {
            welder.begin_group(model.name.clone());
        }
        let mut rest = mesh.indices.as_slice();
        // Without sizes all faces are triangles.
        let triangles = std::iter::repeat_n(3, mesh.indices.len() / 3);
        let sizes: Vec<u32> =
            if mesh.face_arities.is_empty() { triangles.collect() } else { mesh.face_arities.clone() };
        for size in sizes {
            let (face, after) = rest.split_at_checked(size as usize).context("a face is cut off")?;
            rest = after;
            let corner = |&index: &u32| {
                let start = 3 * index as usize;
                let corner =
                    mesh.positions.get(start..start + 3).with_context(|| format!("there is no vertex {index}"))?;
                Ok([corner[0], corner[1], corner[2]])
            };
            // What has one corner or two comes as a face, too.
            if size > 2 {
                welder.add(&face.iter().map(corner).collect::<Result<Vec<_>>>()?)?;
            }
        }
    }
    let mesh = welder.finish();
    ensure!(mesh.faces().next().is_some(), "holds no faces");
    Ok(mesh)
}

/// Vertices that a face can name: tobj multiplies without a look at overflow.
const MOST_VERTICES: i64 = 1 << 30;

/// The lines of a file that say its shape: vertices, faces with the vertices of their corners alone, names. tobj falls over
/// some numbers of normals and textures, and materials are in files that may be missing.
struct Shape<R> {
    file: R,
    /// A line of the file.
    line: Vec<u8>,
    /// What is kept of it, of which so much has been taken.
    kept: Vec<u8>,
    taken: usize,
    /// So far.
    vertices: i64,
    /// Why the file is read no further.
    refused: Option<String>,
}

impl<R: BufRead> Shape<R> {
    fn keep(&mut self) -> io::Result<()> {
        let line = String::from_utf8_lossy(&self.line);
        let mut words = line.split_whitespace();
        match words.next() {
            Some("v") => self.vertices += 1,
            Some("o" | "g") => {}
            Some("f") => {
                self.kept.push(b'f');
                for corner in words {
                    let vertex = corner.split('/').next().unwrap_or(corner);
                    if let Some(refused) = vertex.parse().ok().and_then(|vertex| self.refusal(vertex)) {
                        self.refused = Some(refused);
                        return Err(io::ErrorKind::InvalidData.into());
                    }
                    self.kept.push(b' ');
                    self.kept.extend(vertex.as_bytes());
                }
                self.kept.push(b'\n');
                return Ok(());
            }
            _ => return Ok(()),
        }
        self.kept.extend(line.as_bytes());
        Ok(())
    }

    /// Why a face cannot have this vertex. Those to come may be named, but none before the first.
    fn refusal(&self, vertex: i64) -> Option<String> {
        let known = -self.vertices..=MOST_VERTICES;
        (!known.contains(&vertex)).then(|| format!("a face names vertex {vertex}, after {} vertices", self.vertices))
    }
}

impl<R: BufRead> BufRead for Shape<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.taken == self.kept.len() {
            self.taken = 0;
            self.kept.clear();
            self.line.clear();
            if self.file.read_until(b'\n', &mut self.line)? == 0 {
                break;
            }
            self.keep()?;
        }
        Ok(&self.kept[self.taken..])
    }

    fn consume(&mut self, count: usize) {
        self.taken += count;
    }
}

impl<R: BufRead> Read for Shape<R> {
    fn read(&mut self, target: &mut [u8]) -> io::Result<usize> {
        let count = self.fill_buf()?.read(target)?;
        self.consume(count);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faces_of_all_objects_are_one_mesh() {
        let text = "# two\nmtllib missing.mtl\no front\nv 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nvn 0 0 1\nf 1//1 2//1 3//1 4//1\n\
                    o rear\nv 0 0 1\nf 1 2 5\nf -4 -3 -1\nl 1 2\n";
        let mesh = read(text.as_bytes()).unwrap();
        assert_eq!(mesh.points(), [[0., 0., 0.], [1., 0., 0.], [1., 1., 0.], [0., 1., 0.], [0., 0., 1.]]);
        assert_eq!(mesh.faces().collect::<Vec<_>>(), [&[0, 1, 2, 3][..], &[0, 1, 4], &[1, 2, 4]]);
        assert_eq!(mesh.groups(), ["front", "rear"]);
        assert_eq!(mesh.face_groups(), [0, 1, 1]);
    }

    #[test]
    fn numbers_of_normals_and_textures_do_not_matter() {
        let corners = "v 0 0 0\nv 1 0 0\nv 1 1 0\nvn 0 0 1\nvt 0 0\nusemtl x\n";
        for face in ["f 1/1/1 2/1/-4 -1\n", "f 1//6148914691236517206 2//1 3//1", "f 1/9 2/-9/ 3", "f 1// 2/x/y 3"] {
            let mesh = read(format!("{corners}{face}").as_bytes()).unwrap();
            assert_eq!(mesh.faces().collect::<Vec<_>>(), [&[0, 1, 2][..]], "{face}");
        }
        // A name in Latin-1, a vertex that comes after its face, a file that does not end with a line.
        let text = b"o caf\xe9\r\nv 0 0 0\r\nv 1 0 0\r\nf 1 2 3\r\nv 1 1 0\r\np 1\r\no b\r\nf 3 2 1";
        let mesh = read(&text[..]).unwrap();
        assert_eq!((mesh.points().len(), mesh.groups()), (3, &["caf\u{fffd}".to_string(), "b".to_string()][..]));
    }

    #[test]
    fn what_is_no_surface_is_refused() {
        let cases = [
            ("v 0 0 0\nv 1 0 0\n", "holds no faces"),
            ("", "holds no faces"),
            ("v 0 0\nf 1 1 1\n", "not a readable OBJ file"),
            ("v 0 0 0\nv 1 0 0\nf 1 2 9\n", "not a readable OBJ file"),
            ("v 0 0 0\nv 1 0 0\nf 1 2 -3\n", "a face names vertex -3, after 2 vertices"),
            ("v 0 0 0\nf 1 1 6148914691236517206\n", "a face names vertex 6148914691236517206, after 1 vertices"),
            ("v 0 0 0\nf 1 1 99999999999999999999\n", "not a readable OBJ file"),
            ("v 0 0 0\nf 1 1 0\n", ""),
            ("v 0 0 nan\nv 1 0 0\nv 0 1 0\nf 1 2 3\n", "must be finite"),
        ];
        for (text, expected) in cases {
            let message = format!("{:#}", read(text.as_bytes()).unwrap_err());
            assert!(message.contains(expected), "{text}: {message}");
        }
    }
}
