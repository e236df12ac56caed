//! Runs the launches of a call in the emulator: what `src/attention/metal/launch.rs` does on a GPU, from the same
//! description.

use anyhow::Result;
use bytemuck::NoUninit;
use candle_mixed_attention::kernels::metal::dispatches::dispatches;
use candle_mixed_attention::kernels::metal::launch::{Binding, Call, Launch, Results, Rows, Schedule, Tensors};
use candle_mixed_attention::kernels::metal::tiling::{Element, Tiling};
use candle_mixed_attention::kernels::rows::{AngleRows, BiasRows, TensorRows};
use candle_mixed_attention::kernels::schedule::{GpuSchedule, ScheduleSizes};
use candle_mixed_attention::plan::{KeyRows, KeySource, SlotReduction, StepItem};
use emulator::{Device, Kernels, MetalArguments};

use crate::emulated_kernels::Computed;
use crate::emulated_kernels::case::Problem;
use crate::emulated_kernels::numbers::Number;

/// The kernels of a call.
#[derive(Clone, Copy)]
pub struct CallKernels<'a> {
    pub attend: &'a Kernels,
    pub rotate: &'a Kernels,
    pub combine: &'a Kernels,
}

/// Rotates keys where there is RoPE, runs the attention kernel, and combines the parts of split tiles. A dispatch takes at most so many steps.
pub fn run<T: Number>(
    element: Element,
    tiling: &'static Tiling,
    kernels: CallKernels<'_>,
    problem: &Problem<T>,
    order: u64,
    steps_per_dispatch: u64,
) -> Result<Computed<T>> {
    let call = Call { shape: problem.shape(), element, tiling };
    let GpuSchedule { steps, key_rows, sizes } =
        GpuSchedule::new(&problem.resolved, &problem.schedule_inputs(call.tile()));
    if sizes.items == 0 {
        return Ok(Computed { output: Vec::new(), log_sum_exp: Vec::new() });
    }
    let rotated = match (&problem.rope, &key_rows) {
        (Some(rope), Some(rows)) => rotated_keys(&call, &sizes, kernels.rotate, problem, rope, rows, order)?,
        _ => Vec::new(),
    };

    let device = kernels.attend.device();
    let fused = device.input("fused projection", &problem.fused);
    let rotated = device.input("rotated keys", &rotated);
    let cached_keys = device.input("cached keys", &problem.cached_keys);
    let cached_values = device.input("cached values", &problem.cached_values);
    let angles = device.input("angles", problem.rope.as_deref().unwrap_or_default());
    let bias = device.input("biases", problem.bias.as_deref().unwrap_or_default());
    let cache_bias = device.input("cached biases", problem.cache_bias.as_deref().unwrap_or_default());
    let items = device.input("items", steps.items());
    let key_steps = device.input("steps", steps.steps());
    let partials = device.output::<f32>("partials", call.scratch(&sizes).partials);
    let output = device.output::<T>("output", problem.output_len());
    let log_sum_exp = device.output::<f32>("log-sum-exps", problem.log_sum_exp_len());

    let cached =
        |address: u64| -> Result<Rows<u64>> { Ok((address, TensorRows::of(&problem.cache(), size_of::<T>(), false)?)) };
    let tensors = Tensors {
        queries: part(problem, fused.address(), 0)?,
        keys: match key_rows {
            Some(_) => call.rotated_keys(&sizes, rotated.address()),
            None => part(problem, fused.address(), 1)?,
        },
        values: part(problem, fused.address(), 2)?,
        cache: match problem.shape().cache_tokens {
            0 => None,
            _ => Some([cached(cached_keys.address())?, cached(cached_values.address())?]),
        },
        angles: match problem.rope {
            Some(_) => Some((angles.address(), AngleRows::of(&problem.angles())?)),
            None => None,
        },
        input_bias: match problem.bias {
            Some(_) => Some((bias.address(), BiasRows::of(&problem.bias_layout(KeySource::Input))?)),
            None => None,
        },
        cache_bias: match problem.cache_bias {
            Some(_) => Some((cache_bias.address(), BiasRows::of(&problem.bias_layout(KeySource::Cache))?)),
            None => None,
        },
    };
    let schedule = Schedule { items: items.address(), steps: key_steps.address() };
    let parts = (sizes.split_tiles > 0).then(|| partials.address());
    let steps_of = |item: &StepItem| (item.last_step - item.first_step).into();
    for items in dispatches(steps.items().iter().map(steps_of), steps_per_dispatch) {
        let wanted = problem.log_sum_exp.then(|| log_sum_exp.address());
        let results = Results { output: output.address(), log_sum_exp: wanted };
        let launch = call.attend(&sizes, &tensors, schedule, &items, parts, results);
        start(&device, &launch, tiling.threadgroup_bytes(problem.head_dim), order)?;
    }
    let whole = Computed { output: output.read(), log_sum_exp: log_sum_exp.read() };
    match sizes.split_tiles {
        0 => Ok(whole),
        _ => combined(&call, &sizes, kernels.combine, &steps.split_tiles(), &partials.read(), whole, order),
    }
}

