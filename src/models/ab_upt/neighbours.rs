//! Which points are near each supernode.
//!
//! | choice | neighbours of a supernode, among the points of its sample |
//! |---|---|
//! | radius r, at most m | every point with \|p − c\| ≤ r in f32; the first m by point index, not the nearest |
//! | k nearest | the k nearest, nearer ones first, equally near ones by point index; all if there are fewer |
//!
//! A k-d tree proposes candidates with a margin, and the distance in f32 as above decides.

use std::num::NonZero;

use kiddo::{ImmutableKdTree, SquaredEuclidean};
use rayon::prelude::*;

use super::error::AbUptError;
use super::geometry::Geometry;

/// How neighbours are chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum NeighbourChoice {
    /// Within a radius.
    Radius {
        /// Largest distance.
        radius: f32,
        /// Largest number of neighbours.
        max_degree: usize,
    },
    /// The nearest.
    Nearest {
        /// How many.
        k: usize,
    },
}

/// Neighbour lists of all supernodes, one after another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Neighbours {
    /// Point indices.
    pub points: Vec<u32>,
    /// The list of supernode `s` is `points[starts[s]..starts[s + 1]]`.
    pub starts: Vec<usize>,
}

/// Finds the neighbours of every supernode.
pub(super) fn neighbours(geometry: &Geometry, choice: NeighbourChoice) -> Result<Neighbours, AbUptError> {
    match geometry.position_dim() {
        1 => search::<1>(geometry, choice),
        2 => search::<2>(geometry, choice),
        3 => search::<3>(geometry, choice),
        other => Err(AbUptError::geometry("number of coordinates", "1, 2 or 3", other)),
    }
}

/// Squared distances in the tree may be rounded in another order than ours: candidates come from this much further out.
const MARGIN: f32 = 1.0 + 1e-5;

fn search<const N: usize>(geometry: &Geometry, choice: NeighbourChoice) -> Result<Neighbours, AbUptError> {
    let (points, _) = geometry.coordinates().as_chunks::<N>();
    let mut lists: Vec<Vec<u32>> = Vec::with_capacity(geometry.supernodes().len());
    for (members, supernodes) in geometry.samples() {
        let cloud: Vec<[f32; N]> = members.iter().map(|&index| points[index as usize]).collect();
        let tree = ImmutableKdTree::<f32, N>::new_from_slice(&cloud).map_err(|error| AbUptError::Geometry {
            argument: "points",
            expected: "a set that a k-d tree can hold".to_string(),
            got: error.to_string(),
        })?;
        let near = |&supernode: &u32| {
            let centre = points[supernode as usize];
            let list = match choice {
                NeighbourChoice::Radius { radius, max_degree } => within(&tree, &cloud, &centre, radius, max_degree),
                NeighbourChoice::Nearest { k } => nearest(&tree, &cloud, &centre, k),
            };
            list.into_iter().map(|member| members[member as usize]).collect::<Vec<u32>>()
        };
        lists.par_extend(supernodes.par_iter().map(near));
    }
    let mut starts = Vec::with_capacity(lists.len() + 1);
    starts.push(0);
    starts.extend(lists.iter().scan(0, |end, list| {
        *end += list.len();
        Some(*end)
    }));
    Ok(Neighbours { points: lists.concat(), starts })
}

/// The distance that decides: in f32, coordinates in order.
fn distance<const N: usize>(a: &[f32; N], b: &[f32; N]) -> f32 {
    let square = |axis: usize| (a[axis] - b[axis]) * (a[axis] - b[axis]);
    (0..N).map(square).sum::<f32>().sqrt()
}

/// Members of the cloud within a distance, in any order.
fn candidates<const N: usize>(
    tree: &ImmutableKdTree<f32, N>,
    cloud: &[[f32; N]],
    centre: &[f32; N],
    radius: f32,
) -> Vec<u32> {
    // The margin of a radius of 0 must not be 0: squares of the smallest numbers vanish.
    let squared = (radius * radius * MARGIN * MARGIN).max(f32::MIN_POSITIVE);
    let found = tree.query(centre).within::<SquaredEuclidean<f32>>(squared).unsorted().execute();
    let near = found.into_iter().map(|found| found.item);
    near.filter(|&member| distance(&cloud[member as usize], centre) <= radius).collect()
}

fn within<const N: usize>(
    tree: &ImmutableKdTree<f32, N>,
    cloud: &[[f32; N]],
    centre: &[f32; N],
    radius: f32,
    max_degree: usize,
) -> Vec<u32> {
    let mut members = candidates(tree, cloud, centre, radius);
    // Members of a cloud are numbered in the order of their point indices.
    if members.len() > max_degree && max_degree > 0 {
        members.select_nth_unstable(max_degree - 1);
    }
    members.truncate(max_degree);
    members.sort_unstable();
    members
}

fn nearest<const N: usize>(
    tree: &ImmutableKdTree<f32, N>,
    cloud: &[[f32; N]],
    centre: &[f32; N],
    k: usize,
) -> Vec<u32> {
    let Some(count) = NonZero::new(k.min(cloud.len())) else { return Vec::new() };
    let found = tree.query(centre).nearest_n::<SquaredEuclidean<f32>>(count).execute();
    // The tree decides between equally near points as it likes, so all of them are fetched again.
    let reach = found.iter().map(|found| distance(&cloud[found.item as usize], centre)).fold(0.0, f32::max);
    let mut members = candidates(tree, cloud, centre, reach);
    let order = |member: &u32| (distance(&cloud[*member as usize], centre), *member);
    members.sort_by(|a, b| order(a).0.total_cmp(&order(b).0).then(a.cmp(b)));
    members.truncate(k);
    members
}
