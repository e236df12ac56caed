//! Every way in which this machine can run attention: backend, SIMD level, device.

use std::sync::OnceLock;

use candle_core::{DType, Device};
use candle_mixed_attention::{AttentionOptions, Backend, SimdLevel};

/// One way to run.
#[derive(Debug, Clone)]
pub struct Runner {
    pub name: String,
    pub device: Device,
    pub backend: Backend,
    pub simd: Option<SimdLevel>,
}

impl Runner {
    /// Options that force this way.
    pub fn options(&self) -> AttentionOptions {
        let options = AttentionOptions::default().backend(self.backend);
        match self.simd {
            Some(level) => options.simd(level),
            None => options,
        }
    }
}

/// All ways of this machine: the reference, the fused kernel on every SIMD level that the CPU has, and both on a GPU.
pub fn runners() -> Vec<Runner> {
    let reference =
        Runner { name: "reference".to_string(), device: Device::Cpu, backend: Backend::Reference, simd: None };
    let fused = |level: &SimdLevel| Runner {
        name: format!("fused {level}"),
        device: Device::Cpu,
        backend: Backend::Fused,
        simd: Some(*level),
    };
    // `Auto` runs the fused kernel for every head_dim that it takes; golden cases have others, too.
    let on_gpu = |(backend, name): (Backend, &str)| {
        let device = cuda().as_ref().ok()?.clone();
        Some(Runner { name: name.to_string(), device, backend, simd: None })
    };
    let on_gpu = [(Backend::Auto, "cuda"), (Backend::Reference, "reference cuda")].into_iter().filter_map(on_gpu);
    let on_cpu = std::iter::once(reference).chain(SimdLevel::available().iter().map(fused));
    on_cpu.chain(on_gpu).collect()
}

/// Why devices that [`runners`] could have are not among them.
pub fn missing() -> Vec<String> {
    cuda().as_ref().err().map(|reason| format!("cuda is skipped: {reason}")).into_iter().collect()
}

/// The first NVIDIA GPU, or why there is none. All tests of a binary share it.
pub fn cuda() -> &'static Result<Device, String> {
    static DEVICE: OnceLock<Result<Device, String>> = OnceLock::new();
    DEVICE.get_or_init(|| {
        if !cfg!(feature = "cuda") {
            return Err("built without the feature `cuda`".to_string());
        }
        Device::new_cuda(0).map_err(|error| error.to_string().lines().next().unwrap_or_default().to_string())
    })
}

/// The dtypes that every backend must take.
pub const DTYPES: [DType; 3] = [DType::F32, DType::F16, DType::BF16];
