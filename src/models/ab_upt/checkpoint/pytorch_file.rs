//! A file of `torch.save`: a zip archive of one pickle and the storages of the tensors.
//!
//! The pickle is read as data; nothing in it is executed.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use candle_core::pickle::{Object, Stack};
use candle_core::{DType, Device, Tensor};
use serde_json::{Map, Number, Value};
use zip::ZipArchive;

use crate::models::ab_upt::error::AbUptError;

const FORMAT: &str = "PyTorch";

/// Where the pickle lies in the archive, behind the archive's own folder.
const PICKLE: &str = "data.pkl";

pub(super) struct PytorchFile {
    path: PathBuf,
    /// Folder of the archive, with its `/`.
    folder: String,
    tensors: BTreeMap<String, StridedTensor>,
    model_config: Option<Value>,
}

/// A tensor as a view of a storage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StridedTensor {
    storage: String,
    pub dtype: DType,
    pub shape: Vec<usize>,
    stride: Vec<usize>,
    /// First number in the storage.
    offset: usize,
}

impl PytorchFile {
    pub fn open(path: &Path) -> std::result::Result<Self, AbUptError> {
        let refuse = |reason: String| AbUptError::format(path, FORMAT, reason);
        let mut archive = open_archive(path)?;
        let names = archive.file_names().filter_map(|name| name.ok().map(|name| name.into_owned()));
        let pickle = names.into_iter().find(|name| name == PICKLE || name.ends_with(&format!("/{PICKLE}")));
        let pickle = pickle.ok_or_else(|| refuse(format!("the archive has no {PICKLE}")))?;
        let folder = pickle.strip_suffix(PICKLE).unwrap_or_default().to_string();
        let bytes = read_entry(&mut archive, &pickle).map_err(refuse)?;
        let mut stack = Stack::empty();
        let parsed = stack.read_loop(&mut bytes.as_slice()).and_then(|()| stack.finalize());
        let root = parsed.map_err(|error| refuse(error.to_string()))?;

        let mut root = entries(root).ok_or_else(|| refuse("it does not hold a dictionary".to_string()))?;
        let model_config = root.iter().find(|(key, _)| key == "model_config").map(|(_, value)| to_json(value));
        // A bare state_dict is accepted too.
        if let Some(place) = root.iter().position(|(key, _)| key == "state_dict") {
            let (_, state) = root.swap_remove(place);
            root = entries(state).ok_or_else(|| refuse("its state_dict is not a dictionary".to_string()))?;
        }
        let mut tensors = BTreeMap::new();
        for (name, value) in root {
            if let Some(tensor) =
                strided_tensor(value).map_err(|reason| refuse(format!("tensor '{name}': {reason}")))?
            {
                tensors.insert(name, tensor);
            }
        }
        if tensors.is_empty() {
            return Err(refuse("it holds no tensors".to_string()));
        }
        Ok(Self { path: path.to_path_buf(), folder, tensors, model_config })
    }

    /// All tensors by name.
    pub fn tensors(&self) -> &BTreeMap<String, StridedTensor> {
        &self.tensors
    }

    /// The entry `model_config`, if there is one.
    pub fn model_config(&self) -> Option<&Value> {
        self.model_config.as_ref()
    }

    /// Reads a tensor.
    pub fn tensor(&self, name: &str) -> std::result::Result<Tensor, AbUptError> {
        let missing = || candle_core::Error::CannotFindTensor { path: name.to_string() };
        let tensor = self.tensors.get(name).ok_or_else(missing)?;
        let refuse = |reason: String| AbUptError::format(&self.path, FORMAT, format!("tensor '{name}': {reason}"));
        let mut archive = open_archive(&self.path)?;
        let storage = format!("{}data/{}", self.folder, tensor.storage);
        let storage = read_entry(&mut archive, &storage).map_err(refuse)?;
        let data = tensor.gather(&storage).ok_or_else(|| refuse("it reaches beyond its storage".to_string()))?;
        Ok(Tensor::from_raw_buffer(&data, tensor.dtype, &tensor.shape, &Device::Cpu)?)
    }
}

impl StridedTensor {
    /// The bytes of the tensor in row-major order, unless some lie outside the storage.
    fn gather(&self, storage: &[u8]) -> Option<Vec<u8>> {
        let size = self.dtype.size_in_bytes();
        let count = self.shape.iter().try_fold(1usize, |count, &len| count.checked_mul(len))?;
        // Checked before memory is reserved; a stored tensor is never larger than its storage.
        if count.checked_mul(size)? > storage.len() {
            return None;
        }
        let mut data = Vec::with_capacity(count * size);
        let mut index = vec![0usize; self.shape.len()];
        for _ in 0..count {
            let place = index
                .iter()
                .zip(&self.stride)
                .try_fold(self.offset, |place, (&index, &stride)| place.checked_add(index.checked_mul(stride)?))?;
            let start = place.checked_mul(size)?;
            data.extend_from_slice(storage.get(start..start.checked_add(size)?)?);
            for axis in (0..index.len()).rev() {
                index[axis] += 1;
                if index[axis] < self.shape[axis] {
                    break;
                }
                index[axis] = 0;
            }
        }
        Some(data)
    }
}

