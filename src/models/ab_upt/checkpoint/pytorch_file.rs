//! A file of `torch.save`: a zip archive of one pickle and the storages of the tensors.
//!
//! The pickle is read as data; nothing in it is executed. What it says about tensors is checked against the storages when
//! the file is opened.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use candle_core::{DType, Device, Tensor};
use serde_json::Value;
use zip::read::ZipFile;
use zip::{CompressionMethod, ZipArchive};

use super::pickle::{Object, Pickle, Place};
use super::weights::{self, Weights};
use crate::files::open_regular;
use crate::models::ab_upt::error::AbUptError;

const FORMAT: &str = "PyTorch";

/// Where the pickle lies in the archive, behind the archive's own folder.
const PICKLE: &str = "data.pkl";

/// What only a TorchScript program has.
const SCRIPT: &str = "constants.pkl";

/// Bytes of a pickle at most; that of a network with ten thousand tensors has about two million.
const LONGEST_PICKLE: u64 = 64 << 20;

/// Letters in the name of a storage at most; it is a number.
const LONGEST_NAME: usize = 100;

/// Bytes that tensors which repeat a few numbers may unfold to.
const MOST_REPEATED: u64 = 64 << 20;

/// How many tensors may share each number of a file, as blocks with the same weights do.
const MOST_SHARED: u64 = 64;

/// Axes of a tensor at most, as in PyTorch.
const MOST_AXES: usize = 64;

#[derive(Debug)]
pub(super) struct PytorchFile {
    path: PathBuf,
    /// Opened once, because opening reads the list of all entries.
    opened: Mutex<Opened>,
    /// Bytes of the archive.
    length: u64,
    tensors: BTreeMap<String, StridedTensor>,
    model_config: Option<Value>,
    weights_key: String,
}

/// What of a pickle is wanted.
struct Wanted<'a> {
    tensors: Vec<(&'a str, Place)>,
    model_config: Option<Value>,
    weights_key: String,
}

/// A tensor as a view of a storage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StridedTensor {
    /// Place of the storage in the archive.
    storage: usize,
    pub dtype: DType,
    pub shape: Vec<usize>,
    stride: Vec<usize>,
    /// First number in the storage.
    offset: usize,
}

impl PytorchFile {
    /// Opens a file with the weights of a network, under a key if there are several.
    pub(super) fn weights(path: &Path, key: Option<&str>) -> std::result::Result<Self, AbUptError> {
        Self::open(path, |pickle| {
            let Weights { key, entries } = weights::find(pickle, key)?;
            let root = pickle.entries(pickle.root()).transpose()?.unwrap_or_default();
            let description = root.iter().find(|(name, _)| *name == "model_config");
            let model_config = description.map(|&(_, description)| pickle.to_json(description)).transpose();
            let model_config = model_config.map_err(|reason| format!("model_config: {reason}"))?;
            Ok(Wanted { tensors: entries, model_config, weights_key: key })
        })
    }

    /// Opens a file with a dictionary of tensors, or with a single one, which has no name.
    pub(super) fn plain(path: &Path) -> std::result::Result<Self, AbUptError> {
        Self::open(path, |pickle| {
            let root = pickle.root();
            let tensors = pickle.entries(root).transpose()?.unwrap_or_else(|| vec![("", root)]);
            Ok(Wanted { tensors, model_config: None, weights_key: String::new() })
        })
    }

