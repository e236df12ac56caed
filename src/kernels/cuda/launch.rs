//! The launches of a call: which kernels, on how many blocks, with which arguments.
//!
//! The keys of the input are rotated first where there is RoPE ([`Call::rotate`]); then one launch computes everything
//! ([`Call::attend`]). Addresses are device addresses as numbers.

use super::arguments::{
    AttentionArguments, KeyBiasView, KeyValueViews, LogSumExpView, RotationArguments, RotationTable, RowView,
    Sm90Arguments, TensorMap,
};
use super::tensor_map::TensorMapDescription;
use super::tiling::{Element, ROTATE_THREADS, Sm90Tiling, Tiling, Variant, rotate_name};
use crate::error::AttentionError;
use crate::kernels::call::CallShape;
use crate::kernels::rows::{AngleRows, BiasRows, TensorRows};
use crate::kernels::schedule::ScheduleSizes;
use crate::plan::{PersistentBlocks, TileShape};

/// Blocks of the key rotation per multiprocessor: enough to hide the latency of memory.
const ROTATE_BLOCKS_PER_SM: usize = 8;

/// The most blocks of a grid along its first axis.
const MOST_BLOCKS: u32 = i32::MAX as u32;

/// A call and the machine that it runs on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Call {
    /// Its sizes.
    pub shape: CallShape,
    /// What it computes with.
    pub element: Element,
    /// The tile of its attention kernel.
    pub tiling: Tiling,
    /// Multiprocessors of the GPU.
    pub multiprocessors: usize,
    /// Work items that run at a time: [`Tiling::workers`] on a GPU, any number in a test.
    pub workers: usize,
}

/// One launch of a kernel whose one parameter is a struct, on a row of blocks.
#[derive(Debug, Clone)]
pub struct Launch<A> {
    /// Name of the kernel.
    pub kernel: String,
    /// Blocks of the grid.
    pub blocks: u32,
    /// Threads of a block.
    pub threads: u32,
    /// Dynamic shared memory of a block.
    pub shared_bytes: u32,
    /// The parameter.
    pub arguments: A,
}

/// What attention reads and writes; a view of nothing is all zeros.
#[derive(Debug, Clone, Copy)]
pub struct Tensors {
    /// Queries.
    pub queries: RowView,
    /// Keys, rotated already where there is RoPE, values and biases of the input tokens.
    pub input: KeyValueViews,
    /// Keys, values and biases of the cache.
    pub cache: KeyValueViews,
    /// Angles that the queries are turned by.
    pub angles: RotationTable,
    /// Where rows are written.
    pub output: RowView,
    /// Where log-sum-exps are written, if they are wanted.
    pub log_sum_exp: LogSumExpView,
}

/// Addresses of the uploaded schedule and of scratch memory; 0 where a call has none.
#[derive(Debug, Clone, Copy, Default)]
pub struct Buffers {
    /// [`StepSchedule::items`](crate::plan::StepSchedule::items).
    pub items: u64,
    /// [`StepSchedule::steps`](crate::plan::StepSchedule::steps).
    pub steps: u64,
    /// [`StepSchedule::reduction_of_slot`](crate::plan::StepSchedule::reduction_of_slot).
    pub reduction_of_slot: u64,
    /// [`Scratch::partials`] numbers.
    pub partials: u64,
    /// [`Scratch::arrivals`] counters, all 0.
    pub arrivals: u64,
    /// [`Scratch::carried`] numbers.
    pub carried: u64,
}

/// How much memory launches write besides the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scratch {
    /// Numbers of the partial results.
    pub partials: usize,
    /// Counters of split tiles, 0 before and after each launch.
    pub arrivals: usize,
    /// Numbers that blocks carry of long sums.
    pub carried: usize,
    /// Bytes of the rotated keys.
    pub rotated: usize,
}

impl RowView {
    /// The rows of a tensor whose storage starts at `address`.
    pub fn new(address: u64, rows: TensorRows) -> Self {
        let TensorRows { offset, batch, head, token } = rows;
        Self { data: address + offset as u64, batch_stride: batch, head_stride: head, token_stride: token }
    }
}

impl KeyBiasView {
    /// The biases of a tensor whose storage starts at `address`.
    pub fn new(address: u64, rows: BiasRows) -> Self {
        Self { data: address + rows.offset as u64, batch_stride: rows.batch, head_stride: rows.head }
    }
}

