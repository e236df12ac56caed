//! Whether everything that was read is of one size and in one place.

use std::fmt::Write;

/// Smallest and largest coordinates.
pub(super) type Bounds = [[f32; 3]; 2];

/// How many times larger the surroundings of a body may be before its units are doubted.
const MOST_TIMES: f64 = 50.0;

/// A line that tells a box.
pub(super) fn told(name: &str, points: u64, [low, high]: Bounds) -> String {
    let mut line = format!("{name:18} {points} points");
    for axis in 0..3 {
        let _ = write!(line, ", {} {:.4} to {:.4}", ["x", "y", "z"][axis], low[axis], high[axis]);
    }
    line
}

/// Sentences with numbers where a body is much smaller or larger than a box that should surround it, or lies beside it.
pub(super) fn warnings(body: Bounds, others: &[(String, Bounds)]) -> Vec<String> {
    let mut warnings = Vec::new();
    let size = length(body);
    for (name, bounds) in others {
        let times = length(*bounds) / size;
        if size > 0.0 && times > MOST_TIMES {
            warnings.push(format!(
                "the body is {times:.0} times smaller than {name}: {size:.4} across, against {:.4}; are its units the same?",
                length(*bounds)
            ));
        } else if times < 1.0 / MOST_TIMES && times > 0.0 {
            warnings.push(format!(
                "the body is {:.0} times larger than {name}: {size:.4} across, against {:.4}; are its units the same?",
                1.0 / times,
                length(*bounds)
            ));
        } else if let Some(axis) =
            (0..3).find(|&axis| body[0][axis] > bounds[1][axis] || body[1][axis] < bounds[0][axis])
        {
            let axis_name = ["x", "y", "z"][axis];
            warnings.push(format!(
                "the body lies outside of {name}: its {axis_name} from {:.4} to {:.4}, there from {:.4} to {:.4}",
                body[0][axis], body[1][axis], bounds[0][axis], bounds[1][axis]
            ));
        }
    }
    warnings
}

/// From corner to corner.
fn length([low, high]: Bounds) -> f64 {
    (0..3).map(|axis| f64::from(high[axis] - low[axis]).powi(2)).sum::<f64>().sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_and_places_that_do_not_fit_are_named_with_numbers() {
        let cube = |middle: f32, half: f32| [[middle - half; 3], [middle + half; 3]];
        let volume = |bounds| vec![("the points of 'volume'".to_string(), bounds)];
        assert!(warnings(cube(0.0, 1.0), &volume(cube(0.0, 20.0))).is_empty());
        assert!(warnings(cube(0.0, 1.0), &volume([[-2.0, 0.0, -2.0], [2.0, 0.0, 2.0]])).is_empty(), "a plane");
        let cases = [
            (cube(0.0, 0.001), cube(0.0, 1.0), "1000 times smaller than the points of 'volume': 0.0035 across"),
            (cube(0.0, 1000.0), cube(0.0, 1.0), "1000 times larger than the points of 'volume'"),
            (
                cube(5.0, 1.0),
                cube(0.0, 3.0),
                "outside of the points of 'volume': its x from 4.0000 to 6.0000, there from -3",
            ),
        ];
        for (body, around, expected) in cases {
            let found = warnings(body, &volume(around));
            assert!(found.len() == 1 && found[0].contains(expected), "{found:?}");
        }
        assert_eq!(
            told("--volume", 7, cube(0.0, 1.0)),
            "--volume           7 points, x -1.0000 to 1.0000, y -1.0000 to 1.0000, z -1.0000 to 1.0000"
        );
    }
}
