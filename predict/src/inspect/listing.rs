//! Names, shapes and dtypes of all tensors, and how many numbers they are.

use std::collections::BTreeMap;
use std::fmt;

use candle_mixed_attention::models::ab_upt::{Checkpoint, StoredTensor};

use super::units::{bytes, grouped};

/// The tensors of a checkpoint, in the order of their names in the network.
pub struct Listing<'a> {
    tensors: &'a BTreeMap<String, StoredTensor>,
}

impl<'a> Listing<'a> {
    pub fn new(checkpoint: &'a Checkpoint) -> Self {
        Self { tensors: checkpoint.tensors() }
    }

    /// Numbers that training changes.
    pub fn parameters(&self) -> u64 {
        self.tensors.iter().filter(|(name, _)| !is_buffer(name)).map(|(_, tensor)| count(tensor)).sum()
    }

    /// Bytes of all tensors in the file.
    pub fn bytes(&self) -> u64 {
        self.tensors.values().map(|tensor| count(tensor) * tensor.dtype.size_in_bytes() as u64).sum()
    }
}

/// Numbers in a tensor; its data is in a file, so that they cannot overflow.
pub fn count(tensor: &StoredTensor) -> u64 {
    tensor.shape.iter().map(|&len| len as u64).product()
}

/// Whether a tensor holds constants: the wave numbers of an embedding and its padding.
fn is_buffer(name: &str) -> bool {
    matches!(name.rsplit('.').next(), Some("omega" | "padding_tensor"))
}

impl fmt::Display for Listing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shapes: Vec<_> = self.tensors.values().map(|tensor| format!("{:?}", tensor.shape)).collect();
        let name_width = self.tensors.keys().map(String::len).max().unwrap_or(0);
        let shape_width = shapes.iter().map(String::len).max().unwrap_or(0);
        for ((name, tensor), shape) in self.tensors.iter().zip(&shapes) {
            let dtype = tensor.dtype.as_str();
            let stored = match &tensor.stored_name {
                stored if stored == name => String::new(),
                stored => format!("  stored as {stored}"),
            };
            let line = format!("{name:name_width$}  {shape:shape_width$}  {dtype}{stored}");
            writeln!(f, "{}", line.trim_end())?;
        }
        let mut dtypes: Vec<_> = self.tensors.values().map(|tensor| tensor.dtype.as_str()).collect();
        dtypes.sort_unstable();
        dtypes.dedup();
        let (tensors, parameters) = (grouped(self.tensors.len() as u64), grouped(self.parameters()));
        writeln!(f, "{tensors} tensors, {parameters} parameters, {} ({})", bytes(self.bytes()), dtypes.join(", "))
    }
}
