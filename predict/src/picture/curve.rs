//! Values along a line.

use super::canvas::{Canvas, Colour, Rect};
use super::text::{self, Align, Fonts};
use super::ticks;

/// Colours of the curves, told apart by people who see few colours too.
const COLOURS: [Colour; 4] = [[0.00, 0.45, 0.70], [0.84, 0.37, 0.00], [0.00, 0.62, 0.45], [0.50, 0.50, 0.50]];

/// Room for the numbers beside and below the axes.
const LEFT: f32 = 64.0;
const BELOW: f32 = 46.0;

/// Share of the extent of the values that stays free above and below them.
const MARGIN: f64 = 0.06;

/// Curves over a distance.
pub(crate) struct CurvePanel<'a> {
    /// The distance of every point, rising from 0.
    pub(crate) distances: &'a [f64],
    /// The name of each curve and its value at every point.
    pub(crate) curves: Vec<(String, Vec<f32>)>,
}

impl CurvePanel<'_> {
    /// Draws the curves with their axes, and their names where there are several.
    pub(super) fn draw(&self, canvas: &mut Canvas, rect: Rect, fonts: &Fonts, ink: Colour) {
        let plot = Rect { x: rect.x + LEFT, y: rect.y, width: rect.width - LEFT, height: rect.height - BELOW };
        let [low, high] = self.extent();
        let reach = self.distances.last().copied().unwrap_or(1.0).max(f64::MIN_POSITIVE);
        let x = |distance: f64| plot.x + (distance / reach) as f32 * plot.width;
        let y = |value: f64| plot.y + ((high - value) / (high - low)) as f32 * plot.height;
        let size = 17.0;
        let across = ticks::ticks(0.0, reach, 5);
        for (tick, label) in across.iter().zip(ticks::labels(&across)) {
            let edge = plot.y + plot.height;
            canvas.polyline(&[[x(*tick), edge], [x(*tick), edge + 5.0]], 1.0, ink, 1.0);
            text::draw(canvas, &fonts.regular, size, [x(*tick), edge + 21.0], Align::Centre, ink, &label);
        }
        let up = ticks::ticks(low, high, 6);
        for (tick, label) in up.iter().zip(ticks::labels(&up)) {
            canvas.polyline(&[[plot.x, y(*tick)], [plot.x + plot.width, y(*tick)]], 1.0, ink, 0.12);
            text::draw(canvas, &fonts.regular, size, [plot.x - 9.0, y(*tick) + 5.5], Align::Right, ink, &label);
        }
        let middle = [plot.x + plot.width / 2.0, plot.y + plot.height + 40.0];
        text::draw(canvas, &fonts.regular, size, middle, Align::Centre, ink, "distance");
        for (at, ((name, values), colour)) in self.curves.iter().zip(COLOURS.iter().cycle()).enumerate() {
            let points = self.distances.iter().zip(values).filter(|(_, value)| value.is_finite());
            let line: Vec<_> = points.map(|(&distance, &value)| [x(distance), y(f64::from(value))]).collect();
            canvas.polyline(&line, 2.2, *colour, 1.0);
            if self.curves.len() > 1 {
                let place = [plot.x + plot.width - 10.0, plot.y + 24.0 + 22.0 * at as f32];
                text::draw(canvas, &fonts.medium, size, place, Align::Right, *colour, name);
            }
        }
        canvas.outline(plot, ink);
    }

    /// The smallest and the largest value, with a margin.
    fn extent(&self) -> [f64; 2] {
        let values = self.curves.iter().flat_map(|(_, values)| values).filter(|value| value.is_finite());
        let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), &value| {
            (low.min(f64::from(value)), high.max(f64::from(value)))
        });
        match high - low {
            extent if extent > 0.0 => [low - MARGIN * extent, high + MARGIN * extent],
            // All are equal, or there are none.
            _ if low.is_finite() => [low - low.abs().max(1.0) / 2.0, low + low.abs().max(1.0) / 2.0],
            _ => [0.0, 1.0],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_is_drawn_where_its_values_are() {
        let fonts = Fonts::embedded().unwrap();
        let distances: Vec<f64> = (0..50).map(f64::from).collect();
        let draw = |values: Vec<f32>| {
            let panel = CurvePanel { distances: &distances, curves: vec![("p".to_string(), values)] };
            let mut canvas = Canvas::new(300, 200, [1.0; 3]);
            panel.draw(&mut canvas, Rect { x: 0.0, y: 0.0, width: 300.0, height: 200.0 }, &fonts, [0.0; 3]);
            canvas.to_png().unwrap()
        };
        let rising = draw((0..50).map(|at| at as f32).collect());
        assert_ne!(rising, draw((0..50).map(|at| -at as f32).collect()));
        // Values that are equal, or none at all, are no reason to fail.
        assert_ne!(draw(vec![3.0; 50]), draw(vec![f32::NAN; 50]));
    }

    #[test]
    fn the_axis_holds_all_values() {
        let panel = |values: Vec<f32>| CurvePanel { distances: &[], curves: vec![(String::new(), values)] }.extent();
        assert_eq!(panel(vec![0.0, 10.0]), [-0.6, 10.6]);
        assert_eq!(panel(vec![2.0, 2.0]), [1.0, 3.0]);
        assert_eq!(panel(vec![]), [0.0, 1.0]);
    }
}
