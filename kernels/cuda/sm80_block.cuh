// A block of the kernel for every GPU: its tile, its shared memory, the steps described there, what a warp accumulates.
#pragma once

#include <ptx.cuh>

#include "arguments.cuh"
#include "carried_sums.cuh"
#include "elements.cuh"
#include "rebase.cuh"

// The rows of a key step in one tensor, as the threads of a block copy them: what follows from products of 64 bits is
// computed once, by one thread.
struct alignas(16) Sm80StepRows {
    const unsigned char* first;   // row 0
    uint32_t row_fraction;        // bytes from row to row / T::ROW_THREADS
    uint32_t flags;

    static constexpr uint32_t WHOLE = 1;   // every row is visible
    static constexpr uint32_t LAST = 2;    // the item has no later step
    static constexpr uint32_t CARRY = 4;   // sums are carried after it
};
struct Sm80Step {
    Sm80StepRows keys;
    Sm80StepRows values;
    uint64_t visible[2];   // as in KeyStep
    uint64_t carried;      // where what the block carries begins: read where it is needed, it takes no register
    uint64_t padding;
};
static_assert(sizeof(Sm80Step) == 64, "Sm80Step");

// One tuned row; see src/kernels/cuda/tiling.rs.
template <class Element_, int HEAD_DIM_, int ROW_TILES_, int WARPS_, int KEYS_, bool RESIDENT_QUERIES_,
          bool PARKED_SUMS_, int CARRY_STEPS_, bool GENERAL_>
struct Sm80Tiling {
    using Element = Element_;
    static constexpr int HEAD_DIM = HEAD_DIM_;
    static constexpr int ROW_TILES = ROW_TILES_;
    static constexpr int WARPS = WARPS_;
    static constexpr int KEYS = KEYS_;
    static constexpr bool RESIDENT_QUERIES = RESIDENT_QUERIES_;
    static constexpr bool PARKED_SUMS = PARKED_SUMS_;   // whether bases and sums of rows wait in shared memory
    static constexpr int CARRY_STEPS = CARRY_STEPS_;    // after so many, sums are carried (carried_sums.cuh); 0: never
    static constexpr bool GENERAL = GENERAL_;           // whether it knows windows and biases and gives log-sum-exps

    static constexpr int THREADS = WARPS * 32;
    static constexpr int WARP_ROWS = ROW_TILES * 16;
    static constexpr int QUERIES = WARPS * WARP_ROWS;
    static constexpr int CHUNKS = HEAD_DIM * Element::BYTES / 16;   // 16-byte chunks of a row
    static constexpr int ROW_THREADS = CHUNKS % 8 == 0 ? 8 : 4;     // threads that copy a row of keys or values
    static constexpr int CHANNEL_STEPS = CHUNKS / 2;                // matrix steps of Q Kᵀ
    static constexpr int KEY_STEPS = KEYS / Element::KEY_STEP;      // matrix steps of P V
    static constexpr int KEY_TILES = KEYS / 8;                      // accumulator tiles across the keys
    static constexpr int CHANNEL_TILES = HEAD_DIM / 8;              // accumulator tiles across the channels
    // Matrix steps of Q Kᵀ side by side: of all resident queries, else as many as the assembler finds registers for.
    static constexpr bool ALL_STEPS = RESIDENT_QUERIES || (Element::BYTES == 2 && HEAD_DIM <= (GENERAL ? 32 : 128));
    static constexpr int SCORE_UNROLL = ALL_STEPS ? CHANNEL_STEPS : HEAD_DIM * Element::BYTES >= 1024 ? 4 : 2;
    // Matrix steps of P V that tensor cores sum, which cut off, before they join the output, which rounds. In f32, where that
    // counts, as few as the assembler finds registers for.
    static constexpr int SUMMED_STEPS =
        !Element::ROUNDED || HEAD_DIM == 96 || HEAD_DIM > 192 ? KEY_STEPS : HEAD_DIM == 64 && GENERAL ? 2 : 1;
    // Steps that are described at a time; as many again are in use meanwhile.
    static constexpr int DESCRIBED = 8;
    static constexpr int DESCRIPTIONS = 2 * DESCRIBED;

