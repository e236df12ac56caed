//! The fused CUDA backend: the whole plan in one launch, without a score matrix and without copies of queries or values.
//!
//! | file | idea |
//! |---|---|
//! | [`tuning`] | which kernels there are and their tiles; read by `build.rs`, too |
//! | [`arguments`] | the structs that kernels take |
//! | [`kernels`] | embedded code, loaded once per GPU |
//! | [`device_plan`] | the schedule on the device, uploaded once |
//! | [`scratch`] | memory that launches write, one for each stream |
//! | [`tensor_map`] | how the copy engine of Hopper finds rows |
//! | [`launch`] | tensors to arguments; the one unsafe launch |
//!
//! The kernels are in `kernels/cuda/`. With RoPE, a second small kernel rotates the keys first (and only them; queries
//! are rotated while they are loaded).

mod arguments;
mod device_plan;
mod kernels;
mod launch;
mod scratch;
mod tensor_map;
mod tuning;

use std::ops::Deref;
use std::sync::Arc;

use bytemuck::Zeroable;
use candle_core::backend::BackendStorage;
use candle_core::cuda::cudarc::driver::{CudaSlice, CudaStream, DevicePtr, DevicePtrMut, DeviceRepr, SyncOnDrop, sys};
use candle_core::cuda::{CudaDType, WrapErr};
use candle_core::{CudaDevice, CudaStorage, DType, DeviceLocation, Layout, Result, Shape, Storage, Tensor};
use half::{bf16, f16};

pub(crate) use self::device_plan::DevicePlans;

use self::arguments::{AttentionArguments, KeyValueViews, RotationArguments, RotationTable, RowView, Sm90Arguments};
use self::device_plan::{DevicePlan, PlanKey};
use self::launch::{Extent, rotation_table, row_view};
use self::scratch::{Buffers, StreamId};
use self::tensor_map::TensorMap;
use self::tuning::{Element, Row};
use crate::attention::call::{Arguments, CacheArguments};
use crate::attention::gpu::{AngleRows, Rows};
use crate::{AttentionError, Unsupported};

/// One operand of the launch.
pub(super) type Operand<'a> = (&'a CudaStorage, &'a Layout);

/// Blocks of the key rotation per multiprocessor: enough to hide the latency of memory.
const ROTATE_BLOCKS_PER_SM: usize = 8;

/// What the kernels can pad to a tile.
const SUPPORTED_HEAD_DIMS: &str = "multiples of 8 up to 256";

/// Whether the kernels run on this device with this head_dim, or why not. The dtype is f32, f16 or bf16.
pub(super) fn supports(device: &CudaDevice, head_dim: usize) -> std::result::Result<(), Unsupported> {
    let stream = device.cuda_stream();
    kernels::check_device(stream.context())?;
    if !head_dim.is_multiple_of(8) || head_dim > tuning::MAX_HEAD_DIM {
        let device = DeviceLocation::Cuda { gpu_id: stream.context().ordinal() };
        return Err(Unsupported::HeadDim { head_dim, expected: SUPPORTED_HEAD_DIMS, device });
    }
    Ok(())
}

/// Runs the plan and returns rows `[batch, tokens, heads, head_dim]`.
pub(super) fn forward(
    arguments: &Arguments,
    queries: Operand<'_>,
    keys: Operand<'_>,
    values: Operand<'_>,
) -> Result<(CudaStorage, Shape)> {
    let storage = match queries.0.dtype() {
        DType::F16 => typed::<f16>(Element::F16, arguments, queries, keys, values)?,
        DType::BF16 => typed::<bf16>(Element::Bf16, arguments, queries, keys, values)?,
        DType::F32 if arguments.tf32 => typed::<f32>(Element::Tf32, arguments, queries, keys, values)?,
        DType::F32 => typed::<f32>(Element::F32, arguments, queries, keys, values)?,
        other => candle_core::bail!("the fused CUDA kernel takes f32, f16 and bf16, got {other:?}"),
    };
    let shape = (arguments.batch, arguments.tokens(), arguments.heads, arguments.head_dim);
    Ok((storage, Shape::from(shape)))
}

