//! Which reader opens an array.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use candle_mixed_attention::models::open_regular;

use super::sites::GridArray;
use super::table::{Rows, Table};
use super::{has_extension, npy, npz, open_grid, safetensors, torch};

impl Table {
    /// Opens an array by the extension of its file: that of a `.npy` file, or one of several of the others, by its name
    /// or as the only one; of a mesh, one at its cells or points.
    ///
    /// # Errors
    /// A file that cannot be read or has no such array.
    pub(crate) fn open(file: &str, array: Option<&str>) -> Result<Self> {
        let open = || open_regular(file.as_ref()).with_context(|| format!("cannot open {file}"));
        let named = || file.to_string();
        if has_extension(file, &["safetensors"]) {
            return Ok(Self::boxed(file, safetensors::TensorRows::new(open()?, array).with_context(named)?));
        }
        if has_extension(file, &["npy"]) {
            ensure!(array.is_none(), "{file}: a .npy file holds one array, without a name");
            return Ok(Self::boxed(file, npy::NpyRows::new(open()?).with_context(named)?));
        }
        if has_extension(file, &["npz"]) {
            return Ok(Self::boxed(file, npz::open(open()?, array).with_context(named)?));
        }
        if has_extension(file, &torch::EXTENSIONS) {
            return Ok(Self::boxed(file, torch::TorchRows::new(file, array).with_context(named)?));
        }
        if let Some(grid) = open_grid(Path::new(file))? {
            let array = array.with_context(|| format!("{file}: which of its arrays? {file}#NAME says it"))?;
            return Ok(Self::boxed(file, GridArray::new(grid, array).with_context(named)?));
        }
        ensure!(!has_extension(file, &["stl", "obj", "ply"]), "{file}: holds no arrays");
        bail!("{file}: expected a file named *.{}", super::EXTENSIONS.join(", *."));
    }

    fn boxed(name: &str, source: impl Rows + 'static) -> Self {
        Self::new(name, Box::new(source))
    }
}
