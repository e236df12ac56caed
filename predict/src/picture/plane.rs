//! A field in a plane, with streamlines and the body cut out.

use super::canvas::{Canvas, Colour, Rect};
use super::colour::Scale;
use super::raster::{Corner, Tile};
use super::section::{CutPlane, inside, section};
use super::streamline::PlaneVelocity;
use super::text::{self, Align, Fonts};
use super::ticks;
use crate::mesh::Mesh;

/// Distance of streamlines where they enter, in units of the plane's height.
pub(crate) const STREAMLINE_SPACING: f32 = 1.0 / 18.0;

/// Rounds in which the field is continued into the body, so that no gap shows between the grid and the outline.
const CONTINUATION: usize = 3;

const BODY: Colour = [0.93, 0.93, 0.92];

/// A field on a regular grid over a rectangle of a plane.
pub(crate) struct PlanePanel<'a> {
    /// The plane.
    pub plane: CutPlane,
    /// Points across and up.
    pub size: [usize; 2],
    /// The middle of the rectangle.
    pub centre: [f64; 2],
    /// Half its extent across and up.
    pub half_extent: [f64; 2],
    /// Places of the values in the grid, row after row; the rest lies inside the body.
    pub grid_index: &'a [usize],
    /// The field.
    pub values: &'a [f32],
    /// Three components per point; empty for a picture without streamlines.
    pub velocity: &'a [f32],
    /// The body, cut out where it is closed.
    pub body: Option<&'a Mesh>,
}