fn typed<T: CudaDType + DeviceRepr>(
    element: Element,
    arguments: &Arguments,
    queries: Operand<'_>,
    keys: Operand<'_>,
    values: Operand<'_>,
) -> Result<CudaStorage> {
    let device = queries.0.device();
    let stream = device.cuda_stream();
    let (batch, heads, head_dim) = (arguments.batch, arguments.heads, arguments.head_dim);
    let len = batch * arguments.tokens() * heads * head_dim;
    if len == 0 {
        return Ok(CudaStorage::wrap_cuda_slice(stream.null::<T>().w()?, device.clone()));
    }
    let call = Call { element, arguments, stream: &stream, row: row_of(element, arguments, keys.1, values.1, device)? };
    // SAFETY: every query token is in exactly one work item, or in one split tile, so that all rows are written.
    let mut output = unsafe { device.alloc::<T>(len)? };
    call.run(queries, keys, values, &mut output)?;
    Ok(CudaStorage::wrap_cuda_slice(output, device.clone()))
}

/// The kernel of a call: the device's best that can read these operands.
fn row_of(element: Element, arguments: &Arguments, keys: &Layout, values: &Layout, device: &CudaDevice) -> Result<Row> {
    let stream = device.cuda_stream();
    let capability = stream.context().compute_capability().w()?;
    let describable = |layout: &Layout| tensor_map::is_describable(layout, element.bytes());
    let in_cache = |cache: &CacheArguments| describable(cache.keys.layout()) && describable(cache.values.layout());
    // Keys that are rotated come from scratch memory.
    let bulk_copies = (arguments.rope.is_some() || describable(keys))
        && describable(values)
        && arguments.cache.as_ref().is_none_or(in_cache);
    Row::of(capability, element, arguments.head_dim, bulk_copies).ok_or_else(|| {
        let device = DeviceLocation::Cuda { gpu_id: stream.context().ordinal() };
        let (head_dim, expected) = (arguments.head_dim, SUPPORTED_HEAD_DIMS);
        AttentionError::from(Unsupported::HeadDim { head_dim, expected, device }).into()
    })
}

/// A call on its way to the device.
struct Call<'a> {
    element: Element,
    arguments: &'a Arguments,
    stream: &'a Arc<CudaStream>,
    row: Row,
}

