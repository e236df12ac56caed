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

/// What a kernel knows besides plain attention. Every tile is compiled as both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Variant {
    /// Nothing.
    Plain,
    /// Windows and log-sum-exps.
    General,
}

impl Variant {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Plain, Self::General];

    /// What it adds to the name of a kernel.
    const fn suffix(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::General => "_general",
        }
    }
}

/// The tile of a kernel in `kernels/cuda/attention_sm80.cuh`: a row of [`SM80_TILINGS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sm80Tiling {
    /// Bytes of an element.
    pub element_bytes: usize,
    /// Channels of a head, after padding.
    pub head_dim: usize,
    /// Tiles of 16 queries per warp.
    pub row_tiles: usize,
    /// Warps of a block.
    pub warps: usize,
    /// Keys of a step, at most 128.
    pub keys: usize,
    /// Whether queries stay in registers.
    pub resident_queries: bool,
    /// Whether the sums of probabilities and what they are relative to wait in shared memory between steps.
    pub parked_sums: bool,
    /// Blocks that share a multiprocessor with 164 KiB of shared memory (compute capability 8.0).
    pub blocks_per_sm: usize,
}

const fn sm80(
    element_bytes: usize,
    head_dim: usize,
    (row_tiles, warps): (usize, usize),
    keys: usize,
    (resident_queries, parked_sums): (bool, bool),
    blocks_per_sm: usize,
) -> Sm80Tiling {
    Sm80Tiling { element_bytes, head_dim, row_tiles, warps, keys, resident_queries, parked_sums, blocks_per_sm }
}

/// Tiles for every GPU since compute capability 8.0, ascending in head_dim.
pub const SM80_TILINGS: [Sm80Tiling; 12] = [
    sm80(2, 32, (2, 4), 128, (true, false), 2),
    sm80(2, 64, (2, 4), 128, (false, false), 2),
    sm80(2, 96, (2, 4), 64, (false, false), 2),
    sm80(2, 128, (2, 4), 64, (false, true), 2),
    sm80(2, 192, (1, 4), 64, (false, false), 2),
    sm80(2, 256, (1, 4), 64, (false, false), 1),
    sm80(4, 32, (2, 4), 32, (false, false), 2),
    sm80(4, 64, (2, 4), 32, (false, false), 2),
    sm80(4, 96, (2, 4), 32, (false, false), 2),
    sm80(4, 128, (1, 4), 32, (false, false), 2),
    sm80(4, 192, (1, 4), 16, (false, false), 2),
    sm80(4, 256, (1, 2), 16, (false, false), 2),
];

/// Largest head_dim of any tile.
pub const MAX_HEAD_DIM: usize = 256;

/// Threads of a block of `rotate_keys.cu`.
pub const ROTATE_THREADS: usize = 256;

impl Sm80Tiling {
    /// The tile for a head_dim: the narrowest that holds it.
    pub fn of(element: Element, head_dim: usize) -> Option<&'static Self> {
        SM80_TILINGS.iter().find(|tiling| tiling.element_bytes == element.bytes() && tiling.head_dim >= head_dim)
    }

    /// Queries of a work item.
    pub const fn queries(&self) -> usize {
        self.warps * self.row_tiles * 16
    }

    /// Threads of a block.
    pub const fn threads(&self) -> usize {
        self.warps * 32
    }

    /// Shared memory of a block: queries, the keys and values of a step, descriptions of 16 steps, parked sums.
    pub const fn shared_bytes(&self) -> usize {
        let row_bytes = self.head_dim * self.element_bytes;
        let parked = if self.parked_sums { self.threads() * self.row_tiles * 16 } else { 0 };
        (self.queries() + 2 * self.keys) * row_bytes + 16 * 64 + parked
    }

    /// Name of the kernel for an element type.
    pub fn kernel_name(&self, element: Element, variant: Variant) -> String {
        format!("mixed_attention_sm80_{}_{}{}", element.name(), self.head_dim, variant.suffix())
    }
}

/// The tile of a kernel in `kernels/cuda/attention_sm90.cuh`, for f16 and bf16: a row of [`SM90_TILINGS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sm90Tiling {
    /// Channels of a head, after padding; 64 or 128.
    pub head_dim: usize,
    /// Consumer warpgroups of 64 queries.
    pub consumers: usize,
    /// Steps in shared memory.
    pub stages: usize,
    /// Registers of a producer thread, a multiple of 8.
    pub producer_registers: usize,
    /// Registers of a consumer thread, a multiple of 8.
    pub consumer_registers: usize,
    /// Of every 8 exponentials, how many are computed by a polynomial.
    pub polynomial: usize,
    /// Whether consumers start their products one after the other.
    pub take_turns: bool,
    /// Whether all exponentials of a step come before the wait for the products of the last one.
    pub pin_exponentials: bool,
}

