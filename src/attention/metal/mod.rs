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
use candle_core::{MetalStorage, Result, Shape};

pub(super) use self::support::supports;

use crate::attention::call::Arguments;
use crate::attention::gpu::Operands;
use crate::error::AttentionError;
use crate::kernels::metal::launch::Call;

/// Runs the plan and returns rows `[batch, tokens, heads, head_dim]`.
pub(super) fn forward(arguments: &Arguments, operands: &Operands<'_, MetalStorage>) -> Result<(MetalStorage, Shape)> {
    let (device, dtype) = (operands.queries.0.device(), operands.queries.0.dtype());
    let shape = arguments.shape();
    let rows = (shape.batch, shape.tokens, shape.heads, shape.head_dim);
    let len = shape.batch * shape.tokens * shape.heads * shape.head_dim;
    let output = device.new_buffer(len, dtype, "mixed attention")?;
    if len > 0 {
        let (element, tiling) = support::kernel_of(device, dtype, shape.head_dim).map_err(AttentionError::from)?;
        launch::run(&Call { shape, element, tiling }, arguments, operands, &output)?;
    }
    Ok((MetalStorage::new(output, device.clone(), len, dtype), Shape::from(rows)))
}
