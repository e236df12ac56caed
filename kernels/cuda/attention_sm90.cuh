// Fused mixed attention for Hopper (compute capability 9.0), f16 and bf16.
//
// What it computes: as attention_sm80.cuh, from the same work items and key steps, with the same online softmax.
//
// Shapes. Q, O: [batch, heads, tokens, head_dim], K, V: [batch, kv_heads, tokens, head_dim], in any strides with adjacent
// channels, rows at multiples of 16 bytes. An item names its head of each. head_dim is padded with zeros to HEAD_DIM, 64
// or 128.
//
// Tiles. A block has one producer warpgroup and CONSUMERS consumer warpgroups of 64 queries each; a step has up to 128
// keys. Blocks are persistent, one per multiprocessor; block i starts with item i, and each item names the next of its
// block: the host deals them out so that all blocks end at about the same time. A consumer without rows skips its products,
// and a step of up to 16 keys has products of that width.
//
// Shared memory, everything in slabs of 64 channels (rows of 128 bytes, 128-byte swizzle): the queries of each
// consumer, reused for its output; a ring of STAGES key tiles and STAGES value tiles with four mbarriers each (full and
// empty, of keys and of values) and the row bits of each stage.
//
// Registers. The producer gives up most of its registers (setmaxnreg); a consumer thread holds 64 scores, 32 packed
// probabilities and HEAD_DIM / 2 accumulators.
//
// Pipeline. The producer fills stages as they become empty: one thread waits for the stage and starts a TMA load. A
// hidden key may hold anything, NaN too: its score is replaced. A hidden value would still be multiplied by 0, so a
// value tile with hidden rows is copied by the whole producer warpgroup, which leaves them out and zero. A consumer
// keeps the tensor cores busy while it computes exponentials:
//
//     S₀ = Q K₀ᵀ;  P₀ = softmax S₀
//     for j = 1, 2, …:   start Sⱼ = Q Kⱼᵀ;   start O += Pⱼ₋₁ Vⱼ₋₁;   wait for Sⱼ;   exponentials of Sⱼ;
//                        wait for O;   rescale O to the new maximum;   Pⱼ
//     O += P V of the last step
//
// O stays in the accumulators, though tensor cores cut sums off where other arithmetic rounds: O of a step on its own, as
// attention_sm80.cuh has it, would need HEAD_DIM / 2 registers more. After 16,400 keys and values of one sign the emulator,
// which cuts off more than Hopper does, finds an error of one unit in the last place of f16, half of it the rounding of
// the result.
//
// P never leaves the registers: the accumulator layout of S is, packed, the layout of an A operand. With TAKE_TURNS the
// consumers start their products one after the other, so that one's exponentials meet another's products. The assembler may
// move the wait for O in front of the exponentials, which then meet other consumers' products alone; with
// PIN_EXPONENTIALS it cannot.
//
// Bound. head_dim 128: tensor cores. head_dim 64: the 16 exponentials per clock of a multiprocessor take as long as the
// products, so POLYNOMIAL of every 8 of them are computed by a polynomial on the FMA pipe instead.
#pragma once

#include <ptx.cuh>
#include <type_traits>

#include "arguments.cuh"
#include "combine.cuh"
#include "elements.cuh"
#include "exp2.cuh"
#include "key_bias.cuh"
#include "log_sum_exp.cuh"
#include "rebase.cuh"
#include "rotation.cuh"
#include "window.cuh"

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
          int POLYNOMIAL_, bool TAKE_TURNS_, bool PIN_EXPONENTIALS_, bool GENERAL_>
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

    // What combine.cuh needs to know: the consumers do that.
    static constexpr int THREADS = CONSUMERS * 128;
    static __device__ __forceinline__ uint32_t thread() { return threadIdx.x - 128; }
    static __device__ __forceinline__ void sync() { ptx::bar_sync(SM90_CONSUMERS_BARRIER, THREADS); }

    static_assert(HEAD_DIM % 64 == 0, "tiles come in slabs of 64 channels");
    static_assert(POLYNOMIAL >= 0 && POLYNOMIAL <= 8, "of every 8 exponentials");
    static_assert(CONSUMERS <= 5, "their barriers");
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

// ---- Producer -----------------------------------------------------------------------------------------------------

