//! Checkpoints: safetensors files, sharded or not, and the files of the PyTorch package.

mod config_file;
mod foreign;
mod loader;
mod model_config;
mod names;
mod pickle;
mod pytorch_file;
mod safetensors_file;
mod tensor_file;
mod weights;

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;

use foreign::FIRST_BYTES;
use loader::{Loader, Notes};
use names::Names;
use pytorch_file::PytorchFile;
use safetensors_file::{SafetensorsFile, read_index};
pub use tensor_file::TensorFile;

use super::config::AbUptConfig;
use super::error::{AbUptError, TensorProblem};
use super::model::AbUpt;
use crate::files::open_regular;

/// How a zip archive, and so a file of `torch.save`, begins.
const ZIP_MAGIC: [u8; 4] = *b"PK\x03\x04";

/// How files of `torch.save` are called, for errors alone.
const PYTORCH_EXTENSIONS: [&str; 3] = ["th", "pt", "pth"];

/// The weights of a network in a file.
///
/// Taken are safetensors files, the index of a sharded one (`*.index.json`), and files of `torch.save` with the weights
/// at the top or under any name, such as `state_dict` or `model`. Tensors have the names of the network here: prefixes of training wrappers are left
/// out and names of early versions translated. Cheap to clone.
///
/// ```no_run
/// use candle_core::{DType, Device};
/// use candle_mixed_attention::models::ab_upt::{AbUptConfig, Checkpoint};
///
/// let config = AbUptConfig::read("ellipsoid.json")?;
/// let model = Checkpoint::open("ellipsoid.safetensors")?.load(&config, DType::F32, &Device::Cpu)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Checkpoint {
    inner: Arc<Inner>,
}

struct Inner {
    /// That of the checkpoint first, and those that it lists.
    files: Vec<PathBuf>,
    source: Source,
    /// By their names in the network.
    tensors: BTreeMap<String, StoredTensor>,
    names: Names,
}

/// A tensor in a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredTensor {
    /// Its name in the file.
    pub stored_name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its dtype.
    pub dtype: DType,
}

enum Source {
    Safetensors(Vec<SafetensorsFile>),
    Pytorch(Box<PytorchFile>),
}

impl fmt::Debug for Checkpoint {
    /// The file and its tensors, without their numbers.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checkpoint").field("files", &self.inner.files).field("tensors", &self.inner.tensors).finish()
    }
}

