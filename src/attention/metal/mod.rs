//! The fused Metal backend: the whole plan in one launch, without a score matrix and without copies of queries or values.
//!
//! | file | idea |
//! |---|---|
//! | [`tuning`] | GPU families, tiles, how many work items run at a time |
//! | [`arguments`] | the structs that kernels take |
//! | [`recipes`] | which kernels there are: file, macros, function constants |
//! | [`device_plan`] | the schedule on the device, uploaded once |
//! | [`launch`] | tensors to buffers and arguments; the launches |
//!
//! The kernels are in `kernels/metal/`; `crate::metal` compiles and launches them. With RoPE, a small kernel rotates the keys first (queries are rotated while they
//! are loaded); where keys are split, another one combines the parts.

mod arguments;
mod device_plan;
mod launch;
mod recipes;
mod tuning;

use candle_core::backend::{BackendDevice, BackendStorage};
use candle_core::{DType, Layout, MetalDevice, MetalStorage, Result, Shape};
use objc2_metal::{MTLDevice, MTLGPUFamily};

pub(crate) use self::device_plan::DevicePlans;

use self::launch::Call;
use self::tuning::{Element, Family, Row};
use crate::attention::arguments::Arguments;
use crate::metal::source;
use crate::{AttentionError, Unsupported};

/// One operand of the launch.
pub(super) type Operand<'a> = (&'a MetalStorage, &'a Layout);

/// Whether the kernels run on this device with this head_dim, or why not. The dtype is f32, f16 or bf16.
pub(super) fn supports(device: &MetalDevice, head_dim: usize) -> std::result::Result<(), Unsupported> {
    family(device)?;
    if !head_dim.is_multiple_of(8) || head_dim > tuning::MAX_HEAD_DIM {
        let expected = "multiples of 8 up to 256";
        return Err(Unsupported::HeadDim { head_dim, expected, device: device.location() });
    }
    Ok(())
}

/// The family of a GPU, or why the kernels do not run on it.
fn family(device: &MetalDevice) -> std::result::Result<Family, Unsupported> {
    let gpu = device.metal_device().as_ref();
    if gpu.supportsFamily(MTLGPUFamily::Apple9) {
        Ok(Family::Apple9)
    } else if gpu.supportsFamily(MTLGPUFamily::Apple7) {
        Ok(Family::Apple7)
    } else {
        let reason = format!("the kernels need a GPU of family Apple7 (M1, A14) or later, got '{}'", gpu.name());
        Err(Unsupported::Device { device: device.location(), reason })
    }
}

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
        let family = family(device).map_err(AttentionError::from)?;
        let element = element(dtype, family)?;
        let row = Row::of(family, element, head_dim).ok_or_else(|| {
            let (expected, device) = ("multiples of 8 up to 256", device.location());
            AttentionError::from(Unsupported::HeadDim { head_dim, expected, device })
        })?;
        Call { arguments, device, element, row, dtype }.run(queries, keys, values, &output)?;
    }
    let storage = MetalStorage::new(output, device.clone(), len, dtype);
    Ok((storage, Shape::from((batch, tokens, heads, head_dim))))
}

/// What a kernel computes with for a dtype.
fn element(dtype: DType, family: Family) -> Result<Element> {
    match (dtype, family) {
        (DType::F16, _) => Ok(Element::F16),
        (DType::BF16, Family::Apple7) => Ok(Element::WideBf16),
        (DType::BF16, Family::Apple9) => Ok(Element::Bf16),
        (DType::F32, _) => Ok(Element::F32),
        (other, _) => candle_core::bail!("the fused Metal kernel takes f32, f16 and bf16, got {other:?}"),
    }
}
