//! Points of a surface without faces, as discs along the surface that close it: its far side stays hidden.

use std::num::NonZero;

use kiddo::{ImmutableKdTree, SquaredEuclidean};

use crate::vector::{Vec3, cross, dot, normalised, sub};

/// Points that say where the surface lies at one of them, with itself: two rings of a regular grid.
const NEIGHBOURS: NonZero<usize> = NonZero::new(13).unwrap();

/// The radius of a disc, as a part of the distance of its farthest neighbour: random points leave hardly a gap.
const REACH: f32 = 0.6;

/// Corners of a disc.
const CORNERS: usize = 6;

/// How flat the neighbours of most points lie on a surface: their thickness against their narrower width, both squared.
const FLAT: f32 = 0.1;

/// Their width against their length where they make a line instead, both squared.
const THIN: f32 = 1e-3;

/// A small part of a surface around one of its points.
pub(super) struct Disc {
    pub centre: Vec3<f32>,
    /// Either of the two directions across the surface.
    pub normal: Vec3<f32>,
    radius: f32,
}

impl Disc {
    /// The corners, one after the other.
    pub(super) fn rim(&self) -> [Vec3<f32>; CORNERS] {
        // Any direction that is not along the normal leads to one along the disc.
        let least = (0..3).min_by(|&a, &b| self.normal[a].abs().total_cmp(&self.normal[b].abs())).unwrap_or(0);
        let mut other = [0.0; 3];
        other[least] = 1.0;
        let across = normalised(cross(self.normal, other));
        let along = cross(self.normal, across);
        std::array::from_fn(|corner| {
            let (sin, cos) = (std::f32::consts::TAU * corner as f32 / CORNERS as f32).sin_cos();
            std::array::from_fn(|i| self.centre[i] + self.radius * (cos * across[i] + sin * along[i]))
        })
    }

    /// How far the middle is drawn before the rim, so that every place has the colour of its nearest point.
    pub(super) fn height(&self) -> f32 {
        self.radius
    }
}

/// A disc for every point; `None` if most points do not lie on a surface.
pub(super) fn discs(points: &[Vec3<f32>]) -> Option<Vec<Disc>> {
    if points.len() < NEIGHBOURS.get() {
        return None;
    }
    // Many equal points do not fit into a tree.
    let tree = ImmutableKdTree::<f32, 3>::new_from_slice(points).ok()?;
    let mut flat = 0;
    let disc = |&centre: &Vec3<f32>| {
        let near = tree.query(&centre).nearest_n::<SquaredEuclidean<f32>>(NEIGHBOURS).execute();
        let offsets: Vec<Vec3<f32>> = near.iter().map(|near| sub(points[near.item as usize], centre)).collect();
        let (normal, [thickness, width, length]) = plane(&offsets);
        flat += usize::from(thickness < FLAT * width && width > THIN * length);
        let farthest = offsets.iter().map(|&offset| dot(offset, offset)).fold(0.0, f32::max).sqrt();
        Disc { centre, normal, radius: REACH * farthest }
    };
    let discs: Vec<_> = points.iter().map(disc).collect();
    (2 * flat > points.len()).then_some(discs)
}

/// The direction in which some points spread the least, and the squares of their spreads, the smallest first.
fn plane(offsets: &[Vec3<f32>]) -> (Vec3<f32>, [f32; 3]) {
    let count = offsets.len() as f32;
    let mean: Vec3<f32> = std::array::from_fn(|i| offsets.iter().map(|offset| offset[i]).sum::<f32>() / count);
    let mut spread = [[0.0f32; 3]; 3];
    for offset in offsets {
        let from_mean = sub(*offset, mean);
        for (row, &x) in spread.iter_mut().zip(&from_mean) {
            for (sum, &y) in row.iter_mut().zip(&from_mean) {
                *sum += x * y / count;
            }
        }
    }
    let (squares, directions) = principal_axes(spread);
    let mut order = [0, 1, 2];
    order.sort_unstable_by(|&a, &b| squares[a].total_cmp(&squares[b]));
    (std::array::from_fn(|i| directions[i][order[0]]), order.map(|at| squares[at].max(0.0)))
}

