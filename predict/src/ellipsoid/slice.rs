//! The plane y = 0 around the body.

use super::{BOX, level};
use crate::mesh::Mesh;
use crate::vector::Vec3;

/// A regular grid in the plane y = 0, without the points inside the body.
pub(crate) struct Slice {
    /// Points along x and z.
    pub size: [usize; 2],
    /// Half the extent of the plane along x and z.
    pub half_extent: [f64; 2],
    /// Position of every point of the mesh in the full grid, z-major.
    pub grid_index: Vec<usize>,
    /// The points outside the body, and the quads of the grid that have all corners outside.
    pub mesh: Mesh,
}

impl Slice {
    /// A grid of `columns` × `rows` points over |x| ≤ 2.5, |z| ≤ `half_height`.
    pub(crate) fn new(semi_axes: Vec3, columns: usize, rows: usize, half_height: f64) -> Self {
        let along = |at: usize, count: usize, half: f64| -half + 2.0 * half * at as f64 / (count - 1) as f64;
        let mut grid_index = Vec::new();
        let mut points = Vec::new();
        // Position among the kept points of every point of the grid.
        let mut kept = vec![None; columns * rows];
        for (at, kept) in kept.iter_mut().enumerate() {
            let point = [along(at % columns, columns, BOX), 0.0, along(at / columns, rows, half_height)];
            if level(semi_axes, point) > 1.0 {
                *kept = Some(points.len() as u32);
                grid_index.push(at);
                points.push(point.map(|x| x as f32));
            }
        }
        let mut mesh = Mesh::new(points);
        for row in 0..rows - 1 {
            for column in 0..columns - 1 {
                let at = row * columns + column;
                let corners = [kept[at], kept[at + 1], kept[at + columns + 1], kept[at + columns]];
                if let [Some(a), Some(b), Some(c), Some(d)] = corners {
                    mesh.push_face(&[a, b, c, d]);
                }
            }
        }
        Self { size: [columns, rows], half_extent: [BOX, half_height], grid_index, mesh }
    }
}

#[cfg(test)]
mod tests {
    use candle_mixed_attention::candle_core::{Device, safetensors};

    use super::*;

    #[test]
    fn the_grid_is_that_of_the_sample() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/data/sample.safetensors");
        let sample = safetensors::load(path, &Device::Cpu).unwrap();
        let slice = Slice::new([1.15, 0.62, 0.81], 100, 80, 2.0);

        let index = sample["slice.grid_index"].to_vec1::<i64>().unwrap();
        assert!(slice.grid_index.iter().map(|&at| at as i64).eq(index));
        let queries = sample["volume.queries"].to_vec2::<f32>().unwrap();
        for (point, expected) in slice.mesh.points().iter().zip(queries) {
            assert!(point.iter().zip(expected).all(|(x, expected)| (x - expected).abs() < 5e-7));
        }
    }
}
