// The entry point of attention_sm80.cuh. Compiled once per kernel of the tuning table (src/kernels/cuda/tiling.rs),
// which names it and defines its tile as macros: a device loads and compiles only what it runs.
#include "attention_sm80.cuh"

using Tiling = Sm80Tiling<TILE_ELEMENT, TILE_HEAD_DIM, TILE_ROW_TILES, TILE_WARPS, TILE_KEYS,
                          TILE_RESIDENT_QUERIES, TILE_PARKED_SUMS, TILE_GENERAL>;
static_assert(Tiling::SHARED_BYTES == TILE_SHARED_BYTES, "the host asks for what the kernel uses");

extern "C" __global__ void __launch_bounds__(Tiling::THREADS, TILE_BLOCKS_PER_SM)
    KERNEL_NAME(const __grid_constant__ AttentionArguments arguments) {
    sm80_attention<Tiling>(arguments, ptx::dynamic_shared_memory());
}
