//! Points of one domain, and the files that hold them.

use anyhow::{Result, ensure};

use super::FieldSpec;
use super::codec::Codec;
use super::layout::FileLayout;
use super::npz::npz_bytes;
use super::ranges::Ranges;
use super::safetensors::{POSITIONS, safetensors_layout};
use super::state::PartState;
use super::vtk::{Shape, vtk_layout};

/// Points of one domain and the files that hold them.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Part {
    /// The name, for messages.
    pub(crate) name: String,
    /// Number of points.
    pub(crate) points: u64,
    /// The fields that are predicted there.
    pub(crate) fields: Vec<FieldSpec>,
    /// The files.
    pub(crate) files: Vec<FileLayout>,
    /// Bytes of what is made from them afterwards.
    later: u64,
}

impl Part {
    /// A part in two files: `<name>.vtp` or `<name>.vtu` with the mesh, packed if a codec is given, and
    /// `<name>.safetensors`; `npz` says whether the latter becomes an `.npz` file too.
    pub(crate) fn new<'a>(
        name: &str,
        points: u64,
        fields: Vec<FieldSpec>,
        shape: impl Into<Shape<'a>>,
        npz: bool,
        codec: Option<Codec>,
    ) -> Self {
        let files = vec![
            vtk_layout(name, points, &fields, &shape.into(), codec),
            safetensors_layout(&format!("{name}.safetensors"), points, &fields),
        ];
        let packed = files.iter().filter_map(|file| Some(file.packing()?.most_bytes(file.len()))).sum::<u64>();
        let later = packed + if npz { npz_bytes(points, &fields) } else { 0 };
        Self { name: name.to_string(), points, fields, files, later }
    }

    /// Bytes of all files.
    pub(crate) fn bytes(&self) -> u64 {
        self.files.iter().map(FileLayout::len).sum::<u64>() + self.later
    }

    /// Every array of a file needs a name of its own; the positions have one already.
    pub(super) fn check_names(&self) -> Result<()> {
        let mut names = vec![POSITIONS];
        for field in &self.fields {
            ensure!(!names.contains(&field.name.as_str()), "part '{}': two arrays named '{}'", self.name, field.name);
            names.push(&field.name);
        }
        Ok(())
    }

    pub(super) fn fresh_state(&self) -> PartState {
        let files = self.files.iter().map(|file| (file.name.clone(), file.len())).collect();
        PartState { name: self.name.clone(), points: self.points, done: Ranges::default(), files }
    }
}
