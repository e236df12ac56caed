//! Points outside the box that a network knows.

use candle_mixed_attention::models::PositionStatistics;
use clap::ValueEnum;

/// What becomes of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Outside {
    /// They are an error
    #[default]
    Refuse,
    /// Their fields are NaN, and they count for nothing
    Drop,
    /// They are predicted at the nearest point of the box
    Clamp,
}

/// The box, and what becomes of points outside of it.
#[derive(Debug, Clone)]
pub(crate) struct Border {
    /// None where every point is taken, or none is changed.
    bounds: Option<Vec<[f64; 2]>>,
    outside: Outside,
}

impl Border {
    /// The box of the statistics.
    pub(crate) fn new(statistics: &PositionStatistics, outside: Outside) -> Self {
        let bounds = statistics.bounds().filter(|_| outside != Outside::Refuse);
        let pairs = bounds.map(|bounds| bounds.min.iter().zip(&bounds.max).map(|(&low, &high)| [low, high]).collect());
        Self { bounds: pairs, outside }
    }

    /// What becomes of points outside, in a word.
    pub(crate) fn name(&self) -> String {
        format!("{:?}", self.outside).to_lowercase()
    }

    /// Whether points outside are left out.
    pub(crate) fn drops(&self) -> bool {
        self.outside == Outside::Drop
    }

    /// Moves points into the box, and returns which were outside.
    pub(crate) fn clamp(&self, points: &mut [[f32; 3]]) -> Vec<usize> {
        let Some(bounds) = &self.bounds else { return Vec::new() };
        let mut strays = Vec::new();
        for (at, point) in points.iter_mut().enumerate() {
            let inside = point.iter().zip(bounds).all(|(&x, &[low, high])| (low..=high).contains(&f64::from(x)));
            if !inside {
                for (x, &[low, high]) in point.iter_mut().zip(bounds) {
                    *x = f64::from(*x).clamp(low, high) as f32;
                }
                strays.push(at);
            }
        }
        strays
    }

    /// A sentence about so many points that are outside.
    pub(crate) fn told(&self, strays: u64, points: u64) -> Option<String> {
        let fate = match self.outside {
            Outside::Drop => "their fields are NaN",
            Outside::Clamp => "they are predicted at the nearest point of it",
            Outside::Refuse => return None,
        };
        (strays > 0).then(|| format!("{strays} of {points} points lie outside the box of the statistics; {fate}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_outside_are_found_and_moved_to_the_box() {
        let statistics = PositionStatistics::stretched(vec![0.0; 3], vec![1.0; 3], 1000.0).unwrap();
        let points = [[0.5, 0.5, 0.5], [1.5, 0.5, -3.0], [1.0, 0.0, 1.0]];
        for (outside, expected) in [(Outside::Clamp, vec![1]), (Outside::Drop, vec![1]), (Outside::Refuse, vec![])] {
            let (mut moved, border) = (points, Border::new(&statistics, outside));
            assert_eq!(border.clamp(&mut moved), expected, "{outside:?}");
            if outside != Outside::Refuse {
                assert_eq!(moved, [points[0], [1.0, 0.5, 0.0], points[2]]);
                assert!(border.told(1, 3).unwrap().starts_with("1 of 3 points lie outside the box"));
            }
            assert_eq!(border.told(0, 3), None);
        }
    }
}
