//! Tensors in a file of `torch.save`, whatever they are for.

use std::path::Path;

use candle_core::Tensor;

use super::pytorch_file::PytorchFile;
use crate::models::ab_upt::error::AbUptError;

/// A file of `torch.save` that holds a tensor or a dictionary of tensors, as preprocessed points are stored.
#[derive(Debug)]
pub struct TensorFile {
    file: PytorchFile,
}

impl TensorFile {
    /// Opens a file. Tensors in dictionaries of the dictionary are left out.
    ///
    /// # Errors
    /// A file that cannot be read, is truncated or corrupt, or holds no tensors, or one of a dtype that is not read.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, AbUptError> {
        Ok(Self { file: PytorchFile::plain(path.as_ref())? })
    }

    /// The names of all tensors, sorted. That of a single tensor is empty.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.file.tensors().keys().map(String::as_str)
    }

    /// Reads a tensor.
    ///
    /// # Errors
    /// There is none of this name, or its numbers are damaged.
    pub fn read(&self, name: &str) -> Result<Tensor, AbUptError> {
        self.file.tensor(name)
    }
}