// Starts the TMA load of a whole tile, which reports to `full`. One thread calls it.
template <class T>
__device__ __forceinline__ void sm90_load_tile(uint32_t tile, uint32_t full, const CUtensorMap* map,
                                               const RowView& view, const StepItem& item, uint64_t row) {
    const int32_t batch = view.batch_stride == 0 ? 0 : int32_t(item.batch);
    ptx::mbarrier_arrive_expect_tx(full, T::TILE_BYTES);
#pragma unroll
    for (int slab = 0; slab < T::SLABS; ++slab) {
        ptx::tma_load_4d(tile + slab * T::TILE_SLAB, map, full, slab * 64, int32_t(row), int32_t(item.kv_head), batch);
    }
}

// Copies the visible rows of a value tile and makes the others zero. All threads of the producer call it.
template <class T>
__device__ __forceinline__ void sm90_copy_visible(uint32_t tile, const RowView& view, const StepItem& item,
                                                  const KeyStep& step, uint32_t head_dim) {
    const uint64_t low = step.visible[0], high = step.visible[1];
    using E = typename T::Element;
    constexpr uint32_t CHUNKS = T::SLABS * T::SLAB_CHUNKS;
    // Keys that are copied at a time. A thread stays at its chunk and, modulo 8, at its row: the swizzle is the same.
    constexpr uint32_t KEYS = 128 / CHUNKS;
    static_assert(KEYS % 8 == 0, "rows of one swizzle");
    const uint32_t chunk = threadIdx.x % CHUNKS, first = threadIdx.x / CHUNKS;
    const int64_t offset = item.batch * view.batch_stride + item.kv_head * view.head_stride +
                           int64_t(step.value_row + first) * view.token_stride;
    const unsigned char* source = static_cast<const unsigned char*>(view.data) + offset * E::BYTES + chunk * 16;
    uint32_t target = tile + chunk / T::SLAB_CHUNKS * T::TILE_SLAB + slab_offset(first, chunk % T::SLAB_CHUNKS);
    const bool inside = chunk * E::CHUNK < head_dim;
#pragma unroll 1
    for (uint32_t key = first; key < T::KEYS; key += KEYS) {
        const uint64_t bits = key < 64 ? low : high;
        ptx::cp_async_16(target, source, inside && (bits >> (key & 63) & 1) != 0 ? 16 : 0);
        source += KEYS * view.token_stride * E::BYTES;
        target += KEYS * 128;
    }
    ptx::cp_async_commit();
    ptx::cp_async_wait<0>();
    ptx::fence_proxy_async();   // wgmma reads what ordinary copies have written
}

// Only thread 0 waits for stages: a thread that looked too late would take a phase for the one before. The others meet
// it where they have something to copy.
template <class T>
__device__ __forceinline__ void sm90_produce(const Sm90Arguments& arguments, const Sm90Shared<T>& shared) {
    using S = Sm90Shared<T>;
    const AttentionArguments& attention = arguments.attention;
    const bool leader = threadIdx.x == 0;
    RingPlace<T::STAGES> place;
    for (uint32_t index = blockIdx.x; index != LAST_ITEM;) {
        const StepItem item = attention.items[index];
        index = item.next;
        for (uint32_t i = item.first_step; i < item.last_step; ++i) {
            // By reference: a producer thread has few registers, and time.
            const KeyStep& step = attention.steps[i];
            const KeyValueViews& source = step.source != 0 ? attention.cache : attention.input;
            const CUtensorMap* maps = arguments.maps + 2 * step.source;
            const bool all_visible = (step.visible[0] & step.visible[1]) == ~uint64_t(0);
            const uint32_t values = shared.address + shared.values(place.stage);
            const uint32_t values_full = shared.barrier(S::VALUES_FULL, place.stage);
            if (leader) {
                ptx::mbarrier_wait(shared.barrier(S::KEYS_EMPTY, place.stage), place.parity ^ 1);
                shared.visible(place.stage)[0] = step.visible[0];
                shared.visible(place.stage)[1] = step.visible[1];
                sm90_load_tile<T>(shared.address + shared.keys(place.stage), shared.barrier(S::KEYS_FULL, place.stage),
                                  maps, source.keys, item, step.key_row);
                ptx::mbarrier_wait(shared.barrier(S::VALUES_EMPTY, place.stage), place.parity ^ 1);
                if (all_visible) sm90_load_tile<T>(values, values_full, maps + 1, source.values, item, step.value_row);
            }
            if (!all_visible) {
                __syncwarp();
                ptx::bar_sync(SM90_PRODUCER_BARRIER, 128);   // the stage is empty
                sm90_copy_visible<T>(values, source.values, item, step, attention.head_dim);
                ptx::bar_sync(SM90_PRODUCER_BARRIER, 128);   // everybody's rows have landed
                if (leader) ptx::mbarrier_arrive(values_full);
            }
            place.advance();
        }
    }
}

