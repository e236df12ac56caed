//! What a GPU runs: whether the kernels serve it, and with which tile a call.

use std::sync::Arc;

use candle_core::cuda::WrapErr;
use candle_core::cuda::cudarc::driver::{CudaStream, sys};
use candle_core::{CudaDevice, CudaStorage, DeviceLocation, Layout, Result};

use super::kernels;
use crate::attention::call::{Arguments, CacheArguments};
use crate::attention::gpu::Operands;
use crate::error::{AttentionError, Unsupported};
use crate::kernels::cuda::launch::Call;
use crate::kernels::cuda::tensor_map::is_describable;
use crate::kernels::cuda::tiling::{self, Element, Tiling};

/// What the kernels can pad to a tile.
const SUPPORTED_HEAD_DIMS: &str = "multiples of 8 up to 256";

/// Whether the kernels run on this device with this head_dim, or why not. The dtype is f32, f16 or bf16.
pub fn supports(device: &CudaDevice, head_dim: usize) -> std::result::Result<(), Unsupported> {
    let stream = device.cuda_stream();
    kernels::check_device(stream.context())?;
    if !head_dim.is_multiple_of(8) || head_dim > tiling::MAX_HEAD_DIM {
        return Err(head_dim_unsupported(head_dim, &stream));
    }
    Ok(())
}

/// A call with the best kernel of the device that can read these operands.
pub fn call(
    element: Element,
    arguments: &Arguments,
    operands: &Operands<'_, CudaStorage>,
    stream: &Arc<CudaStream>,
) -> Result<Call> {
    let context = stream.context();
    let describable = |layout: &Layout| is_describable(layout, element.bytes());
    let in_cache = |cache: &CacheArguments| describable(cache.keys.layout()) && describable(cache.values.layout());
    // Keys that are rotated come from scratch memory.
    let bulk_copies = (arguments.rope.is_some() || describable(operands.keys.1))
        && describable(operands.values.1)
        && arguments.cache.as_ref().is_none_or(in_cache);
    let tiling = Tiling::of(context.compute_capability().w()?, element, arguments.head_dim, bulk_copies)
        .ok_or_else(|| AttentionError::from(head_dim_unsupported(arguments.head_dim, stream)))?;
    let attribute = sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT;
    let multiprocessors = context.attribute(attribute).w()? as usize;
    let workers = tiling.workers(multiprocessors);
    Ok(Call { shape: arguments.shape(), element, tiling, multiprocessors, workers })
}

fn head_dim_unsupported(head_dim: usize, stream: &CudaStream) -> Unsupported {
    let device = DeviceLocation::Cuda { gpu_id: stream.context().ordinal() };
    Unsupported::HeadDim { head_dim, expected: SUPPORTED_HEAD_DIMS, device }
}
