//! A tensor in a file of `torch.save`, which is read into memory.

use std::ops::Range;

use anyhow::{Context, Result, bail, ensure};
use candle_mixed_attention::candle_core::DType;
use candle_mixed_attention::models::ab_upt::TensorFile;

use super::table::{Rows, shape_of_rows};

/// How these files are called.
pub(super) const EXTENSIONS: [&str; 3] = ["pt", "th", "pth"];

/// A tensor, row after row.
pub(super) struct TorchRows {
    numbers: Vec<f64>,
    width: usize,
}

impl TorchRows {
    /// Reads a tensor: the named one, or else the only one.
    ///
    /// # Errors
    /// A file that is damaged, or has no such tensor; one that is not of a floating type.
    pub(super) fn new(path: &str, name: Option<&str>) -> Result<Self> {
        let file = TensorFile::open(path)?;
        let names: Vec<&str> = file.names().collect();
        let name = match (name, &names[..]) {
            (Some(name), _) if names.contains(&name) => name,
            (Some(name), _) => bail!("there is no tensor '{name}'; it holds {names:?}"),
            (None, [only]) => only,
            (None, _) => bail!("expected one tensor, or a name as in 'points.pt#name'; it holds {names:?}"),
        };
        let tensor = file.read(name)?;
        let dtype = tensor.dtype();
        ensure!(dtype.is_float(), "tensor '{name}' must be of a floating type, got {}", dtype.as_str());
        let shape: Vec<u64> = tensor.dims().iter().map(|&len| len as u64).collect();
        let (_, width) = shape_of_rows(&shape).with_context(|| format!("tensor '{name}'"))?;
        Ok(Self { numbers: tensor.flatten_all()?.to_dtype(DType::F64)?.to_vec1()?, width })
    }
}

impl Rows for TorchRows {
    fn rows(&self) -> u64 {
        (self.numbers.len() / self.width) as u64
    }

    fn width(&self) -> usize {
        self.width
    }

    fn read(&mut self, rows: Range<u64>) -> Result<Vec<f64>> {
        let (start, end) = (rows.start as usize * self.width, rows.end as usize * self.width);
        Ok(self.numbers.get(start..end).context("ends early")?.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use crate::input::Table;

    #[test]
    fn tensors_are_picked_by_their_names() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/torch_files/bare.pt");
        let mut table = Table::open(file, Some("domain_biases.surface.mlp.0.weight")).unwrap();
        assert_eq!((table.rows(), table.width()), (6, 6));
        let all = table.read(0..6).unwrap();
        assert_eq!(table.read(2..4).unwrap(), all[12..24]);
        for (name, expected) in [(None, "expected one tensor, or a name"), (Some("none"), "there is no tensor 'none'")]
        {
            let message = format!("{:#}", Table::open(file, name).err().unwrap());
            assert!(message.contains(expected), "{message}");
        }
    }
}