    static constexpr int QUERY_BYTES = QUERIES * CHUNKS * 16;
    static constexpr int TILE_BYTES = KEYS * CHUNKS * 16;           // keys or values
    static constexpr int PARKED_BYTES = PARKED_SUMS ? THREADS * 2 * ROW_TILES * 8 : 0;
    static constexpr int SHARED_BYTES =
        QUERY_BYTES + 2 * TILE_BYTES + DESCRIPTIONS * int(sizeof(Sm80Step)) + PARKED_BYTES;

    // What combine.cuh and carried_sums.cuh need to know: the whole block does that.
    static __device__ __forceinline__ uint32_t thread() { return threadIdx.x; }
    static __device__ __forceinline__ void sync() { __syncthreads(); }

    static_assert(HEAD_DIM % 32 == 0, "accumulators and swizzle come in steps of 32 channels");
    static_assert(KEYS % 16 == 0 && KEYS <= 128, "a step has two words of bits");
    static_assert(CARRY_STEPS == 0 || !PARKED_SUMS, "what is carried is at hand");
};

template <class T>
struct Sm80Rows;

// The shared memory of a block.
template <class T>
struct Sm80Shared {
    unsigned char* base;

    __device__ __forceinline__ unsigned char* queries() const { return base; }
    __device__ __forceinline__ unsigned char* keys() const { return base + T::QUERY_BYTES; }
    __device__ __forceinline__ unsigned char* values() const { return keys() + T::TILE_BYTES; }
    // Of step `number` of the item.
    __device__ __forceinline__ Sm80Step* step(uint32_t number) const {
        return reinterpret_cast<Sm80Step*>(values() + T::TILE_BYTES) + number % T::DESCRIPTIONS;
    }
    // What is parked of this thread.
    __device__ __forceinline__ Sm80Rows<T>* parked_base() const {
        return reinterpret_cast<Sm80Rows<T>*>(values() + T::TILE_BYTES + T::DESCRIPTIONS * sizeof(Sm80Step)) + threadIdx.x;
    }
    __device__ __forceinline__ Sm80Rows<T>* parked_sum() const { return parked_base() + T::THREADS; }
};

// A number for each row that a thread has a part of: row 16 i + 8 half + lane / 4 of the warp is `of[i][half]`.
template <class T>
struct alignas(8 * T::ROW_TILES) Sm80Rows {
    float of[T::ROW_TILES][2];
};

// What a warp accumulates for its rows.
template <class T>
struct Sm80Accumulators {
    float output[T::ROW_TILES][T::CHANNEL_TILES][4];
    Sm80Rows<T> base;         // rebase.cuh; the same in the four lanes of a row
    Sm80Rows<T> sum;          // this lane's columns only
    Sm80Rows<T> correction;   // what the last step multiplies older output with

    __device__ __forceinline__ void clear() {
#pragma unroll
        for (int i = 0; i < T::ROW_TILES; ++i) {
#pragma unroll
            for (int n = 0; n < T::CHANNEL_TILES; ++n) {
#pragma unroll
                for (int e = 0; e < 4; ++e) output[i][n][e] = 0.0f;
            }
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                base.of[i][half] = NO_SCORE;
                sum.of[i][half] = 0.0f;
            }
        }
    }

    // From one softmax to the next, bases and sums may wait in shared memory.
    __device__ __forceinline__ void park(const Sm80Shared<T>& shared) const {
        if constexpr (T::PARKED_SUMS) {
            *shared.parked_base() = base;
            *shared.parked_sum() = sum;
        }
    }
    __device__ __forceinline__ void fetch(const Sm80Shared<T>& shared) {
        if constexpr (T::PARKED_SUMS) {
            base = *shared.parked_base();
            sum = *shared.parked_sum();
        }
    }
};

// Address of row `row` of a view.
template <class T>
__device__ __forceinline__ const unsigned char* sm80_row(const RowView& view, uint32_t batch, uint32_t head,
                                                         uint64_t row) {
    const int64_t offset = batch * view.batch_stride + head * view.head_stride + int64_t(row) * view.token_stride;
    return static_cast<const unsigned char*>(view.data) + offset * T::Element::BYTES;
}