// ---- Consumers ----------------------------------------------------------------------------------------------------

// What a consumer thread holds: of the 64 rows of its warpgroup, row 16 w + lane / 4 + 8 half for half = 0 and 1.
template <class T>
struct Sm90Rows {
    float output[T::HEAD_DIM / 2];
    float maximum[2];      // of the raw scores, the same in the four lanes of a row
    float sum[2];          // this lane's columns only
    float correction[2];   // what the last step multiplies older sums with
};

// Row in the warpgroup that this thread holds accumulators of.
__device__ __forceinline__ uint32_t sm90_row(int half) {
    return threadIdx.x % 128 / 32 * 16 + threadIdx.x % 32 / 4 + half * 8;
}

// The queries of a consumer on their way from global to shared memory, 16 rows by each warp: all loads are under way before
// the first is awaited.
template <class T>
struct Sm90Queries {
    static constexpr uint32_t CHUNKS = T::SLABS * T::SLAB_CHUNKS;
    uint4 channels[16 * CHUNKS / 32];

    // Row in the warpgroup, and chunk, of a lane's copy.
    static __device__ __forceinline__ uint32_t row(uint32_t copy) {
        return threadIdx.x % 128 / 32 * 16 + (copy * 32 + threadIdx.x % 32) / CHUNKS;
    }
    static __device__ __forceinline__ uint32_t chunk(uint32_t copy) { return (copy * 32 + threadIdx.x % 32) % CHUNKS; }

    // Starts the loads. Rows past the item's end and channels past head_dim become zero.
    __device__ __forceinline__ void load(const AttentionArguments& attention, const StepItem& item, uint32_t consumer) {
        using E = typename T::Element;
        const RowView& view = attention.queries;
        const int64_t offset = item.batch * view.batch_stride + item.head * view.head_stride +
                               int64_t(item.query_start + consumer * 64) * view.token_stride;
        const unsigned char* first = static_cast<const unsigned char*>(view.data) + offset * E::BYTES;
#pragma unroll
        for (uint32_t copy = 0; copy < 16 * CHUNKS / 32; ++copy) {
            channels[copy] = make_uint4(0, 0, 0, 0);
            if (consumer * 64 + row(copy) < item.query_len && chunk(copy) * E::CHUNK < attention.head_dim) {
                channels[copy] = *reinterpret_cast<const uint4*>(first + int64_t(row(copy)) * view.token_stride * E::BYTES +
                                                                 chunk(copy) * 16);
            }
        }
    }

    // Writes them to their tile, rotated if there is a rotation table.
    __device__ __forceinline__ void store(const AttentionArguments& attention, const StepItem& item, unsigned char* tile,
                                          uint32_t consumer) {
        using E = typename T::Element;
#pragma unroll
        for (uint32_t copy = 0; copy < 16 * CHUNKS / 32; ++copy) {
            const uint32_t in_item = consumer * 64 + row(copy);
            if (attention.query_rotation.data != nullptr && in_item < item.query_len &&
                chunk(copy) * E::CHUNK < attention.head_dim) {
                const uint64_t token = item.query_start + in_item;
                channels[copy] = rotate<E>(channels[copy], attention.query_rotation, item.batch, token, chunk(copy));
            }
            *reinterpret_cast<uint4*>(tile + chunk(copy) / T::SLAB_CHUNKS * T::QUERY_SLAB +
                                      slab_offset(row(copy), chunk(copy) % T::SLAB_CHUNKS)) = channels[copy];
        }
    }
};

// The operand so many times 16 bytes further. The address is in the low word: nothing is carried into the other.
__device__ __forceinline__ uint64_t sm90_further(uint64_t descriptor, uint32_t chunks) {
    return (descriptor & 0xffffffff00000000ull) | (uint32_t(descriptor) + chunks);
}

