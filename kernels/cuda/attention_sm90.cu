// The entry point of attention_sm90.cuh. Compiled once per kernel of the tuning table (src/kernels/cuda/tiling.rs),
// which names it and defines its tile as macros.
#include "attention_sm90.cuh"

using Tiling = Sm90Tiling<TILE_ELEMENT, TILE_HEAD_DIM, TILE_CONSUMERS, TILE_STAGES, TILE_PRODUCER_REGISTERS,
                          TILE_CONSUMER_REGISTERS, TILE_POLYNOMIAL, TILE_TAKE_TURNS, TILE_PIN_EXPONENTIALS, TILE_CARRY_STEPS,
                          TILE_GENERAL>;
static_assert(Tiling::SHARED_BYTES == TILE_SHARED_BYTES, "the host asks for what the kernel uses");

// The 1 caps registers at launch, without which the compiler ignores setmaxnreg.
extern "C" __global__ void __launch_bounds__(Tiling::THREADS + 128, 1)
    KERNEL_NAME(const __grid_constant__ Sm90Arguments arguments) {
    sm90_attention<Tiling>(arguments, ptx::dynamic_shared_memory());
}
