// Fused mixed attention for every GPU since compute capability 8.0.
//
// What it computes. For one work item, a tile of queries of one head and batch row, and its list of key steps:
//
//     O = softmax(scale · Q Kᵀ) V        keys and values gathered from all steps, as if they were one long matrix
//
// in one pass with the online softmax: for each step, S = Q Kᵀ; m' = max(m, rowmax S); P = 2^(c·(S − m')) with
// c = scale · log2 e; l = 2^(c·(m − m')) l + rowsum P; O = 2^(c·(m − m')) O + P V. Scores, softmax and sums are f32.
// A query that sees no key gets zeros.
//
// Shapes. Q, O: [batch, heads, tokens, head_dim], K, V: [batch, kv_heads, tokens, head_dim], in any strides with adjacent
// channels. An item names its head of each. head_dim is padded with zeros to HEAD_DIM, which costs arithmetic but no memory
// traffic.
//
// Group structure and padding are not in the main loop. The host has turned them into key steps: a run of at most KEYS
// rows of one source and a bit per row. A row whose bit is 0 (padding, or past the end of the range) is neither read
// nor multiplied: it is zeroed in shared memory, and its score is −∞. Steps without a visible row do not exist. Where
// patterns have windows, a step also says which of its keys a query sees by the distance of their tokens. Windows, biases of
// keys, and log-sum-exps beside the output, are known to the general variant of a kernel alone: others do not pay for them.
//
// Tiles. A block of WARPS warps takes one item of up to WARPS · ROW_TILES · 16 queries; each warp owns ROW_TILES · 16
// rows and never exchanges them. Two row tiles per warp halve the shared-memory reads per multiplication; with one, the
// tensor cores of sm_80 wait for shared memory.
//
// Shared memory: the query tile, then STAGES tiles of KEYS keys and of KEYS values, XOR-swizzled (elements.cuh), where
// both sources are, the row bits of each stage, and where carried sums are. The query tile is reused for the output on its way out.
//
// Registers: ROW_TILES · HEAD_DIM / 2 sums and ROW_TILES · KEYS / 2 scores per thread (as operands, f32 needs twice that),
// plus ROW_TILES · HEAD_DIM / 4 of queries where they stay in registers.
//
// Long sums. Where elements are f32, sums move to global memory every CARRY_STEPS steps (carried_sums.cuh), and each matrix
// step of P V joins the output by itself.
//
// Pipeline. Stage j % STAGES holds step j. In iteration j a warp waits for its copies of step j, meets the other warps
// (now everyone's copies have landed, and everyone is done with step j − 1), starts the copies of step
// j + STAGES − 1 into the stage that step j − 1 has left, and computes. One barrier per step. The description of the
// step after that is fetched meanwhile, so no address waits for memory.
//
// Bound. head_dim 64 and more, 2-byte elements: tensor cores, then exp2 (KEYS · 16 of them against 2 · KEYS · HEAD_DIM
// · 16 multiply-adds per row tile). f32: tensor cores, at a third (TF32: all) of the TF32 rate.
#pragma once

#include <ptx.cuh>

#include "arguments.cuh"
#include "carried_sums.cuh"
#include "combine.cuh"
#include "elements.cuh"
#include "key_bias.cuh"
#include "log_sum_exp.cuh"
#include "rebase.cuh"
#include "rotation.cuh"
#include "window.cuh"

// Where the keys and values of one source are for the batch row and the heads of an item. It waits in shared memory: what
// follows from products of 64 bits is not computed anew in each step.
struct Sm80Source {
    const unsigned char* keys;
    const unsigned char* values;
    int64_t key_row_bytes;
    int64_t value_row_bytes;
};
static_assert(sizeof(Sm80Source) == 32, "Sm80Source");

// One tuned row; see src/kernels/cuda/tiling.rs.
template <class Element_, int HEAD_DIM_, int ROW_TILES_, int WARPS_, int KEYS_, int STAGES_, bool RESIDENT_QUERIES_,
          int CARRY_STEPS_, bool GENERAL_>
