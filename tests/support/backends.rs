//! Every way in which this machine can run attention: backend, SIMD level, device.

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

/// All ways of this machine: the reference, and the fused kernel on every SIMD level that the CPU has.
pub fn runners() -> Vec<Runner> {
    let reference =
        Runner { name: "reference".to_string(), device: Device::Cpu, backend: Backend::Reference, simd: None };
    let fused = |level: &SimdLevel| Runner {
        name: format!("fused {level}"),
        device: Device::Cpu,
        backend: Backend::Fused,
        simd: Some(*level),
    };
    std::iter::once(reference).chain(SimdLevel::available().iter().map(fused)).collect()
}

/// The dtypes that every backend must take.
pub const DTYPES: [DType; 3] = [DType::F32, DType::F16, DType::BF16];
