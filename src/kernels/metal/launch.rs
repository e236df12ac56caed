//! The launches of a call: which kernels, with what bound to them, on how many threads.
//!
//! The keys of the input are rotated first where there is RoPE ([`Call::rotate`]); [`Call::attend`] computes everything,
//! but for tiles whose keys are split, which [`Call::combine`] finishes. `B` is a buffer: of a device, or an address.

use std::ops::Range;

use super::arguments::{
    AngleStrides, AttentionArguments, BiasStrides, CombineArguments, RotationArguments, RowStrides,
};
use super::recipes::{self, Uniform};
use super::source::Recipe;
use super::tiling::{COMBINE_THREADS, Element, ROTATE_THREADS, Tiling};
use crate::kernels::call::CallShape;
use crate::kernels::rows::{AngleRows, BiasRows, TensorRows};
use crate::kernels::schedule::ScheduleSizes;
use crate::plan::{StepItem, TileShape};

/// A call and what computes it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Call {
    /// Its sizes.
    pub shape: CallShape,
    /// What it computes with.
    pub element: Element,
    /// The tile of its attention kernel.
    pub tiling: &'static Tiling,
}

/// What is bound to a buffer index of a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Binding<B> {
    /// Read, from a byte on.
    Input(B, usize),
    /// Written.
    Output(B),
    /// A function constant takes the parameter away.
    Absent,
}

/// One launch of a kernel.
#[derive(Debug, Clone)]
pub struct Launch<B, A> {
    /// What it is compiled from.
    pub recipe: Recipe,
    /// Its function constants, by index.
    pub constants: Vec<bool>,
    /// What is bound to it, by index; the arguments follow behind.
    pub bindings: Vec<Binding<B>>,
    /// Set as bytes.
    pub arguments: A,
    /// Threadgroups along both axes.
    pub grid: [usize; 2],
    /// Threads of a threadgroup along both axes.
    pub threads: [usize; 2],
}

/// A tensor `[batch, heads, tokens, head_dim]` in its buffer.
pub type Rows<B> = (B, TensorRows);

/// What attention reads.
#[derive(Debug, Clone, Copy)]
pub struct Tensors<B> {
    /// Queries.
    pub queries: Rows<B>,
    /// Keys of the input tokens, rotated already where there is RoPE.
    pub keys: Rows<B>,
    /// Values of the input tokens.
    pub values: Rows<B>,
    /// Keys and values of the cache.
    pub cache: Option<[Rows<B>; 2]>,
    /// Angles that the queries are turned by.
    pub angles: Option<(B, AngleRows)>,
    /// What is added to the scores of the keys of the input.
    pub input_bias: Option<(B, BiasRows)>,
    /// What is added to the scores of the keys of the cache.
    pub cache_bias: Option<(B, BiasRows)>,
}

/// What launches write.
#[derive(Debug, Clone, Copy)]
pub struct Results<B> {
    /// Rows `[batch, tokens, heads, head_dim]`.
    pub output: B,
    /// Log-sum-exps `[batch, tokens, heads]` in f32, if they are wanted.
    pub log_sum_exp: Option<B>,
}

/// The uploaded schedule.
#[derive(Debug, Clone, Copy)]
pub struct Schedule<B> {
    /// [`StepSchedule::items`](crate::plan::StepSchedule::items).
    pub items: B,
    /// [`StepSchedule::steps`](crate::plan::StepSchedule::steps).
    pub steps: B,
}

/// How much memory launches write besides the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scratch {
    /// Numbers of the partial results.
    pub partials: usize,
    /// Elements of the rotated keys.
    pub rotated: usize,
}

impl RowStrides {
    /// The strides of rows.
    pub fn new(rows: TensorRows) -> Self {
        Self { batch: rows.batch, head: rows.head, token: rows.token }
    }
}

impl BiasStrides {
    /// The strides of biases; zeros for none.
    pub fn new<B>(bias: Option<(B, BiasRows)>) -> Self {
        bias.map_or_else(Self::default, |(_, rows)| Self { batch: rows.batch, head: rows.head })
    }
}

impl AngleStrides {
    /// The strides of angles.
    pub fn new(rows: AngleRows) -> Self {
        Self { batch: rows.batch, token: rows.token }
    }
}

impl Call {
    /// The tile of a work item.
    pub fn tile(&self) -> TileShape {
        TileShape { queries: self.tiling.queries(), keys: self.tiling.keys }
    }

    /// The scratch memory that the launches need.
    pub fn scratch(&self, sizes: &ScheduleSizes) -> Scratch {
        let CallShape { batch, kv_heads, head_dim, .. } = self.shape;
        Scratch {
            partials: sizes.partial_slots * self.tile().slot_floats(head_dim),
            rotated: batch * sizes.rotated_rows * kv_heads * head_dim,
        }
    }

    /// Rotated keys `[batch, rows, heads, head_dim]` in scratch memory.
    pub fn rotated_keys<B>(&self, sizes: &ScheduleSizes, buffer: B) -> Rows<B> {
        (buffer, TensorRows::dense(sizes.rotated_rows, self.shape.kv_heads, self.shape.head_dim))
    }