struct Sm80Tiling {
    using Element = Element_;
    static constexpr int HEAD_DIM = HEAD_DIM_;
    static constexpr int ROW_TILES = ROW_TILES_;
    static constexpr int WARPS = WARPS_;
    static constexpr int KEYS = KEYS_;
    static constexpr int STAGES = STAGES_;
    static constexpr bool RESIDENT_QUERIES = RESIDENT_QUERIES_;
    static constexpr int CARRY_STEPS = CARRY_STEPS_;   // after so many, sums are carried (carried_sums.cuh); 0: never
    static constexpr bool GENERAL = GENERAL_;   // whether it knows windows and biases and gives log-sum-exps

    static constexpr int THREADS = WARPS * 32;
    static constexpr int WARP_ROWS = ROW_TILES * 16;
    static constexpr int QUERIES = WARPS * WARP_ROWS;
    static constexpr int CHUNKS = HEAD_DIM * Element::BYTES / 16;   // 16-byte chunks of a row
    static constexpr int CHANNEL_STEPS = CHUNKS / 2;                // matrix steps of Q Kᵀ
    static constexpr int KEY_STEPS = KEYS / Element::KEY_STEP;      // matrix steps of P V
    static constexpr int KEY_TILES = KEYS / 8;                      // accumulator tiles across the keys
    static constexpr int CHANNEL_TILES = HEAD_DIM / 8;              // accumulator tiles across the channels
    // Matrix steps of Q Kᵀ side by side: of all resident queries, else as many as the assembler finds registers for.
    static constexpr bool ALL_STEPS = RESIDENT_QUERIES || (Element::BYTES == 2 && HEAD_DIM <= (GENERAL ? 32 : 128));
    static constexpr int SCORE_UNROLL = ALL_STEPS ? CHANNEL_STEPS : HEAD_DIM * Element::BYTES >= 1024 ? 4 : 2;
    // Whether each matrix step of P V joins the output by itself: then the tensor cores add to no sum, which they would cut
    // off. There are no registers for that in the widest rows.
    static constexpr bool ROUNDED = Element::ROUNDED && HEAD_DIM <= 192;
    static constexpr uint64_t ALL_KEYS = KEYS == 64 ? ~uint64_t(0) : (uint64_t(1) << KEYS) - 1;

    static constexpr int QUERY_BYTES = QUERIES * CHUNKS * 16;
    static constexpr int STAGE_BYTES = KEYS * CHUNKS * 16;          // keys or values
    static constexpr int SHARED_BYTES =
        QUERY_BYTES + 2 * int(sizeof(Sm80Source)) + STAGES * (2 * STAGE_BYTES + int(sizeof(uint64_t))) +
        (CARRY_STEPS > 0 ? 16 : 0);

    // What combine.cuh and carried_sums.cuh need to know: the whole block does that.
    static __device__ __forceinline__ uint32_t thread() { return threadIdx.x; }
    static __device__ __forceinline__ void sync() { __syncthreads(); }

    static_assert(HEAD_DIM % 32 == 0, "accumulators and swizzle come in steps of 32 channels");
    static_assert(KEYS % 16 == 0 && KEYS <= 64, "a step has one word of bits");
    static_assert(STAGES >= 2, "one stage is computed on while another is filled");
};

// The shared memory of a block.
template <class T>
struct Sm80Shared {
    unsigned char* base;

    __device__ __forceinline__ unsigned char* queries() const { return base; }
    __device__ __forceinline__ unsigned char* keys(int stage) const {
        return base + T::QUERY_BYTES + stage * (2 * T::STAGE_BYTES);
    }
    __device__ __forceinline__ unsigned char* values(int stage) const { return keys(stage) + T::STAGE_BYTES; }
    __device__ __forceinline__ Sm80Source* source(uint32_t number) const {
        return reinterpret_cast<Sm80Source*>(base + T::QUERY_BYTES + T::STAGES * 2 * T::STAGE_BYTES) + number;
    }
    // Where carried sums are, null if the item has few steps: it waits here, too.
    __device__ __forceinline__ float4** carried() const { return reinterpret_cast<float4**>(visible(T::STAGES)); }
    __device__ __forceinline__ uint64_t* visible(int stage) const { return reinterpret_cast<uint64_t*>(source(2)) + stage; }
};

