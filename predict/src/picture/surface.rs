//! A body in three dimensions: orthographic view from ahead, the side and above, lit over the viewer's shoulder.

use super::canvas::{Canvas, Colour, Rect};
use super::cloud::{Disc, discs};
use super::colour::Scale;
use super::raster::{Corner, Tile};
use super::{text, ticks};
use crate::mesh::Mesh;
use crate::vector::{Vec3, add, cross, dot, normalised, sub};

/// Where the viewer stands: the stream comes along x, from the left of the picture.
const VIEWER: Vec3<f32> = [-0.62, -0.85, 0.48];

/// Where the light comes from.
const LIGHT: Vec3<f32> = [-0.55, -0.5, 0.95];

/// Brightness of a surface that looks away from the light, and what full light adds.
const AMBIENT: f32 = 0.66;
const DIFFUSE: f32 = 0.44;

/// Share of the rectangle that stays free around the body.
const MARGIN: f32 = 0.06;

/// A body, or points without faces, and a field on it.
pub(crate) struct SurfacePanel<'a> {
    /// The body.
    pub mesh: &'a Mesh,
    /// One value per vertex.
    pub values: &'a [f32],
}

/// The directions of the picture in space.
struct View {
    right: Vec3<f32>,
    up: Vec3<f32>,
    away: Vec3<f32>,
}

impl View {
    fn new() -> Self {
        let away = normalised(VIEWER.map(|x| -x));
        let right = normalised(cross(away, [0.0, 0.0, 1.0]));
        Self { right, up: cross(right, away), away }
    }
}

impl SurfacePanel<'_> {
    /// Draws the body as large as it fits, with thin lines at the ticks of the scale.
    pub(crate) fn draw(&self, canvas: &mut Canvas, rect: Rect, scale: &Scale, fonts: &text::Fonts, ink: Colour) {
        let view = View::new();
        let flat: Vec<[f32; 2]> =
            self.mesh.points().iter().map(|&point| [dot(point, view.right), -dot(point, view.up)]).collect();
        let bounds = |axis: usize| {
            flat.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), point| {
                (low.min(point[axis]), high.max(point[axis]))
            })
        };
        let ((left, right), (top, bottom)) = (bounds(0), bounds(1));
        let room = 1.0 - 2.0 * MARGIN;
        let zoom = (room * rect.width / (right - left)).min(room * rect.height / (bottom - top));
        let centre = [(left + right) / 2.0, (top + bottom) / 2.0];
        let place = |point: [f32; 2]| {
            [rect.width / 2.0 + zoom * (point[0] - centre[0]), rect.height / 2.0 + zoom * (point[1] - centre[1])]
        };

        let normals = self.normals();
        let light = normalised(LIGHT);
        let brightness = |normal: Vec3<f32>| {
            // A mesh without an outside is lit from both sides.
            let facing = if dot(normal, view.away) > 0.0 { -1.0 } else { 1.0 };
            // Squared half cosine: darkens all the way round, without an edge where the light ends.
            AMBIENT + DIFFUSE * (0.5 + 0.5 * facing * dot(normal, light)).powi(2)
        };
        let corner = |vertex: u32| {
            let vertex = vertex as usize;
            Corner {
                at: place(flat[vertex]),
                depth: dot(self.mesh.points()[vertex], view.away),
                value: self.values[vertex],
                light: brightness(normals[vertex]),
            }
        };
        let mut tile = Tile::new(rect);
        for triangle in self.mesh.triangles() {
            tile.triangle(triangle.map(corner));
        }
        if self.mesh.faces().next().is_none() {
            match discs(self.mesh.points()) {
                Some(discs) => {
                    for (disc, &value) in discs.iter().zip(self.values) {
                        let light = brightness(disc.normal);
                        let corner = |point: Vec3<f32>, nearer: f32| Corner {
                            at: place([dot(point, view.right), -dot(point, view.up)]),
                            depth: dot(point, view.away) - nearer,
                            value,
                            light,
                        };
                        draw_disc(&mut tile, disc, corner);
                    }
                }
                None => self.draw_points(&mut tile, rect, corner),
            }
        }
        let levels = ticks::ticks(f64::from(scale.min), f64::from(scale.max), 12);
        let levels: Vec<_> = levels.into_iter().map(|level| level as f32).collect();
        tile.paint(canvas, |value| scale.colour(value), &levels);
        draw_axes(canvas, rect, &view, fonts, ink);
    }

    /// Points that make no surface are small squares, as large as the picture has room for.
    fn draw_points(&self, tile: &mut Tile, rect: Rect, corner: impl Fn(u32) -> Corner) {
        let points = self.mesh.points().len();
        let half = (0.4 * (rect.width * rect.height / points as f32).sqrt()).clamp(0.7, 4.0);
        for vertex in 0..points as u32 {
            let middle = Corner { light: 1.0, ..corner(vertex) };
            let at = |right: f32, down: f32| Corner { at: [middle.at[0] + right, middle.at[1] + down], ..middle };
            let [a, b, c, d] = [at(-half, -half), at(half, -half), at(half, half), at(-half, half)];
            tile.triangle([a, b, c]);
            tile.triangle([a, c, d]);
        }
    }

    /// The mean of the faces around every vertex, weighted with their areas.
    fn normals(&self) -> Vec<Vec3<f32>> {
        let points = self.mesh.points();
        let mut normals = vec![[0.0; 3]; points.len()];
        for corners in self.mesh.triangles() {
            let [a, b, c] = corners.map(|corner| points[corner as usize]);
            let normal = cross(sub(b, a), sub(c, a));
            for corner in corners {
                let sum = &mut normals[corner as usize];
                *sum = add(*sum, normal);
            }
        }
        normals.into_iter().map(normalised).collect()
    }
}

/// A disc with its middle raised towards the viewer.
fn draw_disc(tile: &mut Tile, disc: &Disc, corner: impl Fn(Vec3<f32>, f32) -> Corner) {
    let (middle, rim) = (corner(disc.centre, disc.height()), disc.rim().map(|point| corner(point, 0.0)));
    for (at, &first) in rim.iter().enumerate() {
        tile.triangle([middle, first, rim[(at + 1) % rim.len()]]);
    }
}

/// The directions of x, y and z in the lower left corner.
fn draw_axes(canvas: &mut Canvas, rect: Rect, view: &View, fonts: &text::Fonts, ink: Colour) {
    let length = 34.0;
    let origin = [rect.x + 40.0, rect.y + rect.height - 14.0];
    for (axis, name) in ["x", "y", "z"].iter().enumerate() {
        let along = |reach: f32| [origin[0] + reach * view.right[axis], origin[1] - reach * view.up[axis]];
        canvas.polyline(&[origin, along(length)], 1.6, ink, 0.8);
        let [x, y] = along(length + 11.0);
        text::draw(canvas, &fonts.regular, 17.0, [x, y + 5.0], text::Align::Centre, ink, name);
    }
}