// Starts S = Q Kᵀ, from descriptors of the first 16 channels.
template <class T, int N>
__device__ __forceinline__ void sm90_start_scores(float (&scores)[N], uint64_t queries, uint64_t keys) {
    ptx::wgmma_fence();
#pragma unroll
    for (int step = 0; step < T::HEAD_DIM / 16; ++step) {
        const uint64_t a = sm90_further(queries, step / 4 * (T::QUERY_SLAB / 16) + step % 4 * 2);
        const uint64_t b = sm90_further(keys, step / 4 * (T::TILE_SLAB / 16) + step % 4 * 2);
        ptx::wgmma_ss<typename T::Element::Scalar, 2 * N, ptx::Major::K>(scores, a, b, step > 0);
    }
    ptx::wgmma_commit();
}

// Starts O += P V, from the descriptor of the first 16 values.
template <class T, int STEPS>
__device__ __forceinline__ void sm90_start_output(float (&output)[T::HEAD_DIM / 2],
                                                  const uint32_t (&probabilities)[STEPS][4], uint64_t values) {
    ptx::wgmma_fence();
#pragma unroll
    for (int step = 0; step < STEPS; ++step) {
        const uint64_t b = sm90_further(values, step * 128);
        ptx::wgmma_rs<typename T::Element::Scalar, T::HEAD_DIM, ptx::Major::MN>(output, probabilities[step], b, true);
    }
    ptx::wgmma_commit();
}

// Adds the bias of each key that has a bit to its scores.
template <class T>
__device__ __forceinline__ void sm90_add_bias(float (&scores)[T::KEYS / 2], const float* bias, uint64_t low,
                                              uint64_t high, float inverse_scale) {
    const uint32_t first = 2 * (threadIdx.x & 3);
#pragma unroll
    for (int n = 0; n < T::KEYS / 8; ++n) {
#pragma unroll
        for (int e = 0; e < 2; ++e) {
            const int column = 8 * n + e;
            const uint64_t mine = (column < 64 ? low : high) >> first;
            if ((mine >> (column % 64) & 1) == 0) continue;
            const float added = bias[first + column] * inverse_scale;
            scores[4 * n + e] += added;
            scores[4 * n + e + 2] += added;
        }
    }
}

// Scores of keys without a bit become −∞.
template <int N>
__device__ __forceinline__ void sm90_hide(float (&scores)[N], uint64_t low, uint64_t high) {
    const uint32_t shift = 2 * (threadIdx.x & 3);
#pragma unroll
    for (int i = 0; i < N; ++i) {
        const int column = i / 4 * 8 + i % 2;
        const uint64_t mine = (column < 64 ? low : high) >> shift;
        if ((mine >> (column % 64) & 1) == 0) scores[i] = -INFINITY;
    }
}

// Scores of keys that the window of a row leaves out become −∞. Row 0 of the window is the first of the warpgroup.
template <class T>
__device__ __forceinline__ void sm90_hide_outside(float (&scores)[T::KEYS / 2], const StepWindow& window) {
    const int first_key = 2 * (threadIdx.x & 3);
#pragma unroll
    for (int i = 0; i < T::KEYS / 2; ++i) {
        const int key = first_key + i / 4 * 8 + i % 2;
        if (!window.sees(int(sm90_row(i / 2 % 2)), key)) scores[i] = -INFINITY;
    }
}

// Turns scores into probabilities relative to the new maximum; leaves the factor for what was summed before. A NaN
// among the scores becomes the maximum and so reaches the sum, whatever the polynomial makes of it.
template <class T, int N>
__device__ __forceinline__ void sm90_softmax(float (&scores)[N], Sm90Rows<T>& rows, float scale_log2) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        const float before = rows.maximum[half];
        float maximum = before;
#pragma unroll
        for (int i = 2 * half; i < N; i += 4) {
            maximum = ptx::max_or_nan(maximum, ptx::max_or_nan(scores[i], scores[i + 1]));
        }
        maximum = ptx::max_or_nan(maximum, __shfl_xor_sync(0xffffffffu, maximum, 1));
        maximum = ptx::max_or_nan(maximum, __shfl_xor_sync(0xffffffffu, maximum, 2));
        rows.maximum[half] = maximum;
        const Rebase rebase(before, maximum, scale_log2);
        rows.correction[half] = rebase.correction;
        float sum;
#pragma unroll
        for (int i = 2 * half; i < N; i += 4) {
#pragma unroll
            for (int e = i; e < i + 2; ++e) {
                const float x = fmaf(scores[e], scale_log2, -rebase.base);
                // Elements of a row come in pairs, every fourth index: this counts them.
                scores[e] = (e / 4 * 2 + e % 2) % 8 < T::POLYNOMIAL ? exp2_polynomial(x) : ptx::exp2_approx(x);
                sum = e == 2 * half ? scores[e] : sum + scores[e];
            }
        }
        rows.sum[half] = fmaf(rows.sum[half], rows.correction[half], sum);
    }
}