impl RotationTable {
    /// The angles of a tensor whose storage starts at `address`.
    pub fn new(address: u64, rows: AngleRows) -> Self {
        Self { data: address + rows.offset as u64, batch_stride: rows.batch, token_stride: rows.token }
    }
}

impl Call {
    /// The tile of a work item.
    pub fn tile(&self) -> TileShape {
        TileShape { queries: self.tiling.queries(), keys: self.tiling.keys() }
    }

    /// The blocks of a kernel that takes one item after the other.
    pub fn persistent(&self) -> Option<PersistentBlocks> {
        let Tiling::Sm90(tiling) = self.tiling else { return None };
        let (consumers, consumer_queries) = (tiling.consumers, Sm90Tiling::CONSUMER_QUERIES);
        Some(PersistentBlocks { count: self.workers, consumers, consumer_queries })
    }

    /// The scratch memory that the launches need.
    pub fn scratch(&self, sizes: &ScheduleSizes) -> Scratch {
        Scratch {
            partials: sizes.partial_slots * self.tile().slot_floats(self.tiling.head_dim()),
            arrivals: sizes.split_tiles,
            carried: if self.tiling.carries(sizes.most_steps) { sizes.blocks * self.carried_floats() } else { 0 },
            rotated: self.shape.batch * sizes.rotated_rows * self.key_elements() * self.element.bytes(),
        }
    }

    /// Numbers that a block carries of long sums: those of its rows, and, for each of its threads, maxima and sums.
    fn carried_floats(&self) -> usize {
        self.tiling.queries() * (self.tiling.head_dim() + 8)
    }

    /// Output rows `[batch, tokens, heads, head_dim]` at `address`.
    pub fn output(&self, address: u64) -> RowView {
        RowView::new(address, TensorRows::dense(self.shape.tokens, self.shape.heads, self.shape.head_dim))
    }

    /// Log-sum-exps `[batch, tokens, heads]` at `address`.
    pub fn log_sum_exp(&self, address: u64) -> LogSumExpView {
        let CallShape { tokens, heads, .. } = self.shape;
        LogSumExpView { data: address, batch_stride: (tokens * heads) as i64, token_stride: heads as i64 }
    }

    /// The kernel that a call needs: the one that knows windows, biases and log-sum-exps only where there are any.
    pub fn variant(sizes: &ScheduleSizes, tensors: &Tensors) -> Variant {
        let has_bias = tensors.input.bias.data != 0 || tensors.cache.bias.data != 0;
        let is_general = sizes.has_windows || has_bias || tensors.log_sum_exp.data != 0;
        if is_general { Variant::General } else { Variant::Plain }
    }

    /// Rotated keys in the scratch memory at `address`.
    pub fn rotated_keys(&self, sizes: &ScheduleSizes, address: u64) -> RowView {
        RowView::new(address, TensorRows::dense(sizes.rotated_rows, self.shape.kv_heads, self.shape.head_dim))
    }

    /// Rotates the keys of the input into scratch memory; `spans` is the address of the schedule's
    /// [`KeySpan`](crate::plan::KeySpan)s. To be launched only if the schedule rotates any.
    pub fn rotate(
        &self,
        sizes: &ScheduleSizes,
        keys: RowView,
        angles: RotationTable,
        spans: u64,
        rotated: RowView,
    ) -> Launch<RotationArguments> {
        let chunks = self.scratch(sizes).rotated / size_of::<[u64; 2]>();
        let blocks = chunks.div_ceil(ROTATE_THREADS).min(self.multiprocessors * ROTATE_BLOCKS_PER_SM);
        Launch {
            kernel: rotate_name(self.element).to_string(),
            blocks: blocks as u32,
            threads: ROTATE_THREADS as u32,
            shared_bytes: 0,
            arguments: RotationArguments {
                keys,
                rotated,
                rotation: angles,
                spans,
                rows: sizes.rotated_rows as u64,
                span_count: sizes.key_spans as u32,
                batch: self.shape.batch as u32,
                heads: self.shape.kv_heads as u32,
                head_dim: self.shape.head_dim as u32,
            },
        }
    }