// What a warp accumulates for its rows. Row `half` of row tile i is row 16 i + 8 half + lane / 4.
template <class T>
struct Sm80Accumulators {
    float output[T::ROW_TILES][T::CHANNEL_TILES][4];
    float maximum[T::ROW_TILES][2];      // of the raw scores, the same in the four lanes of a row
    float sum[T::ROW_TILES][2];          // this lane's columns only
    float correction[T::ROW_TILES][2];   // what the last step multiplies older output with

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
                maximum[i][half] = NO_SCORE;
                sum[i][half] = 0.0f;
            }
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

// Starts the copy of KEYS rows from row `first` on, `row_bytes` apart. Rows without a bit and channels past head_dim become
// zero without being read.
template <class T, bool VALUES>
__device__ __forceinline__ void sm80_load_rows(unsigned char* tile, const unsigned char* source, int64_t first,
                                               int64_t row_bytes, uint64_t visible, uint32_t head_dim) {
    const auto swizzle = [](uint32_t row) {
        return VALUES ? T::Element::template value_swizzle<T::CHUNKS>(row) : Swizzle<T::CHUNKS>::of_row(row);
    };
    const uint32_t target = ptx::shared_address(tile);
    constexpr int COPIES = T::KEYS * T::CHUNKS;
    // Rows that all threads copy at a time, and whether a thread then stays at its chunk with the same swizzle.
    constexpr int ROWS = T::THREADS / T::CHUNKS;
    if constexpr (T::THREADS % T::CHUNKS == 0 && ROWS % 8 == 0 && T::KEYS % ROWS == 0) {
        const uint32_t row = threadIdx.x / T::CHUNKS, chunk = threadIdx.x % T::CHUNKS;
        const uint32_t to = target + Swizzle<T::CHUNKS>::offset(row, chunk, swizzle(row));
        const unsigned char* from = source + (first + row) * row_bytes + chunk * 16;
        const uint64_t mine = chunk * T::Element::CHUNK < head_dim ? visible >> row : 0;
#pragma unroll
        for (int i = 0; i < T::KEYS; i += ROWS) {
            ptx::cp_async_16(to + Swizzle<T::CHUNKS>::rows(i), from, (mine >> i & 1) * 16);
            from += ROWS * row_bytes;
        }
    } else {
        const unsigned char* from = source + first * row_bytes;
#pragma unroll
        for (int i = 0; i < (COPIES + T::THREADS - 1) / T::THREADS; ++i) {
            const uint32_t copy = i * T::THREADS + threadIdx.x;
            if (COPIES % T::THREADS != 0 && copy >= COPIES) break;
            const uint32_t row = copy / T::CHUNKS, chunk = copy % T::CHUNKS;
            const bool read = (visible >> row & 1) != 0 && chunk * T::Element::CHUNK < head_dim;
            ptx::cp_async_16(target + Swizzle<T::CHUNKS>::offset(row, chunk, swizzle(row)),
                             from + row * row_bytes + chunk * 16, read ? 16 : 0);
        }
    }
}

// Starts the copies of one key step into a stage.
template <class T>
__device__ __forceinline__ void sm80_load_step(const AttentionArguments& arguments, const StepItem& item,
                                               const KeyStep& step, const Sm80Shared<T>& shared, int stage) {
    const Sm80Source source = *shared.source(step.source);
    const uint64_t visible = step.visible[0];
    sm80_load_rows<T, false>(shared.keys(stage), source.keys, int64_t(step.key_row), source.key_row_bytes, visible,
                             arguments.head_dim);
    sm80_load_rows<T, true>(shared.values(stage), source.values, int64_t(step.value_row), source.value_row_bytes, visible,
                            arguments.head_dim);
    if (threadIdx.x == 0) *shared.visible(stage) = visible;
}

