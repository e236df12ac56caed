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
    use std::io::Write;
    use std::path::Path;

    use zip::CompressionMethod;
    use zip::write::SimpleFileOptions;

    use crate::input::{Input, Table};

    /// A file of `torch.save` with one storage, of the numbers 0 to 5 in a type of two or four bytes.
    fn write(path: &Path, pickle: &[u8], storage: &[u8]) {
        let mut archive = zip::ZipWriter::new(std::fs::File::create(path).unwrap());
        let stored = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
        for (name, content) in [("a/data.pkl", pickle), ("a/data/0", storage)] {
            archive.start_file(name, stored).unwrap();
            archive.write_all(content).unwrap();
        }
        archive.finish().unwrap();
    }

    /// A tensor `[2, 3]` in a pickle.
    fn tensor(storage: &str) -> Vec<u8> {
        let head = b"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\n";
        let rest = b"\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x06tQK\x00K\x02K\x03\x86K\x03K\x01\x86\x89}tR";
        [&head[..], storage.as_bytes(), rest].concat()
    }

    #[test]
    fn a_single_tensor_and_dictionaries_of_them_are_points() {
        let folder = tempfile::tempdir().unwrap();
        let numbers = || (0..6).map(|x| x as f32);
        let storages: [(&str, Vec<u8>); 3] = [
            ("FloatStorage", numbers().flat_map(f32::to_le_bytes).collect()),
            ("DoubleStorage", numbers().flat_map(|x| f64::from(x).to_le_bytes()).collect()),
            ("BFloat16Storage", numbers().flat_map(|x| half::bf16::from_f32(x).to_le_bytes()).collect()),
        ];
        for extension in super::EXTENSIONS {
            let path = folder.path().join(format!("points.{extension}"));
            let file = path.to_str().unwrap();
            for (storage, bytes) in &storages {
                let tensor = tensor(storage);
                let name = |name: &str| [b"X".as_slice(), &(name.len() as u32).to_le_bytes(), name.as_bytes()].concat();
                let entry = |key: &str, value: &[u8]| [name(key), value.to_vec(), b"s".to_vec()].concat();
                let single = [b"\x80\x02", &tensor[..], b"."].concat();
                let one = [b"\x80\x02}", &entry("position", &tensor)[..], b"."].concat();
                let several = [b"\x80\x02}", &entry("a", &tensor)[..], &entry("b", &tensor), b"."].concat();
                let cases: [(&str, Vec<u8>, &str); 3] =
                    [("single", single, ""), ("one", one, ""), ("several", several, "#b")];
                for (case, pickle, name) in cases {
                    write(&path, &pickle, bytes);
                    let mut input = Input::open(&format!("{file}{name}"), None)
                        .unwrap_or_else(|error| panic!("{storage}, {case}: {error:#}"));
                    assert_eq!(input.read(0..2).unwrap(), [[0., 1., 2.], [3., 4., 5.]], "{storage}, {case}");
                }
            }
        }
    }

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
