//! Points with faces of any number of corners, or none.

use std::collections::HashMap;

use anyhow::{Result, ensure};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::vector::Vec3;

/// A surface mesh. Without faces it is a point cloud.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Mesh {
    points: Vec<[f32; 3]>,
    /// Vertices of all faces, one face after the other.
    corners: Vec<u32>,
    /// End of every face in `corners`.
    ends: Vec<usize>,
    /// Names of groups of faces, such as the solids of a file.
    groups: Vec<String>,
    /// Their places there.
    group_numbers: HashMap<String, u32>,
    /// The group of every face, where there are groups.
    face_groups: Vec<u32>,
    /// The group of faces that are added.
    group: Option<u32>,
}

impl Mesh {
    /// A point cloud.
    pub(crate) fn new(points: Vec<[f32; 3]>) -> Self {
        Self { points, ..Self::default() }
    }

    /// Adds a face, given by its vertices in order around it.
    pub(crate) fn push_face(&mut self, vertices: &[u32]) {
        self.corners.extend_from_slice(vertices);
        self.ends.push(self.corners.len());
        if let Some(group) = self.group {
            self.face_groups.push(group);
        }
    }

    /// Faces that are added from here on belong to a group; groups of one name are one.
    pub(crate) fn begin_group(&mut self, name: String) {
        let next = self.groups.len() as u32;
        let group = *self.group_numbers.entry(name).or_insert_with_key(|name| {
            self.groups.push(name.clone());
            next
        });
        self.group = Some(group);
    }

    /// Names of the groups of faces; none where faces are not in groups.
    pub(crate) fn groups(&self) -> &[String] {
        &self.groups
    }

    /// The group of every face, by its place in [`groups`](Self::groups); empty where there are no groups.
    pub(crate) fn face_groups(&self) -> &[u32] {
        &self.face_groups
    }

    /// Multiplies all coordinates.
    pub(crate) fn scale(&mut self, by: f64) {
        self.points.as_flattened_mut().iter_mut().for_each(|x| *x = (f64::from(*x) * by) as f32);
    }

    /// Puts faces into groups, which have names.
    pub(crate) fn set_groups(&mut self, names: Vec<String>, of_faces: Vec<u32>) {
        (self.groups, self.face_groups, self.group) = (names, of_faces, None);
    }

    /// The vertices.
    pub(crate) fn points(&self) -> &[[f32; 3]] {
        &self.points
    }

    /// The vertices of every face.
    pub(crate) fn faces(&self) -> impl Iterator<Item = &[u32]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, &end)| &self.corners[start..end])
    }

    /// The faces cut into triangles.
    pub(crate) fn triangles(&self) -> impl Iterator<Item = [u32; 3]> {
        self.faces().flat_map(fan)
    }

    /// Vertices of all faces, one face after the other.
    pub(crate) fn corners(&self) -> &[u32] {
        &self.corners
    }

    /// End of every face in [`corners`](Self::corners).
    pub(crate) fn ends(&self) -> &[usize] {
        &self.ends
    }

    /// `count` random points of the faces, spread evenly over their area.
    ///
    /// # Errors
    /// The faces have no area, or there are none.
    pub(crate) fn sample(&self, count: usize, seed: u64) -> Result<Vec<[f32; 3]>> {
        let mut random = StdRng::seed_from_u64(seed);
        let sampler = AreaSampler::new(self)?;
        Ok((0..count).map(|_| sampler.draw(&mut random).0.map(|x| x as f32)).collect())
    }

    fn double_area(&self, corners: [u32; 3]) -> f64 {
        let [a, b, c] = corners.map(|corner| self.points[corner as usize].map(f64::from));
        let (u, v): ([f64; 3], [f64; 3]) = (std::array::from_fn(|i| b[i] - a[i]), std::array::from_fn(|i| c[i] - a[i]));
        let normal = [u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0]];
        normal.iter().map(|x| x * x).sum::<f64>().sqrt()
    }
}

/// The triangles of a face.
pub(crate) fn fan(face: &[u32]) -> impl Iterator<Item = [u32; 3]> {
    (2..face.len()).map(|i| [face[0], face[i - 1], face[i]])
}

/// Draws points of the faces of a mesh, evenly over their area.
pub(crate) struct AreaSampler<'a> {
    mesh: &'a Mesh,
    triangles: Vec<[u32; 3]>,
    /// Area up to the end of each triangle, twice over.
    ends: Vec<f64>,
}

