// A block of the kernel for Hopper: its argument, its tile, its shared memory and its barriers.
#pragma once

#include <ptx.cuh>

#include "arguments.cuh"

// One launch. Toolkits differ in how far they align a tensor map, so the struct says it.
struct alignas(128) Sm90Arguments {
    CUtensorMap maps[4];   // keys and values of the input, of the cache: boxes of 64 channels × 128 tokens
    AttentionArguments attention;
};
static_assert(sizeof(Sm90Arguments) == 896, "Sm90Arguments");
static_assert(offsetof(Sm90Arguments, attention) == 512, "Sm90Arguments");

// Named barriers; 0 is __syncthreads. The first and the last kind: one per consumer.
constexpr uint32_t SM90_TURN_BARRIERS = 1;
constexpr uint32_t SM90_PRODUCER_BARRIER = 6;
constexpr uint32_t SM90_CONSUMERS_BARRIER = 7;
constexpr uint32_t SM90_CONSUMER_BARRIERS = 8;

// One tuned row; see src/kernels/cuda/tiling.rs.
template <class Element_, int HEAD_DIM_, int CONSUMERS_, int STAGES_, int PRODUCER_REGISTERS_, int CONSUMER_REGISTERS_,
          int POLYNOMIAL_, bool TAKE_TURNS_, bool PIN_EXPONENTIALS_, int CARRY_STEPS_, bool GENERAL_>
struct Sm90Tiling {
    using Element = Element_;
    static constexpr int HEAD_DIM = HEAD_DIM_;
    static constexpr int CONSUMERS = CONSUMERS_;
    static constexpr int STAGES = STAGES_;
    static constexpr int PRODUCER_REGISTERS = PRODUCER_REGISTERS_;
    static constexpr int CONSUMER_REGISTERS = CONSUMER_REGISTERS_;
    static constexpr int POLYNOMIAL = POLYNOMIAL_;
    static constexpr bool TAKE_TURNS = TAKE_TURNS_;
    static constexpr bool PIN_EXPONENTIALS = PIN_EXPONENTIALS_;
    static constexpr int CARRY_STEPS = CARRY_STEPS_;   // after so many, sums are carried (carried_sums.cuh)
    static constexpr bool GENERAL = GENERAL_;   // whether it knows windows and biases and gives log-sum-exps

    static constexpr int KEYS = 128;
    static constexpr int QUERIES = CONSUMERS * 64;
    static constexpr int SLABS = HEAD_DIM / 64;
    static constexpr int SLAB_CHUNKS = 8;                              // 16-byte chunks of a row of a slab
    static constexpr int QUERY_SLAB = 64 * 128;                        // bytes
    static constexpr int TILE_SLAB = KEYS * 128;
    static constexpr int TILE_BYTES = SLABS * TILE_SLAB;
    static constexpr int KEYS_OFFSET = CONSUMERS * SLABS * QUERY_SLAB;
    static constexpr int VALUES_OFFSET = KEYS_OFFSET + STAGES * TILE_BYTES;
    static constexpr int VISIBLE_OFFSET = VALUES_OFFSET + STAGES * TILE_BYTES;
    static constexpr int BARRIERS_OFFSET = VISIBLE_OFFSET + STAGES * 16;
    static constexpr int FLAG_OFFSET = BARRIERS_OFFSET + STAGES * 4 * 8;
    static constexpr int SHARED_BYTES = FLAG_OFFSET + 16;

    // What combine.cuh and carried_sums.cuh need to know: the consumers do that.
    static constexpr int THREADS = CONSUMERS * 128;
    static __device__ __forceinline__ uint32_t thread() { return threadIdx.x - 128; }
    static __device__ __forceinline__ void sync() { ptx::bar_sync(SM90_CONSUMERS_BARRIER, THREADS); }

    static_assert(HEAD_DIM % 64 == 0, "tiles come in slabs of 64 channels");
    static_assert(POLYNOMIAL >= 0 && POLYNOMIAL <= 8, "of every 8 exponentials");
    static_assert(CONSUMERS <= 5, "their barriers");
    static_assert(CARRY_STEPS > 1, "the first step has nothing to carry");
    static_assert(STAGES >= 2, "while the values of a step are awaited, so are the keys of the next");
};

// The shared memory of a block: where its parts are, as offsets, and its barriers, as shared addresses.
template <class T>
struct Sm90Shared {
    unsigned char* base;
    uint32_t address;

    enum Barrier { KEYS_FULL, VALUES_FULL, KEYS_EMPTY, VALUES_EMPTY };

    __device__ __forceinline__ explicit Sm90Shared(unsigned char* memory)
        : base(memory), address(ptx::shared_address(memory)) {}

    __device__ __forceinline__ uint32_t queries(int consumer) const {
        return consumer * (T::SLABS * T::QUERY_SLAB);
    }
    __device__ __forceinline__ uint32_t keys(uint32_t stage) const { return T::KEYS_OFFSET + stage * T::TILE_BYTES; }
    __device__ __forceinline__ uint32_t values(uint32_t stage) const {
        return T::VALUES_OFFSET + stage * T::TILE_BYTES;
    }
    __device__ __forceinline__ uint64_t* visible(uint32_t stage) const {
        return reinterpret_cast<uint64_t*>(base + T::VISIBLE_OFFSET) + 2 * stage;
    }
    __device__ __forceinline__ uint32_t barrier(Barrier which, uint32_t stage) const {
        return address + T::BARRIERS_OFFSET + (which * T::STAGES + stage) * 8;
    }
};

// A number that all lanes of a warp have, in a form that shows it: the compiler then keeps what follows from it, such as
// descriptors of matrix operands, in registers of the warp, where matrix instructions read it without a move.
__device__ __forceinline__ uint32_t sm90_uniform(uint32_t same_in_all_lanes) {
    return __shfl_sync(0xffffffffu, same_in_all_lanes, 0);
}

// A place in the ring: a stage, and the parity of the phase in which it is filled.
template <int STAGES>
struct RingPlace {
    uint32_t stage = 0;
    uint32_t parity = 0;

    __device__ __forceinline__ void advance() {
        if (++stage == STAGES) {
            stage = 0;
            parity ^= 1;
        }
    }
};

// Byte offset of a 16-byte chunk in a slab: the 128-byte swizzle of TMA and wgmma.
__device__ __forceinline__ uint32_t slab_offset(uint32_t row, uint32_t chunk) {
    return row * 128 + ((chunk ^ (row & 7)) << 4);
}
