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
// Shared memory: the query tile, KEYS keys and KEYS values, XOR-swizzled (elements.cuh), and descriptions of steps. The query
// tile is reused for the output on its way out.
//
// Registers: ROW_TILES · HEAD_DIM / 2 sums and ROW_TILES · KEYS / 2 scores per thread (as operands, f32 needs twice that),
// plus ROW_TILES · HEAD_DIM / 4 of queries where they stay in registers. That is nearly all, and so the code comes in blocks
// with branches between them: the assembler moves instructions within a block as if there were no end of registers.
//
// Long sums. Where elements are f32, sums move to global memory every CARRY_STEPS steps (carried_sums.cuh), and matrix steps
// of P V join the output by themselves.
//
// Pipeline. In iteration j a warp waits for its copies of the keys of step j and meets the other warps: now everyone's
// copies have landed, and everyone is done with the values of step j − 1, to whose place those of step j are copied while
// scores are computed. Before it multiplies the values it waits for them and meets the other warps again, and the keys of
// step j + 1 come to the place of those of step j. Two barriers per step, and shared memory that leaves room for a second
// block, which computes while this one waits.
//
// Addresses. All that a thread reads of shared memory, and where its copies go, is a constant away from a few addresses
// that it keeps. Where a step's rows are in memory one thread per step finds out, eight steps at a time and ahead.
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

// Describes steps `first` and following of the block's item, one per thread.
template <class T>
__device__ __forceinline__ void sm80_describe_steps(const AttentionArguments& arguments, const Sm80Shared<T>& shared,
                                                    uint32_t first) {
    // Read again instead of held in registers, of which the products need all.
    const StepItem& item = arguments.items[blockIdx.x];
    const uint32_t number = first + threadIdx.x;
    if (threadIdx.x >= T::DESCRIBED || number >= item.last_step - item.first_step) return;
    const KeyStep& step = arguments.steps[item.first_step + number];
    const KeyValueViews& views = step.source != 0 ? arguments.cache : arguments.input;
    const bool is_last = item.first_step + number + 1 == item.last_step;
    uint32_t flags = (number < item.whole_steps ? Sm80StepRows::WHOLE : 0) | (is_last ? Sm80StepRows::LAST : 0);
    if constexpr (T::CARRY_STEPS > 0) {
        if (!is_last && (number + 1) % T::CARRY_STEPS == 0) flags |= Sm80StepRows::CARRY;
    }
    const auto rows = [&](const RowView& view, uint64_t row) {
        const uint32_t row_fraction = uint32_t(view.token_stride * T::Element::BYTES / T::ROW_THREADS);
        return Sm80StepRows{sm80_row<T>(view, item.batch, item.kv_head, row), row_fraction, flags};
    };
    Sm80Step& target = *shared.step(number);
    target.keys = rows(views.keys, step.key_row);
    target.values = rows(views.values, step.value_row);
    target.visible[0] = step.visible[0];
    target.visible[1] = step.visible[1];
    if constexpr (T::CARRY_STEPS > 0) target.carried = CarriedSums<T>::of_block();
}

// A value that the compiler keeps instead of computing it anew from the number of the thread in each step.
__device__ __forceinline__ uint32_t sm80_kept(uint32_t value) { return __shfl_sync(0xffffffffu, value, threadIdx.x % 32); }

// How a block copies the rows of keys and values: neighbouring threads neighbouring chunks, so many that all rows have
// them at the same places of their lines: all that a thread copies is a constant away from where it begins.
template <class T>
struct Sm80Copies {
    static constexpr int ROWS = T::THREADS / T::ROW_THREADS;   // rows at a time
    static_assert(T::THREADS % T::ROW_THREADS == 0 && ROWS % 8 == 0 && T::KEYS % ROWS == 0, "all rows are alike");

    uint32_t first_thread;    // of those that copy the first row of this thread
    uint32_t channel_bytes;   // where its first chunk begins in a row
    uint32_t keys;            // where it goes, as a shared address
    uint32_t values;

