//! A call on its way to the device: from tensors to launches, and the one place where kernels are started.

use std::sync::Arc;

use candle_core::cuda::CudaDType;
use candle_core::cuda::cudarc::driver::{CudaSlice, CudaStream, DeviceRepr, LaunchConfig, PushKernelArg};
use candle_core::{CudaStorage, Layout, Result, Tensor};

use super::addresses::Address;
use super::device_plan::{DevicePlan, DevicePlans};
use super::failure::Doing;
use super::kernels;
use super::scratch::{Buffers as ScratchBuffers, StreamId};
use crate::attention::call::Arguments;
use crate::attention::gpu::Operands;
use crate::kernels::cuda::arguments::{
    AttentionArguments, KeyBiasView, KeyValueViews, LogSumExpView, RotationArguments, RotationTable, RowView,
    Sm90Arguments,
};
use crate::kernels::cuda::launch::{Buffers, Call, Launch, Tensors};
use crate::kernels::rows::{AngleRows, BiasRows, TensorRows};
use crate::kernels::schedule::ScheduleInputs;

// SAFETY: plain numbers in C layout, the same struct as in `kernels/cuda/arguments.cuh`.
unsafe impl DeviceRepr for AttentionArguments {}
// SAFETY: as above.
unsafe impl DeviceRepr for Sm90Arguments {}
// SAFETY: as above.
unsafe impl DeviceRepr for RotationArguments {}

/// Launches everything. All addresses keep their guards until after the launches.
pub(crate) fn run<T: CudaDType + DeviceRepr>(
    call: &Call,
    arguments: &Arguments,
    operands: &Operands<'_, CudaStorage>,
    stream: &Arc<CudaStream>,
    (output, log_sum_exp): (&mut CudaSlice<T>, Option<&mut CudaSlice<f32>>),
) -> Result<()> {
    let bytes = call.element.bytes();
    let plan = uploaded(call, arguments, stream)?;
    let sizes = &plan.sizes;
    let mut scratch = plan.scratch.lock(call.scratch(sizes))?;
    let ScratchBuffers { partials, arrivals, carried, rotated } = &mut *scratch;

    let queries = Address::of_storage::<T>(operands.queries.0, stream)?;
    let keys = Address::of_storage::<T>(operands.keys.0, stream)?;
    let values = Address::of_storage::<T>(operands.values.0, stream)?;
    let view = |address: &Address<'_>, layout: &Layout, broadcast: bool| {
        TensorRows::of(layout, bytes, broadcast).map(|rows| RowView::new(address.value, rows))
    };
    let bias = arguments.key_bias.as_ref().map(Tensor::storage_and_layout);
    let bias = bias.as_ref().map(|bias| Address::of_tensor::<f32>(bias, stream)).transpose()?;
    let mut input = KeyValueViews {
        keys: view(&keys, operands.keys.1, false)?,
        values: view(&values, operands.values.1, false)?,
        bias: bias_view(bias.as_ref())?,
    };

    let rope = arguments.rope.as_ref().map(Tensor::storage_and_layout);
    let rope = rope.as_ref().map(|rope| Address::of_tensor::<f32>(rope, stream)).transpose()?;
    let angles = match &rope {
        Some((address, layout)) => RotationTable::new(address.value, AngleRows::of(layout)?),
        None => RotationTable::default(),
    };

    let cache = arguments.cache.as_ref();
    let broadcast = cache.is_some_and(|cache| cache.broadcast);
    let cache_bias = cache.and_then(|cache| cache.key_bias.as_ref()).map(Tensor::storage_and_layout);
    let cache_bias = cache_bias.as_ref().map(|bias| Address::of_tensor::<f32>(bias, stream)).transpose()?;
    let cache = cache.map(|cache| (cache.keys.storage_and_layout(), cache.values.storage_and_layout()));
    let cache = match &cache {
        Some((keys, values)) => {
            Some((Address::of_tensor::<T>(keys, stream)?, Address::of_tensor::<T>(values, stream)?))
        }
        None => None,
    };
    let cache_views = match &cache {
        Some(((keys, key_layout), (values, value_layout))) => KeyValueViews {
            keys: view(keys, key_layout, broadcast)?,
            values: view(values, value_layout, broadcast)?,
            bias: bias_view(cache_bias.as_ref())?,
        },
        None => KeyValueViews::default(),
    };

    let rotated = Address::of_mut(rotated.as_mut(), stream);
    if plan.key_spans.is_some() {
        let spans = Address::of(plan.key_spans.as_ref(), stream);
        let rotated = call.rotated_keys(sizes, rotated.value);
        let launch = call.rotate(sizes, input.keys, angles, spans.value, rotated);
        // SAFETY: keys and angles were checked against the plan, spans lie inside the input, and the scratch memory was
        // made for exactly these rows. All guards are alive.
        unsafe { start(stream, &launch) }?;
        input.keys = rotated;
    }

    let items = Address::of(plan.items.as_ref(), stream);
    let steps = Address::of(plan.steps.as_ref(), stream);
    let reduction_of_slot = Address::of(plan.reduction_of_slot.as_ref(), stream);
    let partials = Address::of_mut(partials.as_mut(), stream);
    let arrivals = Address::of_mut(arrivals.as_mut(), stream);
    let carried = Address::of_mut(carried.as_mut(), stream);
    let output = Address::of_mut(Some(output), stream);
    let log_sum_exp = Address::of_mut(log_sum_exp, stream);
    let tensors = Tensors {
        queries: view(&queries, operands.queries.1, false)?,
        input,
        cache: cache_views,
        angles,
        output: call.output(output.value),
        log_sum_exp: match log_sum_exp.value {
            0 => LogSumExpView::default(),
            address => call.log_sum_exp(address),
        },
    };
    let buffers = Buffers {
        items: items.value,
        steps: steps.value,
        reduction_of_slot: reduction_of_slot.value,
        partials: partials.value,
        arrivals: arrivals.value,
        carried: carried.value,
    };
    let launch = call.attend(sizes, &tensors, &buffers)?;
    match call.tensor_maps(sizes, &tensors) {
        // SAFETY: the views describe tensors that were checked against the plan, the schedule names rows inside them, the
        // buffers have the sizes that the schedule needs, and all guards are alive.
        None => unsafe { start(stream, &launch) },
        Some(maps) => {
            let launch = launch.with_maps(plan.tensor_maps(&maps)?);
            // SAFETY: as above; the tensor maps describe the same views.
            unsafe { start(stream, &launch) }
        }
    }
}

