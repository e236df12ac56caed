//! Round numbers along a scale.

/// About `count` round numbers from `min` to `max`: steps of 1, 2, 2.5 or 5 times a power of ten.
pub(super) fn ticks(min: f64, max: f64, count: usize) -> Vec<f64> {
    let rough = (max - min) / count as f64;
    if !(rough.is_finite() && rough > 0.0) {
        return vec![min];
    }
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 2.5, 5.0, 10.0].map(|factor| factor * power).into_iter().find(|&step| step >= rough * 0.999);
    let step = step.unwrap_or(10.0 * power);
    let (first, last) = ((min / step - 1e-6).ceil() as i64, (max / step + 1e-6).floor() as i64);
    (first..=last).map(|i| i as f64 * step).collect()
}

/// The numbers with as many decimals as tell them apart, and a real minus sign.
pub(super) fn labels(ticks: &[f64]) -> Vec<String> {
    let step = ticks.windows(2).map(|pair| pair[1] - pair[0]).fold(f64::INFINITY, f64::min);
    let largest = ticks.iter().fold(0f64, |largest, tick| largest.max(tick.abs()));
    if largest >= 1e5 || (largest > 0.0 && largest < 1e-3) {
        return ticks.iter().map(|tick| minus(format!("{tick:.1e}"))).collect();
    }
    let exact = |decimals: usize| {
        (step * 10f64.powi(decimals as i32)).fract().min(1.0 - (step * 10f64.powi(decimals as i32)).fract()) < 1e-6
    };
    let decimals = (0..8).find(|&decimals| exact(decimals)).unwrap_or(3);
    ticks.iter().map(|tick| minus(format!("{tick:.decimals$}"))).collect()
}

/// A number that lies in an interval of this extent, to about a thousandth of it.
pub(crate) fn rounded(value: f64, extent: f64) -> String {
    let decimals = (3.0 - extent.log10()).ceil().clamp(0.0, 7.0);
    let decimals = if decimals.is_finite() { decimals as usize } else { 0 };
    let number = format!("{value:.decimals$}");
    let number = if decimals > 0 { number.trim_end_matches('0').trim_end_matches('.') } else { &number };
    minus(number.to_string())
}

fn minus(number: String) -> String {
    let zero = number.trim_start_matches('-').chars().all(|letter| matches!(letter, '0' | '.'));
    if zero { number.replace('-', "") } else { number.replace('-', "−") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round() {
        assert_eq!(labels(&ticks(-1.07, 1.0, 5)), ["−1.0", "−0.5", "0.0", "0.5", "1.0"]);
        assert_eq!(labels(&ticks(0.0, 1.0, 4)), ["0.00", "0.25", "0.50", "0.75", "1.00"]);
        assert_eq!(labels(&ticks(-2.5, 2.5, 5)), ["−2", "−1", "0", "1", "2"]);
        assert_eq!(labels(&ticks(-0.02, 0.02, 4)), ["−0.02", "−0.01", "0.00", "0.01", "0.02"]);
        assert_eq!(labels(&ticks(0.0, 4e5, 2)), ["0.0e0", "2.0e5", "4.0e5"]);
    }

    #[test]
    fn single_numbers_are_as_long_as_they_matter() {
        let cases = [
            (-0.0013693571, 5.0, "−0.001"),
            (-0.0013693571, 0.5, "−0.0014"),
            (-0.0013693571, 500.0, "0"),
            (-0.0013693571, 50_000.0, "0"),
            (-1234.5678, 50_000.0, "−1235"),
            (0.5, 5.0, "0.5"),
            (-0.5, 5.0, "−0.5"),
            (120.0, 3.0, "120"),
            (0.0, 1.0, "0"),
            (3.25, 0.0, "3.25"),
        ];
        for (value, extent, expected) in cases {
            assert_eq!(rounded(value, extent), expected, "{value} of {extent}");
        }
    }

    #[test]
    fn a_scale_without_extent_has_one_tick() {
        assert_eq!(ticks(3.0, 3.0, 5), [3.0]);
        assert_eq!(labels(&[3.0]).len(), 1);
    }
}