    __device__ __forceinline__ explicit Sm80Copies(const Sm80Shared<T>& shared) {
        const uint32_t row = threadIdx.x / T::ROW_THREADS, chunk = threadIdx.x % T::ROW_THREADS;
        first_thread = sm80_kept(row * T::ROW_THREADS);
        channel_bytes = sm80_kept(chunk * 16);
        const uint32_t tile = ptx::shared_address(shared.keys());
        const auto offset = [&](uint32_t swizzle) { return Swizzle<T::CHUNKS>::offset(row, chunk, swizzle); };
        const uint32_t key_swizzle = Swizzle<T::CHUNKS>::of_row(row);
        const uint32_t value_swizzle = T::Element::template value_swizzle<T::CHUNKS>(row);
        keys = sm80_kept(tile + offset(key_swizzle));
        // Both types of two bytes have one swizzle for both.
        values = T::TILE_BYTES + (T::Element::BYTES == 2 ? keys : sm80_kept(tile + offset(value_swizzle)));
    }

    // Starts the copies of rows to `target`. Rows that are not visible and channels past the end of a row become zero
    // without being read.
    template <class Visible>
    __device__ __forceinline__ void start(uint32_t target, const Sm80StepRows rows, uint32_t head_bytes,
                                          Visible visible) const {
        const unsigned char* from = ptx::advance(rows.first, first_thread, rows.row_fraction) + channel_bytes;
#pragma unroll
        for (int i = 0; i < T::KEYS; i += ROWS) {
            // ROWS rows further: a product that is the same for all, and an addition.
            if (i > 0) from = ptx::advance(from, blockDim.x, rows.row_fraction);
#pragma unroll
            for (int chunk = 0; chunk < T::CHUNKS; chunk += T::ROW_THREADS) {
                const bool read = channel_bytes + chunk * 16 < head_bytes && visible(i);
                ptx::cp_async_16(target + Swizzle<T::CHUNKS>::rows(i) + chunk * 16, from + chunk * 16, read ? 16 : 0);
            }
        }
    }
};

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

// Where a lane begins to read what its warp multiplies, as shared addresses.
template <class T>
struct Sm80Operands {
    uint32_t queries;
    uint32_t keys;
    uint32_t values;

    __device__ __forceinline__ explicit Sm80Operands(const Sm80Shared<T>& shared) {
        const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32;
        const auto offset = [](uint32_t row, uint32_t chunk) {
            return Swizzle<T::CHUNKS>::offset(row, chunk, Swizzle<T::CHUNKS>::of_row(row));
        };
        queries = sm80_kept(ptx::shared_address(shared.queries()) + offset(warp * T::WARP_ROWS + (lane & 15), lane >> 4));
        keys = sm80_kept(ptx::shared_address(shared.keys()) + offset((lane & 7) + ((lane >> 4) << 3), lane >> 3 & 1));
        values = sm80_kept(T::Element::template first_value<T::CHUNKS>(ptx::shared_address(shared.values()), lane));
    }

    // Operand A of channel step `step` for row tile `i` of the warp.
    __device__ __forceinline__ typename T::Element::A query(int i, int step) const {
        uint32_t raw[4];
        ptx::ldmatrix_x4(raw, Swizzle<T::CHUNKS>::further(queries, 2 * step) + Swizzle<T::CHUNKS>::rows(i * 16));
        return T::Element::a(raw);
    }
};

// The queries of a warp as operands: all of them in registers, or read again where they are needed.
template <class T, bool RESIDENT>
struct Sm80Queries;

template <class T>
struct Sm80Queries<T, true> {
    typename T::Element::A operands[T::ROW_TILES][T::CHANNEL_STEPS];

    __device__ __forceinline__ void load(const Sm80Operands<T>& from) {
#pragma unroll
        for (int i = 0; i < T::ROW_TILES; ++i) {
#pragma unroll
            for (int step = 0; step < T::CHANNEL_STEPS; ++step) operands[i][step] = from.query(i, step);
        }
    }
    __device__ __forceinline__ typename T::Element::A operand(const Sm80Operands<T>&, int i, int step) const {
        return operands[i][step];
    }
};

