//! The fused CUDA backend: the whole plan in one launch, without a score matrix and without copies of queries or values.
//!
//! | file | idea |
//! |---|---|
//! | [`support`] | what a GPU runs |
//! | [`addresses`] | device addresses of tensors and buffers, and what keeps them valid |
//! | [`device_plan`] | the schedule on the device, uploaded once |
//! | [`scratch`] | memory that launches write, one for each stream |
//! | [`kernels`] | embedded code, loaded once per GPU |
//! | [`tensor_map`] | the driver's encoding of tensor maps |
//! | [`launch`] | from tensors to launches; the one unsafe launch |
//!
//! Tiles, arguments and launches are described in `crate::kernels::cuda`. With RoPE, a second small kernel rotates the
//! keys first (and only them; queries are rotated while they are loaded).

mod addresses;
mod device_plan;
mod kernels;
mod launch;
mod scratch;
mod support;
mod tensor_map;

use candle_core::backend::BackendStorage;
use candle_core::cuda::cudarc::driver::DeviceRepr;
use candle_core::cuda::{CudaDType, WrapErr};
use candle_core::{CudaStorage, DType, Result, Shape};
use half::{bf16, f16};

pub(super) use self::support::supports;

use crate::attention::call::Arguments;
use crate::attention::gpu::Operands;
use crate::kernels::cuda::tiling::Element;

/// Runs the plan and returns rows `[batch, tokens, heads, head_dim]`.
pub(super) fn forward(arguments: &Arguments, operands: &Operands<'_, CudaStorage>) -> Result<(CudaStorage, Shape)> {
    let storage = match operands.queries.0.dtype() {
        DType::F16 => typed::<f16>(Element::F16, arguments, operands)?,
        DType::BF16 => typed::<bf16>(Element::Bf16, arguments, operands)?,
        DType::F32 if arguments.tf32 => typed::<f32>(Element::Tf32, arguments, operands)?,
        DType::F32 => typed::<f32>(Element::F32, arguments, operands)?,
        other => candle_core::bail!("the fused CUDA kernel takes f32, f16 and bf16, got {other:?}"),
    };
    let shape = (arguments.batch, arguments.tokens(), arguments.heads, arguments.head_dim);
    Ok((storage, Shape::from(shape)))
}

fn typed<T: CudaDType + DeviceRepr>(
    element: Element,
    arguments: &Arguments,
    operands: &Operands<'_, CudaStorage>,
) -> Result<CudaStorage> {
    let device = operands.queries.0.device();
    let stream = device.cuda_stream();
    let len = arguments.batch * arguments.tokens() * arguments.heads * arguments.head_dim;
    if len == 0 {
        return Ok(CudaStorage::wrap_cuda_slice(stream.null::<T>().w()?, device.clone()));
    }
    let call = support::call(element, arguments, operands, &stream)?;
    // SAFETY: every query token is in exactly one work item, or in one split tile, so that all rows are written.
    let mut output = unsafe { device.alloc::<T>(len)? };
    launch::run(&call, arguments, operands, &stream, &mut output)?;
    Ok(CudaStorage::wrap_cuda_slice(output, device.clone()))
}
