//! Tile sizes of the Metal kernels: one typed row per GPU family, element size and head_dim; and how many work items a
//! GPU runs at a time.
//!
//! A library is compiled for its head_dim and for the tile of its row, and asserts that its threadgroup memory is what
//! the row says.
//!
//! How rows were chosen: by counting, they are not measured yet. Threadgroup memory and registers are counted below, and
//! a row that needs more than there is does not compile; two threadgroups of a core share 60 KiB. Besides, LLVM allocates
//! the registers of every row for a GPU whose lanes have as many (`tests/emulated_kernels/metal/registers.rs`): up to
//! head_dim 128 nothing is spilled. [`CANDIDATES`] are what a Mac should try against the table.

/// Threadgroup memory that every supported GPU has.
const MAX_THREADGROUP_BYTES: usize = 32 << 10;

/// Registers that a lane has, of 32 bits.
pub const REGISTERS: usize = 128;

/// How many of them tiles may take. The rest is for addresses and the state of loops.
pub const MAX_REGISTERS: usize = REGISTERS - 16;

const _: () = {
    let mut i = 0;
    while i < TILINGS.len() + CANDIDATES.len() {
        let tiling = if i < TILINGS.len() { &TILINGS[i] } else { &CANDIDATES[i - TILINGS.len()] };
        assert!(tiling.threadgroup_bytes(tiling.head_dim) <= MAX_THREADGROUP_BYTES, "a tile is too large");
        assert!(tiling.registers(tiling.head_dim) <= MAX_REGISTERS, "a tile takes too many registers");
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
    /// Steps in threadgroup memory, 1 or 2; 0 if keys and values are multiplied from device memory.
    pub stages: usize,
    /// Matrices of 8 × 8 queries that live in threadgroup memory instead of registers, of each row tile.
    pub parked: usize,
}

const fn tiling(
    family: Family,
    element_bytes: (usize, usize),
    head_dim: usize,
    row_tiles: usize,
    (keys, stages): (usize, usize),
    parked: usize,
) -> Tiling {
    Tiling { family, element_bytes, head_dim, row_tiles, simdgroups: 4, keys, stages, parked }
}

/// All tiles, ascending in head_dim. One serves its family and later ones.
pub const TILINGS: [Tiling; 13] = [
    tiling(Family::Apple7, (2, 2), 64, 2, (32, 2), 0),
    tiling(Family::Apple7, (2, 2), 128, 1, (32, 1), 0),
    tiling(Family::Apple7, (2, 2), 192, 1, (16, 1), 12),
    tiling(Family::Apple7, (2, 2), 256, 1, (16, 1), 16),
    tiling(Family::Apple7, (2, 4), 64, 1, (32, 2), 0),
    tiling(Family::Apple7, (2, 4), 128, 1, (16, 1), 8),
    tiling(Family::Apple7, (2, 4), 192, 1, (8, 1), 16),
    tiling(Family::Apple7, (2, 4), 256, 1, (8, 1), 22),
    tiling(Family::Apple7, (4, 4), 32, 2, (32, 2), 0),
    tiling(Family::Apple7, (4, 4), 64, 1, (32, 1), 0),
    tiling(Family::Apple7, (4, 4), 128, 1, (16, 1), 8),
    tiling(Family::Apple7, (4, 4), 192, 1, (8, 1), 16),
    tiling(Family::Apple7, (4, 4), 256, 1, (8, 1), 15),
];

/// Tiles to try on a GPU against those of the table, for head_dims up to theirs.
pub const CANDIDATES: [Tiling; 13] = [
    tiling(Family::Apple7, (2, 2), 64, 2, (32, 1), 0),
    tiling(Family::Apple7, (2, 2), 64, 1, (32, 2), 0),
    tiling(Family::Apple9, (2, 2), 64, 2, (32, 0), 0),
    tiling(Family::Apple9, (2, 2), 64, 1, (32, 0), 0),
    tiling(Family::Apple7, (2, 2), 128, 1, (16, 2), 0),
    tiling(Family::Apple9, (2, 2), 128, 1, (32, 0), 0),
    tiling(Family::Apple9, (2, 2), 256, 1, (16, 0), 16),
    tiling(Family::Apple7, (2, 4), 64, 2, (32, 2), 0),
    tiling(Family::Apple7, (4, 4), 64, 2, (16, 2), 0),
    tiling(Family::Apple7, (4, 4), 64, 1, (16, 2), 0),
    tiling(Family::Apple9, (4, 4), 64, 1, (32, 0), 0),
    tiling(Family::Apple9, (4, 4), 128, 1, (16, 0), 0),
    tiling(Family::Apple9, (4, 4), 256, 1, (8, 0), 24),
];

/// The environment variable that names one of [`CANDIDATES`] by its number, to be used for what it serves.
pub const CHOICE: &str = "MIXED_ATTENTION_METAL_TILING";

impl Tiling {
    /// The candidate of this number.
    pub fn candidate(number: &str) -> Option<&'static Self> {
        CANDIDATES.get(number.parse::<usize>().ok()?)
    }

    /// Its row, as it stands in the table.
    pub fn row(&self) -> String {
        let Self { family, element_bytes, head_dim, row_tiles, keys, stages, parked, .. } = self;
        format!("tiling(Family::{family:?}, {element_bytes:?}, {head_dim}, {row_tiles}, ({keys}, {stages}), {parked})")
    }

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

    /// Threadgroup memory: keys and values per stage, each row 16 bytes longer than its channels; and parked queries.
    pub const fn threadgroup_bytes(&self, head_dim: usize) -> usize {
        let stage = 2 * self.keys * (head_dim * self.element_bytes.0 + 16);
        self.stages * stage + self.parked * self.row_tiles * self.threads() * 2 * self.element_bytes.1
    }

    /// 32-bit registers of a lane that are live at a time, of those that grow with the tile.
    ///
    /// Throughout: output, queries, and the maximum and sum of each row. Besides, whichever is most: copies on their way
    /// to threadgroup memory; scores with the keys of two matrices; weights with the values of a pair of matrices, and
    /// what these products add to the output.
    pub const fn registers(&self, head_dim: usize) -> usize {
        let key_tiles = self.keys / 8;
        let pair = self.pair_registers();
        let widened = if self.element_bytes.0 == self.element_bytes.1 { 0 } else { pair };
        let scores = self.row_tiles * key_tiles * 2;
        // A lone sum is computed in two.
        let scores = if self.row_tiles * key_tiles == 1 { 2 * scores } else { scores };
        let score_phase = scores + smaller(key_tiles, 2) * 4 + pair;
        let weights = self.row_tiles * key_tiles * pair;
        let value_phase = weights + key_tiles * self.element_bytes.0 + widened + self.row_tiles * 5;
        self.resident_registers(head_dim)
            + larger(self.loads(head_dim) * LOAD_REGISTERS, larger(score_phase, value_phase))
    }

    /// Steps after which sums are carried; 0: never. Rounding errors of sums count where results are f32.
    pub const fn carry_steps(&self) -> usize {
        if self.element_bytes.0 == 4 { KEYS_OF_A_SUM / self.keys } else { 0 }
    }

    /// Copies of keys, and as many of values, that a thread has under way on their way to threadgroup memory: all of a
    /// step if there are registers.
    pub const fn loads(&self, head_dim: usize) -> usize {
        if self.stages == 0 {
            return 0;
        }
        let copies = (self.keys * head_dim * self.element_bytes.0 / 16).div_ceil(self.threads());
        let room = MAX_REGISTERS.saturating_sub(self.resident_registers(head_dim)) / LOAD_REGISTERS;
        larger(smaller(copies, room), 1)
    }

    /// Registers of what lives from step to step.
    const fn resident_registers(&self, head_dim: usize) -> usize {
        let channel_tiles = head_dim / 8;
        self.row_tiles * (channel_tiles * 2 + (channel_tiles - self.parked) * self.pair_registers() + 2)
    }

    /// Registers of two operands.
    const fn pair_registers(&self) -> usize {
        self.element_bytes.1 / 2
    }

    /// Threadgroups that share a GPU core.
    pub const fn threadgroups_per_core(&self) -> usize {
        2
    }
}

/// Keys that an f32 sums before what it has is carried: as many additions follow then as came before, where there are a
/// hundred thousand keys.
const KEYS_OF_A_SUM: usize = 1024;

/// Registers of a copy of keys and one of values, 16 bytes each.
const LOAD_REGISTERS: usize = 8;

const fn smaller(a: usize, b: usize) -> usize {
    if a < b { a } else { b }
}

const fn larger(a: usize, b: usize) -> usize {
    if a > b { a } else { b }
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