    /// Computes all rows of the output. A kernel for Hopper takes tensor maps, too: [`tensor_maps`](Self::tensor_maps).
    ///
    /// # Errors
    /// More work items than a grid has blocks.
    pub fn attend(
        &self,
        sizes: &ScheduleSizes,
        tensors: &Tensors,
        buffers: &Buffers,
    ) -> Result<Launch<AttentionArguments>, AttentionError> {
        let (Ok(blocks @ ..=MOST_BLOCKS), Ok(_)) = (u32::try_from(sizes.blocks), u32::try_from(sizes.items)) else {
            let expected = "at most 2147483647 work items in one launch";
            return Err(AttentionError::value("plan", expected, sizes.items));
        };
        Ok(Launch {
            kernel: self.tiling.kernel_name(self.element, Self::variant(sizes, tensors)),
            blocks,
            threads: self.tiling.threads() as u32,
            shared_bytes: self.tiling.shared_bytes() as u32,
            arguments: AttentionArguments {
                queries: tensors.queries,
                input: tensors.input,
                cache: tensors.cache,
                output: tensors.output,
                query_rotation: tensors.angles,
                items: buffers.items,
                steps: buffers.steps,
                reduction_of_slot: buffers.reduction_of_slot,
                partials: buffers.partials,
                arrivals: buffers.arrivals,
                carried: buffers.carried,
                padding: 0,
                head_dim: self.shape.head_dim as u32,
                scale_log2: self.shape.scale_log2(),
                inverse_scale: self.shape.inverse_scale(),
                log_sum_exp: tensors.log_sum_exp,
            },
        })
    }

    /// The maps of input keys, input values, cache keys and cache values that the kernel takes with these tensors, `None`
    /// where there are no rows; `None` for a kernel that takes no maps.
    pub fn tensor_maps(&self, sizes: &ScheduleSizes, tensors: &Tensors) -> Option<[Option<TensorMapDescription>; 4]> {
        let Tiling::Sm90(_) = self.tiling else { return None };
        let CallShape { batch, kv_heads, tokens, cache_tokens, input_keys, head_dim, .. } = self.shape;
        // Input tokens that are no keys are not read, and may lie where no map can describe them.
        let tokens = if input_keys { tokens } else { 0 };
        let key_rows = if sizes.rotated_rows > 0 { sizes.rotated_rows } else { tokens };
        let map = |view, rows| TensorMapDescription::new(view, [batch, kv_heads, rows, head_dim], self.element);
        let Tensors { input, cache, .. } = tensors;
        Some([
            map(&input.keys, key_rows),
            map(&input.values, tokens),
            map(&cache.keys, cache_tokens),
            map(&cache.values, cache_tokens),
        ])
    }

    /// Elements of the keys of one token.
    fn key_elements(&self) -> usize {
        self.shape.kv_heads * self.shape.head_dim
    }
}