impl Checkpoint {
    /// Opens a checkpoint; what it is follows from its content, whatever its name. Safetensors files are read into memory.
    ///
    /// # Errors
    /// A file that cannot be read, is truncated or corrupt, or holds a dtype that candle does not have; an index that
    /// lists tensors that its files do not hold; two tensors of one name.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, AbUptError> {
        Self::open_by(path.as_ref(), None, SafetensorsFile::read)
    }

    /// As [`open`](Self::open), for a file of `torch.save` with several sets of weights: `key` is the name of the dictionary
    /// to take, as `ema_state_dict`; those of dictionaries in dictionaries are joined by dots.
    ///
    /// # Errors
    /// As [`open`](Self::open); a file that has no weights there, or is none of `torch.save`.
    pub fn open_key(path: impl AsRef<Path>, key: &str) -> Result<Self, AbUptError> {
        Self::open_by(path.as_ref(), Some(key), SafetensorsFile::read)
    }

    /// As [`open`](Self::open), with safetensors files memory-mapped: only what is used is read, and several processes
    /// share one copy.
    ///
    /// # Safety
    /// Nobody changes the files while the checkpoint is open.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub unsafe fn open_mapped(path: impl AsRef<Path>) -> Result<Self, AbUptError> {
        // SAFETY: the caller promises that the files do not change.
        Self::open_by(path.as_ref(), None, |path| unsafe { SafetensorsFile::map(path) })
    }

    fn open_by(
        path: &Path,
        key: Option<&str>,
        open: impl Fn(&Path) -> Result<SafetensorsFile, AbUptError>,
    ) -> Result<Self, AbUptError> {
        let mut first = Vec::new();
        let file = open_regular(path);
        file.and_then(|file| file.take(FIRST_BYTES).read_to_end(&mut first)).map_err(AbUptError::io(path))?;
        if first.starts_with(&ZIP_MAGIC) {
            let file = PytorchFile::weights(path, key)?;
            let tensors = file.tensors().iter();
            let tensors = tensors.map(|(name, tensor)| (name.clone(), tensor.shape.clone(), tensor.dtype)).collect();
            return Self::new(vec![path.to_path_buf()], tensors, Source::Pytorch(Box::new(file)));
        }
        if let Some(what) = foreign::name(&first) {
            return Err(AbUptError::format(path, "checkpoint", what));
        }
        if let Some(key) = key {
            let reason = format!("a weights key ('{key}') is for files of torch.save, which this is not");
            return Err(AbUptError::format(path, "PyTorch", reason));
        }
        // A safetensors file begins with the length of its header, and a length that begins with `{` is none.
        let mut paths = vec![path.to_path_buf()];
        let files = match first.first() {
            Some(b'{') => {
                let (shards, files) = open_shards(path, open)?;
                paths.extend(shards);
                files
            }
            _ => vec![open(path).map_err(|error| by_name(path, error))?],
        };
        let tensors = files.iter().flat_map(SafetensorsFile::tensors);
        // Unknown dtypes were refused when the file was opened.
        let tensors = tensors.filter_map(|(name, shape, dtype)| Some((name, shape, dtype.ok()?))).collect();
        Self::new(paths, tensors, Source::Safetensors(files))
    }

    fn new(files: Vec<PathBuf>, stored: Vec<(String, Vec<usize>, DType)>, source: Source) -> Result<Self, AbUptError> {
        let mut names = Names::new(stored.iter().map(|(name, ..)| name.as_str()));
        let mut tensors: BTreeMap<String, StoredTensor> = BTreeMap::new();
        for (stored_name, shape, dtype) in stored {
            let name = names.canonical(&stored_name);
            let tensor = StoredTensor { stored_name, shape, dtype };
            if let Some(first) = tensors.get(&name) {
                let (first, second) = (&first.stored_name, &tensor.stored_name);
                let reason = format!("'{first}' and '{second}' are the same tensor of the network, '{name}'");
                return Err(AbUptError::format(&files[0], "checkpoint", reason));
            }
            tensors.insert(name, tensor);
        }
        Ok(Self { inner: Arc::new(Inner { files, source, tensors, names }) })
    }

    /// Where in a file of `torch.save` the weights are, by the names of dictionaries, joined by dots; `None` for other files
    /// and for weights at the top.
    pub fn weights_key(&self) -> Option<&str> {
        match &self.inner.source {
            Source::Pytorch(file) => Some(file.weights_key()).filter(|key| !key.is_empty()),
            Source::Safetensors(_) => None,
        }
    }

    /// All tensors by their names in the network.
    pub fn tensors(&self) -> &BTreeMap<String, StoredTensor> {
        &self.inner.tensors
    }

    /// All files that the tensors lie in, with the index in front where there is one.
    pub fn files(&self) -> &[PathBuf] {
        &self.inner.files
    }

    /// The configuration that a file of the PyTorch package carries as `model_config`; `None` if it has none.
    ///
    /// It does not tell which way round untied square weights are stored: see [`SquareBanks`](crate::SquareBanks); the
    /// usual `Plain` is assumed.
    ///
    /// # Errors
    /// A `model_config` that does not describe an AB-UPT.
    pub fn config(&self) -> Result<Option<AbUptConfig>, AbUptError> {
        let Source::Pytorch(file) = &self.inner.source else { return Ok(None) };
        let Some(description) = file.model_config() else { return Ok(None) };
        let refuse = |reason| AbUptError::format(&self.inner.files[0], "PyTorch", format!("model_config: {reason}"));
        let config = model_config::convert(description).map_err(refuse)?;
        config.validate()?;
        Ok(Some(config))
    }

    /// Compares the tensors with those of a network, without reading their data.
    ///
    /// # Errors
    /// As [`load`](Self::load), but for NaN and infinity.
    pub fn check(&self, config: &AbUptConfig) -> Result<(), AbUptError> {
        self.build(config, DType::F32, &Device::Cpu, true).map(|_| ())
    }

    /// Loads the network, with its weights rounded to `dtype`.
    ///
    /// # Errors
    /// A configuration that cannot work; [`AbUptError::Tensors`] with all tensors that are missing, unexpected, of
    /// another shape, not of a floating type, or that hold NaN or infinity; a file that cannot be read.
    pub fn load(&self, config: &AbUptConfig, dtype: DType, device: &Device) -> Result<AbUpt, AbUptError> {
        self.build(config, dtype, device, false)
    }

    fn build(&self, config: &AbUptConfig, dtype: DType, device: &Device, dry: bool) -> Result<AbUpt, AbUptError> {
        config.validate()?;
        let notes = Arc::new(Mutex::new(Notes::default()));
        let loader = Loader { checkpoint: self.clone(), notes: notes.clone(), dry };
        let model = AbUpt::new(config, VarBuilder::from_backend(Box::new(loader), dtype, device.clone()));
        let mut notes = notes.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let Notes { mut problems, used, cut, .. } = std::mem::take(&mut *notes);
        let model = match model {
            Err(error) if !cut => return Err(error.into()),
            model => model,
        };
        // Where loading was cut short, nobody knows what else the network would have asked for.
        for (name, stored) in self.inner.tensors.iter().filter(|_| !cut) {
            if !used.contains(name) && !self.inner.names.is_harmless(name, config.uses_geometry()) {
                problems.push(TensorProblem::Unexpected { name: name.clone(), got: stored.shape.clone() });
            }
        }
        if let (Ok(model), true) = (model, problems.is_empty()) {
            return Ok(model);
        }
        problems.sort();
        problems.dedup();
        Err(AbUptError::Tensors { path: self.inner.files[0].clone(), problems })
    }

    fn read(&self, tensor: &StoredTensor) -> Result<Tensor, AbUptError> {
        let name = &tensor.stored_name;
        match &self.inner.source {
            Source::Pytorch(file) => file.tensor(name),
            Source::Safetensors(files) => {
                let file = files.iter().find(|file| file.contains(name));
                let missing = || candle_core::Error::CannotFindTensor { path: name.clone() };
                Ok(file.ok_or_else(missing)?.tensor(name)?)
            }
        }
    }
}

