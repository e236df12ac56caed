//! The fused Metal backend: the whole plan in one launch, without a score matrix and without copies of queries or values.
//!
//! | file | idea |
//! |---|---|
//! | [`support`] | what a GPU runs |
//! | [`device_plan`] | the schedule on the device, uploaded once |
//! | [`launch`] | from tensors to encoded launches |
//!
//! Tiles, arguments and launches are described in `crate::kernels::metal`; `crate::metal` compiles and encodes kernels.
//! With RoPE, a small kernel rotates the keys first (queries are rotated while they are loaded); where keys are split,
//! another one combines the parts.

mod device_plan;
mod launch;
#[cfg(test)]
mod small_kernels;
mod support;

use candle_core::backend::BackendStorage;
use candle_core::{DType, MetalStorage, Result, Shape};

pub(super) use self::support::supports;

use crate::attention::call::Arguments;
use crate::attention::gpu::Operands;
use crate::error::AttentionError;
use crate::kernels::metal::launch::{Call, Results};

/// Runs the plan and returns rows `[batch, tokens, heads, head_dim]` and, if wanted, the log-sum-exp of each row's scores,
/// `[batch, tokens, heads]`.
pub(super) fn forward(
    arguments: &Arguments,
    operands: &Operands<'_, MetalStorage>,
    with_log_sum_exp: bool,
) -> Result<(MetalStorage, Shape, Option<MetalStorage>)> {
    let (device, dtype) = (operands.queries.0.device(), operands.queries.0.dtype());
    let shape = arguments.shape();
    let rows = (shape.batch, shape.tokens, shape.heads, shape.head_dim);
    let queries = shape.batch * shape.tokens * shape.heads;
    let len = queries * shape.head_dim;
    let output = device.new_buffer(len, dtype, "mixed attention")?;
    let log_sum_exp = with_log_sum_exp.then(|| device.new_buffer(queries, DType::F32, "log-sum-exp")).transpose()?;
    if len > 0 {
        let (element, tiling) = support::kernel_of(device, dtype, shape.head_dim).map_err(AttentionError::from)?;
        let results = Results { output: &*output, log_sum_exp: log_sum_exp.as_deref() };
        launch::run(&Call { shape, element, tiling }, arguments, operands, results)?;
    }
    let log_sum_exp = log_sum_exp.map(|buffer| MetalStorage::new(buffer, device.clone(), queries, DType::F32));
    Ok((MetalStorage::new(output, device.clone(), len, dtype), Shape::from(rows), log_sum_exp))
}