    /// Rotates the keys of the input into scratch memory; `spans` holds the schedule's
    /// [`KeySpan`](crate::plan::KeySpan)s. To be launched only if the schedule rotates any.
    pub fn rotate<B: Copy>(
        &self,
        sizes: &ScheduleSizes,
        (keys, key_rows): Rows<B>,
        (angles, angle_rows): (B, AngleRows),
        spans: B,
        (rotated, rotated_rows): Rows<B>,
    ) -> Launch<B, RotationArguments> {
        let [_, rows_per_group] = ROTATE_THREADS;
        Launch {
            recipe: recipes::rotate_keys(self.element),
            constants: Vec::new(),
            bindings: vec![
                Binding::Input(keys, key_rows.offset),
                Binding::Output(rotated),
                Binding::Input(angles, angle_rows.offset),
                Binding::Input(spans, 0),
            ],
            arguments: RotationArguments {
                keys: RowStrides::new(key_rows),
                rotated: RowStrides::new(rotated_rows),
                angles: AngleStrides::new(angle_rows),
                rows: sizes.rotated_rows as u64,
                span_count: sizes.key_spans as u32,
                heads: self.shape.kv_heads as u32,
                head_dim: self.shape.head_dim as u32,
                padding: 0,
            },
            grid: [sizes.rotated_rows.div_ceil(rows_per_group), self.shape.batch],
            threads: ROTATE_THREADS,
        }
    }

    /// Computes the rows of the tiles of `items` whose keys are not split, and the parts of those whose keys are.
    pub fn attend<B: Copy>(
        &self,
        sizes: &ScheduleSizes,
        tensors: &Tensors<B>,
        schedule: Schedule<B>,
        items: &Range<usize>,
        partials: Option<B>,
        results: Results<B>,
    ) -> Launch<B, AttentionArguments> {
        let &Tensors { queries, keys, values, cache, angles, input_bias, cache_bias } = tensors;
        let uniform = Uniform {
            rotation: angles.is_some(),
            cache: cache.is_some(),
            partial_steps: sizes.has_partial_steps,
            split_keys: sizes.split_tiles > 0,
            windows: sizes.has_windows,
            log_sum_exp: results.log_sum_exp.is_some(),
            input_bias: input_bias.is_some(),
            cache_bias: cache_bias.is_some(),
        };
        let bind_bias = |bias: Option<(B, BiasRows)>| {
            bias.map_or(Binding::Absent, |(bias, rows)| Binding::Input(bias, rows.offset))
        };
        let bind = |(buffer, rows): Rows<B>| Binding::Input(buffer, rows.offset);
        let [cache_keys, cache_values] = cache.map_or([Binding::Absent; 2], |cache| cache.map(bind));
        let cache_strides = cache.map(|cache| cache.map(|(_, rows)| RowStrides::new(rows))).unwrap_or_default();
        Launch {
            recipe: recipes::mixed_attention(self.tiling, self.element, self.shape.head_dim),
            constants: uniform.constants().to_vec(),
            bindings: vec![
                bind(queries),
                bind(keys),
                bind(values),
                cache_keys,
                cache_values,
                angles.map_or(Binding::Absent, |(angles, rows)| Binding::Input(angles, rows.offset)),
                Binding::Output(results.output),
                partials.map_or(Binding::Absent, Binding::Output),
                Binding::Input(schedule.items, items.start * size_of::<StepItem>()),
                Binding::Input(schedule.steps, 0),
                results.log_sum_exp.map_or(Binding::Absent, Binding::Output),
                bind_bias(input_bias),
                bind_bias(cache_bias),
            ],
            arguments: AttentionArguments {
                queries: RowStrides::new(queries.1),
                input_keys: RowStrides::new(keys.1),
                input_values: RowStrides::new(values.1),
                cache_keys: cache_strides[0],
                cache_values: cache_strides[1],
                output: self.output(),
                log_sum_exp: self.log_sum_exp(),
                angles: angles.map(|(_, rows)| AngleStrides::new(rows)).unwrap_or_default(),
                input_bias: BiasStrides::new(input_bias),
                cache_bias: BiasStrides::new(cache_bias),
                scale_log2: self.shape.scale_log2(),
                inverse_scale: self.shape.inverse_scale(),
            },
            grid: [items.len(), 1],
            threads: [self.tiling.threads(), 1],
        }
    }

    /// Computes the rows of tiles whose keys are split, from their parts; `tiles` holds
    /// [`StepSchedule::split_tiles`](crate::plan::StepSchedule::split_tiles). To be launched only if there are any.
    pub fn combine<B: Copy>(
        &self,
        sizes: &ScheduleSizes,
        partials: B,
        tiles: B,
        results: Results<B>,
    ) -> Launch<B, CombineArguments> {
        Launch {
            recipe: recipes::combine_split_keys(self.element),
            constants: vec![results.log_sum_exp.is_some()],
            bindings: vec![
                Binding::Input(partials, 0),
                Binding::Input(tiles, 0),
                Binding::Output(results.output),
                results.log_sum_exp.map_or(Binding::Absent, Binding::Output),
            ],
            arguments: CombineArguments {
                output: self.output(),
                log_sum_exp: self.log_sum_exp(),
                head_dim: self.shape.head_dim as u32,
                tile_queries: self.tiling.queries() as u32,
            },
            grid: [sizes.split_tiles, 1],
            threads: [COMBINE_THREADS, 1],
        }
    }

    /// Output rows `[batch, tokens, heads, head_dim]`.
    fn output(&self) -> RowStrides {
        RowStrides::new(TensorRows::dense(self.shape.tokens, self.shape.heads, self.shape.head_dim))
    }

    /// Log-sum-exps `[batch, tokens, heads]`.
    fn log_sum_exp(&self) -> RowStrides {
        RowStrides::new(TensorRows::dense(self.shape.tokens, self.shape.heads, 1))
    }
}
