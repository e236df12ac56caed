//! The launches of a call, as `src/attention/cuda/` makes them on a GPU.

use anyhow::{Result, ensure};
use bytemuck::{NoUninit, Zeroable};
use candle_mixed_attention::plan::{KeyRows, StepContext, StepSchedule, TileSchedule, TileShape};

use super::arguments::{AttentionArguments, KeyValueViews, RotationArguments, RotationTable, RowView, Sm90Arguments};
use super::tuning::{self, Element, Row, Sm90Row};
use crate::emulated_kernels::case::Problem;
use crate::emulated_kernels::numbers::Number;
use emulator::{Kernels, Launch, TensorMap};

/// Runs the attention kernel, after the one that rotates keys where there is RoPE. Returns
/// `[batch, tokens, heads, head_dim]`.
pub fn run<T: Number>(
    element: Element,
    row: Row,
    attend: &Kernels,
    rotate: &Kernels,
    problem: &Problem<T>,
    order: u64,
) -> Result<Vec<T>> {
    let (batch, heads, head_dim, tokens) = (problem.batch, problem.heads, problem.head_dim, problem.tokens);
    let ranges = problem.resolved.ranges();
    let tile = TileShape { queries: row.queries(), keys: row.keys() };
    let schedule = TileSchedule::new(ranges, batch, heads, tile, problem.workers);
    let key_rows = problem.rope.is_some().then(|| KeyRows::new(ranges));
    let context = StepContext {
        input_padding: problem.padding.as_ref(),
        cache_padding: problem.cache_padding.as_ref(),
        key_rows: key_rows.as_ref(),
    };
    ensure!(problem.workers == 1 || schedule.partial_slots() > 0, "the case is there to split keys, and none is split");
    let steps = StepSchedule::new(&schedule, batch, context);
    if steps.items().is_empty() {
        return Ok(Vec::new());
    }

    let rotated = match (&problem.rope, &key_rows) {
        (Some(rope), Some(rows)) => rotated_keys(element, rotate, problem, rope, rows, order)?,
        _ => Vec::new(),
    };

    let device = attend.device();
    let fused = device.input("fused projection", &problem.fused);
    let rotated = device.input("rotated keys", &rotated);
    let cached_keys = device.input("cached keys", &problem.cached_keys);
    let cached_values = device.input("cached values", &problem.cached_values);
    let rope = device.input("angles", problem.rope.as_deref().unwrap_or_default());
    let items = device.input("items", steps.items());
    let key_steps = device.input("steps", steps.steps());
    let reduction_of_slot = device.input("reductions", steps.reduction_of_slot());
    let slot_len = row.queries() * (row.head_dim() + 2);
    let partials = device.output::<f32>("partials", schedule.partial_slots() * slot_len);
    let arrivals = device.in_out("arrivals", &vec![0u32; steps.reductions()]);
    let output = device.output::<T>("output", batch * tokens * heads * head_dim);

    let part = |part: usize| fused_view::<T>(fused.address(), problem, part);
    let keys = match &key_rows {
        Some(rows) => rotated_view(rotated.address(), problem, rows),
        None => part(1),
    };
    let cache_tokens = ranges.cache_tokens();
    let cache = |address: u64| RowView {
        data: address,
        batch_stride: (heads * cache_tokens * head_dim) as i64,
        head_stride: (cache_tokens * head_dim) as i64,
        token_stride: head_dim as i64,
    };
    let query_rotation = match &problem.rope {
        Some(_) => RotationTable { data: rope.address(), batch_stride: 0, token_stride: head_dim as i64 },
        None => RotationTable::zeroed(),
    };
    let arguments = AttentionArguments {
        queries: part(0),
        input: KeyValueViews { keys, values: part(2) },
        cache: KeyValueViews { keys: cache(cached_keys.address()), values: cache(cached_values.address()) },
        output: RowView {
            data: output.address(),
            batch_stride: (tokens * heads * head_dim) as i64,
            head_stride: head_dim as i64,
            token_stride: (heads * head_dim) as i64,
        },
        query_rotation,
        items: items.address(),
        steps: key_steps.address(),
        reduction_of_slot: reduction_of_slot.address(),
        partials: partials.address(),
        arrivals: arrivals.address(),
        item_count: steps.items().len() as u32,
        head_dim: head_dim as u32,
        scale_log2: std::f32::consts::LOG2_E / (head_dim as f32).sqrt(),
        padding: 0,
    };
    let launch = Launch {
        grid: [row.blocks(steps.items().len(), problem.workers) as u32, 1, 1],
        block: [row.threads() as u32, 1, 1],
        shared_bytes: row.shared_bytes(),
        order,
    };
    match row {
        Row::Sm80(_) => device.launch(&row.kernel_name(element), launch, &arguments)?,
        Row::Sm90(_) => {
            let key_tokens = key_rows.as_ref().map_or(tokens, KeyRows::rows);
            let maps = [
                tensor_map(&keys, problem, key_tokens),
                tensor_map(&part(2), problem, tokens),
                tensor_map(&arguments.cache.keys, problem, cache_tokens),
                tensor_map(&arguments.cache.values, problem, cache_tokens),
            ];
            let arguments = Sm90Arguments { maps, attention: arguments, padding: [0; 14] };
            device.launch(&row.kernel_name(element), launch, &arguments)?;
        }
    }
    ensure!(arrivals.read().iter().all(|&count| count == 0), "the counters are not ready for the next launch");
    Ok(output.read())
}

