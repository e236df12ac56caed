//! Points with faces of any number of corners, or none.

/// A surface mesh. Without faces it is a point cloud.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Mesh {
    points: Vec<[f32; 3]>,
    /// Vertices of all faces, one face after the other.
    corners: Vec<u32>,
    /// End of every face in `corners`.
    ends: Vec<usize>,
}

impl Mesh {
    /// A point cloud.
    pub fn new(points: Vec<[f32; 3]>) -> Self {
        Self { points, ..Self::default() }
    }

    /// Adds a face, given by its vertices in order around it.
    pub fn push_face(&mut self, vertices: &[u32]) {
        self.corners.extend_from_slice(vertices);
        self.ends.push(self.corners.len());
    }

    /// The vertices.
    pub fn points(&self) -> &[[f32; 3]] {
        &self.points
    }

    /// The vertices of every face.
    pub fn faces(&self) -> impl Iterator<Item = &[u32]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, &end)| &self.corners[start..end])
    }

    /// The faces cut into triangles.
    pub fn triangles(&self) -> impl Iterator<Item = [u32; 3]> {
        self.faces().flat_map(|face| (2..face.len()).map(|i| [face[0], face[i - 1], face[i]]))
    }

    /// Vertices of all faces, one face after the other.
    pub fn corners(&self) -> &[u32] {
        &self.corners
    }

    /// End of every face in [`corners`](Self::corners).
    pub fn ends(&self) -> &[usize] {
        &self.ends
    }
}