/// What is wrong with a file that is no checkpoint at all, in the words of the format that its name promises.
fn by_name(path: &Path, error: AbUptError) -> AbUptError {
    let pytorch = path.extension().is_some_and(|extension| PYTORCH_EXTENSIONS.iter().any(|known| extension == *known));
    match error {
        AbUptError::Format { .. } if pytorch => {
            let reason = "it is not a zip archive, which torch.save has written since version 1.6";
            AbUptError::format(path, "PyTorch", reason)
        }
        other => other,
    }
}

/// Opens the files of an index and checks that they hold what it lists.
fn open_shards(
    path: &Path,
    open: impl Fn(&Path) -> Result<SafetensorsFile, AbUptError>,
) -> Result<(Vec<PathBuf>, Vec<SafetensorsFile>), AbUptError> {
    let listed = read_index(path)?;
    let mut files: BTreeMap<&PathBuf, SafetensorsFile> = BTreeMap::new();
    for (tensor, file) in &listed {
        if !files.contains_key(file) {
            files.insert(file, open(file)?);
        }
        if !files.get(file).is_some_and(|file| file.contains(tensor)) {
            let reason = format!("it lists tensor '{tensor}' in '{}', which does not hold it", file.display());
            return Err(AbUptError::format(path, "safetensors index", reason));
        }
    }
    Ok(files.into_iter().map(|(path, file)| (path.clone(), file)).unzip())
}
