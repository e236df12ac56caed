//! A body in three dimensions: orthographic view from ahead, the side and above, lit over the viewer's shoulder.

use super::canvas::{Canvas, Colour, Rect};
use super::cloud::{Disc, discs};
use super::colour::Scale;
use super::raster::{Corner, Tile};
use super::{text, ticks};
use crate::mesh::{Mesh, fan};
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
    /// The field.
    pub values: OnBody<'a>,
}

/// One value for each vertex of a body, or for each of its faces, which is then of one colour.
#[derive(Debug, Clone, Copy)]
pub(crate) enum OnBody<'a> {
    Vertices(&'a [f32]),
    Faces(&'a [f32]),
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
        let corner = |vertex: u32, value: f32| {
            let vertex = vertex as usize;
            Corner {
                at: place(flat[vertex]),
                depth: dot(self.mesh.points()[vertex], view.away),
                value,
                light: brightness(normals[vertex]),
            }
        };
        let mut tile = Tile::new(rect);
        for (at, face) in self.mesh.faces().enumerate() {
            for triangle in fan(face) {
                tile.triangle(triangle.map(|vertex| match self.values {
                    OnBody::Vertices(values) => corner(vertex, values[vertex as usize]),
                    OnBody::Faces(values) => corner(vertex, values[at]),
                }));
            }
        }
        if let (None, OnBody::Vertices(values)) = (self.mesh.faces().next(), self.values) {
            match discs(self.mesh.points()) {
                Some(discs) => {
                    for (disc, &value) in discs.iter().zip(values) {
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
                None => self.draw_points(&mut tile, rect, |vertex| corner(vertex, values[vertex as usize])),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::picture::Colormap;

    #[test]
    fn a_face_is_of_one_colour_and_covers_its_place() {
        let fonts = text::Fonts::embedded().unwrap();
        let draw = |mesh: &Mesh, values: OnBody| {
            let mut canvas = Canvas::new(200, 150, [1.0; 3]);
            let scale = Scale { min: 0.0, max: 1.0, map: Colormap::Viridis };
            let rect = Rect { x: 0.0, y: 0.0, width: 200.0, height: 150.0 };
            SurfacePanel { mesh, values }.draw(&mut canvas, rect, &scale, &fonts, [0.0; 3]);
            canvas.to_png().unwrap()
        };
        // A wall across the stream in two halves, with and without vertices in common.
        let wall = [[0., -1., 0.], [0., 0., 0.], [0., 1., 0.], [0., 1., 1.], [0., 0., 1.], [0., -1., 1.]];
        let mut joined = Mesh::new(wall.to_vec());
        let mut apart = Mesh::new([0, 1, 4, 5, 1, 2, 3, 4].map(|corner| wall[corner]).to_vec());
        [[0, 1, 4, 5], [1, 2, 3, 4]].iter().for_each(|face| joined.push_face(face));
        [[0, 1, 2, 3], [4, 5, 6, 7]].iter().for_each(|face| apart.push_face(face));
        let by_vertices = draw(&apart, OnBody::Vertices(&[0.2, 0.2, 0.2, 0.2, 0.9, 0.9, 0.9, 0.9]));
        assert_eq!(draw(&joined, OnBody::Faces(&[0.2, 0.9])), by_vertices);
        assert_ne!(draw(&joined, OnBody::Faces(&[0.9, 0.2])), by_vertices);
        assert_eq!(draw(&joined, OnBody::Faces(&[0.5; 2])), draw(&joined, OnBody::Vertices(&[0.5; 6])));
    }
}