template <class T>
struct Sm80Queries<T, false> {
    __device__ __forceinline__ void load(const Sm80Operands<T>&) {}
    __device__ __forceinline__ typename T::Element::A operand(const Sm80Operands<T>& from, int i, int step) const {
        return from.query(i, step);
    }
};

// S = Q Kᵀ
template <class T>
__device__ __forceinline__ void sm80_scores(float (&scores)[T::ROW_TILES][T::KEY_TILES][4],
                                            const Sm80Queries<T, T::RESIDENT_QUERIES>& queries,
                                            const Sm80Operands<T>& operands) {
    using E = typename T::Element;
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
        for (int i = 0; i < T::ROW_TILES; ++i) a[i] = queries.operand(operands, i, step);
#pragma unroll
        for (int n = 0; n < T::KEY_TILES / 2; ++n) {
            uint32_t raw[4];
            ptx::ldmatrix_x4(raw, Swizzle<T::CHUNKS>::further(operands.keys, 2 * step) + Swizzle<T::CHUNKS>::rows(n * 16));
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
                                              const uint64_t (&visible)[2], float inverse_scale) {
    const uint32_t first = 2 * (threadIdx.x & 3);
#pragma unroll
    for (int n = 0; n < T::KEY_TILES; ++n) {
#pragma unroll
        for (int e = 0; e < 2; ++e) {
            if ((visible[n / 8] >> first >> (8 * n % 64 + e) & 1) == 0) continue;
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
__device__ __forceinline__ void sm80_hide(float (&scores)[T::ROW_TILES][T::KEY_TILES][4], const uint64_t (&visible)[2]) {
    const uint32_t first = 2 * (threadIdx.x & 3);
#pragma unroll
    for (int n = 0; n < T::KEY_TILES; ++n) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
            const bool seen = (visible[n / 8] >> first >> (8 * n % 64 + (e & 1)) & 1) != 0;
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

// Probabilities as operands A of the product with the values.
template <class T>
struct Sm80Probabilities {
    typename T::Element::A operands[T::KEY_STEPS][T::ROW_TILES];
};

// The online softmax: turns scores into probabilities relative to the new maximum, which as operands take fewer registers;
// leaves the factor for older output.
template <class T>
__device__ __forceinline__ void sm80_softmax(Sm80Probabilities<T>& probabilities,
                                             float (&scores)[T::ROW_TILES][T::KEY_TILES][4], Sm80Accumulators<T>& sums,
                                             float scale_log2) {
#pragma unroll
    for (int i = 0; i < T::ROW_TILES; ++i) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            float maximum = fmaxf(scores[i][0][2 * half], scores[i][0][2 * half + 1]);
#pragma unroll
            for (int n = 1; n < T::KEY_TILES; ++n) {
                maximum = fmaxf(maximum, fmaxf(scores[i][n][2 * half], scores[i][n][2 * half + 1]));
            }
            maximum = fmaxf(maximum, __shfl_xor_sync(0xffffffffu, maximum, 1));
            maximum = fmaxf(maximum, __shfl_xor_sync(0xffffffffu, maximum, 2));
            const Rebase rebase(sums.base.of[i][half], maximum, scale_log2);
            sums.base.of[i][half] = rebase.base;
            float sum;
#pragma unroll
            for (int n = 0; n < T::KEY_TILES; ++n) {
#pragma unroll
                for (int e = 2 * half; e < 2 * half + 2; ++e) {
                    scores[i][n][e] = ptx::exp2_approx(fmaf(scores[i][n][e], scale_log2, -rebase.base));
                    sum = n == 0 && e == 2 * half ? scores[i][n][e] : sum + scores[i][n][e];
                }
            }
            sums.sum.of[i][half] = fmaf(sums.sum.of[i][half], rebase.correction, sum);
            sums.correction.of[i][half] = rebase.correction;
        }
#pragma unroll
        for (int k = 0; k < T::KEY_STEPS; ++k) {
            probabilities.operands[k][i] = T::Element::template probabilities<T::KEY_TILES>(scores[i], k);
        }
    }
}

// O = correction · O + P V. Tensor cores cut sums off where other arithmetic rounds, so that errors of a long sum add up
// instead of cancelling: the products of SUMMED_STEPS are summed on their own and added outside, the first in the same
// instruction that rescales. `between` is done after half of the channels: a branch there keeps the assembler from beginning
// all products at once, for which there are not enough registers.
template <class T, class Between>
__device__ __forceinline__ void sm80_accumulate(Sm80Accumulators<T>& sums, const Sm80Probabilities<T>& probabilities,
                                                uint32_t values, Between between) {
    using E = typename T::Element;
    constexpr int WIDTH = E::VALUE_TILES;
#pragma unroll
    for (int first = 0; first < T::CHANNEL_TILES; first += WIDTH) {
        if (first == T::CHANNEL_TILES / 2) between();
        float products[T::ROW_TILES][WIDTH][4] = {};
#pragma unroll
        for (int step = 0; step < T::KEY_STEPS; ++step) {
            typename E::B b[WIDTH];
            E::template values<T::CHUNKS>(b, values, step, first);
#pragma unroll
            for (int i = 0; i < T::ROW_TILES; ++i) {
#pragma unroll
                for (int n = 0; n < WIDTH; ++n) {
                    E::mma(products[i][n], probabilities.operands[step][i], b[n]);
                    if ((step + 1) % T::SUMMED_STEPS != 0) continue;
#pragma unroll
                    for (int e = 0; e < 4; ++e) {
                        float& output = sums.output[i][first + n][e];
                        const bool is_rescaled = step >= T::SUMMED_STEPS;
                        output = is_rescaled ? output + products[i][n][e]
                                             : fmaf(output, sums.correction.of[i][e / 2], products[i][n][e]);
                        products[i][n][e] = 0.0f;
                    }
                }
            }
        }
    }
}

// Adds what is carried to the sums.
template <class T>
__device__ __forceinline__ void sm80_collect(const CarriedSums<T>& carried, Sm80Accumulators<T>& sums) {
#pragma unroll
    for (int i = 0; i < T::ROW_TILES; ++i) {
        const auto output = [&](int n, int e) -> float& { return sums.output[i][n][e]; };
        carried.collect(i, output, sums.base.of[i], sums.sum.of[i]);
    }
}

// Carries the sums, which begin anew.
template <class T>
__device__ __forceinline__ void sm80_leave(const CarriedSums<T>& carried, Sm80Accumulators<T>& sums) {
#pragma unroll
    for (int i = 0; i < T::ROW_TILES; ++i) {
        const auto output = [&](int n, int e) -> float& { return sums.output[i][n][e]; };
        carried.leave(i, output, sums.base.of[i], sums.sum.of[i]);
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
            const float factor = sums.sum.of[i][half] == 0.0f ? 0.0f : 1.0f / sums.sum.of[i][half];
            if constexpr (T::GENERAL) {
                if ((lane & 3) == 0 && row < item.query_len) {
                    store_log_sum_exp(arguments, item.batch, item.head, item.query_start + row,
                                      sums.base.of[i][half], sums.sum.of[i][half]);
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
                *slot.state(row) = make_float2(sums.base.of[i][half], sums.sum.of[i][half]);
            }
        }
    }
}

// One work item by one block.
template <class T>
__device__ __forceinline__ void sm80_attention(const AttentionArguments& arguments, unsigned char* shared_memory) {
    const Sm80Shared<T> shared{shared_memory};
    const StepItem item = arguments.items[blockIdx.x];

    sm80_describe_steps<T>(arguments, shared, 0);
    __syncthreads();

    const Sm80Copies<T> copies(shared);
    const Sm80Operands<T> operands(shared);
    const uint32_t head_bytes = arguments.head_dim * T::Element::BYTES;
    const auto copy = [&](uint32_t target, const Sm80StepRows rows, uint32_t step) {
        if ((rows.flags & Sm80StepRows::WHOLE) != 0) {
            copies.start(target, rows, head_bytes, [](uint32_t) { return true; });
        } else {
            const uint32_t row = threadIdx.x / T::ROW_THREADS;
            const uint64_t low = shared.step(step)->visible[0] >> row, high = shared.step(step)->visible[1] >> row;
            copies.start(target, rows, head_bytes, [&](uint32_t i) { return ((i < 64 ? low : high) >> i % 64 & 1) != 0; });
        }
    };

    const bool any = item.first_step < item.last_step;
    sm80_load_queries<T>(arguments, item, shared.queries());
    if (any) copy(copies.keys, shared.step(0)->keys, 0);
    ptx::cp_async_commit();

    Sm80Accumulators<T> sums;
    sums.clear();
    sums.park(shared);
    Sm80Queries<T, T::RESIDENT_QUERIES> queries;
    bool last = !any;
    for (uint32_t step = 0; !last; ++step) {
        ptx::cp_async_wait<0>();
        __syncthreads();
        if (step == 0) queries.load(operands);
        const Sm80StepRows rows = shared.step(step)->values;
        copy(copies.values, rows, step);
        ptx::cp_async_commit();
        const bool whole = (rows.flags & Sm80StepRows::WHOLE) != 0;
        last = (rows.flags & Sm80StepRows::LAST) != 0;
        const bool carry = (rows.flags & Sm80StepRows::CARRY) != 0;

        float scores[T::ROW_TILES][T::KEY_TILES][4];
        sm80_scores<T>(scores, queries, operands);
        if constexpr (T::GENERAL) {
            const StepItem& self = arguments.items[blockIdx.x];
            const KeyStep& described = arguments.steps[self.first_step + step];
            const float* bias = step_bias(arguments, described, self.batch, self.head);
            if (bias != nullptr) sm80_add_bias<T>(scores, bias, shared.step(step)->visible, arguments.inverse_scale);
        }
        if (!whole) sm80_hide<T>(scores, shared.step(step)->visible);
        if constexpr (T::GENERAL) {
            // Read again instead of held in registers, of which the products need all.
            const StepItem& self = arguments.items[blockIdx.x];
            const uint64_t first_query = self.query_start + threadIdx.x / 32 * T::WARP_ROWS;
            const auto window = StepWindow::of<T::WARP_ROWS, T::KEYS>(arguments.steps[self.first_step + step], first_query);
            // A branch would take the widest rows more registers than there are.
            const bool always = T::Element::BYTES == 4;
            if (always || !window.template covers<T::WARP_ROWS, T::KEYS>()) sm80_hide_outside<T>(scores, window);
        }
        Sm80Probabilities<T> probabilities;
        sums.fetch(shared);
        sm80_softmax<T>(probabilities, scores, sums, arguments.scale_log2);
        sums.park(shared);
        ptx::cp_async_wait<0>();
        __syncthreads();
        if (!last) copy(copies.keys, shared.step(step + 1)->keys, step + 1);
        ptx::cp_async_commit();
        sm80_accumulate<T>(sums, probabilities, operands.values, [&] {
            if (step % T::DESCRIBED == 0) sm80_describe_steps<T>(arguments, shared, step + T::DESCRIBED);
        });
        if constexpr (T::CARRY_STEPS > 0) {
            if (carry) {
                const CarriedSums<T> carried(arguments, shared.step(step)->carried);
                if (step >= T::CARRY_STEPS) sm80_collect(carried, sums);
                sm80_leave(carried, sums);
            }
        }
    }
    // An item without a step comes here with its queries still under way; none may land on the output.
    ptx::cp_async_wait<0>();
    __syncthreads();

    sums.fetch(shared);
    // Read again instead of held in registers, of which the loop needs all.
    const StepItem done = arguments.items[blockIdx.x];
    if constexpr (T::CARRY_STEPS > 0) {
        const CarriedSums<T> carried(arguments, CarriedSums<T>::of_block());
        if (done.last_step - done.first_step > T::CARRY_STEPS) sm80_collect(carried, sums);
    }
    // Each lane has summed its own columns of a row.
#pragma unroll
    for (int i = 0; i < T::ROW_TILES; ++i) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            float& sum = sums.sum.of[i][half];
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
