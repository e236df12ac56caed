//! Random points on and around the body, spread like the training data.

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

use super::{BOX, level, normal};
use crate::vector::{Vec3, length};

/// Share of volume points that lie near the surface.
const NEAR_SHARE: f64 = 0.6;

/// Mean distance of those from the surface.
const NEAR_DISTANCE: f64 = 0.3;

/// `count` points of the surface, uniform in area.
pub(crate) fn sample_surface(semi_axes: Vec3, count: usize, seed: u64) -> Vec<Vec3> {
    let mut random = StdRng::seed_from_u64(seed);
    (0..count).map(|_| on_surface(semi_axes, &mut random)).collect()
}

/// `count` points outside the body and inside the box: 60 % at an exponentially distributed distance (mean 0.3) off the
/// surface, the rest uniform; in random order.
pub(crate) fn sample_volume(semi_axes: Vec3, count: usize, seed: u64) -> Vec<Vec3> {
    let mut random = StdRng::seed_from_u64(seed);
    let near = (count as f64 * NEAR_SHARE) as usize;
    let mut points: Vec<Vec3> = Vec::with_capacity(count);
    for _ in 0..near {
        let foot = on_surface(semi_axes, &mut random);
        let normal = normal(semi_axes, foot);
        let distance = -NEAR_DISTANCE * (1.0 - random.random::<f64>()).ln();
        points.push(std::array::from_fn(|i| (foot[i] + normal[i] * distance).clamp(-BOX, BOX)));
    }
    while points.len() < count {
        let point: Vec3 = std::array::from_fn(|_| random.random_range(-BOX..=BOX));
        if level(semi_axes, point) > 1.0 {
            points.push(point);
        }
    }
    points.shuffle(&mut random);
    points
}

/// A point of the unit sphere is stretched onto the body and kept with a probability proportional to the area that its
/// surroundings are stretched to.
fn on_surface(semi_axes: Vec3, random: &mut StdRng) -> Vec3 {
    let volume: f64 = semi_axes.iter().product();
    let stretch = semi_axes.map(|axis| volume / axis);
    let largest = stretch.into_iter().fold(0.0, f64::max);
    loop {
        let height = random.random_range(-1.0..=1.0f64);
        let around = random.random_range(0.0..std::f64::consts::TAU);
        let radius = (1.0 - height * height).sqrt();
        let unit = [radius * around.cos(), radius * around.sin(), height];
        let stretched: Vec3 = std::array::from_fn(|i| unit[i] * stretch[i]);
        if random.random::<f64>() * largest <= length(stretched) {
            return std::array::from_fn(|i| unit[i] * semi_axes[i]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AXES: Vec3 = [1.2, 0.5, 0.8];

    #[test]
    fn points_lie_where_they_should() {
        assert!(sample_surface(AXES, 1000, 3).iter().all(|&point| (level(AXES, point) - 1.0).abs() < 1e-12));
        let volume = sample_volume(AXES, 1000, 3);
        assert_eq!(volume.len(), 1000);
        assert!(volume.iter().flatten().all(|x| x.abs() <= BOX));
        assert!(volume.iter().all(|&point| level(AXES, point) >= 1.0 - 1e-12));
    }

    #[test]
    fn a_seed_gives_the_same_points() {
        assert_eq!(sample_volume(AXES, 50, 7), sample_volume(AXES, 50, 7));
        assert_ne!(sample_volume(AXES, 50, 7), sample_volume(AXES, 50, 8));
    }

    #[test]
    fn surface_points_are_uniform_in_area() {
        // The cap z > 0.5 c of a sphere has a quarter of its area; an oblate body's mean of |n·z| follows from its
        // projected area: ∫|n_z| dA = 2πab.
        let sphere = sample_surface([1.0; 3], 40_000, 5);
        let share = sphere.iter().filter(|point| point[2] > 0.5).count() as f64 / 40_000.0;
        assert!((share - 0.25).abs() < 0.01, "{share}");

        let axes = [1.0, 1.0, 0.5];
        let eccentricity = 0.75f64.sqrt();
        let area = std::f64::consts::TAU * (1.0 + 0.25 / eccentricity * eccentricity.atanh());
        let expected = 2.0 * std::f64::consts::PI / area;
        let points = sample_surface(axes, 40_000, 6);
        let mean = points.iter().map(|&point| normal(axes, point)[2].abs()).sum::<f64>() / 40_000.0;
        assert!((mean - expected).abs() < 0.01, "{mean} for {expected}");
    }
}
