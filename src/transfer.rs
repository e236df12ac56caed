//! Tensors on their way to another device.

use candle_core::{Device, Result, Tensor};

/// The same numbers on a device.
///
/// From GPU to GPU they go through the memory of the host. candle would start a copy in the order of a stream of the source, for
/// which what reads the copy does not wait, and let the source be freed before it ends.
pub(crate) fn to_device(tensor: &Tensor, device: &Device) -> Result<Tensor> {
    match tensor.device().same_device(device) {
        true => Ok(tensor.clone()),
        false => to_host(tensor)?.to_device(device),
    }
}

/// The same numbers on the host, once they are there. Of a view they alone: candle would copy the whole storage that it
/// belongs to.
pub(crate) fn to_host(tensor: &Tensor) -> Result<Tensor> {
    match tensor.device().is_cpu() {
        true => Ok(tensor.clone()),
        false => tensor.force_contiguous()?.to_device(&Device::Cpu),
    }
}
