//! Triangles with a value at every corner, in front of each other.

use super::canvas::{Canvas, Colour, Rect, mix};

/// Samples per pixel along each axis.
const SAMPLES: usize = 3;

/// A corner of a triangle.
#[derive(Debug, Clone, Copy)]
pub(super) struct Corner {
    /// Place in pixels, from the corner of the tile.
    pub at: [f32; 2],
    /// Distance from the viewer.
    pub depth: f32,
    /// The field.
    pub value: f32,
    /// Brightness of the surface there; 1 leaves the colour as it is.
    pub light: f32,
}

#[derive(Clone, Copy)]
struct Sample {
    depth: f32,
    value: f32,
    light: f32,
    /// Change of the value per pixel.
    slope: f32,
}

/// A part of a canvas that triangles are drawn into.
pub(super) struct Tile {
    rect: Rect,
    columns: usize,
    rows: usize,
    samples: Vec<Option<Sample>>,
}

impl Tile {
    /// An empty tile over a rectangle with whole-numbered corners.
    pub(super) fn new(rect: Rect) -> Self {
        let (columns, rows) = (rect.width as usize * SAMPLES, rect.height as usize * SAMPLES);
        Self { rect, columns, rows, samples: vec![None; columns * rows] }
    }

    /// Draws a triangle where nothing nearer has been drawn.
    pub(super) fn triangle(&mut self, corners: [Corner; 3]) {
        let [a, b, c] = corners.map(|corner| corner.at.map(|x| x * SAMPLES as f32));
        let cross = |u: [f32; 2], v: [f32; 2]| u[0] * v[1] - u[1] * v[0];
        let from_a = |point: [f32; 2]| [point[0] - a[0], point[1] - a[1]];
        let (ab, ac) = (from_a(b), from_a(c));
        let area = cross(ab, ac);
        if area == 0.0 || !area.is_finite() {
            return;
        }
        let value = |weights: [f32; 3], of: fn(&Corner) -> f32| -> f32 {
            weights.iter().zip(&corners).map(|(weight, corner)| weight * of(corner)).sum()
        };
        let (to_b, to_c) = (corners[1].value - corners[0].value, corners[2].value - corners[0].value);
        let by_x = (to_b * ac[1] - to_c * ab[1]) / area;
        let by_y = (to_c * ab[0] - to_b * ac[0]) / area;
        let slope = by_x.hypot(by_y) * SAMPLES as f32;

        let span = |axis: usize, limit: usize| {
            let low = a[axis].min(b[axis]).min(c[axis]).floor().max(0.0) as usize;
            let high = a[axis].max(b[axis]).max(c[axis]).ceil().max(0.0) as usize;
            low..high.min(limit)
        };
        for row in span(1, self.rows) {
            for column in span(0, self.columns) {
                let point = from_a([column as f32 + 0.5, row as f32 + 0.5]);
                let (second, third) = (cross(point, ac) / area, cross(ab, point) / area);
                let weights = [1.0 - second - third, second, third];
                if weights.iter().any(|&weight| weight < -1e-6) {
                    continue;
                }
                let depth = value(weights, |corner| corner.depth);
                let sample = &mut self.samples[row * self.columns + column];
                if sample.is_none_or(|nearest| depth < nearest.depth) {
                    let (field, light) = (value(weights, |corner| corner.value), value(weights, |corner| corner.light));
                    *sample = Some(Sample { depth, value: field, light, slope });
                }
            }
        }
    }

    /// Colours the tile and puts it onto the canvas. Thin lines mark the values of `levels`.
    pub(super) fn paint(&self, canvas: &mut Canvas, colour: impl Fn(f32) -> Colour, levels: &[f32]) {
        for y in 0..self.rows / SAMPLES {
            for x in 0..self.columns / SAMPLES {
                let (mut sum, mut drawn) = ([0.0; 3], 0);
                for at in 0..SAMPLES * SAMPLES {
                    let (row, column) = (y * SAMPLES + at / SAMPLES, x * SAMPLES + at % SAMPLES);
                    if let Some(sample) = self.samples[row * self.columns + column] {
                        let shaded = lit(colour(sample.value), sample.light);
                        let shaded = mix(shaded, [0.08; 3], 0.45 * level_line(&sample, levels));
                        sum = std::array::from_fn(|i| sum[i] + shaded[i]);
                        drawn += 1;
                    }
                }
                if drawn > 0 {
                    let opacity = drawn as f32 / (SAMPLES * SAMPLES) as f32;
                    let (x, y) = (self.rect.x as i64 + x as i64, self.rect.y as i64 + y as i64);
                    canvas.blend(x, y, sum.map(|channel| channel / drawn as f32), opacity);
                }
            }
        }
    }
}

/// Below 1 towards black, above 1 towards white.
fn lit(colour: Colour, light: f32) -> Colour {
    if light <= 1.0 { mix([0.0; 3], colour, light) } else { mix(colour, [1.0; 3], light - 1.0) }
}

/// How much a sample belongs to a line of about one pixel along one of the levels.
fn level_line(sample: &Sample, levels: &[f32]) -> f32 {
    // A field that does not change belongs to no line, even where it equals a level.
    if sample.slope < f32::MIN_POSITIVE {
        return 0.0;
    }
    let distance = |level: &f32| (sample.value - level).abs() / sample.slope;
    let nearest = levels.iter().map(distance).fold(f32::INFINITY, f32::min);
    (1.0 - nearest / 0.75).clamp(0.0, 1.0)
}