impl Call<'_> {
    /// Launches everything. All guards of device pointers live until after the launches.
    fn run<T: CudaDType + DeviceRepr>(
        &self,
        queries: Operand<'_>,
        keys: Operand<'_>,
        values: Operand<'_>,
        output: &mut CudaSlice<T>,
    ) -> Result<()> {
        let (arguments, stream, bytes) = (self.arguments, self.stream.as_ref(), self.element.bytes());
        let multiprocessors = self.multiprocessors()?;
        let plan = self.plan(multiprocessors)?;
        let mut scratch = plan.scratch()?;
        let Buffers { partials, arrivals, rotated } = &mut *scratch;

        let (query_address, _queries) = queries.0.as_cuda_slice::<T>()?.device_ptr(stream);
        let (key_address, _keys) = keys.0.as_cuda_slice::<T>()?.device_ptr(stream);
        let (value_address, _values) = values.0.as_cuda_slice::<T>()?.device_ptr(stream);
        let mut input = KeyValueViews {
            keys: row_view(key_address, Rows::of(keys.1, bytes, false)?),
            values: row_view(value_address, Rows::of(values.1, bytes, false)?),
        };

        let rope = arguments.rope.as_ref().map(Tensor::storage_and_layout);
        let rope = on_device::<f32, _>(&rope, stream)?;
        let rotation = match &rope {
            Some((address, _, layout)) => rotation_table(*address, AngleRows::of(layout)?),
            None => RotationTable::zeroed(),
        };

        let cache = arguments.cache.as_ref();
        let cache_keys = cache.map(|cache| cache.keys.storage_and_layout());
        let cache_values = cache.map(|cache| cache.values.storage_and_layout());
        let cache_keys = on_device::<T, _>(&cache_keys, stream)?;
        let cache_values = on_device::<T, _>(&cache_values, stream)?;
        let broadcast = cache.is_some_and(|cache| cache.broadcast);
        let cached_view = |operand: &Option<(sys::CUdeviceptr, Guard<'_>, &Layout)>| match operand {
            Some((address, _, layout)) => Rows::of(layout, bytes, broadcast).map(|rows| row_view(*address, rows)),
            None => Ok(RowView::zeroed()),
        };

        let _rotated = match (rotated, &plan.rotation) {
            (Some(rotated), Some(_)) => {
                let (address, guard) = rotated.device_ptr_mut(stream);
                input.keys = self.rotate(&plan, input.keys, address, rotation, multiprocessors)?;
                Some(guard)
            }
            _ => None,
        };

        let (items, _items) = address(&plan.items, stream);
        let (steps, _steps) = address(&plan.steps, stream);
        let (reduction_of_slot, _reductions) = address(&plan.reduction_of_slot, stream);
        let (partials, _partials) = address_mut(partials, stream);
        let (arrivals, _arrivals) = address_mut(arrivals, stream);
        let (output_address, _output) = output.device_ptr_mut(stream);
        let kernel_arguments = AttentionArguments {
            queries: row_view(query_address, Rows::of(queries.1, bytes, false)?),
            input,
            cache: KeyValueViews { keys: cached_view(&cache_keys)?, values: cached_view(&cache_values)? },
            output: row_view(output_address, Rows::dense(arguments.tokens(), arguments.heads, arguments.head_dim)),
            query_rotation: rotation,
            items,
            steps,
            reduction_of_slot,
            partials,
            arrivals,
            item_count: plan.item_count as u32,
            head_dim: arguments.head_dim as u32,
            scale_log2: arguments.scale * std::f32::consts::LOG2_E,
            padding: 0,
        };
        let row = self.row;
        let function = kernels::load(stream.context(), &row.kernel_name(self.element))?;
        let blocks = row.blocks(plan.item_count, self.workers(multiprocessors));
        let extent = Extent { blocks, threads: row.threads(), shared_bytes: row.shared_bytes() };
        match row {
            // SAFETY: the views describe tensors that were checked against the plan, the schedule names rows inside
            // them, the plan's buffers have the sizes that its schedule needs, and all guards are alive.
            Row::Sm80(_) => unsafe { launch::launch(stream, &function, extent, &kernel_arguments) },
            Row::Sm90(_) => {
                let maps = self.tensor_maps(&plan, &kernel_arguments)?;
                let kernel_arguments = Sm90Arguments { maps, attention: kernel_arguments, padding: [0; 14] };
                // SAFETY: as above; the tensor maps describe the same views.
                unsafe { launch::launch(stream, &function, extent, &kernel_arguments) }
            }
        }
    }

    /// The maps of input keys, input values, cache keys and cache values; empty where the plan has no such keys.
    fn tensor_maps(&self, plan: &DevicePlan, kernel_arguments: &AttentionArguments) -> Result<[TensorMap; 4]> {
        let arguments = self.arguments;
        let map = |view: &RowView, tokens: usize| {
            let shape = [arguments.batch, arguments.heads, tokens, arguments.head_dim];
            if tokens == 0 || view.data == 0 {
                return Ok(TensorMap { opaque: [0; 16] });
            }
            tensor_map::encode(view, shape, self.element)
        };
        let AttentionArguments { input, cache, .. } = kernel_arguments;
        let ranges = arguments.resolved.ranges();
        let (tokens, cached) = (ranges.input_tokens(), ranges.cache_tokens());
        let key_rows = plan.rotation.as_ref().map_or(tokens, |rotation| rotation.rows);
        Ok([
            map(&input.keys, key_rows)?,
            map(&input.values, tokens)?,
            map(&cache.keys, cached)?,
            map(&cache.values, cached)?,
        ])
    }

    /// Rotates the keys into scratch memory at `address` and returns their view.
    fn rotate(
        &self,
        plan: &DevicePlan,
        keys: RowView,
        address: sys::CUdeviceptr,
        rotation: RotationTable,
        multiprocessors: usize,
    ) -> Result<RowView> {
        let Some(spans) = &plan.rotation else { return Ok(keys) };
        let arguments = self.arguments;
        let rotated = row_view(address, Rows::dense(spans.rows, arguments.heads, arguments.head_dim));
        let (span_address, _spans) = spans.spans.device_ptr(self.stream);
        let kernel_arguments = RotationArguments {
            keys,
            rotated,
            rotation,
            spans: span_address,
            rows: spans.rows as u64,
            span_count: spans.span_count as u32,
            batch: arguments.batch as u32,
            heads: arguments.heads as u32,
            head_dim: arguments.head_dim as u32,
        };
        let function = kernels::load(self.stream.context(), tuning::rotate_name(self.element))?;
        let bytes = arguments.batch * spans.rows * arguments.heads * arguments.head_dim * self.element.bytes();
        let blocks = (bytes / 16).div_ceil(tuning::ROTATE_THREADS).min(multiprocessors * ROTATE_BLOCKS_PER_SM);
        let extent = Extent { blocks, threads: tuning::ROTATE_THREADS, shared_bytes: 0 };
        // SAFETY: keys and angles were checked against the plan, spans lie inside the input, and the scratch memory was
        // made for exactly these rows. The caller and this function hold the guards.
        unsafe { launch::launch(self.stream, &function, extent, &kernel_arguments) }?;
        Ok(rotated)
    }

    fn plan(&self, multiprocessors: usize) -> Result<Arc<DevicePlan>> {
        let (arguments, bytes) = (self.arguments, self.element.bytes());
        let key = PlanKey::new(arguments, StreamId::of(self.stream), self.row, self.workers(multiprocessors), bytes);
        let make = || DevicePlan::new(&arguments.resolved, self.stream, key.clone());
        arguments.resolved.device_plans().get(|plan| plan.is(&key), make)
    }

    /// Blocks that run at a time.
    fn workers(&self, multiprocessors: usize) -> usize {
        multiprocessors * self.row.blocks_per_sm()
    }

    fn multiprocessors(&self) -> Result<usize> {
        let attribute = sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT;
        Ok(self.stream.context().attribute(attribute).w()? as usize)
    }
}

