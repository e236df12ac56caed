//! The fused CPU backend: the whole plan in one pass over the thread pool, without a score matrix and without copies
//! of queries, keys or values. Vector operations and the loop of both products are in [`simd`](crate::simd).
//!
//! | file | idea |
//! |---|---|
//! | [`strip`] | the algorithm: online softmax for a strip of queries and a tile of keys |
//! | [`total`] | sums over very many keys |
//! | [`kernel`] | block sizes |
//! | [`operands`] | what the work items of a launch read |
//! | [`item`] | one work item: staging keys and queries, looping over tiles, handing out rows |
//! | [`dispatch`] | all work items on the thread pool |
//! | [`output`] | where rows are written; combining the parts of split items |
//! | [`rotate`] | RoPE of queries and keys |
//! | [`view`] | strided access |

mod dispatch;
mod item;
mod kernel;
mod operands;
mod output;
mod rotate;
mod strip;
mod total;
mod view;
mod visible;

use candle_core::{CpuStorage, Layout, Result, Shape, Storage, Tensor, WithDType, bail};
use half::{bf16, f16};

use self::operands::{Keys, Operands, Source};
use self::output::{OutputShape, Results};
use self::view::{BiasView, RopeView, View};
use crate::attention::call::Arguments;
use crate::element::Element;
use crate::error::AttentionError;
use crate::plan::{KeyRows, TileSchedule, TileShape};
use crate::scratch::{self, Purpose};
use crate::simd::{Exponent, SimdLevel};

/// Queries of a work item: enough that staging its keys stays small against using them. Large items gain up to 3 % with
/// f32 and 6 % with bf16 (AVX-512, head_dim 64), but leave threads idle at the end unless there are many to each.
const QUERIES_PER_ITEM: [usize; 2] = [192, 384];

/// Items for each thread from which on they are large.
const MANY_ITEMS: usize = 32;

/// Keys of a scheduled tile. Kernels stage tiles of their own size from consecutive scheduled ones.
const KEYS_PER_TILE: usize = 128;

/// One operand of the launch.
pub(super) type Operand<'a> = (&'a CpuStorage, &'a Layout);

/// Runs the plan and returns rows `[batch, tokens, heads, head_dim]` and, if wanted, the log-sum-exp of each row's
/// scores, `[batch, tokens, heads]`.
pub(super) fn forward(
    arguments: &Arguments,
    queries: Operand<'_>,
    keys: Operand<'_>,
    values: Operand<'_>,
    with_log_sum_exp: bool,
) -> Result<(CpuStorage, Shape, Option<Vec<f32>>)> {
    let (storage, log_sum_exp) = match queries.0 {
        CpuStorage::F32(_) => typed::<f32>(arguments, queries, keys, values, with_log_sum_exp)?,
        CpuStorage::F16(_) => typed::<f16>(arguments, queries, keys, values, with_log_sum_exp)?,
        CpuStorage::BF16(_) => typed::<bf16>(arguments, queries, keys, values, with_log_sum_exp)?,
        other => bail!("the fused CPU kernel takes f32, f16 and bf16, got {:?}", other_dtype(other)),
    };
    let shape = (arguments.batch, arguments.tokens(), arguments.heads, arguments.head_dim);
    Ok((storage, Shape::from(shape), log_sum_exp))
}

fn other_dtype(storage: &CpuStorage) -> candle_core::DType {
    use candle_core::backend::BackendStorage;
    storage.dtype()
}

