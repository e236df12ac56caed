//! What the host hands to the kernels besides buffers: `kernels/metal/arguments.h` in Rust.
//!
//! Both sides assert every size.

use bytemuck::{Pod, Zeroable};

/// Strides of a tensor `[batch, heads, tokens, head_dim]` whose channels are adjacent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct RowStrides {
    /// Elements between batch rows; 0 if one row serves the whole batch.
    pub batch: i64,
    /// Elements between heads.
    pub head: i64,
    /// Elements between tokens.
    pub token: i64,
}
const _: () = assert!(size_of::<RowStrides>() == 24);

/// Strides of RoPE angles `[batch or 1, tokens, head_dim / 2]` of (cos, sin) pairs in f32.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct AngleStrides {
    /// Floats between batch rows; 0 if one row serves the whole batch.
    pub batch: i64,
    /// Floats between tokens.
    pub token: i64,
}
const _: () = assert!(size_of::<AngleStrides>() == 16);

/// Strides of biases of keys, `[batch or 1, heads of the queries or 1, tokens]` in f32. Tokens are adjacent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct BiasStrides {
    /// Floats between batch rows; 0 if one row serves the whole batch.
    pub batch: i64,
    /// Floats between heads; 0 if one row serves all heads.
    pub head: i64,
}
const _: () = assert!(size_of::<BiasStrides>() == 16);

/// One launch of `mixed_attention`.
#[derive(Debug, Clone, Copy, Default, Pod, Zeroable)]
#[repr(C)]
pub struct AttentionArguments {
    /// Queries.
    pub queries: RowStrides,
    /// Keys of the input tokens, rotated already where there is RoPE.
    pub input_keys: RowStrides,
    /// Values of the input tokens.
    pub input_values: RowStrides,
    /// Keys of the cache.
    pub cache_keys: RowStrides,
    /// Values of the cache.
    pub cache_values: RowStrides,
    /// Where rows are written.
    pub output: RowStrides,
    /// Where log-sum-exps are written, one per row.
    pub log_sum_exp: RowStrides,
    /// Angles that the queries are turned by.
    pub angles: AngleStrides,
    /// What is added to the scores of the keys of the input.
    pub input_bias: BiasStrides,
    /// What is added to the scores of the keys of the cache.
    pub cache_bias: BiasStrides,
    /// Factor of the scores · log2(e), positive.
    pub scale_log2: f32,
    /// 1 / factor of the scores.
    pub inverse_scale: f32,
}
const _: () = assert!(size_of::<AttentionArguments>() == 224);

/// One launch of `combine_split_keys`.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct CombineArguments {
    /// Where rows are written.
    pub output: RowStrides,
    /// Where log-sum-exps are written, one per row.
    pub log_sum_exp: RowStrides,
    /// Channels of a head, a multiple of 8.
    pub head_dim: u32,
    /// Queries of a work item.
    pub tile_queries: u32,
}
const _: () = assert!(size_of::<CombineArguments>() == 56);

/// One launch of `rotate_keys`.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct RotationArguments {
    /// Keys as projected.
    pub keys: RowStrides,
    /// Where they are written, `[batch, heads, rows, head_dim]`.
    pub rotated: RowStrides,
    /// The angles.
    pub angles: AngleStrides,
    /// Rows per batch row.
    pub rows: u64,
    /// Number of spans, at least 1.
    pub span_count: u32,
    /// Heads.
    pub heads: u32,
    /// Channels of a head, a multiple of 8.
    pub head_dim: u32,
    /// Fills the struct up to its alignment.
    pub padding: u32,
}
const _: () = assert!(size_of::<RotationArguments>() == 88);