// Loads the query tile, rotated if there is a rotation table. Rows past the item's end become zero.
template <class T>
__device__ __forceinline__ void sm80_load_queries(const AttentionArguments& arguments, const StepItem& item,
                                                  unsigned char* tile) {
    using E = typename T::Element;
    const RowView& queries = arguments.queries;
    const RotationTable& rotation = arguments.query_rotation;
    const unsigned char* first = sm80_row<T>(queries, item.batch, item.head, item.query_start);
    const int64_t row_bytes = queries.token_stride * E::BYTES;
    for (uint32_t copy = threadIdx.x; copy < T::QUERIES * T::CHUNKS; copy += T::THREADS) {
        const uint32_t row = copy / T::CHUNKS, chunk = copy % T::CHUNKS;
        const uint32_t target = Swizzle<T::CHUNKS>::offset(row, chunk, Swizzle<T::CHUNKS>::of_row(row));
        const bool read = row < item.query_len && chunk * E::CHUNK < arguments.head_dim;
        const unsigned char* source = first + row * row_bytes + chunk * 16;
        if (rotation.data == nullptr) {
            ptx::cp_async_16(ptx::shared_address(tile) + target, source, read ? 16 : 0);
        } else {
            uint4 channels = make_uint4(0, 0, 0, 0);
            if (read) {
                channels = *reinterpret_cast<const uint4*>(source);
                channels = rotate<E>(channels, rotation, item.batch, item.query_start + row, chunk);
            }
            *reinterpret_cast<uint4*>(tile + target) = channels;
        }
    }
}

// Operand A of channel step `step` for row tile `i` of this warp.
template <class T>
__device__ __forceinline__ typename T::Element::A sm80_query_operand(const unsigned char* tile, int i, int step) {
    const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const uint32_t row = warp * T::WARP_ROWS + (lane & 15);
    const uint32_t first =
        ptx::shared_address(tile) + Swizzle<T::CHUNKS>::offset(row, lane >> 4, Swizzle<T::CHUNKS>::of_row(row));
    uint32_t raw[4];
    ptx::ldmatrix_x4(raw, Swizzle<T::CHUNKS>::further(first, 2 * step) + Swizzle<T::CHUNKS>::rows(i * 16));
    return T::Element::a(raw);
}

// The queries of a warp as operands: all of them in registers, or read again where they are needed.
template <class T, bool RESIDENT>
struct Sm80Queries;

template <class T>
struct Sm80Queries<T, true> {
    typename T::Element::A operands[T::ROW_TILES][T::CHANNEL_STEPS];

    __device__ __forceinline__ void load(const unsigned char* tile) {
#pragma unroll
        for (int i = 0; i < T::ROW_TILES; ++i) {
#pragma unroll
            for (int step = 0; step < T::CHANNEL_STEPS; ++step) {
                operands[i][step] = sm80_query_operand<T>(tile, i, step);
            }
        }
    }
    __device__ __forceinline__ typename T::Element::A operand(int i, int step) const { return operands[i][step]; }
};

template <class T>
struct Sm80Queries<T, false> {
    const unsigned char* tile;

    __device__ __forceinline__ void load(const unsigned char* tile_) { tile = tile_; }
    __device__ __forceinline__ typename T::Element::A operand(int i, int step) const {
        return sm80_query_operand<T>(tile, i, step);
    }
};

// S = Q Kᵀ
template <class T>
__device__ __forceinline__ void sm80_scores(float (&scores)[T::ROW_TILES][T::KEY_TILES][4],
                                            const Sm80Queries<T, T::RESIDENT_QUERIES>& queries,
                                            const unsigned char* keys) {
    using E = typename T::Element;
    const uint32_t lane = threadIdx.x % 32, row = (lane & 7) + ((lane >> 4) << 3);
    const uint32_t first =
        ptx::shared_address(keys) + Swizzle<T::CHUNKS>::offset(row, lane >> 3 & 1, Swizzle<T::CHUNKS>::of_row(row));
#pragma unroll
    for (int i = 0; i < T::ROW_TILES; ++i) {
#pragma unroll
        for (int n = 0; n < T::KEY_TILES; ++n) {
#pragma unroll
            for (int e = 0; e < 4; ++e) scores[i][n][e] = 0.0f;
        }
    }
#pragma unroll T::SCORE_UNROLL
    for (int step = 0; step < T::CHANNEL_STEPS; ++step) {
        typename E::A a[T::ROW_TILES];
#pragma unroll
        for (int i = 0; i < T::ROW_TILES; ++i) a[i] = queries.operand(i, step);
#pragma unroll
        for (int n = 0; n < T::KEY_TILES / 2; ++n) {
            uint32_t raw[4];
            ptx::ldmatrix_x4(raw, Swizzle<T::CHUNKS>::further(first, 2 * step) + Swizzle<T::CHUNKS>::rows(n * 16));
            const typename E::B left = E::b(raw[0], raw[1]), right = E::b(raw[2], raw[3]);
#pragma unroll
            for (int i = 0; i < T::ROW_TILES; ++i) {
                E::mma_rounded(scores[i][2 * n], a[i], left);
                E::mma_rounded(scores[i][2 * n + 1], a[i], right);
            }
        }
    }
}

