//! What a GPU runs: whether the kernels serve it, and with which tile a call.

use std::sync::Arc;

use candle_core::cuda::cudarc::driver::CudaStream;
use candle_core::{CudaDevice, CudaStorage, DeviceLocation, Result};

use super::failure::Doing;
use super::kernels::{self, Gpu};
use crate::attention::call::Arguments;
use crate::attention::gpu::Operands;
use crate::error::{AttentionError, Unsupported};
use crate::kernels::cuda::launch::Call;
use crate::kernels::cuda::tensor_map::is_describable;
use crate::kernels::cuda::tiling::{self, Element, Tiling};

/// What the kernels can pad to a tile.
const SUPPORTED_HEAD_DIMS: &str = "multiples of 8 up to 256";

/// Whether the kernels run on this device with this head_dim, or why not. The dtype is f32, f16 or bf16.
pub(crate) fn supports(device: &CudaDevice, head_dim: usize) -> std::result::Result<(), Unsupported> {
    let stream = device.cuda_stream();
    kernels::check_device(stream.context())?;
    if !head_dim.is_multiple_of(8) || head_dim > tiling::MAX_HEAD_DIM {
        return Err(head_dim_unsupported(head_dim, &stream));
    }
    Ok(())
}

/// A call with the best kernel of the device that can read these operands.
pub(crate) fn call(
    element: Element,
    arguments: &Arguments,
    operands: &Operands<'_, CudaStorage>,
    stream: &Arc<CudaStream>,
) -> Result<Call> {
    let gpu = Gpu::of(stream.context()).doing(|| kernels::ASKING)?;
    let shape = arguments.shape();
    // Without input keys the operands mean nothing; keys that are rotated come from scratch memory.
    let keys = (shape.input_keys && arguments.rope.is_none()).then_some(operands.keys.1);
    let values = shape.input_keys.then_some(operands.values.1);
    let cache = arguments.cache.as_ref().map(|cache| [cache.keys.layout(), cache.values.layout()]);
    let read = keys.into_iter().chain(values).chain(cache.into_iter().flatten());
    let bulk_copies = read.into_iter().all(|layout| is_describable(layout, element.bytes()));
    let tiling = Tiling::of(gpu.capability, element, shape.head_dim, bulk_copies)
        .ok_or_else(|| AttentionError::from(head_dim_unsupported(arguments.head_dim, stream)))?;
    let workers = tiling.workers(gpu.multiprocessors);
    Ok(Call { shape, element, tiling, multiprocessors: gpu.multiprocessors, workers })
}

fn head_dim_unsupported(head_dim: usize, stream: &CudaStream) -> Unsupported {
    let device = DeviceLocation::Cuda { gpu_id: stream.context().ordinal() };
    Unsupported::HeadDim { head_dim, expected: SUPPORTED_HEAD_DIMS, device }
}
