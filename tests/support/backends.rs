//! Every way in which this machine can run attention: backend, SIMD level, device.

use std::sync::OnceLock;

use candle_core::{DType, Device};
use candle_mixed_attention::{AttentionOptions, Backend, SimdLevel, supports};

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
    let on_gpu = |gpu: &Gpu| {
        let device = gpu.device.as_ref().ok()?;
        let runner = |name: String, backend| Runner { name, device: device.clone(), backend, simd: None };
        let reference = runner(format!("reference {}", gpu.name), Backend::Reference);
        Some([runner(gpu.name.to_string(), Backend::Auto), reference])
    };
    let on_cpu = std::iter::once(reference).chain(SimdLevel::available().iter().map(fused));
    on_cpu.chain(gpus().iter().filter_map(on_gpu).flatten()).collect()
}

/// Why devices that [`runners`] could have are not among them.
pub fn missing() -> Vec<String> {
    let reason = |gpu: &Gpu| Some(format!("{} is skipped: {}", gpu.name, gpu.device.as_ref().err()?));
    gpus().iter().filter_map(reason).collect()
}

/// The first device of a kind that runs the fused kernels, or why there is none.
pub struct Gpu {
    pub name: &'static str,
    pub device: Result<Device, String>,
}

/// GPUs of every kind. All tests of a binary share them.
pub fn gpus() -> &'static [Gpu] {
    static GPUS: OnceLock<[Gpu; 2]> = OnceLock::new();
    GPUS.get_or_init(|| [("cuda", cuda()), ("metal", metal())].map(|(name, device)| Gpu { name, device }))
}

fn cuda() -> Result<Device, String> {
    if !cfg!(feature = "cuda") {
        return Err("built without the feature `cuda`".to_string());
    }
    // The first, or the one of this index.
    let index = std::env::var("MIXED_ATTENTION_CUDA_DEVICE").unwrap_or_default();
    usable(Device::new_cuda(index.parse().unwrap_or(0)))
}

fn metal() -> Result<Device, String> {
    if !cfg!(feature = "metal") {
        return Err("built without the feature `metal`".to_string());
    }
    // candle takes the first device of a list without looking at its length.
    #[cfg(feature = "metal")]
    if candle_metal_kernels::metal::Device::all().is_empty() {
        return Err("no Metal device on this machine".to_string());
    }
    usable(Device::new_metal(0))
}

fn usable(device: candle_core::Result<Device>) -> Result<Device, String> {
    let device = device.map_err(|error| error.to_string().lines().next().unwrap_or_default().to_string())?;
    supports(&device, DType::F32, 64).map_err(|reason| reason.to_string())?;
    Ok(device)
}

/// The dtypes that every backend must take.
pub const DTYPES: [DType; 3] = [DType::F32, DType::F16, DType::BF16];
