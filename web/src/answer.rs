//! An answer: tensors, and what is said about them.

use std::collections::HashMap;

use anyhow::Result;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::Value;

/// The key of what is said about the tensors, as JSON.
const ABOUT: &str = "about";

/// Named arrays of numbers.
#[derive(Default)]
pub(crate) struct Answer {
    tensors: Vec<(String, Dtype, Vec<usize>, Vec<u8>)>,
}

impl Answer {
    /// Adds an array of f32.
    pub(crate) fn floats(&mut self, name: impl Into<String>, shape: &[usize], values: &[f32]) {
        self.tensors.push((name.into(), Dtype::F32, shape.to_vec(), bytemuck::cast_slice(values).to_vec()));
    }

    /// Adds an array of indices.
    pub(crate) fn indices(&mut self, name: impl Into<String>, shape: &[usize], values: &[u32]) {
        self.tensors.push((name.into(), Dtype::U32, shape.to_vec(), bytemuck::cast_slice(values).to_vec()));
    }

    /// The bytes of a `.safetensors` file.
    ///
    /// # Errors
    /// An array that does not have its shape.
    pub(crate) fn to_bytes(&self, about: &Value) -> Result<Vec<u8>> {
        let views = self
            .tensors
            .iter()
            .map(|(name, dtype, shape, bytes)| Ok((name.as_str(), TensorView::new(*dtype, shape.clone(), bytes)?)));
        let metadata = HashMap::from([(ABOUT.to_string(), about.to_string())]);
        Ok(safetensors::serialize(views.collect::<Result<Vec<_>>>()?, Some(metadata))?)
    }
}