// Adds the bias of each key that has a bit to its scores. They come right from memory: few, and the same for all warps.
template <class T>
__device__ __forceinline__ void sm80_add_bias(float (&scores)[T::ROW_TILES][T::KEY_TILES][4], const float* bias,
                                              uint64_t visible, float inverse_scale) {
    const uint32_t first = 2 * (threadIdx.x & 3);
    const uint64_t mine = visible >> first;
#pragma unroll
    for (int n = 0; n < T::KEY_TILES; ++n) {
#pragma unroll
        for (int e = 0; e < 2; ++e) {
            if ((mine >> (8 * n + e) & 1) == 0) continue;
            const float added = bias[first + 8 * n + e] * inverse_scale;
#pragma unroll
            for (int i = 0; i < T::ROW_TILES; ++i) {
                scores[i][n][e] += added;
                scores[i][n][e + 2] += added;
            }
        }
    }
}

// Scores of keys without a bit become −∞.
template <class T>
__device__ __forceinline__ void sm80_hide(float (&scores)[T::ROW_TILES][T::KEY_TILES][4], uint64_t visible) {
    const uint64_t mine = visible >> 2 * (threadIdx.x & 3);
#pragma unroll
    for (int n = 0; n < T::KEY_TILES; ++n) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
            const bool seen = (mine >> (8 * n + (e & 1)) & 1) != 0;
#pragma unroll
            for (int i = 0; i < T::ROW_TILES; ++i) scores[i][n][e] = seen ? scores[i][n][e] : -INFINITY;
        }
    }
}

// Scores of keys that the window of a row leaves out become −∞. Row 0 of the window is the first of the warp.
template <class T>
__device__ __forceinline__ void sm80_hide_outside(float (&scores)[T::ROW_TILES][T::KEY_TILES][4],
                                                  const StepWindow& window) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int i = 0; i < T::ROW_TILES; ++i) {
#pragma unroll
        for (int n = 0; n < T::KEY_TILES; ++n) {
#pragma unroll
            for (int e = 0; e < 4; ++e) {
                const int row = i * 16 + e / 2 * 8 + lane / 4, key = n * 8 + 2 * (lane & 3) + e % 2;
                scores[i][n][e] = window.sees(row, key) ? scores[i][n][e] : -INFINITY;
            }
        }
    }
}

// The online softmax: turns scores into probabilities relative to the new maximum; leaves the factor for older output.
template <class T>
__device__ __forceinline__ void sm80_softmax(float (&scores)[T::ROW_TILES][T::KEY_TILES][4], Sm80Accumulators<T>& sums,
                                             float scale_log2) {
#pragma unroll
    for (int i = 0; i < T::ROW_TILES; ++i) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const float before = sums.maximum[i][half];
            float maximum = before;
#pragma unroll
            for (int n = 0; n < T::KEY_TILES; ++n) {
                maximum = fmaxf(maximum, fmaxf(scores[i][n][2 * half], scores[i][n][2 * half + 1]));
            }
            maximum = fmaxf(maximum, __shfl_xor_sync(0xffffffffu, maximum, 1));
            maximum = fmaxf(maximum, __shfl_xor_sync(0xffffffffu, maximum, 2));
            sums.maximum[i][half] = maximum;
            const Rebase rebase(before, maximum, scale_log2);
            float sum = 0.0f;
#pragma unroll
            for (int n = 0; n < T::KEY_TILES; ++n) {
#pragma unroll
                for (int e = 2 * half; e < 2 * half + 2; ++e) {
                    scores[i][n][e] = ptx::exp2_approx(fmaf(scores[i][n][e], scale_log2, -rebase.base));
                    sum += scores[i][n][e];
                }
            }
            sums.sum[i][half] = fmaf(sums.sum[i][half], rebase.correction, sum);
            sums.correction[i][half] = rebase.correction;
        }
    }
}

