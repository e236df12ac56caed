//! Sets of points: what of a part is done.

use std::ops::Range;

use serde::{Deserialize, Serialize};

/// Ranges of whole numbers in rising order. No two of them touch and none is empty, so that equal sets are equal.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<[u64; 2]>", into = "Vec<[u64; 2]>")]
pub(crate) struct Ranges(Vec<Range<u64>>);

impl Ranges {
    /// Adds a range, whatever of it was there.
    pub(crate) fn insert(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let first = self.0.partition_point(|known| known.end < range.start);
        let behind = self.0.partition_point(|known| known.start <= range.end);
        let joined = match self.0.get(first..behind) {
            Some([low, .., high]) => low.start.min(range.start)..high.end.max(range.end),
            Some([touched]) => touched.start.min(range.start)..touched.end.max(range.end),
            _ => range,
        };
        self.0.splice(first..behind, [joined]);
    }

    /// How many numbers there are.
    pub(crate) fn count(&self) -> u64 {
        self.0.iter().map(|range| range.end - range.start).fold(0, u64::saturating_add)
    }

    /// The number behind the last one, or 0.
    pub(crate) fn end(&self) -> u64 {
        self.0.last().map_or(0, |range| range.end)
    }

    /// What of a range is missing.
    pub(crate) fn gaps(&self, within: Range<u64>) -> Vec<Range<u64>> {
        let (mut gaps, mut at) = (Vec::new(), within.start);
        let first = self.0.partition_point(|known| known.end <= within.start);
        for known in self.0[first..].iter().take_while(|known| known.start < within.end) {
            if at < known.start {
                gaps.push(at..known.start);
            }
            at = known.end;
        }
        if at < within.end {
            gaps.push(at..within.end);
        }
        gaps
    }
}

impl From<Ranges> for Vec<[u64; 2]> {
    fn from(ranges: Ranges) -> Self {
        ranges.0.into_iter().map(|range| [range.start, range.end]).collect()
    }
}

impl TryFrom<Vec<[u64; 2]>> for Ranges {
    type Error = String;

    /// Takes ranges in any order, but none that ends before it begins.
    fn try_from(pairs: Vec<[u64; 2]>) -> Result<Self, String> {
        let mut ranges = Self::default();
        for [start, end] in pairs {
            if start > end {
                return Err(format!("a range from {start} to {end}"));
            }
            ranges.insert(start..end);
        }
        Ok(ranges)
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    #[test]
    fn random_ranges_are_the_set_of_their_numbers() {
        let mut random = StdRng::seed_from_u64(3);
        for _ in 0..300 {
            let (mut ranges, mut set) = (Ranges::default(), [false; 40]);
            for _ in 0..random.random_range(0..12) {
                let start = random.random_range(0..40);
                let end = random.random_range(start..=40);
                ranges.insert(start..end);
                set[start as usize..end as usize].fill(true);
            }
            assert_eq!(ranges.count(), set.iter().filter(|known| **known).count() as u64);
            assert_eq!(ranges.end(), set.iter().rposition(|known| *known).map_or(0, |last| last as u64 + 1));
            assert!(ranges.0.windows(2).all(|pair| pair[0].end < pair[1].start), "{ranges:?}");
            let (start, end) = (random.random_range(0..20), random.random_range(20..=40));
            let gaps: Vec<u64> = ranges.gaps(start..end).into_iter().flatten().collect();
            let missing: Vec<u64> = (start..end).filter(|at| !set[*at as usize]).collect();
            assert_eq!(gaps, missing, "{ranges:?} in {start}..{end}");
            let text = serde_json::to_string(&ranges).unwrap();
            assert_eq!(serde_json::from_str::<Ranges>(&text).unwrap(), ranges);
        }
        assert!(serde_json::from_str::<Ranges>("[[3,2]]").is_err());
    }
}