    fn open(
        path: &Path,
        pick: impl for<'a> FnOnce(&'a Pickle) -> std::result::Result<Wanted<'a>, String>,
    ) -> std::result::Result<Self, AbUptError> {
        let refuse = |reason: String| AbUptError::format(path, FORMAT, reason);
        let file = open_regular(path).map_err(AbUptError::io(path))?;
        let length = file.metadata().map_err(AbUptError::io(path))?.len();
        let mut archive = ZipArchive::new(BufReader::new(file)).map_err(|error| refuse(error.to_string()))?;
        let names = archive.file_names().filter_map(|name| name.ok().map(|name| name.into_owned()));
        let names: Vec<String> = names.collect();
        if names.iter().any(|name| name == SCRIPT || name.ends_with(&format!("/{SCRIPT}"))) {
            let advice = "save the weights alone: torch.save(module.state_dict(), file)";
            return Err(refuse(format!("it is a TorchScript program, as torch.jit.save writes; {advice}")));
        }
        let pickle = names.into_iter().find(|name| name == PICKLE || name.ends_with(&format!("/{PICKLE}")));
        let pickle = pickle.ok_or_else(|| refuse(format!("the archive has no {PICKLE}")))?;
        let folder = pickle.strip_suffix(PICKLE).unwrap_or_default();
        let at = archive.index_for_name(&pickle).ok_or_else(|| refuse(format!("the archive has no {PICKLE}")))?;
        let bytes = read_entry(&mut archive, at, LONGEST_PICKLE).map_err(refuse)?;
        let pickle = Pickle::read(&bytes).map_err(refuse)?;
        let wanted = pick(&pickle).map_err(refuse)?;
        let mut storages = Storages { folder, archive: &mut archive, longest: length, lengths: BTreeMap::new() };
        let mut tensors = BTreeMap::new();
        let most = length.saturating_mul(MOST_SHARED).saturating_add(MOST_REPEATED);
        let mut left = most;
        for (name, value) in wanted.tensors {
            let tensor = strided_tensor(&pickle, value, &mut storages);
            if let Some(tensor) = tensor.map_err(|reason| refuse(format!("tensor '{name}': {reason}")))? {
                let rest = tensor.bytes().and_then(|bytes| left.checked_sub(bytes));
                left = rest.ok_or_else(|| refuse(format!("its tensors would unfold to more than {most} bytes")))?;
                tensors.insert(name.to_string(), tensor);
            }
        }
        if tensors.is_empty() {
            return Err(refuse("it holds no tensors".to_string()));
        }
        let Wanted { model_config, weights_key, .. } = wanted;
        let opened = Mutex::new(Opened { archive, last: None });
        Ok(Self { path: path.to_path_buf(), opened, length, tensors, model_config, weights_key })
    }

    /// All tensors by name.
    pub(super) fn tensors(&self) -> &BTreeMap<String, StridedTensor> {
        &self.tensors
    }

    /// The entry `model_config`, if there is one.
    pub(super) fn model_config(&self) -> Option<&Value> {
        self.model_config.as_ref()
    }

    /// Where the tensors are, by the names of dictionaries, joined by dots; nothing at the top.
    pub(super) fn weights_key(&self) -> &str {
        &self.weights_key
    }

    /// Reads a tensor.
    pub(super) fn tensor(&self, name: &str) -> std::result::Result<Tensor, AbUptError> {
        let missing = || candle_core::Error::CannotFindTensor { path: name.to_string() };
        let tensor = self.tensors.get(name).ok_or_else(missing)?;
        let refuse = |reason: String| AbUptError::format(&self.path, FORMAT, format!("tensor '{name}': {reason}"));
        // A poisoned lock only means that another thread panicked while it read.
        let mut opened = self.opened.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let storage = opened.storage(tensor.storage, self.length).map_err(refuse)?;
        let data = tensor.gather(storage).ok_or_else(|| refuse(BEYOND_STORAGE.to_string()))?;
        Ok(Tensor::from_raw_buffer(&data, tensor.dtype, &tensor.shape, &Device::Cpu)?)
    }
}

const BEYOND_STORAGE: &str = "it reaches beyond its storage";

impl StridedTensor {
    /// Whether every number of the tensor lies in a storage of so many bytes. It may have more numbers than the storage only
    /// where it repeats them along an axis, and then no more than a network needs.
    fn fits(&self, storage: u64) -> Option<bool> {
        let size = self.dtype.size_in_bytes();
        let count = self.count()?;
        let last = |place: usize, (&len, &stride): (&usize, &usize)| -> Option<usize> {
            place.checked_add(len.checked_sub(1)?.checked_mul(stride)?)
        };
        let end = match count {
            0 => 0,
            _ => self.shape.iter().zip(&self.stride).try_fold(self.offset, last)?.checked_add(1)?,
        };
        let repeats = self.shape.iter().zip(&self.stride).any(|(&len, &stride)| len > 1 && stride == 0);
        let most = if repeats { storage.max(MOST_REPEATED) } else { storage };
        let bytes = |numbers: usize| u64::try_from(numbers.checked_mul(size)?).ok();
        Some(bytes(end)? <= storage && bytes(count)? <= most)
    }

