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
//! | [`failure`] | errors of the driver, told with what could not be done |
//! | [`launch`] | from tensors to launches; the one unsafe launch |
//!
//! Tiles, arguments and launches are described in `crate::kernels::cuda`. With RoPE, a second small kernel rotates the
//! keys first (and only them; queries are rotated while they are loaded).

mod addresses;
mod device_plan;
mod failure;
mod kernels;
mod launch;
mod scratch;
mod support;
mod tensor_map;

use candle_core::backend::BackendStorage;
use candle_core::cuda::CudaDType;
use candle_core::cuda::cudarc::driver::DeviceRepr;
use candle_core::{CudaStorage, DType, Error, Result, Shape};
use half::{bf16, f16};

pub(super) use self::support::supports;

use self::failure::Doing;
use crate::attention::call::Arguments;
use crate::attention::gpu::Operands;
use crate::kernels::cuda::tiling::Element;

/// What a call returns: rows `[batch, tokens, heads, head_dim]` and, if wanted, the log-sum-exp of each row's scores,
/// `[batch, tokens, heads]`.
type Results = (CudaStorage, Option<CudaStorage>);

/// Runs the plan and returns rows `[batch, tokens, heads, head_dim]` and, if wanted, the log-sum-exp of each row's scores,
/// `[batch, tokens, heads]`.
pub(super) fn forward(
    arguments: &Arguments,
    operands: &Operands<'_, CudaStorage>,
    with_log_sum_exp: bool,
) -> Result<(CudaStorage, Shape, Option<CudaStorage>)> {
    let (storage, log_sum_exp) = match operands.queries.0.dtype() {
        DType::F16 => typed::<f16>(Element::F16, arguments, operands, with_log_sum_exp)?,
        DType::BF16 => typed::<bf16>(Element::Bf16, arguments, operands, with_log_sum_exp)?,
        DType::F32 if arguments.tf32 => typed::<f32>(Element::Tf32, arguments, operands, with_log_sum_exp)?,
        DType::F32 => typed::<f32>(Element::F32, arguments, operands, with_log_sum_exp)?,
        other => candle_core::bail!("the fused CUDA kernel takes f32, f16 and bf16, got {other:?}"),
    };
    let shape = (arguments.batch, arguments.tokens(), arguments.heads, arguments.head_dim);
    Ok((storage, Shape::from(shape), log_sum_exp))
}

fn typed<T: CudaDType + DeviceRepr>(
    element: Element,
    arguments: &Arguments,
    operands: &Operands<'_, CudaStorage>,
    with_log_sum_exp: bool,
) -> Result<Results> {
    let device = operands.queries.0.device();
    let stream = device.cuda_stream();
    let rows = arguments.batch * arguments.tokens() * arguments.heads;
    let len = rows * arguments.head_dim;
    let no_room = || "cannot allocate GPU memory for the result";
    if len == 0 {
        let nothing = CudaStorage::wrap_cuda_slice(stream.null::<T>().doing(no_room)?, device.clone());
        let no_numbers =
            || Ok::<_, Error>(CudaStorage::wrap_cuda_slice(stream.null::<f32>().doing(no_room)?, device.clone()));
        return Ok((nothing, with_log_sum_exp.then(no_numbers).transpose()?));
    }
    let call = support::call(element, arguments, operands, &stream)?;
    // SAFETY: every query token is in exactly one work item, or in one split tile, so that all rows are written.
    let mut output = unsafe { stream.alloc::<T>(len) }.doing(no_room)?;
    // SAFETY: as above.
    let log_sum_exp = with_log_sum_exp.then(|| unsafe { stream.alloc::<f32>(rows) }.doing(no_room));
    let mut log_sum_exp = log_sum_exp.transpose()?;
    launch::run(&call, arguments, operands, &stream, (&mut output, log_sum_exp.as_mut()))?;
    let log_sum_exp = log_sum_exp.map(|numbers| CudaStorage::wrap_cuda_slice(numbers, device.clone()));
    Ok((CudaStorage::wrap_cuda_slice(output, device.clone()), log_sum_exp))
}