/// Eigenvalues of a symmetric matrix, and its eigenvectors as columns: Jacobi rotations.
fn principal_axes(mut matrix: [[f32; 3]; 3]) -> (Vec3<f32>, [[f32; 3]; 3]) {
    let mut axes = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]];
    // Each sweep squares what is left beside the diagonal; f32 is exhausted after these.
    for (p, q) in [(0, 1), (0, 2), (1, 2)].into_iter().cycle().take(3 * 6) {
        let beside = matrix[p][q];
        if beside == 0.0 {
            continue;
        }
        let angle = 0.5 * (2.0 * beside).atan2(matrix[q][q] - matrix[p][p]);
        let (sin, cos) = angle.sin_cos();
        for row in [&mut matrix, &mut axes].into_iter().flatten() {
            (row[p], row[q]) = (cos * row[p] - sin * row[q], sin * row[p] + cos * row[q]);
        }
        let (upper, lower) = matrix.split_at_mut(q);
        for (a, b) in upper[p].iter_mut().zip(&mut lower[0]) {
            (*a, *b) = (cos * *a - sin * *b, sin * *a + cos * *b);
        }
    }
    (std::array::from_fn(|i| matrix[i][i]), axes)
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;
    use crate::vector::length;

    /// Random points in a cube, each moved by a function.
    fn random(count: usize, place: impl Fn(Vec3<f32>) -> Vec3<f32>) -> Vec<Vec3<f32>> {
        let mut random = StdRng::seed_from_u64(3);
        (0..count).map(|_| place(std::array::from_fn(|_| random.random_range(-1.0..1.0)))).collect()
    }

    #[test]
    fn discs_lie_along_the_surface_and_close_it() {
        let sphere = random(4000, normalised);
        let discs = discs(&sphere).unwrap();
        let off = discs.iter().filter(|disc| dot(disc.normal, disc.centre).abs() < 0.97).count();
        assert!(off < sphere.len() / 100, "{off} discs stand out of the sphere");
        for disc in &discs {
            for corner in disc.rim() {
                let from_centre = sub(corner, disc.centre);
                assert!(dot(from_centre, disc.normal).abs() < 1e-4);
                assert!((length(from_centre) - disc.height()).abs() < 1e-4);
            }
        }
        // Whatever place of the sphere is looked at: a disc reaches over it.
        let bare = random(2000, normalised).into_iter().filter(|&place| {
            !discs.iter().any(|disc| {
                let away = sub(place, disc.centre);
                length(away) < 0.86 * disc.height()
            })
        });
        assert!(bare.count() < 10);
    }

    #[test]
    fn what_is_no_surface_has_no_discs() {
        let cases: [(&str, Vec<Vec3<f32>>); 5] = [
            ("a volume", random(3000, |point| point)),
            ("a line", random(3000, |[x, ..]| [x, 2.0 * x, -x])),
            ("one point again and again", vec![[1.0, 2.0, 3.0]; 3000]),
            ("a few points", random(5, normalised)),
            ("no points", Vec::new()),
        ];
        for (name, points) in cases {
            assert!(discs(&points).is_none(), "{name}");
        }
    }

    #[test]
    fn axes_belong_to_the_matrix() {
        for seed in 0..50 {
            let mut random = StdRng::seed_from_u64(seed);
            let [a, b, c, d, e, f]: [f32; 6] = std::array::from_fn(|_| random.random_range(-1.0..1.0));
            let matrix = [[a, b, c], [b, d, e], [c, e, f]];
            let (values, axes) = principal_axes(matrix);
            for axis in 0..3 {
                let along = axes.map(|row| row[axis]);
                for (row, part) in matrix.iter().zip(along) {
                    assert!((dot(*row, along) - values[axis] * part).abs() < 1e-5, "{matrix:?}");
                }
            }
        }
    }
}