impl Launch<AttentionArguments> {
    /// The same for a kernel that takes these encoded maps, too.
    pub fn with_maps(self, maps: [TensorMap; 4]) -> Launch<Sm90Arguments> {
        let Self { kernel, blocks, threads, shared_bytes, arguments: attention } = self;
        let arguments = Sm90Arguments { maps, attention, padding: [0; 4] };
        Launch { kernel, blocks, threads, shared_bytes, arguments }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::cuda::tiling::SM90_TILINGS;

    const SIZES: ScheduleSizes = ScheduleSizes {
        items: 10,
        blocks: 10,
        partial_slots: 3,
        split_tiles: 1,
        key_spans: 0,
        rotated_rows: 0,
        has_partial_steps: false,
        has_windows: false,
        most_steps: 7,
    };

    fn call(tiling: Tiling, input_keys: bool) -> Call {
        let shape = CallShape {
            batch: 2,
            heads: 6,
            kv_heads: 3,
            tokens: 50,
            cache_tokens: 70,
            input_keys,
            head_dim: 40,
            scale: 0.5,
        };
        Call { shape, element: Element::F16, tiling, multiprocessors: 4, workers: 4 }
    }

    fn tensors() -> Tensors {
        let view = RowView { data: 1 << 20, batch_stride: 9600, head_stride: 0, token_stride: 120 };
        let views = KeyValueViews { keys: view, values: view, bias: KeyBiasView::default() };
        Tensors {
            queries: view,
            input: views,
            cache: views,
            angles: RotationTable::default(),
            output: view,
            log_sum_exp: LogSumExpView::default(),
        }
    }

    #[test]
    fn tensors_that_are_not_read_need_no_map() {
        let tiling = Tiling::Sm90(&SM90_TILINGS[0]);
        let maps = |input_keys| call(tiling, input_keys).tensor_maps(&SIZES, &tensors()).unwrap();
        assert_eq!(maps(true).map(|map| map.map(|map| map.sizes[1])), [Some(50), Some(50), Some(70), Some(70)]);
        // All keys are cached: the op's operands for input keys and values mean nothing, with RoPE, too.
        assert_eq!(maps(false).map(|map| map.map(|map| map.sizes[1])), [None, None, Some(70), Some(70)]);
    }

    #[test]
    fn only_calls_with_windows_biases_or_log_sum_exps_take_the_general_kernel() {
        let tiling = Tiling::of((8, 0), Element::F16, 40, false).unwrap();
        let kernel = |sizes: &ScheduleSizes, tensors: &Tensors| {
            call(tiling, true).attend(sizes, tensors, &Buffers::default()).unwrap().kernel
        };
        assert_eq!(kernel(&SIZES, &tensors()), "mixed_attention_sm80_f16_64");
        let general = "mixed_attention_sm80_f16_64_general";
        assert_eq!(kernel(&ScheduleSizes { has_windows: true, ..SIZES }, &tensors()), general);
        let log_sum_exp = call(tiling, true).log_sum_exp(256);
        assert_eq!((log_sum_exp.batch_stride, log_sum_exp.token_stride), (300, 6));
        assert_eq!(kernel(&SIZES, &Tensors { log_sum_exp, ..tensors() }), general);
        let bias = KeyBiasView { data: 256, batch_stride: 0, head_stride: 50 };
        let biased = KeyValueViews { bias, ..tensors().input };
        assert_eq!(kernel(&SIZES, &Tensors { input: biased, ..tensors() }), general);
        assert_eq!(kernel(&SIZES, &Tensors { cache: biased, ..tensors() }), general);
    }

    #[test]
    fn more_items_than_a_grid_has_blocks_are_refused() {
        let attend = |tiling, items, blocks| {
            let sizes = ScheduleSizes { items, blocks, ..SIZES };
            call(tiling, true).attend(&sizes, &tensors(), &Buffers::default()).map(|launch| launch.blocks)
        };
        let tiling = Tiling::of((8, 0), Element::F16, 40, false).unwrap();
        assert_eq!(attend(tiling, (1 << 31) - 1, (1 << 31) - 1), Ok(i32::MAX as u32));
        assert!(attend(tiling, 1 << 31, 1 << 31).unwrap_err().to_string().contains("at most 2147483647 work items"));
        // The blocks of Hopper take one item after the other.
        assert_eq!(attend(Tiling::Sm90(&SM90_TILINGS[0]), 1 << 31, 4), Ok(4));
    }

    #[test]
    fn scratch_holds_every_slot_of_padded_channels() {
        let tiling = Tiling::of((8, 0), Element::F16, 40, false).unwrap();
        let sizes = ScheduleSizes { rotated_rows: 11, ..SIZES };
        let expected = Scratch {
            partials: 3 * tiling.queries() * (64 + 2),
            arrivals: 1,
            carried: 0,
            rotated: 2 * 11 * 3 * 40 * 2,
        };
        assert_eq!(call(tiling, true).scratch(&sizes), expected);
    }

    #[test]
    fn blocks_with_many_steps_carry_sums() {
        let carried = |tiling, most_steps| call(tiling, true).scratch(&ScheduleSizes { most_steps, ..SIZES }).carried;
        let f32_tiling = Tiling::of((8, 0), Element::F32, 64, false).unwrap();
        assert_eq!((carried(f32_tiling, 32), carried(f32_tiling, 33)), (0, 10 * 128 * (64 + 8)));
        let hopper = Tiling::Sm90(&SM90_TILINGS[0]);
        assert_eq!((carried(hopper, 16), carried(hopper, 17)), (0, 10 * 192 * (64 + 8)));
        let half = Tiling::of((8, 0), Element::F16, 64, false).unwrap();
        assert_eq!(carried(half, 1 << 20), 0);
    }
}
