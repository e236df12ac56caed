//! A call on its way to the device: from tensors to encoded launches.

use std::ops::Deref;
use std::sync::Arc;

use bytemuck::NoUninit;
use candle_core::backend::BackendStorage;
use candle_core::{DType, Layout, MetalDevice, MetalStorage, Result, Storage, Tensor};
use candle_metal_kernels::metal::{Buffer, ComputeCommandEncoder, ComputePipeline};

use super::device_plan::{DevicePlan, DevicePlans};
use super::support;
use crate::AttentionError;
use crate::attention::call::Arguments;
use crate::attention::gpu::{Operand, Operands};
use crate::kernels::metal::dispatches::steps_per_dispatch;
use crate::kernels::metal::launch::{Call, Launch, Results, Rows, Schedule, Tensors};
use crate::kernels::rows::{AngleRows, BiasRows, TensorRows};
use crate::metal::{dispatch, load};

/// Encodes all launches of a call. Metal keeps the buffers until they have run.
pub(super) fn run(
    call: &Call,
    arguments: &Arguments,
    operands: &Operands<'_, MetalStorage>,
    results: Results<&Buffer>,
) -> Result<()> {
    let (device, dtype) = (operands.queries.0.device(), operands.queries.0.dtype());
    let plan = uploaded(call, arguments, device)?;
    let bytes = dtype.size_in_bytes();
    let cache = arguments.cache.as_ref();
    let broadcast = cache.is_some_and(|cache| cache.broadcast);
    let cache_bias = cache.and_then(|cache| cache.key_bias.as_ref()).map(Tensor::storage_and_layout);
    let input_bias = arguments.key_bias.as_ref().map(Tensor::storage_and_layout);
    let cache = cache.map(|cache| (cache.keys.storage_and_layout(), cache.values.storage_and_layout()));
    let cache = match &cache {
        Some((keys, values)) => Some([rows_of(keys, dtype, broadcast)?, rows_of(values, dtype, broadcast)?]),
        None => None,
    };
    let angles = arguments.rope.as_ref().map(Tensor::storage_and_layout);
    let angles = match &angles {
        Some((angles, layout)) => Some((buffer_of(angles, DType::F32)?, AngleRows::of(layout)?)),
        None => None,
    };
    let keys = operand(operands.keys, bytes)?;

    let sizes = &plan.sizes;
    let scratch = call.scratch(sizes);
    let rotated = plan.key_spans.is_some().then(|| device.new_buffer(scratch.rotated, dtype, "rotated keys"));
    let rotated = rotated.transpose()?;
    let partials = plan.split_tiles.is_some().then(|| device.new_buffer(scratch.partials, DType::F32, "partials"));
    let partials = partials.transpose()?;

    let rotated = rotated.as_deref().map(|buffer| call.rotated_keys(sizes, buffer));
    let rotate = match (rotated, angles, &plan.key_spans) {
        (Some(rotated), Some(angles), Some(spans)) => Some(call.rotate(sizes, keys, angles, spans, rotated)),
        _ => None,
    };
    let tensors = Tensors {
        queries: operand(operands.queries, bytes)?,
        keys: rotated.unwrap_or(keys),
        values: operand(operands.values, bytes)?,
        cache,
        angles,
        input_bias: input_bias.as_ref().map(bias_of).transpose()?,
        cache_bias: cache_bias.as_ref().map(bias_of).transpose()?,
    };
    let schedule = Schedule::<&Buffer> { items: &plan.items, steps: &plan.steps };
    let attend = |items| call.attend(sizes, &tensors, schedule, items, partials.as_deref(), results);
    let combine = match (partials.as_deref(), &plan.split_tiles) {
        (Some(partials), Some(tiles)) => Some(call.combine(sizes, partials, tiles, results)),
        _ => None,
    };

    let rotate = rotate.map(|launch| Loaded::new(device, launch)).transpose()?;
    let attend = plan.dispatches.iter().map(|items| Loaded::new(device, attend(items))).collect::<Result<Vec<_>>>()?;
    let combine = combine.map(|launch| Loaded::new(device, launch)).transpose()?;
    // Other threads wait while there is an encoder, so that its launches stay together.
    let mut encoder = device.command_encoder()?;
    if let Some(rotate) = rotate {
        rotate.encode(encoder.as_ref());
    }
    for (i, attend) in attend.iter().enumerate() {
        if i > 0 {
            // A long launch: what is encoded runs to its end in a command buffer of its own before more is.
            drop(encoder);
            device.flush_and_wait_current()?;
            encoder = device.command_encoder()?;
        }
        attend.encode(encoder.as_ref());
    }
    if let Some(combine) = combine {
        combine.encode(encoder.as_ref());
    }
    Ok(())
}

/// A launch whose kernel is there.
pub(super) struct Loaded<'a, A> {
    pipeline: ComputePipeline,
    launch: Launch<&'a Buffer, A>,
}

impl<'a, A: NoUninit> Loaded<'a, A> {
    pub(super) fn new(device: &MetalDevice, launch: Launch<&'a Buffer, A>) -> Result<Self> {
        let threads = launch.threads.iter().product();
        let pipeline = load(device, launch.recipe.clone(), &launch.constants, threads)?;
        Ok(Self { pipeline, launch })
    }

    pub(super) fn encode(&self, encoder: &ComputeCommandEncoder) {
        let Launch { bindings, arguments, grid, threads, .. } = &self.launch;
        dispatch(encoder, &self.pipeline, bindings, arguments, *grid, *threads);
    }
}

/// The schedule of a call on the device.
fn uploaded(call: &Call, arguments: &Arguments, device: &MetalDevice) -> Result<Arc<DevicePlan>> {
    let cores = support::cores(device);
    let family = support::family(device).map_err(AttentionError::from)?;
    let most = steps_per_dispatch(family, call.tiling, call.shape.head_dim, cores);
    let inputs = arguments.schedule_inputs(call.tile(), cores * call.tiling.threadgroups_per_core());
    let key = (device.id(), inputs);
    let make = || DevicePlan::new(&arguments.resolved, device, &key.1, most).map(Arc::new);
    arguments.resolved.kept::<DevicePlans>().get(&key, make)
}

/// An operand of the op.
fn operand<'a>((storage, layout): Operand<'a, MetalStorage>, bytes: usize) -> Result<Rows<&'a Buffer>> {
    Ok((storage.buffer(), TensorRows::of(layout, bytes, false)?))
}

/// A tensor that is no operand of the op.
fn rows_of<'a>(
    (storage, layout): &'a (impl Deref<Target = Storage>, &Layout),
    dtype: DType,
    broadcast: bool,
) -> Result<Rows<&'a Buffer>> {
    Ok((buffer_of(storage, dtype)?, TensorRows::of(layout, dtype.size_in_bytes(), broadcast)?))
}

/// Biases of keys.
fn bias_of<'a>((storage, layout): &'a (impl Deref<Target = Storage>, &Layout)) -> Result<(&'a Buffer, BiasRows)> {
    Ok((buffer_of(storage, DType::F32)?, BiasRows::of(layout)?))
}

fn buffer_of(storage: &impl Deref<Target = Storage>, dtype: DType) -> Result<&Buffer> {
    match &**storage {
        Storage::Metal(storage) if storage.dtype() == dtype => Ok(storage.buffer()),
        other => {
            let (device, got) = (other.device().location(), other.dtype());
            candle_core::bail!("a Metal launch needs {dtype:?} on the device, got {got:?} on {device:?}")
        }
    }
}
