//! The launches of a call, as `src/attention/metal/` makes them on a GPU.

use anyhow::Result;
use bytemuck::NoUninit;
use candle_mixed_attention::plan::{KeyRows, StepContext, StepSchedule, TileSchedule, TileShape};

use super::arguments::{
    AngleStrides, AttentionArguments, CombineArguments, RotationArguments, RowStrides, slot_floats,
};
use super::table::recipes::Uniform;
use super::table::tuning::{self, Row};
use crate::emulated_kernels::case::Problem;
use crate::emulated_kernels::numbers::Number;
use emulator::{Buffer, Device, Kernels, Launch, MetalArguments};

/// The kernels of a call.
#[derive(Clone, Copy)]
pub struct CallKernels<'a> {
    pub attend: &'a Kernels,
    pub rotate: &'a Kernels,
    pub combine: &'a Kernels,
}

/// Rotates keys where there is RoPE, runs the attention kernel, and combines the parts of split tiles. Returns
/// `[batch, tokens, heads, head_dim]`.
pub fn run<T: Number>(row: &Row, kernels: CallKernels<'_>, problem: &Problem<T>, order: u64) -> Result<Vec<T>> {
    let (batch, heads, head_dim, tokens) = (problem.batch, problem.heads, problem.head_dim, problem.tokens);
    let ranges = problem.resolved.ranges();
    let tile = TileShape { queries: row.queries(), keys: row.keys };
    let schedule = TileSchedule::new(ranges, batch, heads, tile, problem.workers);
    let key_rows = problem.rope.is_some().then(|| KeyRows::new(ranges));
    let context = StepContext {
        input_padding: problem.padding.as_ref(),
        cache_padding: problem.cache_padding.as_ref(),
        key_rows: key_rows.as_ref(),
    };
    let steps = StepSchedule::new(&schedule, batch, context);
    if steps.items().is_empty() {
        return Ok(Vec::new());
    }
    let rotated = match (&problem.rope, &key_rows) {
        (Some(rope), Some(rows)) => rotated_keys(kernels.rotate, problem, rope, rows, order)?,
        _ => Vec::new(),
    };

    let device = kernels.attend.device();
    let fused = device.input("fused projection", &problem.fused);
    let rotated = device.input("rotated keys", &rotated);
    let cached_keys = device.input("cached keys", &problem.cached_keys);
    let cached_values = device.input("cached values", &problem.cached_values);
    let rope = device.input("angles", problem.rope.as_deref().unwrap_or_default());
    let items = device.input("items", steps.items());
    let key_steps = device.input("steps", steps.steps());
    let partials = device.output::<f32>("partials", schedule.partial_slots() * slot_floats(row.queries(), head_dim));
    let output = device.output::<T>("output", batch * tokens * heads * head_dim);

    let width = heads * head_dim;
    let part = |part: usize| fused.address() + (part * width * size_of::<T>()) as u64;
    let (keys, input_keys) = match &key_rows {
        Some(rows) => (rotated.address(), dense(rows.rows(), heads, head_dim)),
        None => (part(1), fused_strides(problem)),
    };
    let cache_tokens = ranges.cache_tokens();
    let cache = strides(heads * cache_tokens * head_dim, cache_tokens * head_dim, head_dim);
    let arguments = AttentionArguments {
        queries: fused_strides(problem),
        input_keys,
        input_values: fused_strides(problem),
        cache_keys: cache,
        cache_values: cache,
        output: dense(tokens, heads, head_dim),
        angles: angles(problem),
        scale_log2: std::f32::consts::LOG2_E / (head_dim as f32).sqrt(),
        padding: 0,
    };
    let uniform = Uniform {
        rotation: problem.rope.is_some(),
        cache: cache_tokens > 0,
        partial_steps: steps.has_partial_steps(row.keys),
        split_keys: steps.reductions() > 0,
    };
    let bytes = constant(&device, &arguments);
    let buffers = [
        Some(part(0)),
        Some(keys),
        Some(part(2)),
        uniform.cache.then(|| cached_keys.address()),
        uniform.cache.then(|| cached_values.address()),
        uniform.rotation.then(|| rope.address()),
        Some(output.address()),
        uniform.split_keys.then(|| partials.address()),
        Some(items.address()),
        Some(key_steps.address()),
        Some(bytes.address()),
    ];
    let launch = Launch {
        grid: [steps.items().len() as u32, 1, 1],
        block: [row.threads() as u32, 1, 1],
        shared_bytes: row.threadgroup_bytes(head_dim),
        order,
    };
    device.launch("mixed_attention", launch, &bound(&buffers, uniform))?;
    if !uniform.split_keys {
        return Ok(output.read());
    }
    combined(kernels.combine, row, problem, &steps, &partials.read(), output.read(), order)
}

