//! Which solid of a body each face of another mesh of it belongs to.

use std::num::NonZeroUsize;

use anyhow::{Result, anyhow};
use kiddo::{ImmutableKdTree, SquaredEuclidean};
use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::mesh::{AreaSampler, Mesh};

/// Points of the body that faces are compared with, beside the middle of each of its own faces.
const SAMPLES: usize = 200_000;

/// The solid of every face, and the largest distance of one from the body.
pub(super) struct Nearest {
    pub(super) solids: Vec<u32>,
    pub(super) distance: f32,
}

/// For each face of a mesh the solid of the body that is nearest to its middle.
///
/// # Errors
/// The body has no area.
pub(super) fn nearest(body: &Mesh, mesh: &Mesh) -> Result<Nearest> {
    let solids = body.face_groups();
    let (mut points, mut owners): (Vec<_>, Vec<_>) = body.faces().map(|face| middle(body, face)).zip(0..).unzip();
    let faces: Vec<usize> =
        body.faces().enumerate().flat_map(|(at, face)| std::iter::repeat_n(at, face.len().saturating_sub(2))).collect();
    let sampler = AreaSampler::new(body)?;
    let mut random = StdRng::seed_from_u64(0);
    for _ in 0..SAMPLES {
        let (triangle, point) = sampler.draw_from(&mut random);
        points.push(point.map(|x| x as f32));
        owners.push(faces[triangle]);
    }
    let tree = ImmutableKdTree::<f32, 3>::new_from_slice(&points);
    let tree = tree.map_err(|error| anyhow!("points of the body: {error:?}"))?;
    let mut found = Nearest { solids: Vec::new(), distance: 0.0 };
    for face in mesh.faces() {
        let near = tree.query(&middle(mesh, face)).nearest_n::<SquaredEuclidean<f32>>(NonZeroUsize::MIN).execute();
        let near = near.first().ok_or_else(|| anyhow!("the body has no points"))?;
        found.solids.push(solids.get(owners[near.item as usize]).copied().unwrap_or_default());
        let point = points[near.item as usize];
        let away = middle(mesh, face).iter().zip(point).map(|(a, b)| (a - b).powi(2)).sum::<f32>().sqrt();
        found.distance = found.distance.max(away);
    }
    Ok(found)
}

fn middle(mesh: &Mesh, face: &[u32]) -> [f32; 3] {
    let sum = |i: usize| face.iter().map(|&corner| f64::from(mesh.points()[corner as usize][i])).sum::<f64>();
    std::array::from_fn(|i| (sum(i) / face.len().max(1) as f64) as f32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ellipsoid::surface_mesh;

    #[test]
    fn faces_belong_to_the_solid_that_they_lie_on() {
        let mut body = surface_mesh([1.0; 3], 30, 40);
        let half = |mesh: &Mesh, face: &[u32]| u32::from(middle(mesh, face)[0] > 0.0);
        let solids = body.faces().map(|face| half(&body, face)).collect();
        body.set_groups(vec!["front".to_string(), "rear".to_string()], solids);
        // Another mesh of the same body, whose faces are larger.
        let mesh = surface_mesh([1.0; 3], 13, 22);
        let found = nearest(&body, &mesh).unwrap();
        for (face, solid) in mesh.faces().zip(&found.solids) {
            assert!(*solid == half(&mesh, face) || middle(&mesh, face)[0].abs() < 0.1);
        }
        assert!(found.distance > 0.0 && found.distance < 0.1, "{}", found.distance);
    }
}