// Turns what was summed before to the new maximum. Most steps find no new one in any row of the warp.
template <class T>
__device__ __forceinline__ void sm90_rescale(Sm90Rows<T>& rows) {
    if (__any_sync(0xffffffffu, rows.correction[0] != 1.0f || rows.correction[1] != 1.0f)) {
#pragma unroll
        for (int i = 0; i < T::HEAD_DIM / 2; ++i) rows.output[i] *= rows.correction[i / 2 % 2];
    }
}

// Accumulators of S as A operands.
template <class T, int STEPS>
__device__ __forceinline__ void sm90_pack(uint32_t (&probabilities)[STEPS][4], const float (&scores)[8 * STEPS]) {
#pragma unroll
    for (int step = 0; step < STEPS; ++step) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            probabilities[step][i] = T::Element::pack_pair(scores[8 * step + 2 * i], scores[8 * step + 2 * i + 1]);
        }
    }
}

// Tells the producer that this warp has read a stage.
__device__ __forceinline__ void sm90_release(uint32_t barrier) {
    __syncwarp();
    if (threadIdx.x % 32 == 0) ptx::mbarrier_arrive(barrier);
}

// Waits until it is this consumer's turn to start products.
template <class T>
__device__ __forceinline__ void sm90_await_turn(uint32_t consumer) {
    if constexpr (T::TAKE_TURNS) ptx::bar_sync(SM90_TURN_BARRIERS + consumer, 256);
}

// Hands the turn to the next consumer.
template <class T>
__device__ __forceinline__ void sm90_pass_turn(uint32_t consumer) {
    // Of two, the other one.
    const uint32_t next = T::CONSUMERS == 2 ? 1 - consumer : (consumer + 1) % T::CONSUMERS;
    if constexpr (T::TAKE_TURNS) ptx::bar_arrive(SM90_TURN_BARRIERS + next, 256);
}

