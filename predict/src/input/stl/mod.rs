//! A body as an STL mesh, binary or ASCII, of one solid or several.
//!
//! A file is binary if its length says so, whatever its free text begins with, and ASCII if it begins with `solid`. Equal
//! vertices are merged; normals and attributes are not read, as the order of the corners says more and is always there.

mod ascii;
mod binary;

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use super::foreign;
use crate::mesh::Mesh;

/// Three corners.
type Triangle = [[f32; 3]; 3];

/// The triangles of one solid.
#[derive(Debug, Default)]
struct Solid {
    /// Its name; none of many.
    name: String,
    triangles: Vec<Triangle>,
}

/// Reads a mesh. The names of its solids become its groups, unless it is one solid without a name.
///
/// # Errors
/// A file that is truncated, empty or damaged, or holds a coordinate that is not finite. The error says in which line or
/// triangle.
pub fn read_stl(path: &Path) -> Result<Mesh> {
    let name = || path.display().to_string();
    let bytes = std::fs::read(path).with_context(|| format!("cannot open {}", name()))?;
    parse(&bytes).with_context(name)
}

fn parse(bytes: &[u8]) -> Result<Mesh> {
    let solids = if let Some(solids) = binary::exact(bytes) {
        solids
    } else if ascii::begins_solid(bytes) {
        ascii::parse(bytes)?
    } else if let Some(what) = foreign::name(bytes) {
        bail!("not an STL file, but {what}");
    } else {
        binary::by_size(bytes)?
    };
    let triangles: usize = solids.iter().map(|solid| solid.triangles.len()).sum();
    ensure!(triangles > 0, "holds no triangles");
    weld(&solids)
}

/// Merges equal vertices, numbered as they first appear.
fn weld(solids: &[Solid]) -> Result<Mesh> {
    let mut places: HashMap<[u32; 3], u32> = HashMap::new();
    let (mut points, mut faces, mut count) = (Vec::new(), Vec::new(), 0usize);
    for (number, solid) in solids.iter().enumerate() {
        for triangle in &solid.triangles {
            let finite = triangle.as_flattened().iter().all(|x| x.is_finite());
            ensure!(finite, "triangle {count} has vertices {triangle:?}; they must be finite");
            let mut face = [0; 3];
            for (corner, vertex) in face.iter_mut().zip(triangle) {
                // The two zeros are one number.
                let key = vertex.map(|x| (x + 0.0).to_bits());
                let next = u32::try_from(points.len()).context("more vertices than 32 bits count")?;
                *corner = *places.entry(key).or_insert_with(|| {
                    points.push(*vertex);
                    next
                });
            }
            faces.push((number, face));
            count += 1;
        }
    }
    let mut mesh = Mesh::new(points);
    let named = solids.len() > 1 || solids.iter().any(|solid| !solid.name.is_empty());
    let mut current = None;
    for (number, face) in faces {
        if named && current != Some(number) {
            let name = &solids[number].name;
            mesh.begin_group(if name.is_empty() { format!("solid {}", number + 1) } else { name.clone() });
            current = Some(number);
        }
        mesh.push_face(&face);
    }
    Ok(mesh)
}

#[cfg(test)]
mod tests;