/// The keys `[batch, rows, heads, head_dim]` that the attention kernel reads.
fn rotated_keys<T: Number>(
    call: &Call,
    sizes: &ScheduleSizes,
    kernels: &Kernels,
    problem: &Problem<T>,
    rope: &[f32],
    rows: &KeyRows,
    order: u64,
) -> Result<Vec<T>> {
    let device = kernels.device();
    let fused = device.input("fused projection", &problem.fused);
    let angles = device.input("angles", rope);
    let spans = device.input("spans", rows.spans());
    let rotated = device.output::<T>("rotated keys", call.scratch(sizes).rotated);
    let angles = (angles.address(), AngleRows::of(&problem.angles())?);
    let into = call.rotated_keys(sizes, rotated.address());
    let launch = call.rotate(sizes, part(problem, fused.address(), 1)?, angles, spans.address(), into);
    start(&device, &launch, 0, order)?;
    Ok(rotated.read())
}

/// The rows of split tiles, in an output that holds the others.
fn combined<T: Number>(
    call: &Call,
    sizes: &ScheduleSizes,
    kernels: &Kernels,
    tiles: &[SlotReduction],
    partials: &[f32],
    whole: Computed<T>,
    order: u64,
) -> Result<Computed<T>> {
    let device = kernels.device();
    let partials = device.input("partials", partials);
    let tiles = device.input("split tiles", tiles);
    let output = device.in_out("output", &whole.output);
    let log_sum_exp = device.in_out("log-sum-exps", &whole.log_sum_exp);
    let wanted = (!whole.log_sum_exp.is_empty()).then(|| log_sum_exp.address());
    let results = Results { output: output.address(), log_sum_exp: wanted };
    let launch = call.combine(sizes, partials.address(), tiles.address(), results);
    start(&device, &launch, 0, order)?;
    Ok(Computed { output: output.read(), log_sum_exp: log_sum_exp.read() })
}

fn start<A: NoUninit>(device: &Device, launch: &Launch<u64, A>, threadgroup_bytes: usize, order: u64) -> Result<()> {
    const { assert!(size_of::<A>() <= 4 << 10, "more than may be set as bytes") };
    let arguments = device.input("arguments", bytemuck::bytes_of(&launch.arguments));
    let mut bound = MetalArguments::new();
    for (slot, binding) in bound.buffers.iter_mut().zip(&launch.bindings) {
        *slot = match *binding {
            Binding::Input(address, offset) => address + offset as u64,
            Binding::Output(address) => address,
            Binding::Absent => 0,
        };
    }
    bound.buffers[launch.bindings.len()] = arguments.address();
    for (slot, &constant) in bound.constants.iter_mut().zip(&launch.constants) {
        *slot = constant.into();
    }
    let extent = |[width, height]: [usize; 2]| [width as u32, height as u32, 1];
    let (grid, block) = (extent(launch.grid), extent(launch.threads));
    let shape = emulator::Launch { grid, block, shared_bytes: threadgroup_bytes, order };
    Ok(device.launch(launch.recipe.function, shape, &bound)?)
}

/// Queries (0), keys (1) or values (2) in the fused projection.
fn part<T: Number>(problem: &Problem<T>, address: u64, part: usize) -> Result<Rows<u64>> {
    Ok((address, TensorRows::of(&problem.part(part), size_of::<T>(), false)?))
}
