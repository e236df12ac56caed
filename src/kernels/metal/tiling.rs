//! Tile sizes of the Metal kernels: one typed row per GPU family, element size and head_dim; and how many work items a
//! GPU runs at a time.
//!
//! A library is compiled for its head_dim and for the tile of its row, and asserts that its threadgroup memory is what
//! the row says.
//!
//! How rows were chosen. Two row tiles as long as accumulators, queries and scores stay below about 100 of a thread's
//! registers; then as many keys as fit, in two stages, into 32 KiB of threadgroup memory. They are not measured yet.

/// Threadgroup memory that every supported GPU has.
const MAX_THREADGROUP_BYTES: usize = 32 << 10;

const _: () = {
    let mut i = 0;
    while i < TILINGS.len() {
        assert!(TILINGS[i].threadgroup_bytes(TILINGS[i].head_dim) <= MAX_THREADGROUP_BYTES, "a tile is too large");
        i += 1;
    }
};

/// Lanes of a simdgroup.
pub const LANES: usize = 32;

/// Threads of a threadgroup of `rotate_keys`: along the channels of a row, and rows.
pub const ROTATE_THREADS: [usize; 2] = [LANES, 8];

/// Threads of a threadgroup of `combine_split_keys`.
pub const COMBINE_THREADS: usize = 128;

/// What a kernel computes with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Element {
    /// f16 operands.
    F16,
    /// bf16 operands.
    Bf16,
    /// bf16 in memory, f32 operands.
    WideBf16,
    /// f32 operands.
    F32,
}

impl Element {
    /// Size in memory.
    pub const fn bytes(self) -> usize {
        match self {
            Self::F16 | Self::Bf16 | Self::WideBf16 => 2,
            Self::F32 => 4,
        }
    }

    /// Size of an operand of a product.
    const fn operand_bytes(self) -> usize {
        match self {
            Self::F16 | Self::Bf16 => 2,
            Self::WideBf16 | Self::F32 => 4,
        }
    }

    /// The policy of `kernels/metal/elements.h`.
    pub const fn policy(self) -> &'static str {
        match self {
            Self::F16 => "F16",
            Self::Bf16 => "Bf16",
            Self::WideBf16 => "WideBf16",
            Self::F32 => "F32",
        }
    }
}

/// Apple GPU families that differ to these kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// Apple7 (M1, A14) and Apple8 (M2, A15, A16): the first with matrices; bf16 is multiplied as f32.
    Apple7,
    /// Apple9 (M3, A17) and later: bf16 arithmetic, and registers that share their memory with the cache.
    Apple9,
}

/// The tile of a `mixed_attention` kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tiling {
    /// The first family that it is for.
    pub family: Family,
    /// Bytes of an element in memory and as an operand.
    element_bytes: (usize, usize),
    /// Largest head_dim.
    pub head_dim: usize,
    /// Tiles of 8 queries per simdgroup.
    pub row_tiles: usize,
    /// Simdgroups of a threadgroup.
    pub simdgroups: usize,
    /// Keys of a step, at most 32.
    pub keys: usize,
    /// Steps in threadgroup memory, 1 or 2.
    pub stages: usize,
}

const fn tiling(
    family: Family,
    element_bytes: (usize, usize),
    head_dim: usize,
    row_tiles: usize,
    (keys, stages): (usize, usize),
) -> Tiling {
    Tiling { family, element_bytes, head_dim, row_tiles, simdgroups: 4, keys, stages }
}

/// All tiles, ascending in head_dim. One serves its family and later ones.
pub const TILINGS: [Tiling; 12] = [
    tiling(Family::Apple7, (2, 2), 64, 2, (32, 2)),
    tiling(Family::Apple9, (2, 2), 128, 2, (16, 2)),
    tiling(Family::Apple7, (2, 2), 192, 1, (16, 2)),
    tiling(Family::Apple7, (2, 2), 256, 1, (16, 1)),
    tiling(Family::Apple7, (2, 4), 64, 2, (32, 2)),
    tiling(Family::Apple7, (2, 4), 192, 1, (16, 2)),
    tiling(Family::Apple7, (2, 4), 256, 1, (16, 1)),
    tiling(Family::Apple7, (4, 4), 32, 2, (32, 2)),
    tiling(Family::Apple7, (4, 4), 64, 2, (16, 2)),
    tiling(Family::Apple7, (4, 4), 96, 1, (16, 2)),
    tiling(Family::Apple7, (4, 4), 192, 1, (16, 1)),
    tiling(Family::Apple7, (4, 4), 256, 1, (8, 1)),
];

impl Tiling {
    /// The tile for a head_dim on a family.
    pub fn of(family: Family, element: Element, head_dim: usize) -> Option<&'static Self> {
        TILINGS.iter().find(|tiling| tiling.serves(family, element) && tiling.head_dim >= head_dim)
    }

    /// Whether it is for this element type, on this family.
    pub fn serves(&self, family: Family, element: Element) -> bool {
        self.family <= family && self.element_bytes == (element.bytes(), element.operand_bytes())
    }

    /// Queries of a work item.
    pub const fn queries(&self) -> usize {
        self.simdgroups * self.row_tiles * 8
    }

    /// Threads of a threadgroup.
    pub const fn threads(&self) -> usize {
        self.simdgroups * LANES
    }

    /// Threadgroup memory: keys and values per stage, each row 16 bytes longer than its channels.
    pub const fn threadgroup_bytes(&self, head_dim: usize) -> usize {
        self.stages * 2 * self.keys * (head_dim * self.element_bytes.0 + 16)
    }

    /// Threadgroups that share a GPU core.
    pub const fn threadgroups_per_core(&self) -> usize {
        2
    }
}

/// GPU cores by the last letter of the architecture's name (`applegpu_g13s`), which tells the size of the chip: phone,
/// base or Pro, Max, Ultra, as MLX and candle read it. Metal does not say how many a device has; this is roughly what a
/// size has, and only decides when keys are split.
pub fn cores(architecture: &str) -> usize {
    match architecture.chars().last() {
        Some('p') => 6,
        Some('g') => 10,
        Some('s') => 40,
        Some('d') => 80,
        _ => 10,
    }
}