    /// Bytes of all numbers.
    fn bytes(&self) -> Option<u64> {
        u64::try_from(self.count()?.checked_mul(self.dtype.size_in_bytes())?).ok()
    }

    /// Number of numbers.
    fn count(&self) -> Option<usize> {
        // An axis without places makes all of them none, but the others must still be possible.
        self.shape.iter().filter(|&&len| len > 0).try_fold(1usize, |count, &len| count.checked_mul(len))?;
        self.shape.iter().try_fold(1usize, |count, &len| count.checked_mul(len))
    }

    /// The bytes of the tensor in row-major order, unless some lie outside the storage.
    fn gather(&self, storage: &[u8]) -> Option<Vec<u8>> {
        // Checked before memory is reserved.
        if !self.fits(storage.len() as u64)? {
            return None;
        }
        let (size, count) = (self.dtype.size_in_bytes(), self.count()?);
        let mut data = Vec::with_capacity(count * size);
        let mut index = vec![0usize; self.shape.len()];
        let mut place = self.offset;
        for _ in 0..count {
            let start = place * size;
            data.extend_from_slice(storage.get(start..start + size)?);
            for axis in (0..index.len()).rev() {
                index[axis] += 1;
                place += self.stride[axis];
                if index[axis] < self.shape[axis] {
                    break;
                }
                place -= index[axis] * self.stride[axis];
                index[axis] = 0;
            }
        }
        Some(data)
    }
}

type Archive = ZipArchive<BufReader<File>>;

/// An archive, and the storage that was read last: that of many tensors is read once.
#[derive(Debug)]
struct Opened {
    archive: Archive,
    /// Its place and its bytes.
    last: Option<(usize, Vec<u8>)>,
}

impl Opened {
    /// The bytes of the storage at a place.
    fn storage(&mut self, at: usize, longest: u64) -> std::result::Result<&[u8], String> {
        // Another one is dropped before this one is read.
        let last = self.last.take().filter(|&(place, _)| place == at);
        let bytes = match last {
            Some((_, bytes)) => bytes,
            None => read_entry(&mut self.archive, at, longest)?,
        };
        Ok(&self.last.insert((at, bytes)).1)
    }
}

/// Reads an entry to its end, which checks its checksum.
fn read_entry(archive: &mut Archive, at: usize, longest: u64) -> std::result::Result<Vec<u8>, String> {
    let mut entry = archive.by_index(at).map_err(|error| error.to_string())?;
    let name = entry.name().map_err(|error| error.to_string())?.into_owned();
    entry_length(&entry, longest).map_err(|reason| format!("'{name}' {reason}"))?;
    let mut bytes = Vec::new();
    entry.read_to_end(&mut bytes).map_err(|error| format!("'{name}': {error}"))?;
    Ok(bytes)
}

/// Bytes of an entry, which takes as many in the archive.
fn entry_length(entry: &ZipFile<'_, BufReader<File>>, longest: u64) -> std::result::Result<u64, String> {
    let (length, stored) = (entry.size(), entry.compressed_size());
    if entry.compression() != CompressionMethod::Stored || length != stored {
        return Err("is compressed, which torch.save never does".to_string());
    }
    match length > longest {
        true => Err(format!("would have {length} bytes, more than {longest}")),
        false => Ok(length),
    }
}

/// The storages of an archive, and their lengths in bytes as far as they were asked for.
struct Storages<'a> {
    folder: &'a str,
    archive: &'a mut Archive,
    /// Bytes of the whole archive.
    longest: u64,
    lengths: BTreeMap<usize, u64>,
}

impl Storages<'_> {
    /// Place and length of a storage.
    fn find(&mut self, name: &str) -> std::result::Result<(usize, u64), String> {
        if name.len() > LONGEST_NAME {
            return Err(format!("its storage has a name of {} letters", name.len()));
        }
        let path = format!("{}data/{name}", self.folder);
        let at = self.archive.index_for_name(&path).ok_or_else(|| format!("'{path}' is not in the archive"))?;
        if let Some(&length) = self.lengths.get(&at) {
            return Ok((at, length));
        }
        let entry = self.archive.by_index(at).map_err(|error| format!("'{path}': {error}"))?;
        let length = entry_length(&entry, self.longest).map_err(|reason| format!("'{path}' {reason}"))?;
        drop(entry);
        self.lengths.insert(at, length);
        Ok((at, length))
    }
}

