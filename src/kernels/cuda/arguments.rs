//! What the host hands to the kernels: `kernels/cuda/arguments.cuh` in Rust.
//!
//! Addresses are device addresses as numbers; 0 is null. Lengths are in elements or tokens as said, never in bytes. Both
//! sides assert every size and offset.

use std::mem::offset_of;

use bytemuck::{Pod, Zeroable};

/// A tensor `[batch, heads, tokens, head_dim]` whose channels are adjacent. Rows start at multiples of 16 bytes.
#[derive(Debug, Clone, Copy, Default, Pod, Zeroable)]
#[repr(C)]
pub struct RowView {
    /// Address of channel 0 of token 0 of head 0 of batch row 0.
    pub data: u64,
    /// Elements between batch rows; 0 if one row serves the whole batch.
    pub batch_stride: i64,
    /// Elements between heads.
    pub head_stride: i64,
    /// Elements between tokens.
    pub token_stride: i64,
}
const _: () = assert!(size_of::<RowView>() == 32 && offset_of!(RowView, token_stride) == 24);

/// What is added to the scaled scores of each key, `[batch, heads of the queries, tokens]` in f32. Tokens are adjacent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct KeyBiasView {
    /// Address of the first; 0: nothing is added.
    pub data: u64,
    /// Floats between batch rows; 0 if one row serves the whole batch.
    pub batch_stride: i64,
    /// Floats between heads; 0 if one row serves all heads.
    pub head_stride: i64,
}
const _: () = assert!(size_of::<KeyBiasView>() == 24);

/// The keys and values of one source: the input tokens, or the cache.
#[derive(Debug, Clone, Copy, Default, Pod, Zeroable)]
#[repr(C)]
pub struct KeyValueViews {
    /// Keys, after rotation.
    pub keys: RowView,
    /// Values.
    pub values: RowView,
    /// What is added to the scores of the keys; only kernels of the general variant look at it.
    pub bias: KeyBiasView,
}
const _: () = assert!(size_of::<KeyValueViews>() == 88);

/// RoPE angles `[batch or 1, tokens, head_dim / 2]` of (cos, sin) pairs in f32.
#[derive(Debug, Clone, Copy, Default, Pod, Zeroable)]
#[repr(C)]
pub struct RotationTable {
    /// Address of the first pair; 0: nothing is rotated.
    pub data: u64,
    /// Floats between batch rows; 0 if one row serves the whole batch.
    pub batch_stride: i64,
    /// Floats between tokens.
    pub token_stride: i64,
}
const _: () = assert!(size_of::<RotationTable>() == 24 && offset_of!(RotationTable, token_stride) == 16);

/// Log-sum-exps of the scores of each query, `[batch, tokens, heads]` in f32.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct LogSumExpView {
    /// Address of the first; 0: they are not wanted.
    pub data: u64,
    /// Floats between batch rows.
    pub batch_stride: i64,
    /// Floats between tokens.
    pub token_stride: i64,
}
const _: () = assert!(size_of::<LogSumExpView>() == 24);

/// One launch of an attention kernel.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct AttentionArguments {
    /// Queries.
    pub queries: RowView,
    /// Keys and values of the input tokens.
    pub input: KeyValueViews,
    /// Keys and values of the cache.
    pub cache: KeyValueViews,
    /// Where rows are written; the strides of its batch rows, heads and tokens.
    pub output: RowView,
    /// Applied to the queries while they are loaded; keys come rotated.
    pub query_rotation: RotationTable,
    /// Address of `StepItem`s, at least one per block.
    pub items: u64,
    /// Address of the `KeyStep`s.
    pub steps: u64,
    /// Address of a `SlotReduction` per partial slot.
    pub reduction_of_slot: u64,
    /// Address of the partial results: per slot, the tile's queries × padded head_dim sums, then (maximum, sum) per query.
    pub partials: u64,
    /// Address of a `u32` per split tile: how many of its parts have arrived. 0 before and after each launch.
    pub arrivals: u64,
    /// Address of what blocks carry of long sums; 0 if no item has that many steps.
    pub carried: u64,
    /// Aligns what follows.
    pub padding: u32,
    /// Channels of a head, a multiple of 8.
    pub head_dim: u32,
    /// Factor of the scores · log2(e), positive.
    pub scale_log2: f32,
    /// 1 / factor of the scores.
    pub inverse_scale: f32,
    /// Where log-sum-exps are written; only kernels of the general variant look at it.
    pub log_sum_exp: LogSumExpView,
}
const _: () = assert!(size_of::<AttentionArguments>() == 352);
const _: () = assert!(offset_of!(AttentionArguments, log_sum_exp) == 328);
const _: () = assert!(offset_of!(AttentionArguments, output) == 208 && offset_of!(AttentionArguments, items) == 264);
const _: () = assert!(offset_of!(AttentionArguments, padding) == 312);

/// A tensor map as the driver encodes it; all zeros where there are no rows.
#[derive(Debug, Clone, Copy, Default, Pod, Zeroable)]
#[repr(C, align(64))]
pub struct TensorMap {
    /// What only the hardware reads.
    pub opaque: [u64; 16],
}
const _: () = assert!(size_of::<TensorMap>() == 128);

/// One launch of a kernel for Hopper.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C, align(128))]
pub struct Sm90Arguments {
    /// Keys and values of the input, keys and values of the cache: boxes of 64 channels × 128 tokens.
    pub maps: [TensorMap; 4],
    /// The rest.
    pub attention: AttentionArguments,
    /// Fills the struct up to its alignment.
    pub padding: [u64; 4],
}
const _: () = assert!(size_of::<Sm90Arguments>() == 896);
const _: () = assert!(offset_of!(Sm90Arguments, attention) == 512);

/// One launch of the kernel that rotates keys.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct RotationArguments {
    /// Keys as projected.
    pub keys: RowView,
    /// Where they are written, `[batch, heads, rows, head_dim]`.
    pub rotated: RowView,
    /// The angles.
    pub rotation: RotationTable,
    /// Address of `span_count` `KeySpan`s.
    pub spans: u64,
    /// Rows per batch row.
    pub rows: u64,
    /// Number of spans, at least 1.
    pub span_count: u32,
    /// Batch rows.
    pub batch: u32,
    /// Heads.
    pub heads: u32,
    /// Channels of a head, a multiple of 8.
    pub head_dim: u32,
}
const _: () = assert!(size_of::<RotationArguments>() == 120 && offset_of!(RotationArguments, spans) == 88);
const _: () = assert!(offset_of!(RotationArguments, head_dim) == 116);