// All steps of one item, at least one. `place` is where its first step is in the ring.
template <class T>
__device__ __forceinline__ void sm90_attend(const AttentionArguments& attention, const StepItem& item,
                                            const Sm90Shared<T>& shared, Sm90Rows<T>& rows, uint32_t consumer,
                                            RingPlace<T::STAGES>& place) {
    using S = Sm90Shared<T>;
    const uint32_t steps = sm90_uniform(item.last_step - item.first_step);
    // With windows and biases all steps are wide.
    const uint32_t wide = T::GENERAL ? steps : sm90_uniform(item.last_step - item.first_step - item.narrow_steps);
    const uint32_t whole = sm90_uniform(item.whole_steps);
    const float scale_log2 = attention.scale_log2;
    const uint32_t origin = shared.address / 16;
    const auto operand = [&](uint32_t leading_bytes, uint32_t first, uint32_t number, uint32_t bytes) {
        return sm90_further(ptx::wgmma_descriptor(0, leading_bytes, 1024), origin + number * (bytes / 16) + first / 16);
    };
    float scores[T::KEYS / 2];
    uint32_t probabilities[T::KEYS / 16][4];
    RingPlace<T::STAGES> behind = place;

    const auto window_of = [&](uint32_t i) {
        return StepWindow::of<64, T::KEYS>(attention.steps[item.first_step + i], item.query_start + consumer * 64);
    };
    const auto start_scores = [&] {
        sm90_await_turn<T>(consumer);
        ptx::wgmma_fence_registers(scores);
        sm90_start_scores<T>(scores, operand(16, 0, consumer, T::SLABS * T::QUERY_SLAB),
                             operand(16, T::KEYS_OFFSET, place.stage, T::TILE_BYTES));
    };
    const auto start_output = [&] {
        ptx::mbarrier_wait(shared.barrier(S::VALUES_FULL, behind.stage), behind.parity);
        ptx::wgmma_fence_registers(rows.output);
        sm90_start_output<T>(rows.output, probabilities,
                             operand(T::TILE_SLAB, T::VALUES_OFFSET, behind.stage, T::TILE_BYTES));
    };
    const auto finish_output = [&] {
        ptx::wgmma_fence_registers(rows.output);
        sm90_release(shared.barrier(S::VALUES_EMPTY, behind.stage));
    };
    // One step from the wait for its keys to its packed probabilities. OVERLAP: with the product of the step before; MASKED:
    // some keys are hidden, or in a window or biased.
    const auto run = [&](auto overlap, auto masked, uint32_t i) {
        constexpr bool OVERLAP = decltype(overlap)::value, MASKED = decltype(masked)::value;
        place.stage = sm90_uniform(place.stage);
        place.parity = sm90_uniform(place.parity);
        ptx::mbarrier_wait(shared.barrier(S::KEYS_FULL, place.stage), place.parity);
        start_scores();
        if constexpr (OVERLAP) start_output();
        sm90_pass_turn<T>(consumer);
        ptx::wgmma_wait<OVERLAP ? 1 : 0>();
        ptx::wgmma_fence_registers(scores);
        if constexpr (MASKED) {
            const uint64_t low = shared.visible(place.stage)[0], high = shared.visible(place.stage)[1];
            if constexpr (T::GENERAL) {
                const float* bias = step_bias(attention, attention.steps[item.first_step + i], item.batch, item.head);
                if (bias != nullptr) sm90_add_bias<T>(scores, bias, low, high, attention.inverse_scale);
            }
            sm90_hide(scores, low, high);
            if constexpr (T::GENERAL) sm90_hide_outside<T>(scores, window_of(i));
        }
        if constexpr (!T::PIN_EXPONENTIALS) sm90_release(shared.barrier(S::KEYS_EMPTY, place.stage));
        sm90_softmax<T>(scores, rows, scale_log2);
        // Sums are never negative, but the assembler does not know: exponentials come before this, and this before the wait.
        if constexpr (T::PIN_EXPONENTIALS) {
            sm90_release(shared.barrier(S::KEYS_EMPTY, place.stage) + (rows.sum[0] + rows.sum[1] < 0.0f ? 8 : 0));
        }
        if constexpr (OVERLAP) {
            ptx::wgmma_wait<0>();
            finish_output();
            sm90_rescale<T>(rows);
        }
        sm90_pack<T>(probabilities, scores);
        behind = place;
        place.advance();
    };
    // Two copies of a step, because a branch between the two waits would keep the compiler from putting exponentials there.
    const auto run_general = [&](auto overlap, uint32_t i) {
        const bool is_whole = i < whole && window_of(i).template covers<64, T::KEYS>() &&
                              step_bias(attention, attention.steps[item.first_step + i], item.batch, item.head) == nullptr;
        if (__all_sync(0xffffffffu, is_whole)) {
            run(overlap, std::false_type(), i);
        } else {
            run(overlap, std::true_type(), i);
        }
    };

    // A step of so few keys that a wide one would be for nothing.
    const auto run_narrow = [&] {
        float few_scores[NARROW_KEYS / 2];
        uint32_t few_probabilities[NARROW_KEYS / 16][4];
        place.stage = sm90_uniform(place.stage);
        ptx::mbarrier_wait(shared.barrier(S::KEYS_FULL, place.stage), place.parity);
        sm90_await_turn<T>(consumer);
        ptx::wgmma_fence_registers(few_scores);
        sm90_start_scores<T>(few_scores, operand(16, 0, consumer, T::SLABS * T::QUERY_SLAB),
                             operand(16, T::KEYS_OFFSET, place.stage, T::TILE_BYTES));
        sm90_pass_turn<T>(consumer);
        ptx::wgmma_wait<0>();
        ptx::wgmma_fence_registers(few_scores);
        sm90_hide(few_scores, shared.visible(place.stage)[0], 0);
        sm90_release(shared.barrier(S::KEYS_EMPTY, place.stage));
        sm90_softmax<T>(few_scores, rows, scale_log2);
        sm90_rescale<T>(rows);
        sm90_pack<T>(few_probabilities, few_scores);
        ptx::mbarrier_wait(shared.barrier(S::VALUES_FULL, place.stage), place.parity);
        ptx::wgmma_fence_registers(rows.output);
        sm90_start_output<T>(rows.output, few_probabilities,
                             operand(T::TILE_SLAB, T::VALUES_OFFSET, place.stage, T::TILE_BYTES));
        ptx::wgmma_wait<0>();
        ptx::wgmma_fence_registers(rows.output);
        sm90_release(shared.barrier(S::VALUES_EMPTY, place.stage));
        place.advance();
    };

    if (wide > 0) {
        if constexpr (T::GENERAL) {
            run_general(std::false_type(), 0);
            for (uint32_t i = 1; i < wide; ++i) run_general(std::true_type(), i);
        } else {
            if (whole > 0) {
                run(std::false_type(), std::false_type(), 0);
            } else {
                run(std::false_type(), std::true_type(), 0);
            }
            uint32_t i = 1;
            for (; i < whole; ++i) run(std::true_type(), std::false_type(), i);
            for (; i < wide; ++i) run(std::true_type(), std::true_type(), i);
        }
        start_output();
        ptx::wgmma_wait<0>();
        finish_output();
    }
    if constexpr (!T::GENERAL) {
#pragma unroll 1
        for (uint32_t i = wide; i < steps; ++i) run_narrow();
    }
}

