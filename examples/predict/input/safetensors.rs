//! Points in a `.safetensors` file, `[points, 3]` in f32 or f64.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use super::{PointSource, points_of_shape};

/// The format's own limit for a header.
const LONGEST_HEADER: u64 = 100_000_000;

/// One tensor of a file, read where it lies.
pub struct TensorPoints {
    file: File,
    data_start: u64,
    double: bool,
    points: u64,
}

#[derive(Deserialize)]
struct Entry {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: [u64; 2],
}

impl TensorPoints {
    /// Reads the header and picks the tensor: the named one, or else the only one.
    pub fn new(mut file: File, name: Option<&str>) -> Result<Self> {
        let length = file.metadata()?.len();
        let mut size = [0; 8];
        file.read_exact(&mut size).context("not a safetensors file: shorter than its header")?;
        let size = u64::from_le_bytes(size);
        ensure!(
            size <= LONGEST_HEADER && size + 8 <= length,
            "not a safetensors file: its header would be {size} bytes"
        );
        let mut header = vec![0; size as usize];
        file.read_exact(&mut header)?;
        let mut entries: BTreeMap<String, serde_json::Value> =
            serde_json::from_slice(&header).context("not a safetensors file: its header is not JSON")?;
        entries.remove("__metadata__");

        let names = || entries.keys().cloned().collect::<Vec<_>>();
        let name = match (name, entries.len()) {
            (Some(name), _) => name.to_string(),
            (None, 1) => names().remove(0),
            (None, _) => {
                bail!("expected one tensor, or a name as in 'points.safetensors#name'; it holds {:?}", names())
            }
        };
        let Some(entry) = entries.get(&name) else { bail!("there is no tensor '{name}'; it holds {:?}", names()) };
        let entry = Entry::deserialize(entry).with_context(|| format!("tensor '{name}' is described wrongly"))?;
        let points = points_of_shape(&entry.shape).with_context(|| format!("tensor '{name}'"))?;
        let double = match entry.dtype.as_str() {
            "F32" => false,
            "F64" => true,
            other => bail!("tensor '{name}': positions must be F32 or F64, got {other}"),
        };
        let [start, end] = entry.data_offsets;
        let expected = points.checked_mul(if double { 24 } else { 12 });
        ensure!(
            end.checked_sub(start) == expected,
            "tensor '{name}': offsets {start}..{end} do not hold {points} points"
        );
        let data_start = 8 + size + start;
        let needed = 8 + size + end;
        ensure!(length >= needed, "truncated: tensor '{name}' ends at byte {needed}, the file at {length}");
        Ok(Self { file, data_start, double, points })
    }
}

impl PointSource for TensorPoints {
    fn len(&self) -> u64 {
        self.points
    }

    fn read_coordinates(&mut self, points: Range<u64>) -> Result<Vec<f64>> {
        let width = if self.double { 24 } else { 12 };
        self.file.seek(SeekFrom::Start(self.data_start + points.start * width))?;
        let mut bytes = vec![0; ((points.end - points.start) * width) as usize];
        self.file.read_exact(&mut bytes)?;
        Ok(match self.double {
            false => bytes.as_chunks().0.iter().map(|&value| f64::from(f32::from_le_bytes(value))).collect(),
            true => bytes.as_chunks().0.iter().map(|&value| f64::from_le_bytes(value)).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use candle_mixed_attention::candle_core::{DType, Device, Tensor, safetensors};

    use crate::input::Input;

    fn refusal(argument: &str) -> String {
        match Input::open(argument) {
            Ok(mut input) => format!("{:#}", input.read(0..input.len()).unwrap_err()),
            Err(error) => format!("{error:#}"),
        }
    }

    fn save(path: &Path, tensors: &[(&str, Tensor)]) {
        safetensors::save(&tensors.iter().cloned().collect::<std::collections::HashMap<_, _>>(), path).unwrap();
    }

    #[test]
    fn any_range_is_read_in_both_precisions() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("points.safetensors");
        let points = Tensor::arange(0f32, 30., &Device::Cpu).unwrap().reshape((10, 3)).unwrap();
        save(&path, &[("narrow", points.clone()), ("wide", points.to_dtype(DType::F64).unwrap())]);
        for name in ["narrow", "wide"] {
            let mut input = Input::open(&format!("{}#{name}", path.display())).unwrap();
            assert_eq!(input.len(), 10);
            assert_eq!(input.read(4..6).unwrap(), [[12.0, 13.0, 14.0], [15.0, 16.0, 17.0]]);
        }
    }

    #[test]
    fn what_cannot_be_points_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let zeros = |shape: &[usize], dtype| Tensor::zeros(shape, dtype, &Device::Cpu).unwrap();
        let path = folder.path().join("several.safetensors");
        let tensors = [
            ("flat", zeros(&[6], DType::F32)),
            ("whole", zeros(&[2, 3], DType::I64)),
            ("none", zeros(&[0, 3], DType::F32)),
            ("nan", Tensor::new(&[[0f32, 1., f32::NAN]], &Device::Cpu).unwrap()),
        ];
        save(&path, &tensors);
        let several = path.display().to_string();
        let bytes = std::fs::read(&path).unwrap();
        let broken = |name: &str, bytes: &[u8]| {
            let path = folder.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            path.display().to_string()
        };
        let cases = [
            (several.clone(), "expected one tensor, or a name"),
            (format!("{several}#flat"), "must have shape [points, 3], got [6]"),
            (format!("{several}#whole"), "must be F32 or F64, got I64"),
            (format!("{several}#none"), "holds no points"),
            (format!("{several}#nan"), "point 0 has z = NaN"),
            (format!("{several}#missing"), "no tensor 'missing'"),
            (format!("{}#whole", broken("cut.safetensors", &bytes[..bytes.len() - 80])), "F32 or F64"),
            (format!("{}#nan", broken("truncated.safetensors", &bytes[..bytes.len() - 70])), "truncated"),
            (broken("noise.safetensors", b"no tensors here"), "not a safetensors file"),
            (broken("short.safetensors", b"xy"), "not a safetensors file"),
        ];
        for (argument, expected) in cases {
            let message = refusal(&argument);
            assert!(message.contains(expected), "{argument}: {message}");
        }
    }
}