// O = correction · O + P V. Tensor cores cut sums off where other arithmetic rounds, so that errors of a long sum add up
// instead of cancelling: the products of a step, or of each of its matrix steps, are summed on their own and added outside,
// the first in the same instruction that rescales.
template <class T>
__device__ __forceinline__ void sm80_accumulate(Sm80Accumulators<T>& sums,
                                                const float (&probabilities)[T::ROW_TILES][T::KEY_TILES][4],
                                                const unsigned char* values) {
    using E = typename T::Element;
    constexpr int WIDTH = E::VALUE_TILES;
    typename E::A a[T::KEY_STEPS][T::ROW_TILES];
#pragma unroll
    for (int step = 0; step < T::KEY_STEPS; ++step) {
#pragma unroll
        for (int i = 0; i < T::ROW_TILES; ++i) {
            a[step][i] = E::template probabilities<T::KEY_TILES>(probabilities[i], step);
        }
    }
#pragma unroll
    for (int first = 0; first < T::CHANNEL_TILES; first += WIDTH) {
        float products[T::ROW_TILES][WIDTH][4] = {};
#pragma unroll
        for (int step = 0; step < T::KEY_STEPS; ++step) {
            typename E::B b[WIDTH];
            E::template values<T::CHUNKS>(b, values, step, first, threadIdx.x % 32);
#pragma unroll
            for (int i = 0; i < T::ROW_TILES; ++i) {
#pragma unroll
                for (int n = 0; n < WIDTH; ++n) {
                    E::mma(products[i][n], a[step][i], b[n]);
                    if (!T::ROUNDED && step + 1 < T::KEY_STEPS) continue;
#pragma unroll
                    for (int e = 0; e < 4; ++e) {
                        float& output = sums.output[i][first + n][e];
                        const bool rescaled = T::ROUNDED && step > 0;
                        output = rescaled ? output + products[i][n][e]
                                          : fmaf(output, sums.correction[i][e / 2], products[i][n][e]);
                        products[i][n][e] = 0.0f;
                    }
                }
            }
        }
    }
}

// Adds what is carried to the sums.
template <class T>
__device__ __forceinline__ void sm80_collect(const AttentionArguments& arguments, const Sm80Shared<T>& shared,
                                             Sm80Accumulators<T>& sums) {
    const CarriedSums<T> carried(*shared.carried());
#pragma unroll
    for (int i = 0; i < T::ROW_TILES; ++i) {
        const auto output = [&](int n, int e) -> float& { return sums.output[i][n][e]; };
        carried.collect(i, output, sums.maximum[i], sums.sum[i], arguments.scale_log2);
    }
}

// Carries the sums, which begin anew.
template <class T>
__device__ __forceinline__ void sm80_leave(const Sm80Shared<T>& shared, Sm80Accumulators<T>& sums) {
    const CarriedSums<T> carried(*shared.carried());
#pragma unroll
    for (int i = 0; i < T::ROW_TILES; ++i) {
        const auto output = [&](int n, int e) -> float& { return sums.output[i][n][e]; };
        carried.leave(i, output, sums.maximum[i], sums.sum[i]);
    }
}