/// Keeps a device pointer valid for a launch, and orders other streams after it.
type Guard<'a> = SyncOnDrop<'a>;

/// The address of a buffer that the kernel reads; null without one.
fn address<'a, T>(slice: &'a Option<CudaSlice<T>>, stream: &'a CudaStream) -> (sys::CUdeviceptr, Option<Guard<'a>>) {
    match slice {
        Some(slice) => {
            let (address, guard) = slice.device_ptr(stream);
            (address, Some(guard))
        }
        None => (0, None),
    }
}

/// The address of a buffer that the kernel writes; null without one.
fn address_mut<'a, T>(
    slice: &'a mut Option<CudaSlice<T>>,
    stream: &'a CudaStream,
) -> (sys::CUdeviceptr, Option<Guard<'a>>) {
    match slice {
        Some(slice) => {
            let (address, guard) = slice.device_ptr_mut(stream);
            (address, Some(guard))
        }
        None => (0, None),
    }
}

/// Address, guard and layout of a tensor that is not an operand of the op.
fn on_device<'a, T: CudaDType + 'a, S: Deref<Target = Storage>>(
    tensor: &'a Option<(S, &'a Layout)>,
    stream: &'a CudaStream,
) -> Result<Option<(sys::CUdeviceptr, Guard<'a>, &'a Layout)>> {
    let Some((storage, layout)) = tensor else { return Ok(None) };
    let Storage::Cuda(storage) = &**storage else {
        candle_core::bail!("the cache and the RoPE frequencies of a CUDA launch must be on the device");
    };
    let (address, guard) = storage.as_cuda_slice::<T>()?.device_ptr(stream);
    Ok(Some((address, guard, layout)))
}