/// Tiles for compute capability 9.0, ascending in head_dim. Registers of all warpgroups add up to what a block of that
/// size starts with.
///
/// At head_dim 64 a step of the block takes the tensor cores 1536 clocks, its exponentials 1584 on the special-function
/// unit, and its instructions 1164 clocks of each scheduler. One polynomial of 8 makes that 1536, 1392 and 1334: which is
/// faster, only a GPU can tell. At head_dim 128 the products take 2048 clocks, everything else half of that, so that two
/// consumers that take turns hide it. Nothing pins the exponentials: the assembler then waits for the products of the last
/// step first, as FlashAttention-3 does at head_dim 64; models of the schedule disagree about which is faster. This is
/// arithmetic on the machine code, not a measurement; `scripts/gpu-check.sh variants` measures all combinations.
pub const SM90_TILINGS: [Sm90Tiling; 2] = [
    Sm90Tiling {
        head_dim: 64,
        consumers: 3,
        stages: 4,
        producer_registers: 32,
        consumer_registers: 160,
        polynomial: 0,
        take_turns: false,
        pin_exponentials: false,
    },
    Sm90Tiling {
        head_dim: 128,
        consumers: 2,
        stages: 3,
        producer_registers: 40,
        consumer_registers: 232,
        polynomial: 0,
        take_turns: true,
        pin_exponentials: false,
    },
];

/// Up to this head_dim the kernel for every GPU wastes less: the Hopper one would compute on 64 channels.
const NARROW_HEAD_DIM: usize = 32;

impl Sm90Tiling {
    /// Keys of a step.
    pub const KEYS: usize = 128;

    /// Queries of a consumer.
    pub const CONSUMER_QUERIES: usize = 64;

    /// Channels that lie side by side in shared memory.
    pub const SLAB_CHANNELS: usize = 64;

    /// The tile for a head_dim.
    pub fn of(element: Element, head_dim: usize) -> Option<&'static Self> {
        let fits = |tiling: &&Self| element.bytes() == 2 && head_dim > NARROW_HEAD_DIM && tiling.head_dim >= head_dim;
        SM90_TILINGS.iter().find(fits)
    }

    /// Queries of a work item.
    pub const fn queries(&self) -> usize {
        self.consumers * Self::CONSUMER_QUERIES
    }

    /// Threads of a block.
    pub const fn threads(&self) -> usize {
        (self.consumers + 1) * 128
    }

    /// Shared memory of a block: queries; keys, values, two words of bits and four barriers per stage; a flag.
    pub const fn shared_bytes(&self) -> usize {
        let row_bytes = 2 * self.head_dim;
        self.queries() * row_bytes + self.stages * (2 * Self::KEYS * row_bytes + 16 + 32) + 16
    }

    /// Name of the kernel for an element type.
    pub fn kernel_name(&self, element: Element, variant: Variant) -> String {
        let turns = if self.take_turns { "_turns" } else { "" };
        format!("mixed_attention_sm90_{}_{}{turns}{}", element.name(), self.head_dim, variant.suffix())
    }
}

/// The tile of an attention kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tiling {
    /// For every GPU.
    Sm80(&'static Sm80Tiling),
    /// For Hopper.
    Sm90(&'static Sm90Tiling),
}

impl Tiling {
    /// The tile for a GPU of this compute capability; `bulk_copies` says whether its copy engine, if it has one, can read
    /// the keys and values.
    pub fn of(capability: (i32, i32), element: Element, head_dim: usize, bulk_copies: bool) -> Option<Self> {
        // Code for `sm_90a` runs on 9.0 and on nothing later.
        let hopper = if capability == (9, 0) && bulk_copies { Sm90Tiling::of(element, head_dim) } else { None };
        hopper.map(Self::Sm90).or_else(|| Sm80Tiling::of(element, head_dim).map(Self::Sm80))
    }

    /// Queries of a work item.
    pub const fn queries(self) -> usize {
        match self {
            Self::Sm80(tiling) => tiling.queries(),
            Self::Sm90(tiling) => tiling.queries(),
        }
    }

    /// Keys of a step.
    pub const fn keys(self) -> usize {
        match self {
            Self::Sm80(tiling) => tiling.keys,
            Self::Sm90(_) => Sm90Tiling::KEYS,
        }
    }

    /// Channels of a head, after padding.
    pub const fn head_dim(self) -> usize {
        match self {
            Self::Sm80(tiling) => tiling.head_dim,
            Self::Sm90(tiling) => tiling.head_dim,
        }
    }

    /// Threads of a block.
    pub const fn threads(self) -> usize {
        match self {
            Self::Sm80(tiling) => tiling.threads(),
            Self::Sm90(tiling) => tiling.threads(),
        }
    }

    /// Shared memory of a block.
    pub const fn shared_bytes(self) -> usize {
        match self {
            Self::Sm80(tiling) => tiling.shared_bytes(),
            Self::Sm90(tiling) => tiling.shared_bytes(),
        }
    }

    /// Blocks that share a multiprocessor.
    pub const fn blocks_per_sm(self) -> usize {
        match self {
            Self::Sm80(tiling) => tiling.blocks_per_sm,
            Self::Sm90(_) => 1,
        }
    }

    /// Work items that run at a time.
    pub const fn workers(self, multiprocessors: usize) -> usize {
        multiprocessors * self.blocks_per_sm()
    }

    /// Name of the kernel for an element type.
    pub fn kernel_name(self, element: Element, variant: Variant) -> String {
        match self {
            Self::Sm80(tiling) => tiling.kernel_name(element, variant),
            Self::Sm90(tiling) => tiling.kernel_name(element, variant),
        }
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
