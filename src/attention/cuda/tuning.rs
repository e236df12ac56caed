//! Tile sizes of the CUDA kernels: one typed row per element size and head_dim.
//!
//! `build.rs` compiles a kernel for each element type of each row, the launch reads the same rows, and every kernel
//! asserts that its shared memory is what its row says.
//!
//! How rows were chosen. The rows are those of the highest arithmetic per byte of shared memory that the compiler keeps
//! in registers without spilling and that fit into 99 KiB, the least that a block may have on any supported GPU. They
//! are not measured yet.

/// What a kernel computes with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Element {
    /// f16 operands.
    F16,
    /// bf16 operands.
    Bf16,
    /// f32 operands as pairs of TF32 numbers: f32-level accuracy.
    F32,
    /// f32 operands rounded to TF32.
    Tf32,
}

impl Element {
    /// Size in memory.
    pub const fn bytes(self) -> usize {
        match self {
            Self::F16 | Self::Bf16 => 2,
            Self::F32 | Self::Tf32 => 4,
        }
    }

    /// Name inside those of kernels.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::F32 => "f32",
            Self::Tf32 => "tf32",
        }
    }
}

/// The tile of a kernel in `kernels/cuda/attention_sm80.cuh`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sm80Row {
    /// Bytes of an element.
    pub element_bytes: usize,
    /// Channels of a head, after padding.
    pub head_dim: usize,
    /// Tiles of 16 queries per warp.
    pub row_tiles: usize,
    /// Warps of a block.
    pub warps: usize,
    /// Keys of a step, at most 64.
    pub keys: usize,
    /// Steps in shared memory, at least 2.
    pub stages: usize,
    /// Whether queries stay in registers.
    pub resident_queries: bool,
    /// Blocks that share a multiprocessor.
    pub blocks_per_sm: usize,
}

const fn row(
    element_bytes: usize,
    head_dim: usize,
    (row_tiles, warps): (usize, usize),
    (keys, stages): (usize, usize),
    resident_queries: bool,
    blocks_per_sm: usize,
) -> Sm80Row {
    Sm80Row { element_bytes, head_dim, row_tiles, warps, keys, stages, resident_queries, blocks_per_sm }
}

/// Rows for every GPU since compute capability 8.0, ascending in head_dim.
pub const SM80_ROWS: [Sm80Row; 12] = [
    row(2, 32, (2, 4), (64, 3), true, 2),
    row(2, 64, (2, 4), (64, 2), true, 2),
    row(2, 96, (2, 4), (48, 2), false, 1),
    row(2, 128, (2, 4), (64, 2), false, 1),
    row(2, 192, (1, 4), (32, 2), false, 1),
    row(2, 256, (1, 4), (32, 2), false, 1),
    row(4, 32, (2, 4), (32, 2), false, 2),
    row(4, 64, (2, 4), (32, 2), false, 1),
    row(4, 96, (2, 4), (32, 2), false, 1),
    row(4, 128, (1, 4), (32, 2), false, 1),
    row(4, 192, (1, 4), (16, 2), false, 1),
    row(4, 256, (1, 2), (16, 2), false, 1),
];

/// Largest head_dim of any row.
pub const MAX_HEAD_DIM: usize = 256;

/// Threads of a block of `rotate_keys.cu`.
pub const ROTATE_THREADS: usize = 256;

impl Sm80Row {
    /// The row for a head_dim: the narrowest that holds it.
    pub fn of(element: Element, head_dim: usize) -> Option<&'static Self> {
        SM80_ROWS.iter().find(|row| row.element_bytes == element.bytes() && row.head_dim >= head_dim)
    }

    /// Queries of a work item.
    pub const fn queries(&self) -> usize {
        self.warps * self.row_tiles * 16
    }

    /// Threads of a block.
    pub const fn threads(&self) -> usize {
        self.warps * 32
    }

    /// Shared memory of a block: queries, then keys, values and a word of bits per stage.
    pub const fn shared_bytes(&self) -> usize {
        let row_bytes = self.head_dim * self.element_bytes;
        self.queries() * row_bytes + self.stages * (2 * self.keys * row_bytes + 8)
    }

    /// Name of the kernel for an element type.
    pub fn kernel_name(&self, element: Element) -> String {
        format!("mixed_attention_sm80_{}_{}", element.name(), self.head_dim)
    }
}

/// Name of the kernel that rotates keys. TF32 keys are f32 in memory.
pub fn rotate_name(element: Element) -> &'static str {
    match element {
        Element::F16 => "mixed_attention_rotate_keys_f16",
        Element::Bf16 => "mixed_attention_rotate_keys_bf16",
        Element::F32 | Element::Tf32 => "mixed_attention_rotate_keys_f32",
    }
}
