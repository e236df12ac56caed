//! Where a body cuts the plane y = 0.

use crate::mesh::Mesh;

/// The pieces of the outline, as (x, z). In a closed mesh they make closed loops, in no particular order.
pub fn section(body: &Mesh) -> Vec<[[f32; 2]; 2]> {
    body.triangles().filter_map(|corners| cut(corners.map(|corner| body.points()[corner as usize]))).collect()
}

/// A corner in the plane counts as above it, so that no crossing is found twice or lost.
fn cut(corners: [[f32; 3]; 3]) -> Option<[[f32; 2]; 2]> {
    let mut ends = (0..3).filter_map(|i| {
        let (a, b) = (corners[i], corners[(i + 1) % 3]);
        ((a[1] >= 0.0) != (b[1] >= 0.0)).then(|| {
            let share = a[1] / (a[1] - b[1]);
            [a[0] + share * (b[0] - a[0]), a[2] + share * (b[2] - a[2])]
        })
    });
    Some([ends.next()?, ends.next()?])
}

/// The intervals of x that lie inside the outline at height `z`.
pub fn inside(section: &[[[f32; 2]; 2]], z: f32) -> Vec<[f32; 2]> {
    let crossing = |[a, b]: &[[f32; 2]; 2]| {
        ((a[1] >= z) != (b[1] >= z)).then(|| a[0] + (z - a[1]) / (b[1] - a[1]) * (b[0] - a[0]))
    };
    let mut crossings: Vec<f32> = section.iter().filter_map(crossing).collect();
    crossings.sort_by(f32::total_cmp);
    crossings.as_chunks().0.to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ellipsoid::surface_mesh;

    #[test]
    fn an_ellipsoid_is_cut_in_an_ellipse() {
        let section = section(&surface_mesh([1.2, 0.5, 0.8], 60, 120));
        assert!(section.iter().flatten().all(|[x, z]| ((x / 1.2).powi(2) + (z / 0.8).powi(2) - 1.0).abs() < 0.01));
        for z in [-0.5f32, 0.0, 0.33] {
            let half = 1.2 * (1.0 - (z / 0.8).powi(2)).sqrt();
            let [[left, right]] = inside(&section, z)[..] else { panic!("not one interval at {z}") };
            assert!((left + half).abs() < 0.01 && (right - half).abs() < 0.01, "{left} to {right} at {z}");
        }
        assert!(inside(&section, 0.9).is_empty());
    }
}
