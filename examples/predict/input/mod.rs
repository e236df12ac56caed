//! What the command reads: bodies as STL meshes, points as npy or safetensors.
//!
//! A file that cannot be used is refused with its name, what was expected and what came. Points are read range by range,
//! so that a file larger than the memory can be streamed.

mod npy;
mod safetensors;
mod stl;

use std::fs::File;
use std::ops::Range;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

pub use stl::read_stl;

use crate::mesh::Mesh;

/// Points that are read range by range.
pub trait PointSource {
    /// How many there are; at least one.
    fn len(&self) -> u64;

    /// The coordinates, point after point, in the precision of the file.
    fn read_coordinates(&mut self, points: Range<u64>) -> Result<Vec<f64>>;
}

/// A file with points, or with a mesh.
pub enum Input {
    /// An STL mesh, its vertices merged.
    Mesh(Mesh),
    /// Points without faces.
    Points(Points),
}

/// The points of a file.
pub struct Points {
    name: String,
    source: Box<dyn PointSource>,
}

impl Input {
    /// Opens `body.stl`, `points.npy` or `points.safetensors`; `points.safetensors#name` picks one of several tensors.
    pub fn open(argument: &str) -> Result<Self> {
        let (file, tensor) = match argument.rsplit_once('#') {
            Some((file, tensor)) if !Path::new(argument).exists() => (file, Some(tensor)),
            _ => (argument, None),
        };
        let path = Path::new(file);
        let extension = path.extension().and_then(|extension| extension.to_str()).map(str::to_ascii_lowercase);
        ensure!(
            tensor.is_none() || extension.as_deref() == Some("safetensors"),
            "{argument}: only a .safetensors file can be followed by #name"
        );
        let open = || File::open(path).with_context(|| format!("cannot open {file}"));
        let source: Box<dyn PointSource> = match extension.as_deref() {
            Some("stl") => return Ok(Self::Mesh(read_stl(path)?)),
            Some("npy") => Box::new(npy::NpyPoints::new(open()?).with_context(|| file.to_string())?),
            Some("safetensors") => {
                Box::new(safetensors::TensorPoints::new(open()?, tensor).with_context(|| file.to_string())?)
            }
            _ => bail!("{file}: expected a file named *.stl, *.npy or *.safetensors"),
        };
        ensure!(source.len() > 0, "{file}: holds no points");
        Ok(Self::Points(Points { name: file.to_string(), source }))
    }

    /// Number of points, or of vertices.
    pub fn len(&self) -> u64 {
        match self {
            Self::Mesh(mesh) => mesh.points().len() as u64,
            Self::Points(points) => points.source.len(),
        }
    }

    /// Some of the points.
    pub fn read(&mut self, range: Range<u64>) -> Result<Vec<[f32; 3]>> {
        match self {
            Self::Mesh(mesh) => Ok(mesh.points()[range.start as usize..range.end as usize].to_vec()),
            Self::Points(points) => points.read(range),
        }
    }
}

impl Points {
    fn read(&mut self, range: Range<u64>) -> Result<Vec<[f32; 3]>> {
        let coordinates = self.source.read_coordinates(range.clone()).with_context(|| self.name.clone())?;
        let expected = (range.end - range.start) * 3;
        let got = coordinates.len();
        ensure!(got as u64 == expected, "{}: ends early: expected {expected} coordinates, got {got}", self.name);
        if let Some(at) = coordinates.iter().position(|x| !x.is_finite()) {
            let (point, axis) = (range.start + at as u64 / 3, ["x", "y", "z"][at % 3]);
            bail!("{}: point {point} has {axis} = {}; positions must be finite", self.name, coordinates[at]);
        }
        Ok(coordinates.chunks_exact(3).map(|point| [point[0] as f32, point[1] as f32, point[2] as f32]).collect())
    }
}

/// The number of points of an array, which must be `[points, 3]`.
fn points_of_shape(shape: &[u64]) -> Result<u64> {
    match shape {
        &[points, 3] => Ok(points),
        _ => bail!("positions must have shape [points, 3], got {shape:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_no_points_are_refused() {
        let cases = [
            ("body.obj", "expected a file named"),
            ("missing.npy", "cannot open missing.npy"),
            ("missing.stl", "cannot open missing.stl"),
            ("points.npy#positions", "only a .safetensors file"),
        ];
        for (argument, expected) in cases {
            let message = format!("{:#}", Input::open(argument).err().unwrap());
            assert!(message.contains(expected), "{message}");
        }
    }
}
