//! A tensor in a `.safetensors` file, `[points, components]` in bf16, f16, f32 or f64.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;

use anyhow::{Context, Result, bail, ensure};
use candle_mixed_attention::models::{UniqueKeys, open_regular};
use half::{bf16, f16};
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};

use super::table::{Rows, shape_of_rows};

/// The format's own limit for a header.
const LONGEST_HEADER: u64 = 100_000_000;

/// What in a header is no tensor.
const METADATA: &str = "__metadata__";

/// One tensor of a file, read where it lies.
pub(super) struct TensorRows {
    file: File,
    data_start: u64,
    element: Element,
    rows: u64,
    width: usize,
}

/// What the tensor holds.
#[derive(Clone, Copy)]
enum Element {
    F16,
    BF16,
    F32,
    F64,
}

impl Element {
    fn bytes(self) -> u64 {
        match self {
            Self::F16 | Self::BF16 => 2,
            Self::F32 => 4,
            Self::F64 => 8,
        }
    }
}

#[derive(serde::Deserialize)]
struct Entry {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: [u64; 2],
}

/// The entries of a header by name, none of which stands there twice. Read as they are, because a header may have 100 MB.
struct Entries(BTreeMap<String, Entry>);

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(EntriesVisitor)
    }
}

struct EntriesVisitor;

impl<'de> Visitor<'de> for EntriesVisitor {
    type Value = Entries;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries, A::Error> {
        let (mut entries, mut has_metadata) = (BTreeMap::new(), false);
        while let Some(name) = map.next_key::<String>()? {
            let is_metadata = name == METADATA;
            let twice = if is_metadata { has_metadata } else { entries.contains_key(&name) };
            if twice {
                return Err(A::Error::custom(format_args!("'{name}' stands there twice")));
            }
            if is_metadata {
                map.next_value::<UniqueKeys>()?;
                has_metadata = true;
            } else {
                let entry = map.next_value();
                let wrong = |error| A::Error::custom(format_args!("tensor '{name}' is described wrongly: {error}"));
                let entry = entry.map_err(wrong)?;
                entries.insert(name, entry);
            }
        }
        Ok(Entries(entries))
    }
}

/// What a file says about itself.
struct Header {
    entries: BTreeMap<String, Entry>,
    /// Where the data begins in the file.
    data_start: u64,
}

impl Header {
    fn read(file: &mut File) -> Result<Self> {
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
        let Entries(entries) =
            serde_json::from_slice(&header).context("not a safetensors file: its header cannot be read")?;
        let (data_start, mut last) = (8 + size, 0);
        let present = length - data_start;
        for (name, entry) in &entries {
            let [_, end] = entry.data_offsets;
            ensure!(
                present >= end,
                "truncated: tensor '{name}' ends at byte {end} of the data, which ends at {present}"
            );
            last = last.max(end);
        }
        ensure!(present == last, "{} bytes follow the last tensor", present - last);
        Ok(Self { entries, data_start })
    }
}

/// The names of all tensors of a file.
pub(crate) fn tensor_names(path: &str) -> Result<Vec<String>> {
    let mut file = open_regular(path.as_ref()).with_context(|| format!("cannot open {path}"))?;
    let header = Header::read(&mut file).with_context(|| path.to_string())?;
    Ok(header.entries.into_keys().collect())
}

impl TensorRows {
    /// Reads the header and picks the tensor: the named one, or else the only one.
    pub(super) fn new(mut file: File, name: Option<&str>) -> Result<Self> {
        let Header { entries, data_start } = Header::read(&mut file)?;
        let names = || entries.keys().cloned().collect::<Vec<_>>();
        let name = match (name, entries.len()) {
            (Some(name), _) => name.to_string(),
            (None, 1) => names().remove(0),
            (None, _) => {
                bail!("expected one tensor, or a name as in 'points.safetensors#name'; it holds {:?}", names())
            }
        };
        let Some(entry) = entries.get(&name) else { bail!("there is no tensor '{name}'; it holds {:?}", names()) };
        let (rows, width) = shape_of_rows(&entry.shape).with_context(|| format!("tensor '{name}'"))?;
        let element = match entry.dtype.as_str() {
            "F16" => Element::F16,
            "BF16" => Element::BF16,
            "F32" => Element::F32,
            "F64" => Element::F64,
            other => bail!("tensor '{name}' must be F16, BF16, F32 or F64, got {other}"),
        };
        let [start, end] = entry.data_offsets;
        let expected = (width as u64).checked_mul(element.bytes()).and_then(|row| rows.checked_mul(row));
        ensure!(
            end.checked_sub(start) == expected,
            "tensor '{name}': offsets {start}..{end} do not hold {rows} rows of {width} numbers"
        );
        Ok(Self { file, data_start: data_start + start, element, rows, width })
    }
}

impl Rows for TensorRows {
    fn rows(&self) -> u64 {
        self.rows
    }

    fn width(&self) -> usize {
        self.width
    }

