//! Runs the launches of a call in the emulator: what `src/attention/cuda/launch.rs` does on a GPU, from the same
//! description.

use anyhow::{Result, ensure};
use candle_mixed_attention::kernels::cuda::arguments::{
    self, KeyBiasView, KeyValueViews, LogSumExpView, RotationTable, RowView,
};
use candle_mixed_attention::kernels::cuda::launch::{Buffers, Call, Launch, Tensors};
use candle_mixed_attention::kernels::cuda::tensor_map::TensorMapDescription;
use candle_mixed_attention::kernels::cuda::tiling::{Element, Tiling};
use candle_mixed_attention::kernels::rows::{AngleRows, BiasRows, TensorRows};
use candle_mixed_attention::kernels::schedule::{GpuSchedule, ScheduleInputs, ScheduleSizes};

use bytemuck::NoUninit;
use candle_mixed_attention::plan::{KeyRows, KeySource};
use emulator::{Device, Kernels, TensorMap};

use crate::emulated_kernels::Computed;
use crate::emulated_kernels::case::Problem;
use crate::emulated_kernels::numbers::Number;

/// Multiprocessors, as far as the key rotation fills them.
const MULTIPROCESSORS: usize = 1;

/// The kernels of a call, as C++ or as PTX.
#[derive(Clone, Copy)]
pub struct CallKernels<'a> {
    pub attend: &'a Kernels,
    pub rotate: &'a Kernels,
}

/// Runs the attention kernel, after the one that rotates keys where there is RoPE.
pub fn run<T: Number>(
    element: Element,
    tiling: Tiling,
    kernels: CallKernels<'_>,
    problem: &Problem<T>,
    order: u64,
) -> Result<Computed<T>> {
    let shape = problem.shape();
    let call = Call { shape, element, tiling, multiprocessors: MULTIPROCESSORS, workers: problem.workers };
    let inputs = ScheduleInputs { persistent: call.persistent(), ..problem.schedule_inputs(call.tile()) };
    let GpuSchedule { steps, key_rows, sizes } = GpuSchedule::new(&problem.resolved, &inputs);
    ensure!(problem.workers == 1 || sizes.partial_slots > 0, "the case is there to split keys, and none is split");
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
    let reduction_of_slot = device.input("reductions", steps.reduction_of_slot());
    let scratch = call.scratch(&sizes);
    let partials = device.output::<f32>("partials", scratch.partials);
    let carried = device.output::<f32>("carried sums", scratch.carried);
    let arrivals = device.in_out("arrivals", &vec![0u32; scratch.arrivals]);
    let output = device.output::<T>("output", problem.output_len());
    let log_sum_exp = device.output::<f32>("log-sum-exps", problem.log_sum_exp_len());

    let keys = match key_rows {
        Some(_) => call.rotated_keys(&sizes, rotated.address()),
        None => part(problem, fused.address(), 1)?,
    };
    let cached = |address: u64| view::<T>(address, &problem.cache());
    let bias_view = |numbers: &Option<Vec<f32>>, address: u64, source: KeySource| -> Result<KeyBiasView> {
        match numbers {
            Some(_) => Ok(KeyBiasView::new(address, BiasRows::of(&problem.bias_layout(source))?)),
            None => Ok(KeyBiasView::default()),
        }
    };
    let tensors = Tensors {
        queries: part(problem, fused.address(), 0)?,
        input: KeyValueViews {
            keys,
            values: part(problem, fused.address(), 2)?,
            bias: bias_view(&problem.bias, bias.address(), KeySource::Input)?,
        },
        cache: match shape.cache_tokens {
            0 => KeyValueViews::default(),
            _ => KeyValueViews {
                keys: cached(cached_keys.address())?,
                values: cached(cached_values.address())?,
                bias: bias_view(&problem.cache_bias, cache_bias.address(), KeySource::Cache)?,
            },
        },
        angles: match problem.rope {
            Some(_) => RotationTable::new(angles.address(), AngleRows::of(&problem.angles())?),
            None => RotationTable::default(),
        },
        output: call.output(output.address()),
        log_sum_exp: match problem.log_sum_exp {
            true => call.log_sum_exp(log_sum_exp.address()),
            false => LogSumExpView::default(),
        },
    };
    let buffers = Buffers {
        items: items.address(),
        steps: key_steps.address(),
        reduction_of_slot: reduction_of_slot.address(),
        partials: partials.address(),
        arrivals: arrivals.address(),
        carried: carried.address(),
    };
    let launch = call.attend(&sizes, &tensors, &buffers)?;
    match call.tensor_maps(&sizes, &tensors) {
        None => start(&device, &launch, order)?,
        Some(maps) => start(&device, &launch.with_maps(maps.map(encode::<T>)), order)?,
    }
    ensure!(arrivals.read().iter().all(|&count| count == 0), "the counters are not ready for the next launch");
    Ok(Computed { output: output.read(), log_sum_exp: log_sum_exp.read() })
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
    let rotated = device.output::<T>("rotated keys", call.scratch(sizes).rotated / size_of::<T>());
    let angles = RotationTable::new(angles.address(), AngleRows::of(&problem.angles())?);
    let into = call.rotated_keys(sizes, rotated.address());
    let launch = call.rotate(sizes, part(problem, fused.address(), 1)?, angles, spans.address(), into);
    start(&device, &launch, order)?;
    Ok(rotated.read())
}

fn start<A: NoUninit>(device: &Device, launch: &Launch<A>, order: u64) -> Result<()> {
    let &Launch { ref kernel, blocks, threads, shared_bytes, ref arguments } = launch;
    let (grid, block) = ([blocks, 1, 1], [threads, 1, 1]);
    let launch = emulator::Launch { grid, block, shared_bytes: shared_bytes as usize, order };
    Ok(device.launch(kernel, launch, arguments)?)
}

fn view<T>(address: u64, layout: &candle_core::Layout) -> Result<RowView> {
    Ok(RowView::new(address, TensorRows::of(layout, size_of::<T>(), false)?))
}

/// Queries (0), keys (1) or values (2) in the fused projection.
fn part<T: Number>(problem: &Problem<T>, address: u64, part: usize) -> Result<RowView> {
    view::<T>(address, &problem.part(part))
}

/// As the driver encodes it.
fn encode<T: Number>(description: Option<TensorMapDescription>) -> arguments::TensorMap {
    description.map_or_else(Default::default, |map| {
        let TensorMapDescription { address, sizes, strides, box_sizes, .. } = map;
        let swizzle = TensorMapDescription::SWIZZLE_BYTES;
        bytemuck::cast(TensorMap::at::<T>(address, &sizes, &strides, &box_sizes, swizzle))
    })
}
