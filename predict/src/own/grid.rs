//! Points in a plane around a body.

use crate::mesh::Mesh;
use crate::picture::{CutPlane, inside, section};

/// A regular grid in a plane, without the points inside the body.
pub(super) struct Grid {
    pub plane: CutPlane,
    pub size: [usize; 2],
    pub centre: [f64; 2],
    pub half_extent: [f64; 2],
    /// Place of every point in the full grid, row after row.
    pub index: Vec<usize>,
    pub points: Vec<[f32; 3]>,
}

impl Grid {
    /// `longer` points along the longer side of the box of the points.
    pub(super) fn new(plane: CutPlane, bounds: [[f32; 3]; 2], longer: usize, body: Option<&Mesh>) -> Self {
        let [low, high] = bounds.map(|corner| plane.flat(corner).map(f64::from));
        let extent = [high[0] - low[0], high[1] - low[1]];
        let spacing = extent[0].max(extent[1]) / (longer.max(2) - 1) as f64;
        let size = extent.map(|extent| (extent / spacing).round().max(1.0) as usize + 1);
        let outline = body.map(|body| section(body, plane)).unwrap_or_default();
        let along = |axis: usize, at: usize| {
            // The last point would be a rounding away from the end of the box.
            let place = low[axis] + extent[axis] * at as f64 / (size[axis] - 1) as f64;
            (place as f32).clamp(low[axis] as f32, high[axis] as f32)
        };
        let (mut index, mut points) = (Vec::new(), Vec::new());
        for row in 0..size[1] {
            let up = along(1, row);
            let solid = inside(&outline, up);
            for column in 0..size[0] {
                let across = along(0, column);
                if !solid.iter().any(|[left, right]| (left..=right).contains(&&across)) {
                    index.push(row * size[0] + column);
                    points.push(plane.lift([across, up]));
                }
            }
        }
        let centre = std::array::from_fn(|axis| (low[axis] + high[axis]) / 2.0);
        Self { plane, size, centre, half_extent: extent.map(|extent| extent / 2.0), index, points }
    }

    /// The points, with the squares of the grid that have all corners.
    pub(super) fn mesh(&self) -> Mesh {
        let [columns, rows] = self.size;
        let mut kept = vec![None; columns * rows];
        for (at, &index) in self.index.iter().enumerate() {
            kept[index] = Some(at as u32);
        }
        let mut mesh = Mesh::new(self.points.clone());
        for at in (0..rows - 1).flat_map(|row| (0..columns - 1).map(move |column| row * columns + column)) {
            if let [Some(a), Some(b), Some(c), Some(d)] =
                [at, at + 1, at + columns + 1, at + columns].map(|at| kept[at])
            {
                mesh.push_face(&[a, b, c, d]);
            }
        }
        mesh
    }
}
