//! One safetensors file, in memory or memory-mapped.

use std::path::{Component, Path, PathBuf};

use candle_core::{DType, Device, Result, Tensor};
use memmap2::Mmap;
use safetensors::SafeTensors;
use safetensors::tensor::Metadata;

use crate::files::{HEADER_LENGTH, UniqueKeys, check_header, open_regular, read_regular, read_text};
use crate::models::ab_upt::error::AbUptError;

const FORMAT: &str = "safetensors";

/// The format's own limit for a header.
const LONGEST_HEADER: u64 = 100_000_000;

pub(super) struct SafetensorsFile {
    bytes: Bytes,
    /// Where the data of the tensors start.
    data: usize,
    metadata: Metadata,
}

enum Bytes {
    Read(Vec<u8>),
    Mapped(Mmap),
}

impl AsRef<[u8]> for Bytes {
    fn as_ref(&self) -> &[u8] {
        match self {
            Self::Read(bytes) => bytes,
            Self::Mapped(bytes) => bytes,
        }
    }
}

impl SafetensorsFile {
    /// Reads the whole file.
    pub(super) fn read(path: &Path) -> std::result::Result<Self, AbUptError> {
        Self::new(path, Bytes::Read(read_regular(path).map_err(AbUptError::io(path))?))
    }

    /// Maps the file, so that only what is used is read.
    ///
    /// # Safety
    /// Nobody changes the file while it is mapped.
    pub(super) unsafe fn map(path: &Path) -> std::result::Result<Self, AbUptError> {
        let file = open_regular(path).map_err(AbUptError::io(path))?;
        // SAFETY: the caller promises that the file does not change.
        let bytes = unsafe { Mmap::map(&file) }.map_err(AbUptError::io(path))?;
        Self::new(path, Bytes::Mapped(bytes))
    }

    fn new(path: &Path, bytes: Bytes) -> std::result::Result<Self, AbUptError> {
        let header = SafeTensors::read_metadata(bytes.as_ref());
        let (header, metadata) = header.map_err(|error| match missing_bytes(bytes.as_ref()) {
            Some(missing) => AbUptError::format(path, FORMAT, format!("it is truncated: {missing} bytes are missing")),
            None => AbUptError::format(path, FORMAT, error),
        })?;
        check_header(bytes.as_ref(), header).map_err(|error| AbUptError::format(path, FORMAT, error))?;
        // The header follows its own length.
        let file = Self { bytes, data: HEADER_LENGTH + header, metadata };
        let unknown = file.tensors().find_map(|(name, _, dtype)| Some((name, dtype.err()?)));
        if let Some((name, dtype)) = unknown {
            let reason = format!("tensor '{name}' has dtype {dtype}, which is not read; convert it to BF16");
            return Err(AbUptError::format(path, FORMAT, reason));
        }
        Ok(file)
    }

    /// Name, shape and dtype of every tensor; of an unknown dtype, its name.
    pub(super) fn tensors(&self) -> impl Iterator<Item = (String, Vec<usize>, std::result::Result<DType, String>)> {
        self.metadata.tensors().into_iter().map(|(name, info)| {
            let dtype = DType::try_from(info.dtype).map_err(|_| format!("{:?}", info.dtype));
            (name, info.shape.clone(), dtype)
        })
    }

    /// Whether the file has a tensor of this name.
    pub(super) fn contains(&self, name: &str) -> bool {
        self.metadata.info(name).is_some()
    }

    /// Reads a tensor.
    pub(super) fn tensor(&self, name: &str) -> Result<Tensor> {
        let missing = || candle_core::Error::CannotFindTensor { path: name.to_string() };
        let info = self.metadata.info(name).ok_or_else(missing)?;
        let (start, end) = info.data_offsets;
        // The metadata was checked against the length of the file when it was read.
        let data = self.bytes.as_ref().get(self.data + start..self.data + end).ok_or_else(missing)?;
        Tensor::from_raw_buffer(data, info.dtype.try_into()?, &info.shape, &Device::Cpu)
    }
}

/// How many bytes a file lacks of what it promises; `None` if it lacks none, or promises nothing that can be read.
fn missing_bytes(bytes: &[u8]) -> Option<u64> {
    let length = u64::from_le_bytes(bytes.get(..HEADER_LENGTH)?.try_into().ok()?);
    let start = (HEADER_LENGTH as u64).checked_add(length).filter(|_| length <= LONGEST_HEADER)?;
    let present = bytes.len() as u64;
    // What begins like a header is one, even if it is cut off.
    if start > present {
        return (bytes.get(HEADER_LENGTH) == Some(&b'{')).then(|| start - present);
    }
    let header = bytes.get(HEADER_LENGTH..usize::try_from(start).ok()?)?;
    let header: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(header).ok()?;
    let end = header.values().filter_map(|entry| entry["data_offsets"][1].as_u64()).max()?;
    start.checked_add(end)?.checked_sub(present).filter(|&missing| missing > 0)
}

/// The tensors and files that an index lists, as (tensor, file next to the index).
pub(super) fn read_index(path: &Path) -> std::result::Result<Vec<(String, PathBuf)>, AbUptError> {
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: std::collections::BTreeMap<String, PathBuf>,
    }
    let refuse = |reason: String| AbUptError::format(path, "safetensors index", reason);
    let text = read_text(path).map_err(AbUptError::io(path))?;
    let parse = |text| serde_json::from_str::<UniqueKeys>(text).and_then(|_| serde_json::from_str::<Index>(text));
    let index = parse(&text).map_err(|error| refuse(error.to_string()))?;
    let listed = index.weight_map.into_iter().map(|(name, file)| match is_plain(&file) {
        true => Ok((name, path.with_file_name(file))),
        false => Err(refuse(format!("its files must lie beside it under plain names, got {file:?} for '{name}'"))),
    });
    listed.collect()
}

/// Whether a path is the name of a file and nothing else.
fn is_plain(path: &Path) -> bool {
    let mut parts = path.components();
    let name =
        matches!((parts.next(), parts.next()), (Some(Component::Normal(name)), None) if name == path.as_os_str());
    // What separates folders on another system has no business in a name either.
    name && !path.to_string_lossy().contains(['/', '\\', ':', '\0'])
}