/// Biases of keys, if there are any.
fn bias_view(bias: Option<&(Address<'_>, &Layout)>) -> Result<KeyBiasView> {
    match bias {
        Some((address, layout)) => Ok(KeyBiasView::new(address.value, BiasRows::of(layout)?)),
        None => Ok(KeyBiasView::default()),
    }
}

/// The schedule of a call on the device.
fn uploaded(call: &Call, arguments: &Arguments, stream: &Arc<CudaStream>) -> Result<Arc<DevicePlan>> {
    let inputs = arguments.schedule_inputs(call.tile(), call.workers);
    let key = (StreamId::of(stream), ScheduleInputs { persistent: call.persistent(), ..inputs });
    let make = || DevicePlan::new(&arguments.resolved, stream, &key).map(Arc::new);
    arguments.resolved.kept::<DevicePlans>().get(&key, make)
}

/// Starts a kernel.
///
/// # Safety
/// The kernel takes a struct like `A`. Every address in the arguments points to live memory of the extent that the kernel
/// documents, ordered before this point of the stream, and stays alive until the launch has run.
unsafe fn start<A: DeviceRepr>(stream: &CudaStream, launch: &Launch<A>) -> Result<()> {
    let function = kernels::load(stream, &launch.kernel)?;
    let config = LaunchConfig {
        grid_dim: (launch.blocks, 1, 1),
        block_dim: (launch.threads, 1, 1),
        shared_mem_bytes: launch.shared_bytes,
    };
    let mut builder = stream.launch_builder(&function);
    builder.arg(&launch.arguments);
    // SAFETY: the caller vouches for the arguments; the extents are those that the kernel was compiled for.
    unsafe { builder.launch(config) }.doing(|| format!("cannot launch the kernel {}", launch.kernel))?;
    Ok(())
}