impl PlanePanel<'_> {
    /// Draws the field as large as it fits, with the same scale along both axes. All places are relative to the centre.
    pub(crate) fn draw(&self, canvas: &mut Canvas, rect: Rect, scale: &Scale, fonts: &Fonts, ink: Colour) {
        let [half_x, half_z] = self.half_extent.map(|half| half as f32);
        let axis = Rect { x: rect.x + 44.0, y: rect.y, width: rect.width - 44.0, height: rect.height - 46.0 };
        let zoom = (axis.width / (2.0 * half_x)).min(axis.height / (2.0 * half_z));
        let (width, height) = ((2.0 * half_x * zoom).floor(), (2.0 * half_z * zoom).floor());
        let plane = Rect {
            x: (axis.x + (axis.width - width) / 2.0).floor(),
            y: (axis.y + (axis.height - height) / 2.0).floor(),
            width,
            height,
        };
        let place = |[x, z]: [f32; 2]| [(x + half_x) * zoom, (half_z - z) * zoom];

        self.draw_field(canvas, plane, scale, place);
        self.draw_streamlines(canvas, plane, place);
        self.draw_body(canvas, plane, ink, place);
        canvas.outline(plane, ink);
        self.draw_axes(canvas, plane, zoom, fonts, ink);
    }

    fn draw_field(&self, canvas: &mut Canvas, plane: Rect, scale: &Scale, place: impl Fn([f32; 2]) -> [f32; 2]) {
        let [columns, rows] = self.size;
        let mut grid = vec![None; columns * rows];
        for (&at, &value) in self.grid_index.iter().zip(self.values) {
            grid[at] = Some(value);
        }
        for _ in 0..CONTINUATION {
            grid = continued(&grid, columns);
        }
        let corner = |column: usize, row: usize| {
            let along =
                |at: usize, count: usize, half: f64| (-half + 2.0 * half * at as f64 / (count - 1) as f64) as f32;
            let at = [along(column, columns, self.half_extent[0]), along(row, rows, self.half_extent[1])];
            grid[row * columns + column].map(|value| Corner { at: place(at), depth: 0.0, value, light: 1.0 })
        };
        let mut tile = Tile::new(plane);
        for row in 0..rows - 1 {
            for column in 0..columns - 1 {
                let corners = (
                    corner(column, row),
                    corner(column + 1, row),
                    corner(column + 1, row + 1),
                    corner(column, row + 1),
                );
                if let (Some(a), Some(b), Some(c), Some(d)) = corners {
                    tile.triangle([a, b, c]);
                    tile.triangle([a, c, d]);
                }
            }
        }
        tile.paint(canvas, |value| scale.colour(value), &[]);
    }

    fn draw_streamlines(&self, canvas: &mut Canvas, plane: Rect, place: impl Fn([f32; 2]) -> [f32; 2]) {
        let mut grid = vec![None; self.size[0] * self.size[1]];
        for (&at, velocity) in self.grid_index.iter().zip(self.velocity.as_chunks::<3>().0) {
            grid[at] = Some(self.plane.flat(*velocity));
        }
        let velocity = PlaneVelocity { size: self.size, half_extent: self.half_extent, values: &grid };
        let spacing = 2.0 * self.half_extent[1] as f32 * STREAMLINE_SPACING;
        for line in velocity.streamlines(spacing) {
            let inside = |[x, y]: [f32; 2]| [plane.x + x.clamp(0.0, plane.width), plane.y + y.clamp(0.0, plane.height)];
            let line: Vec<_> = line.into_iter().map(|point| inside(place(point))).collect();
            canvas.polyline(&line, 1.3, [1.0; 3], 0.62);
        }
    }

    fn draw_body(&self, canvas: &mut Canvas, plane: Rect, ink: Colour, place: impl Fn([f32; 2]) -> [f32; 2]) {
        let Some(body) = self.body else { return };
        let on_canvas = |point: [f32; 2]| {
            let [x, y] = place([point[0] - self.centre[0] as f32, point[1] - self.centre[1] as f32]);
            [plane.x + x, plane.y + y]
        };
        // In pixels, so that a row of pixels is a height.
        let outline: Vec<_> = section(body, self.plane).into_iter().map(|piece| piece.map(on_canvas)).collect();
        for y in plane.y as i64..(plane.y + plane.height) as i64 {
            for [left, right] in inside(&outline, y as f32 + 0.5) {
                let row = Rect { x: left, y: y as f32, width: right - left, height: 1.0 };
                canvas.fill(row, |_, _| BODY);
            }
        }
        for piece in &outline {
            canvas.polyline(piece, 1.6, ink, 1.0);
        }
    }

    fn draw_axes(&self, canvas: &mut Canvas, plane: Rect, zoom: f32, fonts: &Fonts, ink: Colour) {
        let size = 17.0;
        let ends = |axis: usize| {
            let (centre, half) = (self.centre[axis], self.half_extent[axis]);
            (centre - half, centre + half)
        };
        let ((left, right), (bottom, top)) = (ends(0), ends(1));
        let across = ticks::ticks(left, right, 5);
        for (tick, label) in across.iter().zip(ticks::labels(&across)) {
            let x = plane.x + (*tick - left) as f32 * zoom;
            let edge = plane.y + plane.height;
            canvas.polyline(&[[x, edge], [x, edge + 5.0]], 1.0, ink, 1.0);
            text::draw(canvas, &fonts.regular, size, [x, edge + 21.0], Align::Centre, ink, &label);
        }
        let up = ticks::ticks(bottom, top, 4);
        for (tick, label) in up.iter().zip(ticks::labels(&up)) {
            let y = plane.y + (top - *tick) as f32 * zoom;
            canvas.polyline(&[[plane.x - 5.0, y], [plane.x, y]], 1.0, ink, 1.0);
            text::draw(canvas, &fonts.regular, size, [plane.x - 9.0, y + 5.5], Align::Right, ink, &label);
        }
        let [across, up] = self.plane.axes().map(|axis| ["x", "y", "z"][axis]);
        let below = plane.y + plane.height + 40.0;
        text::draw(canvas, &fonts.regular, size, [plane.x + plane.width / 2.0, below], Align::Centre, ink, across);
        let beside = [plane.x - 36.0, plane.y + plane.height / 2.0 + 5.5];
        text::draw(canvas, &fonts.regular, size, beside, Align::Centre, ink, up);
    }
}

/// Gives every empty place beside full ones the mean of those.
fn continued(grid: &[Option<f32>], columns: usize) -> Vec<Option<f32>> {
    let rows = grid.len() / columns;
    let mean_of_neighbours = |at: usize| {
        let (row, column) = (at / columns, at % columns);
        let neighbours = (row.saturating_sub(1)..rows.min(row + 2)).flat_map(|row| {
            (column.saturating_sub(1)..columns.min(column + 2)).map(move |column| row * columns + column)
        });
        let (sum, count) =
            neighbours.filter_map(|at| grid[at]).fold((0.0, 0), |(sum, count), value| (sum + value, count + 1));
        (count > 0).then(|| sum / count as f32)
    };
    (0..grid.len()).map(|at| grid[at].or_else(|| mean_of_neighbours(at))).collect()
}
