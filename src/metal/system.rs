//! What the system under us does and does not do.

use std::sync::OnceLock;

use candle_core::{DType, Device, MetalDevice, Result, Tensor};
use objc2::available;

use crate::{AttentionError, Unsupported};

/// Whether Metal 3.1 is there, whose compiler knows bf16, and `MTLDevice.architecture`.
pub(crate) fn has_metal_3_1() -> bool {
    available!(macos = 14.0, ios = 17.0, tvos = 17.0, visionos = 1.0, ..)
}

/// [`check`] of a device of any kind.
///
/// # Errors
/// A Metal device on a system that does not run candle.
pub(crate) fn check_device(device: &Device) -> Result<()> {
    if let Device::Metal(device) = device { check(device) } else { Ok(()) }
}

/// Whether candle runs here. From macOS 27 on the default version of Metal is one that refuses the sources of candle
/// 0.11, so that its ops fail with pages of a compiler's log: the first call tries one and says so instead.
///
/// # Errors
/// It does not.
pub(crate) fn check(device: &MetalDevice) -> Result<()> {
    static ANSWER: OnceLock<std::result::Result<(), String>> = OnceLock::new();
    if !available!(macos = 27.0, ios = 27.0, tvos = 27.0, visionos = 27.0, ..) {
        return Ok(());
    }
    let tried = ANSWER.get_or_init(|| {
        let product = || {
            let one = Tensor::ones((1, 1), DType::F32, &Device::Metal(device.clone()))?;
            one.matmul(&one)?.to_vec2::<f32>()
        };
        let first_line = |error: candle_core::Error| error.to_string().lines().next().unwrap_or_default().to_string();
        product().map(|_| ()).map_err(first_line)
    });
    tried.clone().map_err(|error| {
        let reason = format!(
            "candle's own kernels do not compile on this system; macOS 14 to 26 run them (Metal says: {error})"
        );
        AttentionError::from(Unsupported::Device { device: Device::Metal(device.clone()).location(), reason }).into()
    })
}
