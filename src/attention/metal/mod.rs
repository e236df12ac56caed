//! The fused Metal backend: the whole plan in one launch, without a score matrix and without copies of queries or values.
//!
//! | file | idea |
//! |---|---|
//! | [`support`] | what a GPU runs |
//! | [`tuning`] | GPU families, tiles, how many work items run at a time |
//! | [`arguments`] | the structs that kernels take |
//! | [`recipes`] | which kernels there are: file, macros, function constants |
//! | [`device_plan`] | the schedule on the device, uploaded once |
//! | [`dispatches`] | how long a dispatch may be |
//! | [`launch`] | tensors to buffers and arguments; the launches |
//!
//! The kernels are in `kernels/metal/`; `crate::metal` compiles and launches them. With RoPE, a small kernel rotates the
//! keys first (queries are rotated while they are loaded); where keys are split, another one combines the parts.

mod arguments;
mod device_plan;
mod dispatches;
mod launch;
mod recipes;
mod support;
mod tuning;

use candle_core::backend::BackendStorage;
use candle_core::{Layout, MetalStorage, Result, Shape};

pub(crate) use self::device_plan::DevicePlans;
pub(super) use self::support::supports;

use self::launch::Call;
use crate::AttentionError;
use crate::attention::call::Arguments;
use crate::metal::source;

/// One operand of the launch.
pub(super) type Operand<'a> = (&'a MetalStorage, &'a Layout);

/// Runs the plan and returns rows `[batch, tokens, heads, head_dim]`.
pub(super) fn forward(
    arguments: &Arguments,
    queries: Operand<'_>,
    keys: Operand<'_>,
    values: Operand<'_>,
) -> Result<(MetalStorage, Shape)> {
    let (device, dtype) = (queries.0.device(), queries.0.dtype());
    let (batch, tokens, heads, head_dim) = (arguments.batch, arguments.tokens(), arguments.heads, arguments.head_dim);
    let len = batch * tokens * heads * head_dim;
    let output = device.new_buffer(len, dtype, "mixed attention")?;
    if len > 0 {
        let (element, row) = support::kernel_of(device, dtype, head_dim).map_err(AttentionError::from)?;
        Call { arguments, device, element, row, dtype }.run(queries, keys, values, &output)?;
    }
    let storage = MetalStorage::new(output, device.clone(), len, dtype);
    Ok((storage, Shape::from((batch, tokens, heads, head_dim))))
}
