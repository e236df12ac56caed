//! A surface in a `.obj` file.
//!
//! Faces of any number of corners are read, with the names of their objects and groups; normals, colours, materials and
//! curves are not. Vertices are merged where they are equal, and those of no face are left out, so the vertices of results
//! are in another order than those of the file.

use std::io::BufReader;
use std::path::Path;

use anyhow::{Context, Result, ensure};
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

fn read(mut file: impl std::io::BufRead) -> Result<Mesh> {
    // Materials say nothing about the shape, and their files may be missing.
    let no_materials = |_: &Path| Ok(Default::default());
    let (models, _) =
        tobj::load_obj_buf(&mut file, &LoadOptions::default(), no_materials).context("not a readable OBJ file")?;
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
            // Points and lines come as faces of one or two corners.
            if size > 2 {
                welder.add(&face.iter().map(corner).collect::<Result<Vec<_>>>()?)?;
            }
        }
    }
    let mesh = welder.finish();
    ensure!(mesh.faces().next().is_some(), "holds no faces");
    Ok(mesh)
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
    fn what_is_no_surface_is_refused() {
        let cases = [
            ("v 0 0 0\nv 1 0 0\n", "holds no faces"),
            ("", "holds no faces"),
            ("v 0 0\nf 1 1 1\n", "not a readable OBJ file"),
            ("v 0 0 0\nv 1 0 0\nf 1 2 9\n", ""),
            ("v 0 0 nan\nv 1 0 0\nv 0 1 0\nf 1 2 3\n", "must be finite"),
        ];
        for (text, expected) in cases {
            let message = format!("{:#}", read(text.as_bytes()).unwrap_err());
            assert!(message.contains(expected), "{text}: {message}");
        }
    }
}