    fn read(&mut self, rows: Range<u64>) -> Result<Vec<f64>> {
        let row = self.width as u64 * self.element.bytes();
        self.file.seek(SeekFrom::Start(self.data_start + rows.start * row))?;
        let mut bytes = vec![0; ((rows.end - rows.start) * row) as usize];
        self.file.read_exact(&mut bytes)?;
        Ok(match self.element {
            Element::F16 => bytes.as_chunks().0.iter().map(|&value| f16::from_le_bytes(value).to_f64()).collect(),
            Element::BF16 => bytes.as_chunks().0.iter().map(|&value| bf16::from_le_bytes(value).to_f64()).collect(),
            Element::F32 => bytes.as_chunks().0.iter().map(|&value| f64::from(f32::from_le_bytes(value))).collect(),
            Element::F64 => bytes.as_chunks().0.iter().map(|&value| f64::from_le_bytes(value)).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use candle_mixed_attention::candle_core::{DType, Device, Tensor, safetensors};

    use crate::input::Input;

    fn refusal(argument: &str) -> String {
        match Input::open(argument, None) {
            Ok(mut input) => format!("{:#}", input.read(0..input.len()).unwrap_err()),
            Err(error) => format!("{error:#}"),
        }
    }

    fn save(path: &Path, tensors: &[(&str, Tensor)]) {
        safetensors::save(&tensors.iter().cloned().collect::<std::collections::HashMap<_, _>>(), path).unwrap();
    }

    #[test]
    fn any_range_is_read_in_every_precision() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("points.safetensors");
        let points = Tensor::arange(0f32, 30., &Device::Cpu).unwrap().reshape((10, 3)).unwrap();
        let dtypes = [DType::F16, DType::BF16, DType::F32, DType::F64];
        let tensors = dtypes.map(|dtype| (dtype.as_str(), points.to_dtype(dtype).unwrap()));
        save(&path, &tensors);
        for name in dtypes.map(|dtype| dtype.as_str()) {
            let mut input = Input::open(&format!("{}#{name}", path.display()), None).unwrap();
            assert_eq!(input.len(), 10);
            assert_eq!(input.read(4..6).unwrap(), [[12.0, 13.0, 14.0], [15.0, 16.0, 17.0]]);
        }
    }

    #[test]
    fn nothing_is_described_twice() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("twice.safetensors");
        let tensor = |name: &str| format!(r#""{name}":{{"dtype":"F32","shape":[1,3],"data_offsets":[0,12]}}"#);
        let cases = [
            (format!("{{{},{}}}", tensor("a"), tensor("a")), "'a' stands there twice"),
            (format!(r#"{{"__metadata__":{{}},{},"__metadata__":{{}}}}"#, tensor("a")), "'__metadata__' stands there"),
            (format!(r#"{{"__metadata__":{{"x":"1","x":"2"}},{}}}"#, tensor("a")), "'x' stands there twice"),
            (format!("{{{}}}", tensor("a").replace("\"shape\"", "\"dtype\":\"F64\",\"shape\"")), "duplicate field"),
        ];
        for (header, expected) in cases {
            let bytes = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &[0; 12]].concat();
            std::fs::write(&path, bytes).unwrap();
            let message = refusal(path.to_str().unwrap());
            assert!(message.contains(expected), "{header}: {message}");
        }
    }

    #[test]
    fn a_long_header_costs_a_multiple_of_its_length() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("long.safetensors");
        let entry = |at: usize| format!(r#""{at:x}":{{"dtype":"F32","shape":[0,3],"data_offsets":[0,0]}}"#);
        let many: Vec<String> = (0..100_000).map(entry).collect();
        let axes = format!(r#""a":{{"dtype":"F32","shape":[{}0],"data_offsets":[0,0]}}"#, "0,".repeat(2_000_000));
        for entries in [many.join(","), axes] {
            let header = format!("{{{entries}}}");
            std::fs::write(&path, [&(header.len() as u64).to_le_bytes(), header.as_bytes()].concat()).unwrap();
            let taken = crate::counting::most_bytes(|| drop(crate::input::tensor_names(path.to_str().unwrap())));
            assert!(taken < 16 * header.len(), "{taken} bytes for {}", header.len());
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
            ("scalar", Tensor::new(1f32, &Device::Cpu).unwrap()),
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
            (format!("{several}#flat"), "must have shape [points, 3], got 1 numbers each"),
            (format!("{several}#whole"), "must be F16, BF16, F32 or F64, got I64"),
            (format!("{several}#none"), "holds no points"),
            (format!("{several}#scalar"), "tensor 'scalar': an array must have shape [points, components], got []"),
            (format!("{several}#nan"), "point 0 has z = NaN"),
            (format!("{several}#missing"), "no tensor 'missing'"),
            // The tensor itself is whole, but the file is not.
            (format!("{}#nan", broken("cut.safetensors", &bytes[..bytes.len() - 1])), "truncated: tensor '"),
            (format!("{}#nan", broken("truncated.safetensors", &bytes[..bytes.len() - 70])), "truncated"),
            (format!("{}#nan", broken("longer.safetensors", &[&bytes[..], b"tail"].concat())), "4 bytes follow"),
            (broken("noise.safetensors", b"no tensors here"), "not a safetensors file"),
            (broken("short.safetensors", b"xy"), "not a safetensors file"),
        ];
        for (argument, expected) in cases {
            let message = refusal(&argument);
            assert!(message.contains(expected), "{argument}: {message}");
        }
    }
}