type Archive = ZipArchive<BufReader<File>>;

fn open_archive(path: &Path) -> std::result::Result<Archive, AbUptError> {
    let file = File::open(path).map_err(AbUptError::io(path))?;
    ZipArchive::new(BufReader::new(file)).map_err(|error| AbUptError::format(path, FORMAT, error))
}

/// Reads an entry to its end, which checks its checksum.
fn read_entry(archive: &mut Archive, name: &str) -> std::result::Result<Vec<u8>, String> {
    let mut entry = archive.by_name(name).map_err(|error| format!("'{name}': {error}"))?;
    let mut bytes = Vec::new();
    entry.read_to_end(&mut bytes).map_err(|error| format!("'{name}': {error}"))?;
    Ok(bytes)
}

/// The entries of a dictionary whose keys are strings; others are left out.
///
/// The reader takes the entries of a dictionary from its stack, last one first, so they are turned round here.
fn entries(object: Object) -> Option<Vec<(String, Object)>> {
    let Object::Dict(entries) = object else { return None };
    let named = entries.into_iter().rev().filter_map(|(key, value)| Some((key.unicode().ok()?, value)));
    Some(named.collect())
}

/// Plain data as JSON; anything else as null.
fn to_json(object: &Object) -> Value {
    match object {
        Object::Int(number) => Value::from(*number),
        Object::Long(number) => Value::from(*number),
        Object::Float(number) => Number::from_f64(*number).map_or(Value::Null, Value::Number),
        Object::Unicode(text) => Value::from(text.as_str()),
        Object::Bool(value) => Value::from(*value),
        Object::Tuple(items) | Object::List(items) => Value::Array(items.iter().map(to_json).collect()),
        Object::Dict(_) => {
            let entries = entries(object.clone()).unwrap_or_default();
            Value::Object(entries.iter().map(|(key, value)| (key.clone(), to_json(value))).collect::<Map<_, _>>())
        }
        _ => Value::Null,
    }
}

/// The tensor that an object stands for; `None` for other things that a state_dict may hold.
fn strided_tensor(object: Object) -> std::result::Result<Option<StridedTensor>, String> {
    let Object::Reduce { callable, args } = object else { return Ok(None) };
    let (Object::Class { class_name, .. }, Object::Tuple(arguments)) = (*callable, *args) else { return Ok(None) };
    let mut arguments = arguments.into_iter();
    match class_name.as_str() {
        // (tensor, requires_grad, hooks)
        "_rebuild_parameter" => arguments.next().map_or(Ok(None), strided_tensor),
        // (storage, offset, shape, stride, requires_grad, hooks)
        "_rebuild_tensor_v2" => {
            let parts = (arguments.next(), arguments.next(), arguments.next(), arguments.next());
            let (Some(storage), Some(offset), Some(shape), Some(stride)) = parts else {
                return Err("its description is too short".to_string());
            };
            let (storage, dtype) = storage_of(storage)?;
            let (offset, shape, stride) = (number(offset)?, numbers(shape)?, numbers(stride)?);
            if shape.len() != stride.len() {
                return Err(format!("shape {shape:?} and stride {stride:?} do not fit"));
            }
            Ok(Some(StridedTensor { storage, dtype, shape, stride, offset }))
        }
        _ => Ok(None),
    }
}

/// Name and dtype of a storage: ("storage", class, name, device, numbers).
fn storage_of(object: Object) -> std::result::Result<(String, DType), String> {
    let Object::PersistentLoad(id) = object else { return Err("it has no storage".to_string()) };
    let Object::Tuple(parts) = *id else { return Err("its storage is not described".to_string()) };
    let mut parts = parts.into_iter().skip(1);
    let (Some(Object::Class { class_name, .. }), Some(Object::Unicode(name))) = (parts.next(), parts.next()) else {
        return Err("its storage is not described".to_string());
    };
    let dtype = match class_name.as_str() {
        "FloatStorage" => DType::F32,
        "DoubleStorage" => DType::F64,
        "HalfStorage" => DType::F16,
        "BFloat16Storage" => DType::BF16,
        "ByteStorage" => DType::U8,
        "LongStorage" => DType::I64,
        other => return Err(format!("storages of class {other} are not supported")),
    };
    Ok((name, dtype))
}

fn number(object: Object) -> std::result::Result<usize, String> {
    let number = object.int_or_long().map_err(|other| format!("{other:?} is not a number"))?;
    usize::try_from(number).map_err(|_| format!("{number} is negative"))
}

fn numbers(object: Object) -> std::result::Result<Vec<usize>, String> {
    let items = object.tuple().map_err(|other| format!("{other:?} is not a list of numbers"))?;
    items.into_iter().map(number).collect()
}
