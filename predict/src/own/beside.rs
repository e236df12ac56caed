//! What is known at the places of a prediction alone is drawn in a plane from the nearest of them.

use std::num::NonZeroUsize;

use anyhow::{Result, anyhow};
use kiddo::{ImmutableKdTree, SquaredEuclidean};

use super::grid::Grid;
use crate::input::Table;

/// Parts of a plane along each side at most. Of the places over one part the nearest to the plane is remembered, so that
/// memory stays small however many there are.
const MOST_PARTS: usize = 1024;

/// A place that is the nearest to the plane so far, of those over a part of it.
#[derive(Clone, Copy)]
struct Candidate {
    distance: f32,
    row: usize,
    position: [f32; 3],
}

/// For each point of a grid the row of the nearest place, of those that lie beside its plane.
///
/// # Errors
/// A table that cannot be read, or without rows.
pub(super) fn nearest_places(grid: &Grid, positions: &mut Table, chunk: u64) -> Result<Vec<usize>> {
    let parts = grid.size.map(|points| points.clamp(1, MOST_PARTS));
    let part = |position: [f32; 3]| {
        let flat = grid.plane.flat(position);
        let along = |axis: usize| {
            let (half, centre) = (grid.half_extent[axis].max(f64::MIN_POSITIVE), grid.centre[axis]);
            let share = (f64::from(flat[axis]) - centre) / (2.0 * half) + 0.5;
            ((share * parts[axis] as f64).max(0.0) as usize).min(parts[axis] - 1)
        };
        along(1) * parts[0] + along(0)
    };
    let mut candidates: Vec<Option<Candidate>> = vec![None; parts[0] * parts[1]];
    let mut start = 0;
    while start < positions.rows() {
        let end = positions.rows().min(start + chunk);
        for (&position, row) in positions.read(start..end)?.as_chunks::<3>().0.iter().zip(start as usize..) {
            let distance = (position[grid.plane.axis] - grid.plane.value).abs();
            let nearest = &mut candidates[part(position)];
            if nearest.is_none_or(|nearest| distance < nearest.distance) {
                *nearest = Some(Candidate { distance, row, position });
            }
        }
        start = end;
    }
    let candidates: Vec<Candidate> = candidates.into_iter().flatten().collect();
    let places: Vec<[f32; 3]> = candidates.iter().map(|candidate| candidate.position).collect();
    let tree = ImmutableKdTree::<f32, 3>::new_from_slice(&places);
    let tree = tree.map_err(|error| anyhow!("places beside the plane: {error:?}"))?;
    let nearest = |point: &[f32; 3]| {
        let near = tree.query(point).nearest_n::<SquaredEuclidean<f32>>(NonZeroUsize::MIN).execute();
        let near = near.first().ok_or_else(|| anyhow!("there are no places beside the plane"))?;
        Ok(candidates[near.item as usize].row)
    };
    grid.points.iter().map(nearest).collect()
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;
    use crate::input::Rows;
    use crate::picture::CutPlane;

    struct Points(Vec<[f32; 3]>);

    impl Rows for Points {
        fn rows(&self) -> u64 {
            self.0.len() as u64
        }

        fn width(&self) -> usize {
            3
        }

        fn read(&mut self, rows: std::ops::Range<u64>) -> Result<Vec<f64>> {
            let rows = &self.0[rows.start as usize..rows.end as usize];
            Ok(rows.as_flattened().iter().map(|&x| f64::from(x)).collect())
        }
    }

    fn distance(a: [f32; 3], b: [f32; 3]) -> f32 {
        (0..3).map(|i| (a[i] - b[i]).powi(2)).sum::<f32>().sqrt()
    }

    #[test]
    fn the_nearest_place_is_found_for_every_point_of_the_plane() {
        let mut random = StdRng::seed_from_u64(2);
        let scattered = (0..20_000).map(|_| std::array::from_fn(|_| random.random_range(-1.0..1.0))).collect();
        let side = 17;
        let at = |at: usize| at as f32 / 8.0 - 1.0;
        let regular =
            (0..side * side * side).map(|i| [at(i % side), at(i / side % side), at(i / side / side)]).collect();
        let few = vec![[0.5, -0.9, 0.1], [-0.5, 0.9, 0.1], [0.0, 0.0, -0.4]];
        let flat = (0..side * side).map(|i| [at(i % side), 0.3, at(i / side)]).collect();
        // Of scattered places one that is a little farther may be found.
        let cases: [(&str, Vec<[f32; 3]>, f32); 4] = [
            ("scattered", scattered, 0.05),
            ("regular", regular, 1e-6),
            ("few", few, 1e-6),
            ("in the plane", flat, 1e-6),
        ];
        for (what, points, most) in cases {
            for axis in 0..3 {
                let plane = CutPlane { axis, value: 0.3 };
                let grid = Grid::new(plane, [[-1.0; 3], [1.0; 3]], 41, None);
                let mut table = Table::new("places", Box::new(Points(points.clone())) as Box<dyn Rows>);
                let found = nearest_places(&grid, &mut table, 1000).unwrap();
                assert_eq!(found.len(), grid.points.len());
                for (&point, row) in grid.points.iter().zip(found) {
                    let nearest = points.iter().map(|&other| distance(point, other)).fold(f32::INFINITY, f32::min);
                    let away = distance(point, points[row]);
                    assert!(away <= nearest + most, "{what}, axis {axis}: {away} for {nearest}");
                }
            }
        }
    }
}
