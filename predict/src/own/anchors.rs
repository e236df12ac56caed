//! Anchors as the network saw them in training, and whether others resemble them.

use std::num::NonZeroUsize;

use anyhow::{Result, ensure};
use kiddo::{ImmutableKdTree, SquaredEuclidean};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

use super::description::{Anchors, Sampling};
use crate::mesh::{AreaSampler, Mesh};
use crate::solid::{Solid, volume};
use crate::vector::{cross, length, sub};

/// Points of the surface that distances are measured to.
const SURFACE_POINTS: usize = 20_000;

/// Attempts per point before a box is taken to hold no room.
const MOST_ATTEMPTS: usize = 10_000;

/// Share by which the distances of anchors may differ from those of training: the largest difference of the two
/// distributions. Samples of 256 points and more of one distribution differ by less in 99.9 of 100 cases.
const MOST_DIFFERENCE: f64 = 0.18;

/// A body in the box that a network knows.
pub(super) struct Surroundings<'a> {
    body: &'a Mesh,
    solid: Solid,
    sampler: AreaSampler<'a>,
    bounds: Option<[[f64; 3]; 2]>,
    /// −1 where the faces look inwards.
    outwards: f64,
}

impl<'a> Surroundings<'a> {
    /// # Errors
    /// The body has no area.
    pub(super) fn new(body: &'a Mesh, bounds: Option<[[f64; 3]; 2]>) -> Result<Self> {
        let outwards = if volume(body) < 0.0 { -1.0 } else { 1.0 };
        Ok(Self { body, solid: Solid::new(body), sampler: AreaSampler::new(body)?, bounds, outwards })
    }

    /// Draws points as in training; nothing where that needs what is not known.
    pub(super) fn draw(&self, sampling: Sampling, count: usize, seed: u64) -> Result<Option<Vec<[f32; 3]>>> {
        let mut random = StdRng::seed_from_u64(seed);
        let near = match (sampling, self.bounds) {
            (Sampling::Area, _) => return Ok(Some(self.body.sample(count, seed)?)),
            (Sampling::Mesh, _) | (_, None) => return Ok(None),
            (Sampling::Box, Some(_)) => 0,
            (Sampling::NearSurface { share, .. }, Some(_)) => (count as f64 * share) as usize,
        };
        let mut points = Vec::with_capacity(count);
        let mut attempts = 0;
        while points.len() < count {
            ensure!(attempts < MOST_ATTEMPTS * count, "the box of the statistics has no room outside of the body");
            attempts += 1;
            let point =
                if points.len() < near { self.off_surface(sampling, &mut random) } else { self.in_box(&mut random) };
            if self.is_free(point) {
                points.push(point);
            }
        }
        points.shuffle(&mut random);
        Ok(Some(points))
    }

    fn in_box(&self, random: &mut StdRng) -> [f32; 3] {
        let [low, high] = self.bounds.unwrap_or_default();
        std::array::from_fn(|i| random.random_range(low[i]..=high[i]) as f32)
    }

    fn off_surface(&self, sampling: Sampling, random: &mut StdRng) -> [f32; 3] {
        let (foot, [a, b, c]) = self.sampler.draw(random);
        let normal = cross(sub(b, a), sub(c, a));
        let length = length(normal) * self.outwards;
        let uniform = 1.0 - random.random::<f64>();
        let distance = match sampling {
            Sampling::NearSurface { mean_distance: Some(mean), .. } => -mean * uniform.ln(),
            Sampling::NearSurface { within: Some(within), .. } => within * uniform,
            _ => 0.0,
        };
        let [low, high] = self.bounds.unwrap_or_default();
        std::array::from_fn(|i| (foot[i] + normal[i] / length * distance).clamp(low[i], high[i]) as f32)
    }

    fn is_free(&self, point: [f32; 3]) -> bool {
        point.iter().all(|x| x.is_finite()) && !self.solid.contains(point)
    }

    /// A sentence with numbers where points lie clearly otherwise than in training.
    pub(super) fn difference(
        &self,
        domain: &str,
        points: &[[f32; 3]],
        trained: &Anchors,
        seed: u64,
    ) -> Result<Option<String>> {
        let Some(expected) = self.draw(trained.sampling, points.len(), seed)? else { return Ok(None) };
        let surface = self.body.sample(SURFACE_POINTS, seed)?;
        let (found, expected) = (distances(&surface, points)?, distances(&surface, &expected)?);
        let difference = largest_difference(&found, &expected);
        if difference <= MOST_DIFFERENCE {
            return Ok(None);
        }
        let quartiles = |sorted: &[f32]| {
            let at = |share: f64| sorted[((sorted.len() - 1) as f64 * share) as usize];
            format!("{:.3}, {:.3} and {:.3}", at(0.25), at(0.5), at(0.75))
        };
        Ok(Some(format!(
            "anchors of '{domain}' lie otherwise than in training: a quarter, a half and three quarters of them within {} of \
             the body, in training {}; expect larger errors",
            quartiles(&found),
            quartiles(&expected)
        )))
    }
}

