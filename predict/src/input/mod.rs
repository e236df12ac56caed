//! What the command reads: bodies as STL meshes, points as npy or safetensors.
//!
//! A file that cannot be used is refused with its name, what was expected and what came. Points are read range by range,
//! so that a file larger than the memory can be streamed.

mod foreign;
mod grid;
mod npy;
mod safetensors;
mod stl;
mod vtk_xml;

use std::fs::File;
use std::ops::Range;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use candle_mixed_attention::models::ab_upt::sample_indices;

pub use safetensors::tensor_names;
pub use stl::read_stl;

use crate::mesh::Mesh;

/// Coordinates of a point.
const DIMENSIONS: usize = 3;

/// Numbers in rows of one width, read range by range.
pub trait Rows {
    /// How many rows there are.
    fn rows(&self) -> u64;

    /// Numbers in a row.
    fn width(&self) -> usize;

    /// Some of the rows, one after the other, in the precision of the file.
    fn read(&mut self, rows: Range<u64>) -> Result<Vec<f64>>;
}

/// A file with points, or with a mesh.
pub enum Input {
    /// An STL mesh, its vertices merged.
    Mesh(Mesh),
    /// Points without faces.
    Points(Table),
}

/// An array in a file.
pub struct Table {
    name: String,
    source: Box<dyn Rows>,
}

impl Input {
    /// Opens `body.stl`, `points.npy` or `points.safetensors`; `points.safetensors#name` picks one of several tensors.
    pub fn open(argument: &str) -> Result<Self> {
        let (file, tensor) = split_name(argument);
        if tensor.is_none() && has_extension(file, "stl") {
            return Ok(Self::Mesh(read_stl(Path::new(file))?));
        }
        let table = Table::open(file, tensor)?;
        let width = table.width();
        ensure!(
            width == DIMENSIONS,
            "{file}: positions must have shape [points, {DIMENSIONS}], got {width} numbers each"
        );
        ensure!(table.rows() > 0, "{file}: holds no points");
        Ok(Self::Points(table))
    }

    /// Number of points, or of vertices.
    pub fn len(&self) -> u64 {
        match self {
            Self::Mesh(mesh) => mesh.points().len() as u64,
            Self::Points(table) => table.rows(),
        }
    }

    /// The mesh, if it is one.
    pub fn mesh(&self) -> Option<&Mesh> {
        match self {
            Self::Mesh(mesh) => Some(mesh),
            Self::Points(_) => None,
        }
    }

    /// Some of the points.
    pub fn read(&mut self, range: Range<u64>) -> Result<Vec<[f32; 3]>> {
        match self {
            Self::Mesh(mesh) => Ok(mesh.points()[range.start as usize..range.end as usize].to_vec()),
            Self::Points(table) => Ok(table.read_finite(range)?.as_chunks().0.to_vec()),
        }
    }

    /// `count` random points by a seed, in random order: of a mesh, points spread evenly over its area; of other files,
    /// some of the points, or all if there are not more.
    pub fn draw(&mut self, count: usize, seed: u64) -> Result<Vec<[f32; 3]>> {
        match self {
            Self::Mesh(mesh) => mesh.sample(count, seed),
            Self::Points(table) => {
                let rows = usize::try_from(table.rows()).context("more points than this machine can address")?;
                let picked = table.pick(&sample_indices(rows, count, seed))?;
                Ok(picked.as_chunks().0.to_vec())
            }
        }
    }
}

impl Table {
    /// Opens an array: a `.npy` file, or a tensor of a `.safetensors` file (the only one, without a name).
    pub fn open(file: &str, tensor: Option<&str>) -> Result<Self> {
        let open = || File::open(file).with_context(|| format!("cannot open {file}"));
        let named = || file.to_string();
        let source: Box<dyn Rows> = if has_extension(file, "safetensors") {
            Box::new(safetensors::TensorRows::new(open()?, tensor).with_context(named)?)
        } else {
            ensure!(tensor.is_none(), "{file}: only a .safetensors file can be followed by #name");
            ensure!(has_extension(file, "npy"), "{file}: expected a file named *.stl, *.npy or *.safetensors");
            Box::new(npy::NpyRows::new(open()?).with_context(named)?)
        };
        Ok(Self { name: file.to_string(), source })
    }

    /// Number of rows.
    pub fn rows(&self) -> u64 {
        self.source.rows()
    }

    /// Numbers in a row.
    pub fn width(&self) -> usize {
        self.source.width()
    }

    /// Some of the rows, one after the other.
    pub fn read(&mut self, range: Range<u64>) -> Result<Vec<f32>> {
        let numbers = self.source.read(range.clone()).with_context(|| self.name.clone())?;
        let (expected, got) = ((range.end - range.start) * self.width() as u64, numbers.len());
        ensure!(got as u64 == expected, "{}: ends early: expected {expected} numbers, got {got}", self.name);
        Ok(numbers.into_iter().map(|number| number as f32).collect())
    }

    /// Some of the rows, which must hold neither NaN nor infinity.
    pub fn read_finite(&mut self, range: Range<u64>) -> Result<Vec<f32>> {
        let (width, start) = (self.width(), range.start);
        let numbers = self.read(range)?;
        if let Some(at) = numbers.iter().position(|x| !x.is_finite()) {
            let (point, component) = (start + (at / width) as u64, at % width);
            let component = match width {
                DIMENSIONS => ["x", "y", "z"][component].to_string(),
                _ => format!("component {component}"),
            };
            bail!("{}: point {point} has {component} = {}; numbers must be finite", self.name, numbers[at]);
        }
        Ok(numbers)
    }

    /// Single rows, one after the other, in the order asked for.
    pub fn pick(&mut self, rows: &[usize]) -> Result<Vec<f32>> {
        // From the front to the back of the file, neighbours together, whatever the order of the result.
        let mut order: Vec<usize> = (0..rows.len()).collect();
        order.sort_unstable_by_key(|&at| rows[at]);
        let width = self.width();
        let mut picked = vec![0.0; rows.len() * width];
        for run in order.chunk_by(|&at, &next| rows[next] - rows[at] <= 1) {
            let (first, last) = (rows[run[0]], rows[run[run.len() - 1]]);
            let values = self.read(first as u64..last as u64 + 1)?;
            for &at in run {
                picked[at * width..][..width].copy_from_slice(&values[(rows[at] - first) * width..][..width]);
            }
        }
        Ok(picked)
    }
}

/// The file and the name of a tensor in it, if `#` separates them and is not a part of the name of the file.
fn split_name(argument: &str) -> (&str, Option<&str>) {
    match argument.rsplit_once('#') {
        Some((file, tensor)) if !Path::new(argument).exists() => (file, Some(tensor)),
        _ => (argument, None),
    }
}

fn has_extension(file: &str, expected: &str) -> bool {
    Path::new(file).extension().is_some_and(|extension| extension.eq_ignore_ascii_case(expected))
}

/// Rows and width of an array, which must be `[rows, width]`, or `[rows]` for numbers alone.
fn shape_of_rows(shape: &[u64]) -> Result<(u64, usize)> {
    match *shape {
        [rows] => Ok((rows, 1)),
        [rows, width] if width > 0 => Ok((rows, usize::try_from(width)?)),
        _ => bail!("an array must have shape [points, components], got {shape:?}"),
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
            ("body.stl#positions", "only a .safetensors file"),
            ("points", "expected a file named"),
        ];
        for (argument, expected) in cases {
            let message = format!("{:#}", Input::open(argument).err().unwrap());
            assert!(message.contains(expected), "{message}");
        }
    }
}
