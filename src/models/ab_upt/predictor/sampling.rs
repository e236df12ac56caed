//! Some of many points, by a seed.

use rand::SeedableRng;
use rand::seq::index;
use rand_chacha::ChaCha8Rng;

/// Draws `count` different indices below `points` in random order; all of them if there are not more.
///
/// A seed gives the same indices on every machine. Takes memory for `count` indices, however many points there are.
pub fn sample_indices(points: usize, count: usize, seed: u64) -> Vec<usize> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    index::sample(&mut random, points, count.min(points)).into_vec()
}

/// Draws `count` different points in random order; all of them if there are not more. A seed gives the same points on
/// every machine.
///
/// ```
/// use candle_mixed_attention::models::ab_upt::sample_points;
///
/// let points: Vec<[f32; 3]> = (0..100).map(|i| [i as f32, 0.0, 0.0]).collect();
/// let anchors = sample_points(&points, 10, 7);
/// assert_eq!(anchors.len(), 10);
/// assert_eq!(anchors, sample_points(&points, 10, 7));
/// assert_ne!(anchors, sample_points(&points, 10, 8));
/// ```
pub fn sample_points<P: Clone>(points: &[P], count: usize, seed: u64) -> Vec<P> {
    sample_indices(points.len(), count, seed).into_iter().map(|index| points[index].clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indices_are_different_and_below_the_number_of_points() {
        for (points, count) in [(10, 10), (10, 3), (10, 50), (0, 5), (100_000, 1000), (1 << 33, 100)] {
            let mut indices = sample_indices(points, count, 5);
            assert!(indices.iter().all(|&index| index < points));
            indices.sort_unstable();
            indices.dedup();
            assert_eq!(indices.len(), count.min(points), "{count} of {points}");
        }
    }

    #[test]
    fn a_seed_means_the_same_for_ever() {
        assert_eq!(sample_indices(1000, 6, 42), [222, 679, 145, 948, 771, 427]);
        let of_many = [33_612_115, 102_284_426, 21_957_935, 142_541_309, 115_846_998, 64_127_460];
        assert_eq!(sample_indices(150_000_000, 6, 42), of_many);
    }

    #[test]
    fn every_index_is_as_likely_as_any_other() {
        let mut counts = [0; 20];
        for seed in 0..4000 {
            sample_indices(20, 5, seed).into_iter().for_each(|index| counts[index] += 1);
        }
        // 1,000 expected, with a standard deviation of 27.
        assert!(counts.iter().all(|&count| (850..1150).contains(&count)), "{counts:?}");
    }
}