/// The tensor that an object stands for; `None` for other things that a state_dict may hold.
fn strided_tensor(
    pickle: &Pickle,
    mut place: Place,
    storages: &mut Storages,
) -> std::result::Result<Option<StridedTensor>, String> {
    // A parameter is a tensor in a wrapper, and a wrapper in a wrapper is none.
    for _ in 0..2 {
        let Object::Call { callable, arguments } = pickle[place] else { return Ok(None) };
        let (Object::Global(function), Some(arguments)) = (&pickle[callable], pickle.tuple(arguments)) else {
            return Ok(None);
        };
        match (function.as_str(), arguments) {
            // (tensor, requires_grad, hooks)
            ("_rebuild_parameter", &[tensor, ..]) => place = tensor,
            // (storage, offset, shape, stride, requires_grad, hooks)
            ("_rebuild_tensor_v2", &[storage, offset, shape, stride, ..]) => {
                let (storage, length, dtype) = storage_of(pickle, storage, storages)?;
                let (offset, shape) = (number(pickle, offset)?, numbers(pickle, shape)?);
                let stride = numbers(pickle, stride)?;
                if shape.len() != stride.len() {
                    return Err(format!("shape {shape:?} and stride {stride:?} do not fit"));
                }
                let tensor = StridedTensor { storage, dtype, shape, stride, offset };
                return match tensor.fits(length) {
                    Some(true) => Ok(Some(tensor)),
                    _ => Err(format!("{BEYOND_STORAGE}: shape {:?} in {length} bytes", tensor.shape)),
                };
            }
            // (storage, offset, shape, stride, requires_grad, hooks, dtype), for dtypes without a class of storages
            ("_rebuild_tensor_v3", &[_, _, _, _, _, _, dtype, ..]) => {
                let dtype = match &pickle[dtype] {
                    Object::Global(dtype) => dtype.as_str(),
                    _ => "unknown",
                };
                return Err(format!("its dtype is {dtype}, which is not read; convert it with .to(torch.bfloat16)"));
            }
            ("_rebuild_tensor_v2", _) => return Err("its description is too short".to_string()),
            _ => return Ok(None),
        }
    }
    Ok(None)
}

/// Place, length and dtype of a storage: ("storage", class, name, device, numbers).
fn storage_of(
    pickle: &Pickle,
    place: Place,
    storages: &mut Storages,
) -> std::result::Result<(usize, u64, DType), String> {
    let Object::Persistent(id) = pickle[place] else { return Err("it has no storage".to_string()) };
    let parts = match pickle.tuple(id) {
        Some(&[_, class, name, ..]) => (&pickle[class], &pickle[name]),
        _ => return Err("its storage is not described".to_string()),
    };
    let (Object::Global(class), Object::Text(name)) = parts else {
        return Err("its storage is not described".to_string());
    };
    let dtype = match class.as_str() {
        "FloatStorage" => DType::F32,
        "DoubleStorage" => DType::F64,
        "HalfStorage" => DType::F16,
        "BFloat16Storage" => DType::BF16,
        "ByteStorage" => DType::U8,
        "LongStorage" => DType::I64,
        other => return Err(format!("storages of class {other} are not supported")),
    };
    let (at, length) = storages.find(name)?;
    Ok((at, length, dtype))
}

fn number(pickle: &Pickle, place: Place) -> std::result::Result<usize, String> {
    match pickle[place] {
        Object::Int(number) => usize::try_from(number).map_err(|_| format!("{number} is negative")),
        _ => Err("its shape, stride or offset is no whole number".to_string()),
    }
}

fn numbers(pickle: &Pickle, place: Place) -> std::result::Result<Vec<usize>, String> {
    let items = pickle.tuple(place).ok_or("its shape or stride is no list of numbers")?;
    if items.len() > MOST_AXES {
        return Err(format!("it has {} axes, more than {MOST_AXES}", items.len()));
    }
    items.iter().map(|&item| number(pickle, item)).collect()
}
