//! How many work items a dispatch takes. macOS stops a command buffer that keeps the GPU for some seconds, so a long
//! launch is cut into dispatches that take a fraction of one, each in a command buffer of its own.

use std::ops::Range;

use super::tiling::{Family, Tiling};

/// How long a dispatch may take, in seconds.
const SECONDS: f64 = 0.5;

/// The part of the time in which matrices are multiplied; less than kernels should reach, to be on the safe side.
const UTILISATION: f64 = 0.5;

/// Cycles in which a simdgroup multiplies two matrices.
const CYCLES: f64 = 18.0;

/// Simdgroups of a core that multiply at a time.
const UNITS: f64 = 4.0;

/// Cycles per second of the slowest GPU of a family.
const fn clock(family: Family) -> f64 {
    match family {
        Family::Apple7 => 1.2e9,
        Family::Apple9 => 1.3e9,
    }
}

/// Key steps of all items of a dispatch.
pub fn steps_per_dispatch(family: Family, tiling: &Tiling, head_dim: usize, cores: usize) -> u64 {
    let products = (2 * tiling.keys * head_dim * tiling.row_tiles * tiling.simdgroups / 64) as f64;
    let cycles_of_step = products * CYCLES / UNITS / UTILISATION;
    (SECONDS * clock(family) * cores as f64 / cycles_of_step) as u64
}

/// Runs of items whose steps are at most so many together, or which are a single item. `steps` has a number per item.
pub fn dispatches(steps: impl IntoIterator<Item = u64>, most: u64) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    let mut sum = 0;
    for (item, steps) in steps.into_iter().enumerate() {
        match runs.last_mut() {
            Some(run) if sum + steps <= most => {
                run.end = item + 1;
                sum += steps;
            }
            _ => {
                runs.push(item..item + 1);
                sum = steps;
            }
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::super::tiling::{Element, Family, Tiling};
    use super::*;

    #[test]
    fn every_item_is_in_one_dispatch_and_none_is_too_long() {
        let steps = [3, 3, 3, 9, 1, 0, 8, 2, 2, 2];
        assert_eq!(dispatches(steps, 8), [0..2, 2..3, 3..4, 4..6, 6..7, 7..10]);
        assert_eq!(dispatches(steps, u64::MAX), std::slice::from_ref(&(0..10)));
        assert!(dispatches([], 8).is_empty());
    }

    /// A million queries of three heads against 32 k keys take more than five seconds on 8 cores of an M1: 26 TFLOP at
    /// 2.6 TFLOP/s. Ordinary calls are one dispatch.
    #[test]
    fn long_launches_are_cut_and_ordinary_ones_are_not() {
        let tiling = Tiling::of(Family::Apple7, Element::F16, 64).expect("a tile");
        let most = steps_per_dispatch(Family::Apple7, tiling, 64, 8);
        let launch = |queries: usize, keys: usize| {
            let items = (3 * queries).div_ceil(tiling.queries());
            dispatches(std::iter::repeat_n((keys / tiling.keys) as u64, items), most).len()
        };
        assert!((20..100).contains(&launch(1_000_000, 32_768)));
        assert_eq!(launch(16_384, 16_384), 1);
    }
}
