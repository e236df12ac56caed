//! Random queries, keys and values over which errors of sums show, and what their attention is: exactly, and by the usual
//! loops.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// Names, standard deviations of the scores, and whether all values have one sign.
pub const CASES: [(&str, f32, bool); 5] = [
    ("one sign", 1.0, true),
    ("mixed", 1.0, false),
    ("equal scores", 0.0, true),
    ("std 20", 20.0, true),
    ("std 100", 100.0, true),
];

/// Queries, keys and values of one head.
pub struct Data {
    pub queries: Vec<f32>,
    pub keys: Vec<f32>,
    pub values: Vec<f32>,
    pub head_dim: usize,
    round: fn(f32) -> f32,
}

impl Data {
    /// Scores of this standard deviation; values around 1 or around 0. `round` is how numbers are rounded in memory.
    pub fn new(
        (queries, keys, head_dim): (usize, usize, usize),
        scores: f32,
        one_sign: bool,
        round: fn(f32) -> f32,
    ) -> Self {
        let mut random = StdRng::seed_from_u64(keys as u64 + scores as u64);
        let mut normal = move || {
            let (u, v): (f32, f32) = (random.random_range(1e-7..1.0), random.random());
            (-2.0 * u.ln()).sqrt() * (std::f32::consts::TAU * v).cos()
        };
        let mut numbers = |count: usize, factor: f32, mean: f32| -> Vec<f32> {
            (0..count).map(|_| round(normal() * factor + mean)).collect()
        };
        let root = scores.sqrt();
        let (spread, mean) = if one_sign { (0.3, 1.0) } else { (1.0, 0.0) };
        Self {
            queries: numbers(queries * head_dim, root, 0.0),
            keys: numbers(keys * head_dim, root, 0.0),
            values: numbers(keys * head_dim, spread, mean),
            head_dim,
            round,
        }
    }

    fn rows<'a>(&self, numbers: &'a [f32]) -> impl Iterator<Item = &'a [f32]> + Clone + use<'a> {
        numbers.chunks_exact(self.head_dim)
    }

    pub fn exact(&self) -> Vec<f64> {
        let scale = 1.0 / (self.head_dim as f64).sqrt();
        let attend = |query: &[f32]| {
            let dot = |key: &[f32]| query.iter().zip(key).map(|(q, k)| f64::from(*q) * f64::from(*k)).sum::<f64>();
            let scores: Vec<f64> = self.rows(&self.keys).map(|key| dot(key) * scale).collect();
            let maximum = scores.iter().fold(f64::MIN, |maximum, score| maximum.max(*score));
            let mut output = vec![0f64; self.head_dim];
            let mut total = 0.0;
            for (score, value) in scores.iter().zip(self.rows(&self.values)) {
                let weight = (score - maximum).exp();
                total += weight;
                output.iter_mut().zip(value).for_each(|(output, value)| *output += weight * f64::from(*value));
            }
            output.into_iter().map(move |output| output / total)
        };
        self.rows(&self.queries).flat_map(attend).collect()
    }

    /// What a tiled kernel in f32 does: blocks of 512 keys, products in one chain of multiply-adds, sums of weights in 16
    /// lanes, what is older rescaled and added. Weights are rounded as values are before they meet them, and so are results.
    pub fn usual(&self) -> Vec<f64> {
        let scale = 1.0 / (self.head_dim as f32).sqrt();
        let attend = |query: &[f32]| {
            let (mut output, mut total, mut maximum) = (vec![0f32; self.head_dim], 0f32, f32::NEG_INFINITY);
            let rows = self.head_dim * 512;
            for (keys, values) in self.keys.chunks(rows).zip(self.values.chunks(rows)) {
                let dot = |key: &[f32]| query.iter().zip(key).fold(0f32, |sum, (q, k)| q.mul_add(*k, sum));
                let scores: Vec<f32> = self.rows(keys).map(|key| dot(key) * scale).collect();
                let before = maximum;
                maximum = scores.iter().fold(maximum, |maximum, score| maximum.max(*score));
                let correction = (before - maximum).exp();
                let (mut block, mut lanes) = (vec![0f32; self.head_dim], [0f32; 16]);
                for (index, (score, value)) in scores.iter().zip(self.rows(values)).enumerate() {
                    let weight = (score - maximum).exp();
                    lanes[index % 16] += weight;
                    let weight = (self.round)(weight);
                    block.iter_mut().zip(value).for_each(|(sum, value)| *sum = weight.mul_add(*value, *sum));
                }
                total = total * correction + lanes.iter().sum::<f32>();
                output.iter_mut().zip(block).for_each(|(output, block)| *output = *output * correction + block);
            }
            let reciprocal = 1.0 / total;
            output.into_iter().map(move |output| output * reciprocal)
        };
        self.rows(&self.queries).flat_map(attend).map(|output| f64::from((self.round)(output))).collect()
    }
}

/// Root of the mean squared difference.
pub fn rms(got: &[f64], want: &[f64]) -> f64 {
    (got.iter().zip(want).map(|(got, want)| (got - want).powi(2)).sum::<f64>() / got.len() as f64).sqrt()
}
