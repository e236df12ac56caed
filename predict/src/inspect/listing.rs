//! Names, shapes and dtypes of all tensors, and how many numbers they are.

use std::collections::BTreeMap;
use std::fmt;

use candle_mixed_attention::models::ab_upt::{Checkpoint, StoredTensor};

use super::units::{bytes, grouped};

/// Axes of a tensor that are listed.
const MOST_AXES: usize = 8;

/// Letters that are lined up; longer names and shapes push what follows them to the right.
const WIDEST_COLUMN: usize = 100;

/// The tensors of a checkpoint, in the order of their names in the network.
pub(super) struct Listing<'a> {
    tensors: &'a BTreeMap<String, StoredTensor>,
}

impl<'a> Listing<'a> {
    pub(super) fn new(checkpoint: &'a Checkpoint) -> Self {
        Self { tensors: checkpoint.tensors() }
    }

    /// Numbers that training changes.
    pub(super) fn parameters(&self) -> u64 {
        self.tensors
            .iter()
            .filter(|(name, _)| !is_buffer(name))
            .map(|(_, tensor)| count(tensor))
            .fold(0, u64::saturating_add)
    }

    /// Bytes of all tensors in the file.
    pub(super) fn bytes(&self) -> u64 {
        let bytes = |tensor: &StoredTensor| count(tensor).saturating_mul(tensor.dtype.size_in_bytes() as u64);
        self.tensors.values().map(bytes).fold(0, u64::saturating_add)
    }
}

/// Numbers in a tensor, or as many as can be counted.
pub(super) fn count(tensor: &StoredTensor) -> u64 {
    tensor.shape.iter().map(|&len| len as u64).fold(1, u64::saturating_mul)
}

/// The shape of a tensor, as far as people read it.
fn shape_of(tensor: &StoredTensor) -> String {
    match tensor.shape.get(..MOST_AXES) {
        Some(first) if tensor.shape.len() > MOST_AXES => format!("{first:?} and more, {} axes", tensor.shape.len()),
        _ => format!("{:?}", tensor.shape),
    }
}

/// The width of a column: that of its longest entry, unless it would push the others out of sight.
fn column<'a>(entries: impl Iterator<Item = &'a String>) -> usize {
    entries.map(String::len).max().unwrap_or(0).min(WIDEST_COLUMN)
}

/// Whether a tensor holds constants: the wave numbers of an embedding and its padding.
fn is_buffer(name: &str) -> bool {
    matches!(name.rsplit('.').next(), Some("omega" | "padding_tensor"))
}

impl fmt::Display for Listing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shapes: Vec<_> = self.tensors.values().map(shape_of).collect();
        let (name_width, shape_width) = (column(self.tensors.keys()), column(shapes.iter()));
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
