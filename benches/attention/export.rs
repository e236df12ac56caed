//! Layers, inputs and results of the CPU workloads, for a peer that runs the same.

use std::path::Path;

use candle_core::{DType, Result};

use crate::operands::Layer;
use crate::workloads::workloads;

/// Writes a file `<workload>.safetensors` for each workload, in f32; see [`Layer::tensors`].
pub fn layers(folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder)?;
    for workload in workloads() {
        let layer = Layer::random(&workload, DType::F32)?;
        let path = folder.join(format!("{}.safetensors", workload.name));
        candle_core::safetensors::save(&layer.tensors(&workload)?, &path)?;
        println!("{}", path.display());
    }
    Ok(())
}