impl<'a> AreaSampler<'a> {
    /// # Errors
    /// The faces have no area, or there are none.
    pub(crate) fn new(mesh: &'a Mesh) -> Result<Self> {
        let triangles: Vec<_> = mesh.triangles().collect();
        let mut area = 0.0;
        let mut ends = Vec::with_capacity(triangles.len());
        for corners in &triangles {
            area += mesh.double_area(*corners);
            ends.push(area);
        }
        ensure!(area > 0.0 && area.is_finite(), "the mesh has no area to draw points from");
        Ok(Self { mesh, triangles, ends })
    }

    /// A point, and the corners of the triangle that it lies in.
    pub(crate) fn draw(&self, random: &mut StdRng) -> (Vec3, [Vec3; 3]) {
        let (triangle, point) = self.draw_from(random);
        (point, self.corners(triangle))
    }

    /// A point, and the number of the triangle that it lies in.
    pub(crate) fn draw_from(&self, random: &mut StdRng) -> (usize, Vec3) {
        let at = random.random::<f64>() * self.ends[self.ends.len() - 1];
        let triangle = self.ends.partition_point(|&end| end <= at).min(self.triangles.len() - 1);
        let [a, b, c] = self.corners(triangle);
        // The square root makes the density even: without it points gather at the first corner.
        let (reach, turn) = (random.random::<f64>().sqrt(), random.random::<f64>());
        let (second, third) = (reach * (1.0 - turn), reach * turn);
        (triangle, std::array::from_fn(|i| a[i] + second * (b[i] - a[i]) + third * (c[i] - a[i])))
    }

    fn corners(&self, triangle: usize) -> [Vec3; 3] {
        self.triangles[triangle].map(|corner| self.mesh.points()[corner as usize].map(f64::from))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A unit square in two triangles, beside a rectangle three times as large.
    fn rectangles() -> Mesh {
        let mut mesh =
            Mesh::new(vec![[0., 0., 5.], [1., 0., 5.], [1., 1., 5.], [0., 1., 5.], [4., 0., 5.], [4., 1., 5.]]);
        mesh.push_face(&[0, 1, 2]);
        mesh.push_face(&[0, 2, 3]);
        mesh.push_face(&[1, 4, 5, 2]);
        mesh
    }

    #[test]
    fn groups_are_found_by_their_names() {
        let mut mesh = rectangles();
        let start = std::time::Instant::now();
        // Among as many names, a search from the first to the last would take minutes.
        for name in (0..300_000).map(|at| at % 150_000) {
            mesh.begin_group(name.to_string());
        }
        assert_eq!((mesh.groups().len(), mesh.groups()[149_999].as_str()), (150_000, "149999"));
        assert!(start.elapsed().as_secs() < 10, "{:?}", start.elapsed());
    }

    #[test]
    fn points_are_drawn_evenly_over_the_area() {
        let points = rectangles().sample(40_000, 3).unwrap();
        assert!(points.iter().all(|[x, y, z]| (0.0..=4.0).contains(x) && (0.0..=1.0).contains(y) && *z == 5.0));
        let share =
            |inside: fn(&[f32; 3]) -> bool| points.iter().filter(|point| inside(point)).count() as f64 / 40_000.0;
        assert!((share(|point| point[0] < 1.0) - 0.25).abs() < 0.01);
        assert!((share(|point| point[0] < 0.5 && point[1] < 0.5) - 0.0625).abs() < 0.01);
        assert!((share(|point| point[0] > 2.5 && point[1] > 0.5) - 0.1875).abs() < 0.01);
    }

    #[test]
    fn a_seed_gives_the_same_points_and_no_area_gives_none() {
        assert_eq!(rectangles().sample(9, 1).unwrap(), rectangles().sample(9, 1).unwrap());
        assert_ne!(rectangles().sample(9, 1).unwrap(), rectangles().sample(9, 2).unwrap());
        let mut line = Mesh::new(vec![[0.0; 3], [1.0; 3], [2.0; 3]]);
        assert!(line.sample(1, 1).is_err());
        line.push_face(&[0, 1, 2]);
        assert!(line.sample(1, 1).unwrap_err().to_string().contains("no area"));
    }
}
