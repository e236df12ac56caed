//! Faces that bring their own corners, joined to a mesh.

use std::collections::HashMap;

use anyhow::{Context, Result, ensure};

use crate::mesh::Mesh;

/// Merges equal vertices, numbered as they first appear.
#[derive(Default)]
pub(super) struct Welder {
    places: HashMap<[u32; 3], u32>,
    points: Vec<[f32; 3]>,
    /// Faces with the group that each belongs to.
    faces: Vec<(Option<usize>, Vec<u32>)>,
    groups: Vec<String>,
}

impl Welder {
    /// Faces that are added from here on belong to a group.
    pub(super) fn begin_group(&mut self, name: String) {
        self.groups.push(name);
    }

    /// Adds a face, given by its corners in order around it.
    ///
    /// # Errors
    /// A corner that is not finite; more vertices than a mesh counts.
    pub(super) fn add(&mut self, corners: &[[f32; 3]]) -> Result<()> {
        let number = self.faces.len();
        let finite = corners.as_flattened().iter().all(|x| x.is_finite());
        ensure!(finite, "face {number} has vertices {corners:?}; they must be finite");
        let mut face = Vec::with_capacity(corners.len());
        for corner in corners {
            // The two zeros are one number.
            let key = corner.map(|x| (x + 0.0).to_bits());
            let next = u32::try_from(self.points.len()).context("more vertices than 32 bits count")?;
            face.push(*self.places.entry(key).or_insert_with(|| {
                self.points.push(*corner);
                next
            }));
        }
        self.faces.push((self.groups.len().checked_sub(1), face));
        Ok(())
    }

    /// The mesh.
    pub(super) fn finish(self) -> Mesh {
        let mut mesh = Mesh::new(self.points);
        let mut current = None;
        for (group, face) in self.faces {
            if let Some(number) = group.filter(|_| group != current) {
                mesh.begin_group(self.groups[number].clone());
                current = group;
            }
            mesh.push_face(&face);
        }
        mesh
    }
}