// Writes the normalised rows of a whole item. Each warp turns its accumulators into rows in its own part of the query
// tile, which nobody else reads, and writes them out 16 bytes at a time.
template <class T>
__device__ __forceinline__ void sm80_store_output(const AttentionArguments& arguments, const StepItem& item,
                                                  const Sm80Accumulators<T>& sums, unsigned char* tile) {
    using E = typename T::Element;
    const uint32_t lane = threadIdx.x % 32, first_row = threadIdx.x / 32 * T::WARP_ROWS;
    __syncwarp();   // every lane has read its queries
#pragma unroll
    for (int i = 0; i < T::ROW_TILES; ++i) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const uint32_t row = first_row + i * 16 + half * 8 + lane / 4;
            // No visible key: zeros. A NaN sum stays one.
            const float factor = sums.sum[i][half] == 0.0f ? 0.0f : 1.0f / sums.sum[i][half];
            if constexpr (T::GENERAL) {
                if ((lane & 3) == 0 && row < item.query_len) {
                    store_log_sum_exp(arguments, item.batch, item.head, item.query_start + row,
                                      sums.maximum[i][half] * arguments.scale_log2, sums.sum[i][half]);
                }
            }
#pragma unroll
            for (int n = 0; n < T::CHANNEL_TILES; ++n) {
                const uint32_t channel = n * 8 + 2 * (lane & 3);
                unsigned char* target = tile +
                    Swizzle<T::CHUNKS>::offset(row, channel / E::CHUNK, Swizzle<T::CHUNKS>::of_row(row)) +
                    channel % E::CHUNK * E::BYTES;
                E::store_pair(target, sums.output[i][n][2 * half] * factor, sums.output[i][n][2 * half + 1] * factor);
            }
        }
    }
    __syncwarp();
    const MutableRowView& output = arguments.output;
    const int64_t start = item.batch * output.batch_stride + item.head * output.head_stride +
                          int64_t(item.query_start) * output.token_stride;
    unsigned char* first = static_cast<unsigned char*>(output.data) + start * E::BYTES;
    for (uint32_t copy = lane; copy < T::WARP_ROWS * T::CHUNKS; copy += 32) {
        const uint32_t row = first_row + copy / T::CHUNKS, chunk = copy % T::CHUNKS;
        if (row < item.query_len && chunk * E::CHUNK < arguments.head_dim) {
            const uint32_t offset = Swizzle<T::CHUNKS>::offset(row, chunk, Swizzle<T::CHUNKS>::of_row(row));
            *reinterpret_cast<uint4*>(first + int64_t(row) * output.token_stride * E::BYTES + chunk * 16) =
                *reinterpret_cast<const uint4*>(tile + offset);
        }
    }
}

// Writes the sums of one part of a split item to its slot, with the maximum in units of log2.
template <class T>
__device__ __forceinline__ void sm80_store_partial(const AttentionArguments& arguments, const StepItem& item,
                                                   const Sm80Accumulators<T>& sums) {
    const PartialSlot<T> slot(arguments, item.partial_slot);
    const uint32_t lane = threadIdx.x % 32, first_row = threadIdx.x / 32 * T::WARP_ROWS;
#pragma unroll
    for (int i = 0; i < T::ROW_TILES; ++i) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const uint32_t row = first_row + i * 16 + half * 8 + lane / 4;
            if (row >= item.query_len) continue;
#pragma unroll
            for (int n = 0; n < T::CHANNEL_TILES; ++n) {
                *reinterpret_cast<float2*>(slot.channels(row) + n * 8 + 2 * (lane & 3)) =
                    make_float2(sums.output[i][n][2 * half], sums.output[i][n][2 * half + 1]);
            }
            if ((lane & 3) == 0) {
                *slot.state(row) = make_float2(sums.maximum[i][half] * arguments.scale_log2, sums.sum[i][half]);
            }
        }
    }
}