/// Distances to the nearest of many points, sorted.
fn distances(surface: &[[f32; 3]], points: &[[f32; 3]]) -> Result<Vec<f32>> {
    let tree = ImmutableKdTree::<f32, 3>::new_from_slice(surface);
    let tree = tree.map_err(|error| anyhow::anyhow!("points of the surface: {error:?}"))?;
    let nearest = |point: &[f32; 3]| {
        let near = tree.query(point).nearest_n::<SquaredEuclidean<f32>>(NonZeroUsize::MIN).execute();
        near.first().map_or(f32::NAN, |near| {
            let foot = surface[near.item as usize];
            (0..3).map(|i| (foot[i] - point[i]).powi(2)).sum::<f32>().sqrt()
        })
    };
    let mut distances: Vec<f32> = points.iter().map(nearest).collect();
    distances.sort_by(f32::total_cmp);
    Ok(distances)
}

/// The largest difference between the shares of two sorted lists that lie below a number.
fn largest_difference(first: &[f32], second: &[f32]) -> f64 {
    let share = |sorted: &[f32], x: f32| sorted.partition_point(|&value| value <= x) as f64 / sorted.len() as f64;
    let all = first.iter().chain(second);
    all.map(|&x| (share(first, x) - share(second, x)).abs()).fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ellipsoid::{BOX, sample_volume, surface_mesh};

    const AXES: [f64; 3] = [1.1, 0.6, 0.8];
    const TRAINED: Sampling = Sampling::NearSurface { share: 0.6, mean_distance: Some(0.3), within: None };
    const BOUNDS: Option<[[f64; 3]; 2]> = Some([[-BOX; 3], [BOX; 3]]);

    fn narrow(points: Vec<[f64; 3]>) -> Vec<[f32; 3]> {
        points.into_iter().map(|point| point.map(|x| x as f32)).collect()
    }

    #[test]
    fn anchors_are_those_of_the_training_data_and_others_are_named() {
        let body = surface_mesh(AXES, 60, 90);
        let around = Surroundings::new(&body, BOUNDS).unwrap();
        let trained = Anchors { count: [256, 1024], sampling: TRAINED };
        for count in [256, 1024] {
            let anchors = around.draw(TRAINED, count, 5).unwrap().unwrap();
            assert_eq!(anchors.len(), count);
            assert!(anchors.iter().all(|&anchor| !around.solid.contains(anchor)));
            assert_eq!(around.difference("volume", &anchors, &trained, 8).unwrap(), None);
            let original = narrow(sample_volume(AXES, count, 3));
            assert_eq!(around.difference("volume", &original, &trained, 8).unwrap(), None);
        }
        let uniform = around.draw(Sampling::Box, 512, 5).unwrap().unwrap();
        let warning = around.difference("volume", &uniform, &trained, 8).unwrap().unwrap();
        assert!(
            warning.contains("a quarter, a half and three quarters of them within ")
                && warning.contains("in training 0."),
            "{warning}"
        );
        let middle: Vec<[f32; 3]> = uniform.iter().map(|&[x, _, z]| [x, 0.0, z]).collect();
        assert!(around.difference("volume", &middle, &trained, 8).unwrap().is_some(), "a plane");
    }

    #[test]
    fn distances_within_a_limit_stay_there_whichever_way_the_faces_look() {
        let outwards = surface_mesh([1.0; 3], 60, 90);
        let mut inwards = Mesh::new(outwards.points().to_vec());
        outwards.faces().for_each(|face| inwards.push_face(&face.iter().rev().copied().collect::<Vec<_>>()));
        let sampling = Sampling::NearSurface { share: 1.0, mean_distance: None, within: Some(0.5) };
        for body in [outwards, inwards] {
            let points = Surroundings::new(&body, BOUNDS).unwrap().draw(sampling, 500, 1).unwrap().unwrap();
            let radius = |point: &[f32; 3]| point.iter().map(|x| x * x).sum::<f32>().sqrt();
            assert!(points.iter().all(|point| (0.99..1.51).contains(&radius(point))));
            let mean = points.iter().map(radius).sum::<f32>() / 500.0;
            assert!((mean - 1.25).abs() < 0.03, "{mean}");
        }
    }

    #[test]
    fn a_box_full_of_body_has_no_room() {
        let body = surface_mesh([9.0; 3], 30, 40);
        let error = Surroundings::new(&body, BOUNDS).unwrap().draw(Sampling::Box, 1, 0).unwrap_err();
        assert!(error.to_string().contains("no room outside of the body"), "{error}");
    }
}
