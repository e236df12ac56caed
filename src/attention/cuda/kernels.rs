//! The embedded kernels: found by name, loaded once per GPU; and what a GPU is asked once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use candle_core::Result;
use candle_core::cuda::cudarc::driver::{CudaContext, CudaFunction, CudaStream, DriverError, sys};
use candle_core::cuda::cudarc::nvrtc::Ptx;

use super::failure::Doing;
use super::scratch::check_no_capture;
use crate::error::{AttentionError, Unsupported};
use crate::lock::lock;

/// A compiled kernel, as `build.rs` embeds it.
struct Image {
    name: &'static str,
    /// Dynamic shared memory of a block.
    shared_bytes: usize,
    code: Code,
}

/// What a kernel was compiled to.
#[allow(dead_code, reason = "an empty list of images uses neither")]
enum Code {
    /// For compute capability 8.0 and later; the driver compiles it for the device.
    Ptx(&'static str),
    /// For exactly one architecture.
    Machine(&'static [u8]),
}

static IMAGES: &[Image] = include!(concat!(env!("OUT_DIR"), "/cuda_images.rs"));

/// Oldest compute capability that the kernels run on.
const OLDEST: (i32, i32) = (8, 0);

/// A GPU: what it said of itself, and the kernels that were loaded onto it.
pub(super) struct Gpu {
    pub capability: (i32, i32),
    pub multiprocessors: usize,
    /// By name.
    functions: Mutex<HashMap<&'static str, CudaFunction>>,
}

/// What could not be done if [`Gpu::of`] fails.
pub(super) const ASKING: &str = "cannot ask the GPU for its compute capability and multiprocessors";

/// GPUs by context. A primary context is the same for every candle device of a GPU, and loaded code stays with it.
static GPUS: Mutex<Option<HashMap<usize, Arc<Gpu>>>> = Mutex::new(None);

impl Gpu {
    /// That of a context.
    ///
    /// # Errors
    /// The driver does not say what it is.
    pub(crate) fn of(context: &CudaContext) -> std::result::Result<Arc<Self>, DriverError> {
        let key = context.cu_ctx() as usize;
        if let Some(known) = lock(&GPUS).get_or_insert_default().get(&key) {
            return Ok(known.clone());
        }
        let gpu = Self {
            capability: context.compute_capability()?,
            multiprocessors: context
                .attribute(sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?
                .unsigned_abs() as usize,
            functions: Mutex::default(),
        };
        // Another thread may have been faster, and have loaded kernels.
        Ok(lock(&GPUS).get_or_insert_default().entry(key).or_insert_with(|| Arc::new(gpu)).clone())
    }
}

/// What the driver says to PTX of a later toolkit than its own.
const LATER_PTX: DriverError = DriverError(sys::CUresult::CUDA_ERROR_UNSUPPORTED_PTX_VERSION);

/// Whether kernels are embedded and the GPU is new enough, or why not.
pub(super) fn check_device(context: &CudaContext) -> std::result::Result<(), Unsupported> {
    let device = candle_core::DeviceLocation::Cuda { gpu_id: context.ordinal() };
    let unsupported = |reason: String| Unsupported::Device { device, reason };
    if IMAGES.is_empty() {
        return Err(unsupported("this build has no CUDA kernels".to_string()));
    }
    match Gpu::of(context).map(|gpu| gpu.capability) {
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
///
/// # Errors
/// There is none, the driver cannot load it, or the stream is being captured when it is called for the first time.
pub(super) fn load(stream: &CudaStream, name: &str) -> Result<CudaFunction> {
    let context = stream.context();
    let gpu = Gpu::of(context).doing(|| ASKING)?;
    // Held while the driver compiles: a second thread would only compile the same; other GPUs do not wait.
    let mut functions = lock(&gpu.functions);
    if let Some(function) = functions.get(name) {
        return Ok(function.clone());
    }
    check_no_capture(stream)?;
    let image = IMAGES.iter().find(|image| image.name == name).ok_or_else(|| {
        let device = candle_core::DeviceLocation::Cuda { gpu_id: context.ordinal() };
        AttentionError::from(Unsupported::Device { device, reason: format!("this build has no kernel '{name}'") })
    })?;
    let loading = || format!("cannot load the kernel {}", image.name);
    let code = match image.code {
        Code::Ptx(text) => Ptx::from_src(text),
        Code::Machine(bytes) => Ptx::from_binary(bytes.to_vec()),
    };
    let module = match context.load_module(code) {
        Err(LATER_PTX) => return Err(AttentionError::from(later_ptx(context, image)).into()),
        module => module.doing(loading)?,
    };
    let function = module.load_function(image.name).doing(loading)?;
    let attribute = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
    function.set_attribute(attribute, image.shared_bytes as i32).doing(loading)?;
    functions.insert(image.name, function.clone());
    Ok(function)
}

/// Why a driver that is older than the toolkit of this build cannot load a kernel.
fn later_ptx(context: &CudaContext, image: &Image) -> Unsupported {
    let device = candle_core::DeviceLocation::Cuda { gpu_id: context.ordinal() };
    let written_in = match image.code {
        Code::Ptx(text) => text.lines().find_map(|line| line.strip_prefix(".version ")),
        Code::Machine(_) => None,
    };
    let written_in = written_in.map_or_else(String::new, |version| format!(" {version}"));
    let reason = format!(
        "the driver is too old for PTX{written_in}, which this build's kernels are in: it must support the CUDA toolkit \
         that built them (CUDA 13.0: driver 580 or later); update it, or build with the toolkit of the driver's version, \
         12 or later"
    );
    Unsupported::Device { device, reason }
}
