//! A body as an STL mesh, binary or ASCII, of one solid or several.
//!
//! A file is binary if its length says so, whatever its free text begins with, and ASCII if it begins with `solid`. Equal
//! vertices are merged; normals and attributes are not read, as the order of the corners says more and is always there.

mod ascii;
mod binary;

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use super::weld::Welder;
use super::{foreign, read_file};
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
pub(super) fn read_stl(path: &Path) -> Result<Mesh> {
    let name = || path.display().to_string();
    let bytes = read_file(path)?;
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

/// Joins the triangles of all solids.
fn weld(solids: &[Solid]) -> Result<Mesh> {
    let named = solids.len() > 1 || solids.iter().any(|solid| !solid.name.is_empty());
    let mut welder = Welder::default();
    for (number, solid) in solids.iter().enumerate() {
        if named {
            let name = if solid.name.is_empty() { format!("solid {}", number + 1) } else { solid.name.clone() };
            welder.begin_group(name);
        }
        solid.triangles.iter().try_for_each(|triangle| welder.add(triangle))?;
    }
    Ok(welder.finish())
}

#[cfg(test)]
mod tests;
