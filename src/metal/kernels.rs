//! Compiled kernels: made from source on the first call that needs them, kept per GPU.

use std::collections::HashMap;
use std::sync::Mutex;

use candle_core::backend::BackendDevice;
use candle_core::{MetalDevice, MetalError, Result};
use candle_metal_kernels::metal::{ComputePipeline, ConstantValues, Device, Library, Value};
use objc2_metal::{MTLCompileOptions, MTLLanguageVersion};

use super::system;
use crate::error::{AttentionError, Unsupported};
use crate::kernels::metal::source::{Recipe, text};
use crate::lock::lock;

/// What was compiled so far. Libraries and pipelines belong to a GPU, which its registry number names; all candle
/// devices of a GPU share them.
#[derive(Default)]
struct Compiled {
    libraries: HashMap<(u64, Recipe), Library>,
    pipelines: HashMap<(u64, Recipe, Vec<bool>), ComputePipeline>,
}

static COMPILED: Mutex<Option<Compiled>> = Mutex::new(None);

/// The kernel of a recipe with these function constants, for threadgroups of `threads` threads.
///
/// # Errors
/// Metal cannot compile it, the GPU cannot run so many threads of it, or the system does not run candle.
pub(crate) fn load(
    device: &MetalDevice,
    recipe: Recipe,
    constants: &[bool],
    threads: usize,
) -> Result<ComputePipeline> {
    system::check(device)?;
    let gpu = device.metal_device();
    let mut compiled = lock(&COMPILED);
    let Compiled { libraries, pipelines } = compiled.get_or_insert_default();
    let key = (gpu.registry_id(), recipe, constants.to_vec());
    if let Some(pipeline) = pipelines.get(&key) {
        return Ok(pipeline.clone());
    }
    let (function, library_key) = (key.1.function, (key.0, key.1.clone()));
    let library = match libraries.get(&library_key) {
        Some(library) => library.clone(),
        None => {
            let library = compile(gpu, &key.1)?;
            libraries.insert(library_key, library.clone());
            library
        }
    };
    let values = constants.iter().enumerate().map(|(index, &value)| (index, Value::Bool(value)));
    let values = ConstantValues::new(values.collect());
    let values = (!constants.is_empty()).then_some(&values);
    let compiled_function = library.get_function(function, values).map_err(MetalError::from)?;
    let pipeline = gpu.new_compute_pipeline_state_with_function(&compiled_function).map_err(MetalError::from)?;
    let most = pipeline.max_total_threads_per_threadgroup();
    if most < threads {
        let reason = format!("it runs at most {most} threads of '{function}' in a threadgroup, which needs {threads}");
        return Err(AttentionError::from(Unsupported::Device { device: device.location(), reason }).into());
    }
    pipelines.insert(key, pipeline.clone());
    Ok(pipeline)
}

fn compile(gpu: &Device, recipe: &Recipe) -> Result<Library> {
    let options = MTLCompileOptions::new();
    // Fast math would let the compiler assume that there is no NaN and no infinity. Where the kernels want a fast
    // function they name it.
    #[allow(deprecated, reason = "its successor, the math mode, exists since macOS 15 only")]
    options.setFastMathEnabled(false);
    options.setLanguageVersion(match recipe.language() {
        (3, 1) => MTLLanguageVersion::Version3_1,
        _ => MTLLanguageVersion::Version3_0,
    });
    Ok(gpu.new_library_with_source(&text(recipe), Some(&options)).map_err(MetalError::from)?)
}
