//! Files are made here, in every way in which VTK writes them, and damaged in many.

mod damage;
mod encodings;
mod meshes;
pub(crate) mod writer;

use std::path::Path;

use super::open;
use crate::input::grid::Grid;

/// Opens bytes as a file.
fn open_bytes(name: &str, bytes: &[u8]) -> anyhow::Result<Grid> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join(name);
    std::fs::write(&path, bytes)?;
    open(Path::new(&path))
}
