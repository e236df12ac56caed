//! Memory of a prediction: weights, cache, and one chunk of points.
//!
//! ```text
//! weights      numbers × e, or × 4 for what is kept in f32: norms, modulation, layer scales, wave numbers, the encoder of
//!              the geometry and the output layers
//! cache        2 e C × (tokens that each block keeps)        anchors of all domains in a physics block, supernodes in a
//!                                                            perceiver block, anchors of its domain in a decoder block
//! activations  the larger of
//!                p × (8 C + 4 e C + h M + 4 head_dim + 8 n)  for p points of a chunk, or all anchors and supernodes
//!                4 × edges × 5 P                             for the messages from the geometry to its supernodes
//! program      75 MB                                      code, allocator, threads of the kernels
//! fields       4 × components × points                       if all of them are kept
//! ```
//!
//! with e bytes of the dtype, C the width of the tokens, M that of the feed-forward layers, P that of the pooling, n
//! coordinates, and edges the most neighbours that all supernodes can have. Blocks are widest in the feed-forward layer:
//! two sums in f32, four results in the dtype, and the hidden values before and after the GELU, which f16 and bf16 take in
//! f32. The pooling is widest with both ends of all edges, the same side by side, and what becomes of them.
//!
//! h = 8 in f32, 16 in bf16 and 20 in f16, and the size of the program, are set so that the sum is at most what
//! `predict` was seen to take with the demo network on two cores, in 22 runs with 64 to 16,384 anchors, chunks of
//! 1,024 to 200,000 points and 16 to 16,384 supernodes: see the table in `tests.rs`.

use std::fmt;

use candle_mixed_attention::candle_core::DType;
use candle_mixed_attention::models::ab_upt::{AbUptConfig, Checkpoint, PhysicsKind};

use super::args::Sizes;
use super::listing::count;
use super::units::{bytes, grouped};

/// Bytes of an f32.
const WIDE: u64 = 4;

/// Bytes of the program itself.
const PROGRAM: u64 = 75_000_000;

/// Bytes of a prediction at many points.
pub(super) struct Memory {
    points: u64,
    chunk: u64,
    dtype: DType,
    pub weights: u64,
    pub cache: u64,
    pub activations: u64,
    pub fields: u64,
}

impl Memory {
    pub(super) fn new(checkpoint: &Checkpoint, config: &AbUptConfig, sizes: &Sizes, points: u64) -> Self {
        let chunk = sizes.chunk.min(points);
        let components = config.domains.iter().map(|domain| domain.output_dim() as u64).max().unwrap_or(0);
        Self {
            points,
            chunk,
            dtype: sizes.dtype,
            weights: weights(checkpoint, sizes.dtype),
            cache: cache(config, sizes),
            activations: activations(config, sizes, chunk),
            fields: points.saturating_mul(WIDE).saturating_mul(components),
        }
    }

    /// What must fit while a chunk is predicted and its fields are passed on.
    pub(super) fn peak(&self) -> u64 {
        [self.cache, self.activations, PROGRAM].iter().fold(self.weights, |sum, part| sum.saturating_add(*part))
    }
}

fn weights(checkpoint: &Checkpoint, dtype: DType) -> u64 {
    let size = |name: &str| if is_wide(name) { WIDE } else { dtype.size_in_bytes() as u64 };
    let bytes = checkpoint.tensors().iter().map(|(name, tensor)| count(tensor).saturating_mul(size(name)));
    bytes.fold(0, u64::saturating_add)
}

/// Whether a weight is kept in f32 whatever the dtype of the network.
fn is_wide(name: &str) -> bool {
    let part = |part: &str| part.starts_with("norm") || matches!(part, "modulation" | "ls1" | "ls2" | "omega");
    name.starts_with("encoder.") || name.starts_with("domain_decoder_projections.") || name.split('.').any(part)
}

/// Keys and values of all blocks for one body.
fn cache(config: &AbUptConfig, sizes: &Sizes) -> u64 {
    let anchors = sizes.anchors.saturating_mul(config.domains.len() as u64);
    let physics = config.physics_blocks.iter().map(|block| match block.kind {
        PhysicsKind::Anchors(_) => anchors,
        PhysicsKind::Perceiver => sizes.supernodes,
    });
    let decoders = config.domains.iter().map(|domain| sizes.anchors.saturating_mul(domain.decoder_blocks as u64));
    let tokens = physics.chain(decoders).fold(0u64, u64::saturating_add);
    tokens.saturating_mul(2 * config.hidden_dim as u64 * sizes.dtype.size_in_bytes() as u64)
}

/// What the widest moment takes: a chunk, the first pass, or the pooling before it.
fn activations(config: &AbUptConfig, sizes: &Sizes, chunk: u64) -> u64 {
    let supernodes = if config.uses_geometry() { sizes.supernodes } else { 0 };
    let first_pass = sizes.anchors.saturating_mul(config.domains.len() as u64).saturating_add(supernodes);
    let tokens = chunk.max(first_pass).saturating_mul(activations_per_point(config, sizes.dtype));
    let messages = config.supernode_pooling.as_ref().map_or(0, |pooling| {
        let neighbours = pooling.k.unwrap_or(pooling.max_degree) as u64;
        supernodes.saturating_mul(neighbours).saturating_mul(WIDE * 5 * pooling.hidden_dim as u64)
    });
    tokens.max(messages)
}

fn activations_per_point(config: &AbUptConfig, dtype: DType) -> u64 {
    let (width, hidden) = (config.hidden_dim as u64, config.mlp_hidden_dim as u64);
    let size = dtype.size_in_bytes() as u64;
    let of_hidden = match dtype {
        DType::F32 => 8,
        DType::BF16 => 16,
        _ => 20,
    };
    let positions = WIDE * config.head_dim() as u64 + 2 * WIDE * config.position_dim as u64;
    (2 * WIDE + 4 * size) * width + of_hidden * hidden + positions
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (points, chunk, dtype) = (grouped(self.points), grouped(self.chunk), self.dtype.as_str());
        writeln!(f, "{points} points in {dtype}, {chunk} at a time")?;
        writeln!(f, "weights      {:>8}", bytes(self.weights))?;
        writeln!(f, "cache        {:>8}", bytes(self.cache))?;
        writeln!(f, "activations  {:>8}", bytes(self.activations))?;
        writeln!(f, "program      {:>8}", bytes(PROGRAM))?;
        writeln!(
            f,
            "together     {:>8}, at most by measurements with the demo network on 2 cores",
            bytes(self.peak())
        )?;
        writeln!(f, "All fields, if they are kept: {}", bytes(self.fields))
    }
}