// What a consumer without rows does of an item: it gives back what it does not read.
template <class T>
__device__ __forceinline__ void sm90_pass_by(const StepItem& item, const Sm90Shared<T>& shared, uint32_t consumer,
                                             RingPlace<T::STAGES>& place) {
    using S = Sm90Shared<T>;
#pragma unroll 1
    for (uint32_t i = item.first_step; i < item.last_step; ++i) {
        ptx::mbarrier_wait(shared.barrier(S::KEYS_FULL, place.stage), place.parity);
        sm90_await_turn<T>(consumer);
        sm90_pass_turn<T>(consumer);
        sm90_release(shared.barrier(S::KEYS_EMPTY, place.stage));
        ptx::mbarrier_wait(shared.barrier(S::VALUES_FULL, place.stage), place.parity);
        sm90_release(shared.barrier(S::VALUES_EMPTY, place.stage));
        place.advance();
    }
}

// Writes the normalised rows of a whole item, by way of the warp's own rows of the query tile.
template <class T>
__device__ __forceinline__ void sm90_store_output(const AttentionArguments& attention, const StepItem& item,
                                                  const Sm90Rows<T>& rows, unsigned char* tile, uint32_t consumer) {
    using E = typename T::Element;
    const uint32_t lane = threadIdx.x % 32;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        // No visible key: zeros. A NaN sum stays one.
        const float factor = rows.sum[half] == 0.0f ? 0.0f : 1.0f / rows.sum[half];
        if constexpr (T::GENERAL) {
            const uint32_t row = consumer * 64 + sm90_row(half);
            if ((lane & 3) == 0 && row < item.query_len) {
                store_log_sum_exp(attention, item.batch, item.head, item.query_start + row,
                                  rows.maximum[half] * attention.scale_log2, rows.sum[half]);
            }
        }
#pragma unroll
        for (int n = 0; n < T::HEAD_DIM / 8; ++n) {
            unsigned char* target =
                tile + n / 8 * T::QUERY_SLAB + slab_offset(sm90_row(half), n % 8) + 2 * (lane & 3) * E::BYTES;
            const int i = 4 * n + 2 * half;
            E::store_pair(target, rows.output[i] * factor, rows.output[i + 1] * factor);
        }
    }
    __syncwarp();
    const MutableRowView& view = attention.output;
    const int64_t offset = item.batch * view.batch_stride + item.head * view.head_stride +
                           int64_t(item.query_start + consumer * 64) * view.token_stride;
    unsigned char* first = static_cast<unsigned char*>(view.data) + offset * E::BYTES;
    const uint32_t first_row = threadIdx.x % 128 / 32 * 16;
    constexpr uint32_t CHUNKS = T::SLABS * T::SLAB_CHUNKS;
    for (uint32_t copy = lane; copy < 16 * CHUNKS; copy += 32) {
        const uint32_t row = first_row + copy / CHUNKS, chunk = copy % CHUNKS;
        if (consumer * 64 + row < item.query_len && chunk * E::CHUNK < attention.head_dim) {
            *reinterpret_cast<uint4*>(first + int64_t(row) * view.token_stride * E::BYTES + chunk * 16) =
                *reinterpret_cast<const uint4*>(tile + chunk / T::SLAB_CHUNKS * T::QUERY_SLAB +
                                                slab_offset(row, chunk % T::SLAB_CHUNKS));
        }
    }
    __syncwarp();   // the next item's queries come here
}

