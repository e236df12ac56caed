//! The embedded kernels: found by name, loaded once per GPU.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use candle_core::Result;
use candle_core::cuda::WrapErr;
use candle_core::cuda::cudarc::driver::{CudaContext, CudaFunction, sys};
use candle_core::cuda::cudarc::nvrtc::Ptx;

use crate::{AttentionError, Unsupported};

/// A compiled kernel, as `build.rs` embeds it.
struct Image {
    name: &'static str,
    /// Dynamic shared memory of a block.
    shared_bytes: usize,
    /// For compute capability 8.0; the driver compiles it for the device.
    ptx: &'static str,
}

static IMAGES: &[Image] = include!(concat!(env!("OUT_DIR"), "/cuda_images.rs"));

/// Oldest compute capability that the kernels run on.
const OLDEST: (i32, i32) = (8, 0);

/// Loaded kernels by context and name. A primary context is the same for every candle device of a GPU, and loaded code
/// stays with it.
static LOADED: Mutex<Option<HashMap<(usize, &'static str), CudaFunction>>> = Mutex::new(None);

/// Whether kernels are embedded and the GPU is new enough, or why not.
pub(super) fn check_device(context: &CudaContext) -> std::result::Result<(), Unsupported> {
    let device = candle_core::DeviceLocation::Cuda { gpu_id: context.ordinal() };
    let unsupported = |reason: String| Unsupported::Device { device, reason };
    if IMAGES.is_empty() {
        return Err(unsupported("this build has no CUDA kernels".to_string()));
    }
    match context.compute_capability() {
        Ok(capability) if capability >= OLDEST => Ok(()),
        Ok((major, minor)) => Err(unsupported(format!(
            "the GPU has compute capability {major}.{minor}; the kernels need {}.{} (Ampere) or later",
            OLDEST.0, OLDEST.1
        ))),
        Err(error) => Err(unsupported(format!("its compute capability cannot be read: {error}"))),
    }
}

/// The kernel of this name on this GPU, allowed to use the shared memory that it needs.
///
/// The first call loads it, which takes the driver as long as compiling it; later calls look it up.
pub(super) fn load(context: &Arc<CudaContext>, name: &str) -> Result<CudaFunction> {
    let image = IMAGES.iter().find(|image| image.name == name).ok_or_else(|| {
        let device = candle_core::DeviceLocation::Cuda { gpu_id: context.ordinal() };
        AttentionError::from(Unsupported::Device { device, reason: format!("this build has no kernel '{name}'") })
    })?;
    let key = (context.cu_ctx() as usize, image.name);
    // A poisoned lock only means that another thread panicked between two complete states of the map.
    let mut loaded = LOADED.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let loaded = loaded.get_or_insert_default();
    if let Some(function) = loaded.get(&key) {
        return Ok(function.clone());
    }
    let function = context.load_module(Ptx::from_src(image.ptx)).w()?.load_function(image.name).w()?;
    let attribute = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
    function.set_attribute(attribute, image.shared_bytes as i32).w()?;
    loaded.insert(key, function.clone());
    Ok(function)
}
