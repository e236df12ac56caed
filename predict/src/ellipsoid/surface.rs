//! A fine mesh of the body.

use std::f64::consts::{PI, TAU};

use crate::mesh::Mesh;
use crate::vector::Vec3;

/// Quads around the x axis from pole to pole, closed by two fans of triangles.
///
/// `rings` vertices lie between the poles, `sectors` around. Vertices are evenly spaced in the angles of the sphere that
/// is stretched onto the body; faces are counter-clockwise seen from outside.
pub(crate) fn surface_mesh(semi_axes: Vec3, rings: usize, sectors: usize) -> Mesh {
    let on_body = |unit: Vec3| -> [f32; 3] { std::array::from_fn(|i| (unit[i] * semi_axes[i]) as f32) };
    let mut points = vec![on_body([1.0, 0.0, 0.0])];
    for ring in 1..=rings {
        let polar = PI * ring as f64 / (rings + 1) as f64;
        for sector in 0..sectors {
            let around = TAU * sector as f64 / sectors as f64;
            points.push(on_body([polar.cos(), polar.sin() * around.cos(), polar.sin() * around.sin()]));
        }
    }
    points.push(on_body([-1.0, 0.0, 0.0]));

    let (front, back) = (0, points.len() as u32 - 1);
    let vertex = |ring: usize, sector: usize| (1 + ring * sectors + sector % sectors) as u32;
    let mut mesh = Mesh::new(points);
    for sector in 0..sectors {
        mesh.push_face(&[front, vertex(0, sector), vertex(0, sector + 1)]);
    }
    for ring in 0..rings - 1 {
        for sector in 0..sectors {
            let (near, far) = (sector, sector + 1);
            let quad = [vertex(ring, near), vertex(ring + 1, near), vertex(ring + 1, far), vertex(ring, far)];
            mesh.push_face(&quad);
        }
    }
    for sector in 0..sectors {
        mesh.push_face(&[back, vertex(rings - 1, sector + 1), vertex(rings - 1, sector)]);
    }
    mesh
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::ellipsoid::level;
    use crate::vector::dot;

    const AXES: Vec3 = [1.1, 0.6, 0.8];

    #[test]
    fn the_mesh_is_closed_and_on_the_body() {
        let mesh = surface_mesh(AXES, 11, 16);
        let on_body = |point: &[f32; 3]| (level(AXES, point.map(f64::from)) - 1.0).abs() < 1e-6;
        assert!(mesh.points().iter().all(on_body));

        // Every edge is walked once in each direction.
        let mut edges: HashMap<(u32, u32), i32> = HashMap::new();
        for face in mesh.faces() {
            for (i, &from) in face.iter().enumerate() {
                let to = face[(i + 1) % face.len()];
                *edges.entry((from.min(to), from.max(to))).or_default() += if from < to { 1 } else { -1 };
                assert_ne!(from, to);
            }
        }
        assert!(edges.values().all(|&balance| balance == 0));
        let euler = mesh.points().len() as i64 - edges.len() as i64 + mesh.faces().count() as i64;
        assert_eq!(euler, 2);
    }

    #[test]
    fn faces_look_outwards() {
        let mesh = surface_mesh(AXES, 11, 16);
        for face in mesh.faces() {
            let corner = |i: usize| mesh.points()[face[i] as usize].map(f64::from);
            let [a, b, c] = [corner(0), corner(1), corner(2)];
            let (u, v): (Vec3, Vec3) = (std::array::from_fn(|i| b[i] - a[i]), std::array::from_fn(|i| c[i] - a[i]));
            let normal = [u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0]];
            assert!(dot(normal, a) > 0.0, "{face:?}");
        }
    }
}