// Writes the sums of one part of a split item to its slot, with the maximum in units of log2.
template <class T>
__device__ __forceinline__ void sm90_store_partial(const AttentionArguments& attention, const StepItem& item,
                                                   const Sm90Rows<T>& rows, uint32_t consumer) {
    const PartialSlot<T> slot(attention, item.partial_slot);
    const uint32_t lane = threadIdx.x % 32;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        const uint32_t row = consumer * 64 + sm90_row(half);
        if (row >= item.query_len) continue;
#pragma unroll
        for (int n = 0; n < T::HEAD_DIM / 8; ++n) {
            const int i = 4 * n + 2 * half;
            *reinterpret_cast<float2*>(slot.channels(row) + n * 8 + 2 * (lane & 3)) =
                make_float2(rows.output[i], rows.output[i + 1]);
        }
        if ((lane & 3) == 0) *slot.state(row) = make_float2(rows.maximum[half] * attention.scale_log2, rows.sum[half]);
    }
}

template <class T>
__device__ __forceinline__ void sm90_consume(const AttentionArguments& attention, const Sm90Shared<T>& shared) {
    const uint32_t consumer = sm90_uniform(threadIdx.x / 128) - 1;
    const uint32_t barrier = SM90_CONSUMER_BARRIERS + consumer;
    unsigned char* queries = shared.base + shared.queries(consumer);
    RingPlace<T::STAGES> place;
    if (consumer == T::CONSUMERS - 1) sm90_pass_turn<T>(consumer);   // the first consumer begins
    StepItem item = attention.items[blockIdx.x];
    Sm90Queries<T> loaded;
    loaded.load(attention, item, consumer);
    while (true) {
        loaded.store(attention, item, queries, consumer);
        ptx::fence_proxy_async();   // wgmma reads what ordinary stores have written
        ptx::bar_sync(barrier, 128);

        Sm90Rows<T> rows;
#pragma unroll
        for (int i = 0; i < T::HEAD_DIM / 2; ++i) rows.output[i] = 0.0f;
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            rows.maximum[half] = NO_SCORE;
            rows.sum[half] = 0.0f;
        }
        if (sm90_uniform(consumer * 64 < item.query_len) != 0) {
            sm90_attend<T>(attention, item, shared, rows, consumer, place);
        } else {
            sm90_pass_by<T>(item, shared, consumer, place);
        }
        // Each lane has summed its own columns of a row.
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            rows.sum[half] += __shfl_xor_sync(0xffffffffu, rows.sum[half], 1);
            rows.sum[half] += __shfl_xor_sync(0xffffffffu, rows.sum[half], 2);
        }
        ptx::bar_sync(barrier, 128);   // all warps are done with the queries
        const uint32_t next = item.next;
        StepItem following = item;
        if (next != LAST_ITEM) following = attention.items[next];   // on its way while this one is written
        if (item.partial_slot == WHOLE) {
            sm90_store_output<T>(attention, item, rows, queries, consumer);
        } else {
            sm90_store_partial<T>(attention, item, rows, consumer);
            combine_if_last<T>(attention, item.partial_slot, shared.base + T::FLAG_OFFSET);
        }
        if (next == LAST_ITEM) break;
        item = following;
        loaded.load(attention, item, consumer);
    }
    if (consumer == 0) sm90_await_turn<T>(consumer);   // nobody arrives at a barrier and leaves it so
}

// The whole launch, by persistent blocks.
template <class T>
__device__ __forceinline__ void sm90_attention(const Sm90Arguments& arguments, unsigned char* shared_memory) {
    using S = Sm90Shared<T>;
    const S shared(shared_memory);
    if (threadIdx.x == 0) {
        for (uint32_t stage = 0; stage < T::STAGES; ++stage) {
            ptx::mbarrier_init(shared.barrier(S::KEYS_FULL, stage), 1);
            ptx::mbarrier_init(shared.barrier(S::VALUES_FULL, stage), 1);
            // One arrival per consumer warp.
            ptx::mbarrier_init(shared.barrier(S::KEYS_EMPTY, stage), T::CONSUMERS * 4);
            ptx::mbarrier_init(shared.barrier(S::VALUES_EMPTY, stage), T::CONSUMERS * 4);
        }
        ptx::fence_mbarrier_init();
    }
    __syncthreads();
    if (threadIdx.x < 128) {
        ptx::setmaxnreg_dec<T::PRODUCER_REGISTERS>();
        sm90_produce<T>(arguments, shared);
    } else {
        ptx::setmaxnreg_inc<T::CONSUMER_REGISTERS>();
        sm90_consume<T>(arguments.attention, shared);
    }
}