// One work item by one block.
template <class T>
__device__ __forceinline__ void sm80_attention(const AttentionArguments& arguments, unsigned char* shared_memory) {
    const Sm80Shared<T> shared{shared_memory};
    const StepItem item = arguments.items[blockIdx.x];

    if (threadIdx.x < 2) {
        const KeyValueViews& views = threadIdx.x != 0 ? arguments.cache : arguments.input;
        const auto row_bytes = [](const RowView& view) { return view.token_stride * int64_t(T::Element::BYTES); };
        *shared.source(threadIdx.x) = {sm80_row<T>(views.keys, item.batch, item.kv_head, 0),
                                       sm80_row<T>(views.values, item.batch, item.kv_head, 0), row_bytes(views.keys),
                                       row_bytes(views.values)};
    }
    if constexpr (T::CARRY_STEPS > 0) {
        const bool is_long = item.last_step - item.first_step > T::CARRY_STEPS;
        if (threadIdx.x == 0) *shared.carried() = is_long ? CarriedSums<T>::of_block(arguments) : nullptr;
    }
    __syncthreads();

    // `next` describes step `loaded`, the first that is not yet on its way.
    uint32_t loaded = item.first_step;
    KeyStep next = {};
    if (loaded < item.last_step) next = arguments.steps[loaded];
    const auto load_next = [&] {
        if (loaded < item.last_step) {
            sm80_load_step<T>(arguments, item, next, shared, (loaded - item.first_step) % T::STAGES);
            ++loaded;
            if (loaded < item.last_step) next = arguments.steps[loaded];
        }
        // Empty groups at the end keep the count of groups in step with the count of steps.
        ptx::cp_async_commit();
    };

    sm80_load_queries<T>(arguments, item, shared.queries());
#pragma unroll
    for (int stage = 0; stage < T::STAGES - 1; ++stage) load_next();

    Sm80Accumulators<T> sums;
    sums.clear();
    if constexpr (T::CARRY_STEPS > 0) {
        if (*shared.carried() != nullptr) sm80_leave<T>(shared, sums);
    }
    Sm80Queries<T, T::RESIDENT_QUERIES> queries;
    uint32_t stage = 0;
    for (uint32_t step = item.first_step; step < item.last_step; ++step) {
        ptx::cp_async_wait<T::STAGES - 2>();
        __syncthreads();
        if (step == item.first_step) queries.load(shared.queries());
        load_next();

        const uint64_t visible = *shared.visible(stage);
        float scores[T::ROW_TILES][T::KEY_TILES][4];
        sm80_scores<T>(scores, queries, shared.keys(stage));
        if constexpr (T::GENERAL) {
            const StepItem& self = arguments.items[blockIdx.x];
            const float* bias = step_bias(arguments, arguments.steps[step], self.batch, self.head);
            if (bias != nullptr) sm80_add_bias<T>(scores, bias, visible, arguments.inverse_scale);
        }
        if (visible != T::ALL_KEYS) sm80_hide<T>(scores, visible);
        if constexpr (T::GENERAL) {
            // Read again instead of held in registers, of which the products need all.
            const uint64_t first_query = arguments.items[blockIdx.x].query_start + threadIdx.x / 32 * T::WARP_ROWS;
            const auto window = StepWindow::of<T::WARP_ROWS, T::KEYS>(arguments.steps[step], first_query);
            // A branch would take the widest rows more registers than there are.
            const bool always = T::Element::BYTES == 4 && T::HEAD_DIM >= 128;
            if (always || !window.template covers<T::WARP_ROWS, T::KEYS>()) sm80_hide_outside<T>(scores, window);
        }
        sm80_softmax<T>(scores, sums, arguments.scale_log2);
        sm80_accumulate<T>(sums, scores, shared.values(stage));
        if constexpr (T::CARRY_STEPS > 0) {
            // Of all steps, not of the item's own: one number less to hold.
            if ((step + 1) % T::CARRY_STEPS == 0 && *shared.carried() != nullptr) {
                sm80_collect<T>(arguments, shared, sums);
                sm80_leave<T>(shared, sums);
            }
        }
        stage = stage + 1 == T::STAGES ? 0 : stage + 1;
    }
    // An item without a step comes here with its queries still under way; none may land on the output.
    ptx::cp_async_wait<0>();
    __syncthreads();

    // Read again instead of held in registers, of which the loop needs all.
    const StepItem done = arguments.items[blockIdx.x];
    if constexpr (T::CARRY_STEPS > 0) {
        if (*shared.carried() != nullptr) sm80_collect<T>(arguments, shared, sums);
    }
    // Each lane has summed its own columns of a row.
#pragma unroll
    for (int i = 0; i < T::ROW_TILES; ++i) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            float& sum = sums.sum[i][half];
            sum += __shfl_xor_sync(0xffffffffu, sum, 1);
            sum += __shfl_xor_sync(0xffffffffu, sum, 2);
        }
    }
    if (done.partial_slot == WHOLE) {
        sm80_store_output<T>(arguments, done, sums, shared.queries());
    } else {
        sm80_store_partial<T>(arguments, done, sums);
        combine_if_last<T>(arguments, done.partial_slot, shared_memory);
    }
}