// SAFETY: tensor maps and numbers in C layout; the fields and the explicit padding fill the struct, and any bits are an
// instance of each.
unsafe impl NoUninit for Sm90Arguments<TensorMap> {}

/// As `src/attention/cuda/tensor_map.rs` has the driver make it.
fn tensor_map<T: Number>(view: &RowView, problem: &Problem<T>, tokens: usize) -> TensorMap {
    if tokens == 0 {
        return TensorMap::zeroed();
    }
    let sizes = [problem.head_dim, tokens, problem.heads, problem.batch].map(|size| size as u64);
    let bytes = |elements: i64| elements as u64 * size_of::<T>() as u64;
    let strides = [bytes(view.token_stride), bytes(view.head_stride), bytes(view.batch_stride)];
    let boxed = [Sm90Row::SLAB_CHANNELS as u32, Sm90Row::KEYS as u32, 1, 1];
    TensorMap::at::<T>(view.data, &sizes, &strides, &boxed, 128)
}

/// Queries (0), keys (1) or values (2) in the fused projection.
fn fused_view<T: Number>(address: u64, problem: &Problem<T>, part: usize) -> RowView {
    let width = problem.heads * problem.head_dim;
    RowView {
        data: address + (part * width * size_of::<T>()) as u64,
        batch_stride: (problem.tokens * 3 * width) as i64,
        head_stride: problem.head_dim as i64,
        token_stride: 3 * width as i64,
    }
}

fn rotated_view<T: Number>(address: u64, problem: &Problem<T>, rows: &KeyRows) -> RowView {
    let width = problem.heads * problem.head_dim;
    RowView {
        data: address,
        batch_stride: (rows.rows() * width) as i64,
        head_stride: problem.head_dim as i64,
        token_stride: width as i64,
    }
}

fn rotated_keys<T: Number>(
    element: Element,
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
    let rotated = device.output::<T>("rotated keys", problem.batch * rows.rows() * problem.heads * problem.head_dim);
    let arguments = RotationArguments {
        keys: fused_view::<T>(fused.address(), problem, 1),
        rotated: rotated_view(rotated.address(), problem, rows),
        rotation: RotationTable { data: angles.address(), batch_stride: 0, token_stride: problem.head_dim as i64 },
        spans: spans.address(),
        rows: rows.rows() as u64,
        span_count: rows.spans().len() as u32,
        batch: problem.batch as u32,
        heads: problem.heads as u32,
        head_dim: problem.head_dim as u32,
    };
    let launch = Launch { grid: [3, 1, 1], block: [tuning::ROTATE_THREADS as u32, 1, 1], shared_bytes: 0, order };
    device.launch(tuning::rotate_name(element), launch, &arguments)?;
    Ok(rotated.read())
}