/// What is bound: buffers by index, and function constants.
fn bound(buffers: &[Option<u64>], uniform: Uniform) -> MetalArguments {
    let mut arguments = MetalArguments::new();
    for (slot, address) in arguments.buffers.iter_mut().zip(buffers) {
        *slot = address.unwrap_or(0);
    }
    for (slot, constant) in arguments.constants.iter_mut().zip(uniform.constants()) {
        *slot = constant.into();
    }
    arguments
}

/// What `setBytes` binds, which takes at most 4 KiB.
fn constant<'a, A: NoUninit>(device: &'a Device, arguments: &A) -> Buffer<'a, u8> {
    const { assert!(size_of::<A>() <= 4 << 10) };
    device.input("arguments", bytemuck::bytes_of(arguments))
}

fn strides(batch: usize, head: usize, token: usize) -> RowStrides {
    RowStrides { batch: batch as i64, head: head as i64, token: token as i64 }
}

/// Rows `[batch, tokens, heads, head_dim]` without gaps.
fn dense(tokens: usize, heads: usize, head_dim: usize) -> RowStrides {
    strides(tokens * heads * head_dim, head_dim, heads * head_dim)
}

/// Queries, keys or values in the fused projection.
fn fused_strides<T: Number>(problem: &Problem<T>) -> RowStrides {
    let width = problem.heads * problem.head_dim;
    strides(problem.tokens * 3 * width, problem.head_dim, 3 * width)
}

fn angles<T: Number>(problem: &Problem<T>) -> AngleStrides {
    AngleStrides { batch: 0, token: problem.head_dim as i64 }
}

fn rotated_keys<T: Number>(
    kernels: &Kernels,
    problem: &Problem<T>,
    rope: &[f32],
    rows: &KeyRows,
    order: u64,
) -> Result<Vec<T>> {
    let (batch, heads, head_dim) = (problem.batch, problem.heads, problem.head_dim);
    let device = kernels.device();
    let fused = device.input("fused projection", &problem.fused);
    let table = device.input("angles", rope);
    let spans = device.input("spans", rows.spans());
    let rotated = device.output::<T>("rotated keys", batch * rows.rows() * heads * head_dim);
    let arguments = RotationArguments {
        keys: fused_strides(problem),
        rotated: dense(rows.rows(), heads, head_dim),
        angles: angles(problem),
        rows: rows.rows() as u64,
        span_count: rows.spans().len() as u32,
        heads: heads as u32,
        head_dim: head_dim as u32,
        padding: 0,
    };
    let keys = fused.address() + (heads * head_dim * size_of::<T>()) as u64;
    let bytes = constant(&device, &arguments);
    let addresses = [keys, rotated.address(), table.address(), spans.address(), bytes.address()];
    let [lanes, rows_per_group] = tuning::ROTATE_THREADS;
    let launch = Launch {
        grid: [rows.rows().div_ceil(rows_per_group) as u32, batch as u32, 1],
        block: [lanes as u32, rows_per_group as u32, 1],
        shared_bytes: 0,
        order,
    };
    device.launch("rotate_keys", launch, &bound(&addresses.map(Some), Uniform::default()))?;
    Ok(rotated.read())
}

/// The rows of split tiles, in an output that holds the others.
fn combined<T: Number>(
    kernels: &Kernels,
    row: &Row,
    problem: &Problem<T>,
    steps: &StepSchedule,
    partials: &[f32],
    whole: Vec<T>,
    order: u64,
) -> Result<Vec<T>> {
    let device = kernels.device();
    let partials = device.input("partials", partials);
    let tiles = device.input("split tiles", &steps.split_tiles());
    let output = device.in_out("output", &whole);
    let arguments = CombineArguments {
        output: dense(problem.tokens, problem.heads, problem.head_dim),
        head_dim: problem.head_dim as u32,
        tile_queries: row.queries() as u32,
    };
    let bytes = constant(&device, &arguments);
    let addresses = [partials.address(), tiles.address(), output.address(), bytes.address()];
    let launch = Launch {
        grid: [steps.reductions() as u32, 1, 1],
        block: [tuning::COMBINE_THREADS as u32, 1, 1],
        shared_bytes: 0,
        order,
    };
    device.launch("combine_split_keys", launch, &bound(&addresses.map(Some), Uniform::default()))?;
    Ok(output.read())
}
