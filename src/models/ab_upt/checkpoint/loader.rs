//! Loads the weights of a network and notes everything that does not fit, instead of stopping at the first.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard};

use candle_core::{DType, Device, Result, Shape, Tensor};
use candle_nn::Init;
use candle_nn::var_builder::SimpleBackend;

use super::{Checkpoint, StoredTensor};
use crate::models::ab_upt::error::TensorProblem;
use crate::ops::first_not_finite;

/// What came up while a network was loaded.
#[derive(Debug, Default)]
pub(super) struct Notes {
    pub problems: Vec<TensorProblem>,
    /// Names that the network asked for.
    pub used: BTreeSet<String>,
    /// Numbers of all tensors that zeros took the place of.
    stand_ins: usize,
    /// Whether loading ended before everything was asked for.
    pub cut: bool,
}

/// A list of problems ends here: a description with a typing error can ask for any number of blocks.
const MOST_PROBLEMS: usize = 10_000;

/// Zeros that take the place of tensors that do not fit, in numbers; a list of problems ends where more are needed, because
/// the memory for them may not exist.
const MOST_STAND_INS: usize = 1 << 28;

/// Serves the tensors of a checkpoint under the names of the network. A tensor that is missing, or has another shape or
/// numbers of another kind, is noted, and zeros take its place, within limits.
pub(super) struct Loader {
    pub checkpoint: Checkpoint,
    pub notes: Arc<Mutex<Notes>>,
    /// Whether all tensors are zeros: to check names and shapes without reading any data.
    pub dry: bool,
}

impl Loader {
    fn notes(&self) -> MutexGuard<'_, Notes> {
        // A poisoned lock only means that another thread panicked between two complete notes.
        self.notes.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// A tensor of the file, which is noted if it holds what weights do not. Converted before it goes to the device, which
    /// may not know the dtype of the file.
    fn read(
        &self,
        notes: &mut Notes,
        name: &str,
        stored: &StoredTensor,
        dtype: DType,
        device: &Device,
    ) -> Result<Tensor> {
        let tensor = self.checkpoint.read(stored)?.to_dtype(dtype)?;
        if let Some((index, number)) = first_not_finite(&tensor)? {
            let (name, got, dtype) = (name.to_string(), number.to_string(), dtype.as_str().to_string());
            notes.problems.push(TensorProblem::NotFinite { name, got, index, dtype });
        }
        tensor.to_device(device)
    }
}

/// Whether weights of this dtype can be read. candle has names for smaller floats, but does not compute with them.
fn is_read(stored: DType) -> bool {
    matches!(stored, DType::F8E4M3 | DType::F16 | DType::BF16 | DType::F32 | DType::F64)
}

impl SimpleBackend for Loader {
    fn get(&self, shape: Shape, name: &str, _: Init, dtype: DType, device: &Device) -> Result<Tensor> {
        let expected = shape.dims().to_vec();
        let mut notes = self.notes();
        notes.used.insert(name.to_string());
        let problem = match self.checkpoint.tensors().get(name) {
            None => TensorProblem::Missing { name: name.to_string(), expected },
            Some(stored) if stored.shape != expected => {
                TensorProblem::Shape { name: name.to_string(), expected, got: stored.shape.clone() }
            }
            Some(stored) if !is_read(stored.dtype) => {
                TensorProblem::Dtype { name: name.to_string(), got: stored.dtype.as_str().to_string() }
            }
            Some(_) if self.dry => return Tensor::zeros(shape, dtype, device),
            Some(stored) => return self.read(&mut notes, name, stored, dtype, device),
        };
        notes.problems.push(problem);
        let size = shape.dims().iter().try_fold(1usize, |size, &len| size.checked_mul(len)).unwrap_or(usize::MAX);
        notes.stand_ins = notes.stand_ins.saturating_add(size);
        if notes.problems.len() >= MOST_PROBLEMS || notes.stand_ins > MOST_STAND_INS {
            notes.cut = true;
            candle_core::bail!("the tensors are those of another network");
        }
        Tensor::zeros(shape, dtype, device)
    }

    fn get_unchecked(&self, name: &str, dtype: DType, device: &Device) -> Result<Tensor> {
        let missing = || candle_core::Error::CannotFindTensor { path: name.to_string() }.bt();
        let stored = self.checkpoint.tensors().get(name).ok_or_else(missing)?;
        if !is_read(stored.dtype) {
            candle_core::bail!("{name} must be of a floating type, got {}", stored.dtype.as_str());
        }
        let mut notes = self.notes();
        notes.used.insert(name.to_string());
        self.read(&mut notes, name, stored, dtype, device)
    }

    fn contains_tensor(&self, name: &str) -> bool {
        self.checkpoint.tensors().contains_key(name)
    }
}
