//! Launches: tensors to buffers and arguments.

use std::ops::{Deref, Range};
use std::sync::Arc;

use candle_core::backend::BackendStorage;
use candle_core::{DType, Layout, MetalDevice, Result, Storage, Tensor};
use candle_metal_kernels::metal::{Buffer, ComputeCommandEncoder, ComputePipeline};

use super::Operand;
use super::arguments::{AngleStrides, AttentionArguments, CombineArguments, RotationArguments, RowStrides};
use super::device_plan::{DevicePlan, PlanKey, Rotation, Split};
use super::dispatches::steps_per_dispatch;
use super::recipes::{self, Uniform};
use super::source::Recipe;
use super::support;
use super::tuning::{COMBINE_THREADS, Element, ROTATE_THREADS, Row};
use crate::attention::call::Arguments;
use crate::attention::gpu::{AngleRows, Rows};
use crate::AttentionError;
use crate::metal::{Binding, dispatch, extent, load};

/// A call on its way to the device.
pub(super) struct Call<'a> {
    pub arguments: &'a Arguments,
    pub device: &'a MetalDevice,
    pub element: Element,
    pub row: &'static Row,
    pub dtype: DType,
}

/// What a call reads: tensors on the device, and where their rows lie.
struct Inputs<'a> {
    queries: (&'a Buffer, Rows),
    keys: (&'a Buffer, Rows),
    values: (&'a Buffer, Rows),
    cache: Option<[(&'a Buffer, Rows); 2]>,
    angles: Option<(&'a Buffer, AngleRows)>,
}

/// The kernels of a call.
struct Pipelines {
    attend: ComputePipeline,
    rotate: Option<ComputePipeline>,
    combine: Option<ComputePipeline>,
}

/// What the launches of a call write and read, `None` where they do not.
struct Scratch {
    /// Rotated keys `[batch, rows, heads, head_dim]`.
    rotated: Option<Arc<Buffer>>,
    /// Partial results of split tiles.
    partials: Option<Arc<Buffer>>,
}

impl Call<'_> {
    /// Encodes all launches. Metal keeps the buffers until they have run.
    pub fn run(&self, queries: Operand<'_>, keys: Operand<'_>, values: Operand<'_>, output: &Buffer) -> Result<()> {
        let plan = self.plan()?;
        let rope = self.arguments.rope.as_ref().map(Tensor::storage_and_layout);
        let cache = self.arguments.cache.as_ref();
        let broadcast = cache.is_some_and(|cache| cache.broadcast);
        let cache = cache.map(|cache| (cache.keys.storage_and_layout(), cache.values.storage_and_layout()));
        let inputs = Inputs {
            queries: self.rows(queries.0.buffer(), queries.1, false)?,
            keys: self.rows(keys.0.buffer(), keys.1, false)?,
            values: self.rows(values.0.buffer(), values.1, false)?,
            cache: match &cache {
                Some(((keys, key_layout), (values, value_layout))) => Some([
                    self.rows(buffer_of(keys, self.dtype)?, key_layout, broadcast)?,
                    self.rows(buffer_of(values, self.dtype)?, value_layout, broadcast)?,
                ]),
                None => None,
            },
            angles: match &rope {
                Some((angles, layout)) => Some((buffer_of(angles, DType::F32)?, AngleRows::of(layout)?)),
                None => None,
            },
        };
        let pipelines = self.pipelines(&plan, &inputs)?;
        let scratch = self.scratch(&plan)?;

        // Other threads wait while there is an encoder, so that its launches stay together.
        let mut encoder = self.device.command_encoder()?;
        let keys = match (&plan.rotation, &scratch.rotated, &pipelines.rotate, inputs.angles) {
            (Some(rotation), Some(rotated), Some(pipeline), Some(angles)) => {
                self.rotate(encoder.as_ref(), pipeline, rotation, rotated, inputs.keys, angles)
            }
            _ => inputs.keys,
        };
        let partials = scratch.partials.as_deref();
        let inputs = Inputs { keys, ..inputs };
        for (i, items) in plan.dispatches.iter().enumerate() {
            if i > 0 {
                // A long launch: what is encoded runs to its end before more is, in a command buffer of its own.
                drop(encoder);
                self.device.flush_and_wait_current()?;
                encoder = self.device.command_encoder()?;
            }
            self.attend(encoder.as_ref(), &pipelines.attend, &plan, items, &inputs, partials, output);
        }
        if let (Some(split), Some(partials), Some(pipeline)) = (&plan.split, partials, &pipelines.combine) {
            self.combine(encoder.as_ref(), pipeline, split, partials, output);
        }
        Ok(())
    }

    fn scratch(&self, plan: &DevicePlan) -> Result<Scratch> {
        let arguments = self.arguments;
        let rotated = |rotation: &Rotation| {
            let elements = arguments.batch * rotation.rows * arguments.heads * arguments.head_dim;
            self.device.new_buffer(elements, self.dtype, "rotated keys")
        };
        let partials = |split: &Split| self.device.new_buffer(split.partials, DType::F32, "partial results");
        Ok(Scratch {
            rotated: plan.rotation.as_ref().map(rotated).transpose()?,
            partials: plan.split.as_ref().map(partials).transpose()?,
        })
    }

    fn rows<'a>(&self, buffer: &'a Buffer, layout: &Layout, broadcast: bool) -> Result<(&'a Buffer, Rows)> {
        Ok((buffer, Rows::of(layout, self.element.bytes(), broadcast)?))
    }

    fn plan(&self) -> Result<Arc<DevicePlan>> {
        let (arguments, row) = (self.arguments, self.row);
        let cores = support::cores(self.device);
        let workers = cores * row.threadgroups_per_core();
        let key = PlanKey::new(arguments, self.device.id(), row, workers, self.element.bytes());
        let known = |plan: &DevicePlan| plan.key == key;
        let family = support::family(self.device).map_err(AttentionError::from)?;
        let most = steps_per_dispatch(family, row, arguments.head_dim, cores);
        let make = || DevicePlan::new(&arguments.resolved, self.device, key.clone(), most);
        arguments.resolved.metal_plans().get(known, make)
    }

    fn pipelines(&self, plan: &DevicePlan, inputs: &Inputs<'_>) -> Result<Pipelines> {
        let uniform = Uniform {
            rotation: inputs.angles.is_some(),
            cache: inputs.cache.is_some(),
            partial_steps: plan.has_partial_steps,
            split_keys: plan.split.is_some(),
        };
        let recipe = recipes::mixed_attention(self.row, self.element, self.arguments.head_dim);
        let small = |wanted: bool, recipe: fn(Element) -> Recipe, threads: usize| {
            wanted.then(|| load(self.device, recipe(self.element), &[], threads)).transpose()
        };
        Ok(Pipelines {
            attend: load(self.device, recipe, &uniform.constants(), self.row.threads())?,
            rotate: small(plan.rotation.is_some(), recipes::rotate_keys, ROTATE_THREADS.iter().product())?,
            combine: small(plan.split.is_some(), recipes::combine_split_keys, COMBINE_THREADS)?,
        })
    }

    /// Rotates the keys into scratch memory and returns where they are.
    fn rotate<'a>(
        &self,
        encoder: &ComputeCommandEncoder,
        pipeline: &ComputePipeline,
        rotation: &Rotation,
        rotated_keys: &'a Buffer,
        (keys, key_rows): (&Buffer, Rows),
        (angles, angle_rows): (&Buffer, AngleRows),
    ) -> (&'a Buffer, Rows) {
        let arguments = self.arguments;
        let rotated = Rows::dense(rotation.rows, arguments.heads, arguments.head_dim);
        let bindings = [
            Binding::Input(keys, key_rows.offset),
            Binding::Output(rotated_keys),
            Binding::Input(angles, angle_rows.offset),
            Binding::Input(&rotation.spans, 0),
        ];
        let kernel_arguments = RotationArguments {
            keys: strides(key_rows),
            rotated: strides(rotated),
            angles: angle_strides(angle_rows),
            rows: rotation.rows as u64,
            span_count: rotation.span_count as u32,
            heads: arguments.heads as u32,
            head_dim: arguments.head_dim as u32,
            padding: 0,
        };
        let [lanes, rows] = ROTATE_THREADS;
        let grid = extent(rotation.rows.div_ceil(rows), arguments.batch);
        dispatch(encoder, pipeline, &bindings, &kernel_arguments, grid, extent(lanes, rows));
        (rotated_keys, rotated)
    }

    fn attend(
        &self,
        encoder: &ComputeCommandEncoder,
        pipeline: &ComputePipeline,
        plan: &DevicePlan,
        items: &Range<usize>,
        inputs: &Inputs<'_>,
        partials: Option<&Buffer>,
        output: &Buffer,
    ) {
        let bindings = [
            Binding::Input(inputs.queries.0, inputs.queries.1.offset),
            Binding::Input(inputs.keys.0, inputs.keys.1.offset),
            Binding::Input(inputs.values.0, inputs.values.1.offset),
            inputs.cache.map_or(Binding::Absent, |[(keys, rows), _]| Binding::Input(keys, rows.offset)),
            inputs.cache.map_or(Binding::Absent, |[_, (values, rows)]| Binding::Input(values, rows.offset)),
            inputs.angles.map_or(Binding::Absent, |(angles, rows)| Binding::Input(angles, rows.offset)),
            Binding::Output(output),
            partials.map_or(Binding::Absent, Binding::Output),
            Binding::Input(&plan.items, items.start * size_of::<StepItem>()),
            Binding::Input(&plan.steps, 0),
        ];
        let [cache_keys, cache_values] =
            inputs.cache.map_or_else(Default::default, |[(_, keys), (_, values)]| [strides(keys), strides(values)]);
        let kernel_arguments = AttentionArguments {
            queries: strides(inputs.queries.1),
            input_keys: strides(inputs.keys.1),
            input_values: strides(inputs.values.1),
            cache_keys,
            cache_values,
            output: strides(self.output_rows()),
            angles: inputs.angles.map(|(_, rows)| angle_strides(rows)).unwrap_or_default(),
            scale_log2: self.arguments.scale * std::f32::consts::LOG2_E,
            padding: 0,
        };
        let (grid, group) = (extent(items.len(), 1), extent(self.row.threads(), 1));
        dispatch(encoder, pipeline, &bindings, &kernel_arguments, grid, group);
    }

    fn combine(
        &self,
        encoder: &ComputeCommandEncoder,
        pipeline: &ComputePipeline,
        split: &Split,
        partials: &Buffer,
        output: &Buffer,
    ) {
        let bindings = [Binding::Input(partials, 0), Binding::Input(&split.tiles, 0), Binding::Output(output)];
        let kernel_arguments = CombineArguments {
            output: strides(self.output_rows()),
            head_dim: self.arguments.head_dim as u32,
            tile_queries: self.row.queries() as u32,
        };
        let (grid, group) = (extent(split.tile_count, 1), extent(COMBINE_THREADS, 1));
        dispatch(encoder, pipeline, &bindings, &kernel_arguments, grid, group);
    }

    fn output_rows(&self) -> Rows {
        Rows::dense(self.arguments.tokens(), self.arguments.heads, self.arguments.head_dim)
    }
}

fn strides(rows: Rows) -> RowStrides {
    RowStrides { batch: rows.batch, head: rows.head, token: rows.token }
}

fn angle_strides(rows: AngleRows) -> AngleStrides {
    AngleStrides { batch: rows.batch, token: rows.token }
}

/// The buffer of a tensor that is not an operand of the op.
fn buffer_of(storage: &impl Deref<Target = Storage>, dtype: DType) -> Result<&Buffer> {
    match &**storage {
        Storage::Metal(storage) if storage.dtype() == dtype => Ok(storage.buffer()),
        other => {
            let (device, got) = (other.device().location(), other.dtype());
            candle_core::bail!("a Metal launch needs {dtype:?} on the device, got {got:?} on {device:?}")
        }
    }
}