fn typed<T: Element>(
    arguments: &Arguments,
    queries: Operand<'_>,
    keys: Operand<'_>,
    values: Operand<'_>,
    with_log_sum_exp: bool,
) -> Result<(CpuStorage, Option<Vec<f32>>)> {
    let ranges = arguments.resolved.ranges();
    let (heads, head_dim) = (arguments.heads, arguments.head_dim);

    // Guards of the tensors that are not operands of the op; they live until the launch has returned.
    let cache = arguments.cache.as_ref();
    let cache_keys = cache.map(|cache| cache.keys.storage_and_layout());
    let cache_values = cache.map(|cache| cache.values.storage_and_layout());
    let cache_bias = cache.and_then(|cache| cache.key_bias.as_ref()).map(Tensor::storage_and_layout);
    let bias = arguments.key_bias.as_ref().map(Tensor::storage_and_layout);
    let rope = arguments.rope.as_ref().map(Tensor::storage_and_layout);

    let cache_bias = cache_bias.as_ref().map(|(storage, layout)| bias_view(storage, layout)).transpose()?;
    let bias = bias.as_ref().map(|(storage, layout)| bias_view(storage, layout)).transpose()?;
    let rope = rope.as_ref().map(|(storage, layout)| rope_view(storage, layout)).transpose()?;
    let cache = match (cache, &cache_keys, &cache_values) {
        (Some(cache), Some((keys, keys_layout)), Some((values, values_layout))) => Some(Source {
            keys: Keys::Given(view::<T>(on_cpu(keys)?, keys_layout)?),
            values: view::<T>(on_cpu(values)?, values_layout)?,
            padding: cache.padding.as_deref(),
            bias: cache_bias,
            broadcast: cache.broadcast,
        }),
        _ => None,
    };

    let level = level(arguments.simd)?;
    let rows = (arguments.batch as u64).saturating_mul(heads as u64);
    let threads = dispatch::threads(ranges.visible_pairs().saturating_mul(rows), head_dim);
    let tile = TileShape { queries: queries_per_item(arguments, threads), keys: KEYS_PER_TILE };
    // One worker: no item is split.
    let workers = if arguments.invariant { 1 } else { threads };
    let schedule = arguments.resolved.schedule(arguments.batch, heads, tile, workers);
    let given_keys = view::<T>(keys.0, keys.1)?;
    let values = view::<T>(values.0, values.1)?;
    let run = |input: Option<Keys<'_, T>>| {
        let padding = arguments.padding.as_deref();
        let input = input.map(|keys| Source { keys, values, padding, bias, broadcast: false });
        let operands = Operands {
            schedule: &schedule,
            queries: view::<T>(queries.0, queries.1)?,
            input,
            cache,
            rope,
            exponent: exponent(arguments.scale, &schedule),
            scale: arguments.scale,
            head_dim,
            group: arguments.group(),
        };
        let shape = OutputShape { batch: arguments.batch, tokens: arguments.tokens(), heads, head_dim };
        let results = dispatch::run(&operands, level, Results::new(shape, with_log_sum_exp), threads);
        Ok((T::storage(results.output), results.log_sum_exp))
    };
    match (ranges.has_input_keys(), rope) {
        (false, _) => run(None),
        (true, None) => run(Some(Keys::Given(given_keys))),
        (true, Some(rope)) => scratch::with(Purpose::RotatedKeys, |buffer| {
            let (layout, kv_heads) = (KeyRows::new(ranges), arguments.kv_heads);
            let rows = buffer.of(arguments.batch * layout.rows() * kv_heads * head_dim);
            rotate::rotate_keys(&layout, &given_keys, &rope, (kv_heads, head_dim), rows);
            run(Some(Keys::Rotated(View::of_rows(rows, layout.rows(), kv_heads, head_dim), &layout)))
        }),
    }
}

/// How differences of scores become weights.
fn exponent(scale: f32, schedule: &TileSchedule) -> Exponent {
    // At least the number of keys that a query sees; from the plan alone, so that all parts of an item agree.
    let most_keys = (schedule.key_tiles().len() as u64).saturating_mul(KEYS_PER_TILE as u64);
    let shift = most_keys.next_power_of_two().ilog2().min(MOST_SHIFT);
    Exponent::new((f64::from(scale) * std::f64::consts::LOG2_E) as f32, shift)
}

/// Weights may not shrink further: tiny values would be lost beside them.
const MOST_SHIFT: u32 = 40;

/// The instruction set of a launch.
fn level(asked: Option<SimdLevel>) -> std::result::Result<SimdLevel, AttentionError> {
    Ok(asked.map_or_else(SimdLevel::active, SimdLevel::check)?)
}

fn queries_per_item(arguments: &Arguments, threads: usize) -> usize {
    let [small, large] = QUERIES_PER_ITEM;
    let items = arguments.tokens().div_ceil(large) * arguments.batch * arguments.heads;
    if threads == 1 || items >= MANY_ITEMS * threads { large } else { small }
}

fn on_cpu(storage: &Storage) -> Result<&CpuStorage> {
    match storage {
        Storage::Cpu(storage) => Ok(storage),
        _ => bail!("the cache, the RoPE frequencies and the bias of a CPU launch must be on the CPU"),
    }
}

fn view<'a, T: WithDType>(storage: &'a CpuStorage, layout: &Layout) -> Result<View<'a, T>> {
    let data = storage.as_slice::<T>()?;
    let view = View::new(data, layout);
    view.ok_or_else(|| candle_core::Error::RequiresContiguous { op: "mixed_attention (channels)" })
}

fn bias_view<'a>(storage: &'a Storage, layout: &Layout) -> Result<BiasView<'a>> {
    let data = on_cpu(storage)?.as_slice::<f32>()?;
    BiasView::new(data, layout).ok_or_else(|| candle_core::Error::RequiresContiguous { op: "key_bias" })
}

fn rope_view<'a>(storage: &'a Storage, layout: &Layout) -> Result<RopeView<'a>> {
    let data = on_cpu(storage)?.as_slice::<f32>()?;
    RopeView::new(data, layout).ok_or_else(|| candle_core::Error::RequiresContiguous { op: "RoPE frequencies" })
}
