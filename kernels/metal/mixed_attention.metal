// Fused mixed attention for Apple GPUs since family Apple7 (M1, A14).
//
// What it computes. For one work item, a tile of queries of one head and batch row, and its list of key steps:
//
//     O = softmax(scale · Q Kᵀ) V        keys and values gathered from all steps, as if they were one long matrix
//
// in one pass with the online softmax: for each step, S = Q Kᵀ; m' = max(m, rowmax S); P = 2^(c·S − c·m') with c =
// scale · log2 e; l = 2^(c·m − c·m') l + rowsum P; O = 2^(c·m − c·m') O + P V. Scores, softmax and sums are f32. The
// factor c is applied to the f32 scores, in the same instruction that subtracts the maximum: folding it into the
// queries would round them once more and save nothing. A query that sees no key, or only keys whose score is −∞, gets
// zeros.
//
// Shapes. Q, O: [batch, heads, tokens, HEAD_DIM], K, V: [batch, kv_heads, tokens, HEAD_DIM], in any strides with adjacent
// channels. An item names its head of each. The library is compiled for its head_dim, any multiple of 8: nothing is padded.
//
// Group structure and padding are not in the main loop. The host has turned them into key steps: a run of at most KEYS
// rows of one source and a bit per row. A row whose bit is 0 (padding, or past the end of the range) is neither read
// nor multiplied: zeros stand for it, and its weight is 0. Steps without a visible row do not exist, and a step whose
// rows are all visible goes through code that knows no bits. Where patterns have windows, a step also says which of its
// keys a query sees by the distance of their tokens. Where keys have biases, they are added to their scores.
//
// Tiles. A threadgroup of SIMDGROUPS simdgroups takes one item of up to SIMDGROUPS · ROW_TILES · 8 queries; each
// simdgroup owns ROW_TILES · 8 rows and never exchanges them. More row tiles mean fewer reads of keys and values for
// each multiplication, and more registers.
//
// Where keys and values are multiplied from:
//   STAGES 2: threadgroup memory. Step j is loaded into stage j % 2 while slower simdgroups still compute on the other
//             stage; one barrier, then everybody computes on it. A stage is overwritten two steps later, behind the
//             barrier that all reach after they have left it.
//   STAGES 1: threadgroup memory, half as much. A second barrier stands in front of the load.
//   STAGES 0: device memory. Simdgroups share nothing and never wait; the cache serves what they read several times.
// Rows in threadgroup memory are padded by 16 bytes so that the rows of a matrix start in different banks.
//
// Channels are permuted. A product sums over channels in any order, so keys are read in runs of 8 bytes per lane, and
// the c-th channel of each run goes to the c-th matrix; queries are laid out to match. Of values, a lane reads four
// neighbours, which go to two matrices: it then owns four neighbouring channels of the output.
//
// Registers, per lane: ROW_TILES · HEAD_DIM / 4 accumulators, ROW_TILES · KEYS / 4 scores, and the queries, loaded and
// rotated once: ROW_TILES · HEAD_DIM / 4 operands, of which PARKED matrices per row tile live in threadgroup memory
// instead, each lane's own. `Tiling::registers` in src/kernels/metal/tiling.rs counts them.
//
// Long sums. Where elements are f32, sums are carried every CARRY_STEPS steps: see CarriedSums.
//
// Bound. Multiplications of 8×8 matrices, 2 · KEYS · HEAD_DIM · ROW_TILES / 64 of them per step and simdgroup, against
// ROW_TILES · KEYS / 4 exponentials per lane. A multiplication takes twice as long as it keeps the unit busy, so two or
// more sums that do not wait for each other grow side by side. `fence` keeps the compiler from moving the loads of all
// matrices in front of the first product, where they would need a register each.
#include "arguments.h"
#include "elements.h"
#include "log_sum_exp.h"
#include "matrices.h"
#include "rotation.h"
#include "window.h"

typedef TILE_ELEMENT Element;
typedef Element::Stored Stored;
typedef Element::Operand Operand;
typedef vec<Operand, 2> Pair;

// One tuned row; see src/kernels/metal/tiling.rs.
constant constexpr uint HEAD_DIM = TILE_HEAD_DIM;
constant constexpr uint ROW_TILES = TILE_ROW_TILES;
constant constexpr uint SIMDGROUPS = TILE_SIMDGROUPS;
constant constexpr uint KEYS = TILE_KEYS;
constant constexpr uint STAGES = TILE_STAGES;
constant constexpr uint PARKED = TILE_PARKED;  // matrices of queries in threadgroup memory, of each row tile
constant constexpr uint LOADS = TILE_LOADS;    // copies of keys, and as many of values, that a thread has under way

constant constexpr uint THREADS = SIMDGROUPS * 32;
constant constexpr uint SIMDGROUP_ROWS = ROW_TILES * 8;
constant constexpr uint QUERIES = SIMDGROUPS * SIMDGROUP_ROWS;
constant constexpr uint KEY_TILES = KEYS / 8;
constant constexpr uint CHANNEL_TILES = HEAD_DIM / 8;
constant constexpr uint KEPT = CHANNEL_TILES - PARKED;               // matrices of queries in registers
constant constexpr uint CHUNK = 16 / sizeof(Stored);                 // elements of 16 bytes
constant constexpr uint CHUNKS = HEAD_DIM / CHUNK;                   // of a row in device memory
constant constexpr uint ROW_CHUNKS = CHUNKS + 1;                     // of a row in threadgroup memory
constant constexpr uint STAGE_CHUNKS = KEYS * ROW_CHUNKS;            // of a tile of keys or values
constant constexpr uint RUN = 8 / sizeof(Stored);                    // channels of a key that a lane reads at a time
constant constexpr uint CHAINS = ROW_TILES * KEY_TILES == 1 ? 2 : 1; // sums that a score is computed in
constant constexpr uint ALL_KEYS = 0xffffffffu >> (32 - KEYS);
constant constexpr uint CARRY_STEPS = TILE_CARRY_STEPS;              // after so many, sums are carried; 0: never
constant constexpr uint WHOLE = 0xffffffffu;                         // slot of an item that is not split

static_assert(HEAD_DIM % 8 == 0, "matrices are 8 × 8");
static_assert(KEYS % 8 == 0 && KEYS <= 32, "a step has one word of bits");
static_assert(STAGES <= 2, "two stages need one barrier per step; more do not help");
static_assert(PARKED < CHANNEL_TILES, "some queries are in registers");
static_assert(STAGES == 0 || LOADS >= 1, "something is loaded");
static_assert((STAGES * 2 * STAGE_CHUNKS + PARKED * ROW_TILES * THREADS * sizeof(Pair) / 16) * 16 ==
              TILE_THREADGROUP_BYTES, "the host knows what the kernel uses");

// Where keys and values are multiplied from.
#if TILE_STAGES == 0
#define TILE_MEMORY device
#else
#define TILE_MEMORY threadgroup
#endif

// What is uniform over a launch.
constant bool has_rotation [[function_constant(0)]];        // queries are rotated
constant bool has_cache [[function_constant(1)]];           // some steps read the cache
constant bool has_partial_steps [[function_constant(2)]];   // some steps have rows that are not visible
constant bool has_split_keys [[function_constant(3)]];      // some items write partial results
constant bool has_windows [[function_constant(4)]];         // some rows see only some of the visible keys of a step
constant bool has_log_sum_exp [[function_constant(5)]];     // log-sum-exps are wanted beside the output
constant bool has_input_bias [[function_constant(6)]];      // keys of the input have biases
constant bool has_cache_bias [[function_constant(7)]];      // keys of the cache have biases

// The queries of a simdgroup.
struct Queries {
    Pair kept[ROW_TILES][KEPT];
#if TILE_PARKED > 0
    threadgroup Pair* parked;  // this lane's, THREADS apart
#endif
};

// Their scores against the keys of a step; then the weights of these keys.
struct Scores {
    float2 tiles[ROW_TILES][KEY_TILES];
};

// What a simdgroup accumulates for its rows. A lane holds two columns of every matrix, all in row `Lane::row` of each
// row tile.
struct Rows {
    float2 output[ROW_TILES][CHANNEL_TILES];
    float maximum[ROW_TILES];     // of the raw scores, the same in the four lanes of a row
    float sum[ROW_TILES];         // of this lane's columns only
    float correction[ROW_TILES];  // what the last step multiplies older output with
};

// Sums of f32 rows over many steps, in parts: each of them lets the sum lose up to half a unit of its last place. Every
// CARRY_STEPS steps the sums join the older ones and begin anew; then a sum is one of short sums. The output of older steps
// waits where the result will be, in the rows of the output or of a slot, which nobody else touches.
struct CarriedSums {
    float maximum[ROW_TILES];   // what they are relative to
    float sum[ROW_TILES];       // of this lane's columns only
};

// Where the output of older steps waits. Found when it is needed: in a loop it would take registers.
struct CarriedOutput {
    device float* first;   // the row of the simdgroup's first query
    long stride;           // floats between rows
};

// The keys and values of a step.
struct Source {
    const device Stored* keys;
    const device Stored* values;
    long key_stride;    // elements between rows
    long value_stride;
};

// The keys or the values of a step, where they are multiplied from.
struct Tile {
    const TILE_MEMORY Stored* first;
    long stride;  // elements between rows; not used in threadgroup memory
};

// Neighbouring elements of a row.
template <uint WIDTH>
struct Neighbours {
    typedef vec<Stored, WIDTH> Elements;
    static Operand operand(Elements elements, uint i) { return Element::operand(elements[i]); }
};
template <>
struct Neighbours<1> {
    typedef Stored Elements;
    static Operand operand(Elements element, uint) { return Element::operand(element); }
};

inline Pair pair_of(Operand x, Operand y) {
    Pair pair;
    pair.x = x;
    pair.y = y;
    return pair;
}

// Nothing is moved across it. Does not wait: simdgroups run in step.
inline void fence() { simdgroup_barrier(mem_flags::mem_none); }

// Elements [channel, channel + WIDTH) of a row. Threadgroup memory has zeros for rows without a bit; device memory must
// not be touched there.
template <bool ALL_VISIBLE, uint WIDTH>
inline typename Neighbours<WIDTH>::Elements load_row(Tile tile, uint row, uint channel, uint visible) {
    typedef typename Neighbours<WIDTH>::Elements Elements;
    Elements elements = {};
    if (STAGES == 0) {
        if (ALL_VISIBLE || (visible >> row & 1) != 0) {
            elements = *reinterpret_cast<const TILE_MEMORY Elements*>(tile.first + long(row) * tile.stride + channel);
        }
    } else {
        elements = *reinterpret_cast<const TILE_MEMORY Elements*>(tile.first + row * (ROW_CHUNKS * CHUNK) + channel);
    }
    return elements;
}

#if TILE_STAGES > 0
// Copies the rows of a step to threadgroup memory; rows without a bit become zero without being read. All loads of a
// round are under way before the first of them is stored.
template <bool ALL_VISIBLE>
inline void load_rows(threadgroup uint4* keys, threadgroup uint4* values, Source source, uint visible,
                      uint thread_index) {
    const uint copies = (KEYS * CHUNKS + THREADS - 1) / THREADS;  // of keys, and as many of values
    UNROLL
    for (uint first = 0; first < copies; first += LOADS) {
        uint4 key_chunks[LOADS], value_chunks[LOADS];
        UNROLL
        for (uint i = 0; i < LOADS; ++i) {
            const uint copy = (first + i) * THREADS + thread_index;
            const uint row = copy / CHUNKS, chunk = copy % CHUNKS;
            key_chunks[i] = uint4(0);
            value_chunks[i] = uint4(0);
            const bool is_copy = (first + i + 1) * THREADS <= KEYS * CHUNKS || copy < KEYS * CHUNKS;
            if (is_copy && (ALL_VISIBLE || (visible >> row & 1) != 0)) {
                const device Stored* key = source.keys + long(row) * source.key_stride + chunk * CHUNK;
                const device Stored* value = source.values + long(row) * source.value_stride + chunk * CHUNK;
                key_chunks[i] = *reinterpret_cast<const device uint4*>(key);
                value_chunks[i] = *reinterpret_cast<const device uint4*>(value);
            }
        }
        UNROLL
        for (uint i = 0; i < LOADS; ++i) {
            const uint copy = (first + i) * THREADS + thread_index;
            const uint row = copy / CHUNKS, chunk = copy % CHUNKS;
            if ((first + i + 1) * THREADS <= KEYS * CHUNKS || copy < KEYS * CHUNKS) {
                keys[row * ROW_CHUNKS + chunk] = key_chunks[i];
                values[row * ROW_CHUNKS + chunk] = value_chunks[i];
            }
        }
    }
}
#endif

inline Pair query(thread const Queries& queries, uint i, uint c) {
#if TILE_PARKED > 0
    if (c < PARKED) return queries.parked[(i * PARKED + c) * THREADS];
#endif
    return queries.kept[i][c - PARKED];
}

inline void set_query(thread Queries& queries, uint i, uint c, Pair pair) {
#if TILE_PARKED > 0
    if (c < PARKED) {
        queries.parked[(i * PARKED + c) * THREADS] = pair;
        return;
    }
#endif
    queries.kept[i][c - PARKED] = pair;
}

// Loads WIDTH matrices of queries, from matrix `c` on: neighbours as `multiply_key_run` reads them.
template <uint WIDTH>
inline void load_query_run(thread Queries& queries, uint i, uint c, const device Stored* first,
                           const device float* angles, bool is_row, Lane lane) {
    const uint channel = c * 8 + lane.column * WIDTH;
    Operand channels[2 * WIDTH];
    fence();
    UNROLL
    for (uint k = 0; k < WIDTH; ++k) {
        float2 pair = float2(0.0f);
        if (is_row) {
            pair = Element::read(first + channel + 2 * k);
            if (has_rotation) {
                pair = rotate(pair, *reinterpret_cast<const device float2*>(angles + channel + 2 * k));
            }
        }
        channels[2 * k] = Operand(pair.x);
        channels[2 * k + 1] = Operand(pair.y);
    }
    UNROLL
    for (uint k = 0; k < WIDTH; ++k) set_query(queries, i, c + k, pair_of(channels[k], channels[k + WIDTH]));
}

// Loads this simdgroup's queries, rotated if there is a rotation. Rows past the end of the item become zero.
inline void load_queries(thread Queries& queries, const device Stored* first, long stride, const device float* angles,
                         long angle_stride, uint row_count, Lane lane) {
    UNROLL
    for (uint i = 0; i < ROW_TILES; ++i) {
        const uint row = i * 8 + lane.row;
        const bool is_row = row < row_count;
        const device Stored* source = first + long(row) * stride;
        const device float* angle = has_rotation ? angles + long(row) * angle_stride : nullptr;
        UNROLL
        for (uint c = 0; c + RUN <= CHANNEL_TILES; c += RUN) {
            load_query_run<RUN>(queries, i, c, source, angle, is_row, lane);
        }
        if (CHANNEL_TILES % RUN / 2 == 1) {
            load_query_run<2>(queries, i, CHANNEL_TILES / RUN * RUN, source, angle, is_row, lane);
        }
        if (CHANNEL_TILES % 2 == 1) load_query_run<1>(queries, i, CHANNEL_TILES - 1, source, angle, is_row, lane);
    }
}

// S += Q Kᵀ of WIDTH matrices of channels, from matrix `c` on, and of TILES matrices of keys, from matrix `n` on. Of key
// `column` and its neighbour, a lane reads WIDTH neighbouring channels, one for each matrix.
template <bool ALL_VISIBLE, uint WIDTH, uint TILES>
inline void multiply_key_run(thread Scores (&scores)[CHAINS], thread const Queries& queries, Tile keys, uint n, uint c,
                             uint visible, Lane lane) {
    typedef Neighbours<WIDTH> Channels;
    typename Channels::Elements even[TILES], odd[TILES];
    const uint channel = c * 8 + lane.row * WIDTH;
    fence();
    UNROLL
    for (uint t = 0; t < TILES; ++t) {
        const uint key = (n + t) * 8 + lane.column;
        even[t] = load_row<ALL_VISIBLE, WIDTH>(keys, key, channel, visible);
        odd[t] = load_row<ALL_VISIBLE, WIDTH>(keys, key + 1, channel, visible);
    }
    fence();
    UNROLL
    for (uint k = 0; k < WIDTH; ++k) {
        UNROLL
        for (uint t = 0; t < TILES; ++t) {
            const Pair transposed = pair_of(Channels::operand(even[t], k), Channels::operand(odd[t], k));
            UNROLL
            for (uint i = 0; i < ROW_TILES; ++i) {
                thread float2& sums = scores[(c + k) % CHAINS].tiles[i][n + t];
                multiply_accumulate<Operand>(sums, query(queries, i, c + k), transposed);
            }
        }
    }
}

// The same of all matrices of keys.
template <bool ALL_VISIBLE, uint WIDTH>
inline void multiply_key_channels(thread Scores (&scores)[CHAINS], thread const Queries& queries, Tile keys, uint c,
                                  uint visible, Lane lane) {
    UNROLL
    for (uint n = 0; n + 2 <= KEY_TILES; n += 2) {
        multiply_key_run<ALL_VISIBLE, WIDTH, 2>(scores, queries, keys, n, c, visible, lane);
    }
    if (KEY_TILES % 2 == 1) {
        multiply_key_run<ALL_VISIBLE, WIDTH, 1>(scores, queries, keys, KEY_TILES - 1, c, visible, lane);
    }
}

// S = Q Kᵀ. Channels outside, keys inside: sums of different keys do not wait for each other.
template <bool ALL_VISIBLE>
inline void multiply_keys(thread Scores& scores, thread const Queries& queries, Tile keys, uint visible, Lane lane) {
    Scores chains[CHAINS];
    UNROLL
    for (uint k = 0; k < CHAINS; ++k) {
        UNROLL
        for (uint i = 0; i < ROW_TILES; ++i) {
            UNROLL
            for (uint n = 0; n < KEY_TILES; ++n) chains[k].tiles[i][n] = float2(0.0f);
        }
    }
    UNROLL
    for (uint c = 0; c + RUN <= CHANNEL_TILES; c += RUN) {
        multiply_key_channels<ALL_VISIBLE, RUN>(chains, queries, keys, c, visible, lane);
    }
    if (CHANNEL_TILES % RUN / 2 == 1) {
        multiply_key_channels<ALL_VISIBLE, 2>(chains, queries, keys, CHANNEL_TILES / RUN * RUN, visible, lane);
    }
    if (CHANNEL_TILES % 2 == 1) {
        multiply_key_channels<ALL_VISIBLE, 1>(chains, queries, keys, CHANNEL_TILES - 1, visible, lane);
    }
    UNROLL
    for (uint i = 0; i < ROW_TILES; ++i) {
        UNROLL
        for (uint n = 0; n < KEY_TILES; ++n) {
            scores.tiles[i][n] = chains[0].tiles[i][n];
            if (CHAINS == 2) scores.tiles[i][n] += chains[CHAINS - 1].tiles[i][n];
        }
    }
}

// The maximum in the units of the exponents, rounded: what weights are relative to. Without a visible key so far it is
// less than that of any key.
inline float base_of(float maximum, float scale_log2) {
    return maximum == -FLT_MAX ? -FLT_MAX : maximum * scale_log2;
}

// Adds the bias of each key that has a bit to its scores. A bias comes on top of the scaled score: it is added before the
// scale, divided by it, so that the online softmax knows one kind of score.
template <bool ALL_VISIBLE>
inline void add_bias(thread Scores& scores, const device float* bias, uint visible, float inverse_scale, Lane lane) {
    UNROLL
    for (uint n = 0; n < KEY_TILES; ++n) {
        const uint key = n * 8 + lane.column;
        float2 added = float2(0.0f);
        if (ALL_VISIBLE || (visible >> key & 1) != 0) added.x = bias[key] * inverse_scale;
        if (ALL_VISIBLE || (visible >> key & 2) != 0) added.y = bias[key + 1] * inverse_scale;
        UNROLL
        for (uint i = 0; i < ROW_TILES; ++i) scores.tiles[i][n] += added;
    }
}

// Scores of keys that the window of a row leaves out become −∞. Row 0 of the window is the first of the simdgroup.
inline void hide_outside(thread Scores& scores, StepWindow window, Lane lane) {
    // Of a key tile and a row tile, this lane's first key is so far behind its row.
    const int shift = int(lane.column) - int(lane.row);
    const int first = window.first - shift, last = window.last - shift;
    UNROLL
    for (uint i = 0; i < ROW_TILES; ++i) {
        UNROLL
        for (uint n = 0; n < KEY_TILES; ++n) {
            const int apart = int(n * 8) - int(i * 8);
            const float2 score = scores.tiles[i][n];
            scores.tiles[i][n].x = apart < first || apart > last ? -INFINITY : score.x;
            scores.tiles[i][n].y = apart + 1 < first || apart + 1 > last ? -INFINITY : score.y;
        }
    }
}

// The factor of sums that are relative to an older maximum. The difference of two rounded bases, because older weights are
// relative to a rounded one; and exactly 1 for an unchanged maximum, or every step would multiply a rounding error in once
// more.
inline float correction_of(float before, float maximum, float scale_log2) {
    return before == maximum ? 1.0f : fast::exp2(base_of(before, scale_log2) - base_of(maximum, scale_log2));
}

// The online softmax: turns scores into weights relative to the new maximum; leaves the factor for older output.
template <bool ALL_VISIBLE>
inline void softmax(thread Scores& scores, thread Rows& rows, uint visible, float scale_log2, Lane lane) {
    const uint mine = visible >> lane.column;
    UNROLL
    for (uint i = 0; i < ROW_TILES; ++i) {
        const float before = rows.maximum[i];
        float maximum = before;
        UNROLL
        for (uint n = 0; n < KEY_TILES; ++n) {
            const float2 score = scores.tiles[i][n];
            if (ALL_VISIBLE || (mine >> n * 8 & 1) != 0) maximum = max(maximum, score.x);
            if (ALL_VISIBLE || (mine >> n * 8 & 2) != 0) maximum = max(maximum, score.y);
        }
        maximum = row_max(maximum);
        const float base = base_of(maximum, scale_log2);
        const float correction = correction_of(before, maximum, scale_log2);
        // Nothing was visible, or only scores of −∞: 0 keeps the exponents below from being NaN.
        const float shift = maximum == -FLT_MAX ? 0.0f : base;
        float sum = 0.0f;
        UNROLL
        for (uint n = 0; n < KEY_TILES; ++n) {
            const float2 score = scores.tiles[i][n];
            const float2 exponent = float2(fma(score.x, scale_log2, -shift), fma(score.y, scale_log2, -shift));
            float2 weight = float2(fast::exp2(exponent.x), fast::exp2(exponent.y));
            if (!ALL_VISIBLE && (mine >> n * 8 & 1) == 0) weight.x = 0.0f;
            if (!ALL_VISIBLE && (mine >> n * 8 & 2) == 0) weight.y = 0.0f;
            scores.tiles[i][n] = weight;
            sum += weight.x + weight.y;
        }
        rows.maximum[i] = maximum;
        rows.sum[i] = fma(rows.sum[i], correction, sum);
        rows.correction[i] = correction;
    }
}

// O = correction · O + P V of WIDTH matrices of channels, from matrix `c` on. P V of this step is summed on its own:
// many short sums lose less than a long one. It joins the older output in the instruction that rescales it, so that
// there is nothing to save where the maximum did not change.
template <bool ALL_VISIBLE, uint WIDTH>
inline void multiply_value_run(thread Rows& rows, thread const Pair (&weights)[KEY_TILES][ROW_TILES], Tile values,
                               uint c, uint visible, Lane lane) {
    typedef Neighbours<2 * WIDTH> Channels;
    typename Channels::Elements loaded[KEY_TILES];
    fence();
    UNROLL
    for (uint n = 0; n < KEY_TILES; ++n) {
        loaded[n] =
            load_row<ALL_VISIBLE, 2 * WIDTH>(values, n * 8 + lane.row, c * 8 + lane.column * WIDTH, visible);
    }
    fence();
    float2 fresh[ROW_TILES][WIDTH];
    UNROLL
    for (uint i = 0; i < ROW_TILES; ++i) {
        UNROLL
        for (uint k = 0; k < WIDTH; ++k) fresh[i][k] = float2(0.0f);
    }
    UNROLL
    for (uint n = 0; n < KEY_TILES; ++n) {
        UNROLL
        for (uint k = 0; k < WIDTH; ++k) {
            const Pair right = pair_of(Channels::operand(loaded[n], 2 * k), Channels::operand(loaded[n], 2 * k + 1));
            UNROLL
            for (uint i = 0; i < ROW_TILES; ++i) multiply_accumulate<Operand>(fresh[i][k], weights[n][i], right);
        }
    }
    UNROLL
    for (uint i = 0; i < ROW_TILES; ++i) {
        UNROLL
        for (uint k = 0; k < WIDTH; ++k) {
            const float2 older = rows.output[i][c + k], added = fresh[i][k];
            const float correction = rows.correction[i];
            rows.output[i][c + k] = float2(fma(older.x, correction, added.x), fma(older.y, correction, added.y));
        }
    }
}

// O = correction · O + P V
template <bool ALL_VISIBLE>
inline void multiply_values(thread Rows& rows, thread const Scores& weights, Tile values, uint visible, Lane lane) {
    Pair left[KEY_TILES][ROW_TILES];
    UNROLL
    for (uint n = 0; n < KEY_TILES; ++n) {
        UNROLL
        for (uint i = 0; i < ROW_TILES; ++i) {
            left[n][i] = pair_of(Operand(weights.tiles[i][n].x), Operand(weights.tiles[i][n].y));
        }
    }
    UNROLL
    for (uint c = 0; c + 2 <= CHANNEL_TILES; c += 2) {
        multiply_value_run<ALL_VISIBLE, 2>(rows, left, values, c, visible, lane);
    }
    if (CHANNEL_TILES % 2 == 1) {
        multiply_value_run<ALL_VISIBLE, 1>(rows, left, values, CHANNEL_TILES - 1, visible, lane);
    }
}

// One step of the rows of a simdgroup.
template <bool ALL_VISIBLE>
inline void take_step(thread Rows& rows, thread const Queries& queries, Tile keys, Tile values, uint visible,
                      const device KeyStep& step, ulong first_query, const device float* bias,
                      constant AttentionArguments& arguments, Lane lane) {
    Scores scores;
    multiply_keys<ALL_VISIBLE>(scores, queries, keys, visible, lane);
    if ((has_input_bias || has_cache_bias) && bias != nullptr) {
        add_bias<ALL_VISIBLE>(scores, bias, visible, arguments.inverse_scale, lane);
    }
    // Made again instead of held in registers, of which the products need all.
    if (has_windows && !ALL_VISIBLE) hide_outside(scores, step_window(step, first_query), lane);
    softmax<ALL_VISIBLE>(scores, rows, visible, arguments.scale_log2, lane);
    multiply_values<ALL_VISIBLE>(rows, scores, values, visible, lane);
}

// The first of the two channels that a lane holds of matrix `c` of the output.
inline uint output_channel(uint c, Lane lane) {
    const uint run = c / 2 * 2;
    return run + 2 <= CHANNEL_TILES ? run * 8 + lane.column * 2 + (c - run) * 2 : c * 8 + lane.column;
}

// Only rows of f32 are carried: elements of the output are sums, too.
inline CarriedOutput carried_output(const device StepItem& item, device Stored* output, device float* partials,
                                    uint first_row, constant AttentionArguments& arguments) {
    CarriedOutput waiting;
    if (has_split_keys && item.partial_slot != WHOLE) {
        waiting.first = partials + slot_offset(item.partial_slot, QUERIES, HEAD_DIM) + first_row * HEAD_DIM;
        waiting.stride = HEAD_DIM;
    } else {
        const long offset = row_offset(arguments.output, item.batch, item.head, item.query_start + first_row);
        waiting.first = reinterpret_cast<device float*>(output + offset);
        waiting.stride = arguments.output.token;
    }
    return waiting;
}

// Adds what is carried of rows to their sums.
inline void collect(thread Rows& rows, thread const CarriedSums& carried, CarriedOutput output, uint row_count,
                    float scale_log2, Lane lane) {
    UNROLL
    for (uint i = 0; i < ROW_TILES; ++i) {
        const uint row = i * 8 + lane.row;
        if (row < row_count) {
            const float factor = correction_of(carried.maximum[i], rows.maximum[i], scale_log2);
            rows.sum[i] = fma(carried.sum[i], factor, rows.sum[i]);
            const device float* source = output.first + long(row) * output.stride;
            UNROLL
            for (uint c = 0; c < CHANNEL_TILES; ++c) {
                const float2 older = *reinterpret_cast<const device float2*>(source + output_channel(c, lane));
                const float2 later = rows.output[i][c];
                rows.output[i][c] = float2(fma(older.x, factor, later.x), fma(older.y, factor, later.y));
            }
        }
    }
}

// Carries the sums of rows, which begin anew.
inline void leave(thread Rows& rows, thread CarriedSums& carried, CarriedOutput output, uint row_count, Lane lane) {
    UNROLL
    for (uint i = 0; i < ROW_TILES; ++i) {
        const uint row = i * 8 + lane.row;
        carried.maximum[i] = rows.maximum[i];
        carried.sum[i] = rows.sum[i];
        rows.sum[i] = 0.0f;
        UNROLL
        for (uint c = 0; c < CHANNEL_TILES; ++c) {
            if (row < row_count) {
                device float* target = output.first + long(row) * output.stride + output_channel(c, lane);
                *reinterpret_cast<device float2*>(target) = rows.output[i][c];
            }
            rows.output[i][c] = float2(0.0f);
        }
    }
}

// Writes the normalised rows of a whole item.
inline void store_output(thread const Rows& rows, device Stored* first, long stride, uint row_count, Lane lane) {
    UNROLL
    for (uint i = 0; i < ROW_TILES; ++i) {
        const uint row = i * 8 + lane.row;
        if (row < row_count) {
            // No visible key: zeros. A NaN sum stays one.
            const float factor = rows.sum[i] == 0.0f ? 0.0f : 1.0f / rows.sum[i];
            device Stored* target = first + long(row) * stride;
            UNROLL
            for (uint c = 0; c < CHANNEL_TILES; ++c) {
                Element::write(target + output_channel(c, lane), rows.output[i][c] * factor);
            }
        }
    }
}

// Writes the log-sum-exps of a whole item.
inline void store_log_sum_exp(thread const Rows& rows, device float* first, long stride, uint row_count,
                              float scale_log2, Lane lane) {
    UNROLL
    for (uint i = 0; i < ROW_TILES; ++i) {
        const uint row = i * 8 + lane.row;
        if (row < row_count && lane.column == 0) {
            first[long(row) * stride] = log_sum_exp(base_of(rows.maximum[i], scale_log2), rows.sum[i]);
        }
    }
}

// Writes the sums of one part of a split item to its slot.
inline void store_partial(thread const Rows& rows, device float* slot, uint first_row, uint row_count,
                          float scale_log2, Lane lane) {
    UNROLL
    for (uint i = 0; i < ROW_TILES; ++i) {
        const uint row = i * 8 + lane.row, tile_row = first_row + row;
        if (row < row_count) {
            device float* target = slot + tile_row * HEAD_DIM;
            UNROLL
            for (uint c = 0; c < CHANNEL_TILES; ++c) {
                *reinterpret_cast<device float2*>(target + output_channel(c, lane)) = rows.output[i][c];
            }
            if (lane.column == 0) {
                const float2 state = float2(base_of(rows.maximum[i], scale_log2), rows.sum[i]);
                *reinterpret_cast<device float2*>(slot + QUERIES * HEAD_DIM + 2 * tile_row) = state;
            }
        }
    }
}

// Told how many threads there are, the compiler may use all the registers that so many leave each.
[[kernel, max_total_threads_per_threadgroup(THREADS)]] void mixed_attention(
    const device Stored* queries [[buffer(0)]],
    const device Stored* input_keys [[buffer(1)]],
    const device Stored* input_values [[buffer(2)]],
    const device Stored* cache_keys [[buffer(3), function_constant(has_cache)]],
    const device Stored* cache_values [[buffer(4), function_constant(has_cache)]],
    const device float* angles [[buffer(5), function_constant(has_rotation)]],
    device Stored* output [[buffer(6)]],
    device float* partials [[buffer(7), function_constant(has_split_keys)]],
    const device StepItem* items [[buffer(8)]],
    const device KeyStep* steps [[buffer(9)]],
    device float* log_sum_exps [[buffer(10), function_constant(has_log_sum_exp)]],
    const device float* input_bias [[buffer(11), function_constant(has_input_bias)]],
    const device float* cache_bias [[buffer(12), function_constant(has_cache_bias)]],
    constant AttentionArguments& arguments [[buffer(13)]],
    uint group [[threadgroup_position_in_grid]],
    uint thread_index [[thread_index_in_threadgroup]],
    uint simdgroup [[simdgroup_index_in_threadgroup]],
    uint lane_index [[thread_index_in_simdgroup]]) {
#if TILE_STAGES > 0
    threadgroup uint4 key_stages[STAGES * STAGE_CHUNKS];
    threadgroup uint4 value_stages[STAGES * STAGE_CHUNKS];
    uint stage = 0;
#endif
#if TILE_PARKED > 0
    threadgroup Pair parked[PARKED * ROW_TILES * THREADS];
#endif

    const device StepItem& item = items[group];
    const Lane lane = lane_of(lane_index);
    const uint batch = item.batch, kv_head = item.kv_head, last_step = item.last_step;
    const uint first_row = simdgroup * SIMDGROUP_ROWS;
    // A simdgroup past the end of a short item only helps to load.
    const bool has_rows = first_row < item.query_len;
    const uint row_count = has_rows ? min(item.query_len - first_row, SIMDGROUP_ROWS) : 0;
    const ulong first_query = item.query_start + first_row;

    Queries tile;
#if TILE_PARKED > 0
    tile.parked = parked + thread_index;
#endif
    load_queries(tile, queries + row_offset(arguments.queries, batch, item.head, first_query), arguments.queries.token,
                 has_rotation ? angles + angle_offset(arguments.angles, batch, first_query) : nullptr,
                 arguments.angles.token, row_count, lane);
    Rows rows;
    UNROLL
    for (uint i = 0; i < ROW_TILES; ++i) {
        rows.maximum[i] = -FLT_MAX;
        rows.sum[i] = 0.0f;
        UNROLL
        for (uint c = 0; c < CHANNEL_TILES; ++c) rows.output[i][c] = float2(0.0f);
    }

    CarriedSums carried;
    for (uint i = item.first_step; i < last_step; ++i) {
        const device KeyStep& step = steps[i];
        const uint visible = step.visible[0];
        // Of the step, which all simdgroups load together, and of this one's rows.
        const bool all_real = !has_partial_steps || visible == ALL_KEYS;
        const bool all_visible =
            all_real && (!has_windows || covers(step_window(step, first_query), SIMDGROUP_ROWS, KEYS));
        Source source;
        if (has_cache && step.source != 0) {
            source.keys = cache_keys + row_offset(arguments.cache_keys, batch, kv_head, step.key_row);
            source.values = cache_values + row_offset(arguments.cache_values, batch, kv_head, step.value_row);
            source.key_stride = arguments.cache_keys.token;
            source.value_stride = arguments.cache_values.token;
        } else {
            source.keys = input_keys + row_offset(arguments.input_keys, batch, kv_head, step.key_row);
            source.values = input_values + row_offset(arguments.input_values, batch, kv_head, step.value_row);
            source.key_stride = arguments.input_keys.token;
            source.value_stride = arguments.input_values.token;
        }
        Tile keys, values;
#if TILE_STAGES == 0
        keys.first = source.keys;
        keys.stride = source.key_stride;
        values.first = source.values;
        values.stride = source.value_stride;
#else
        // With one stage, everybody must be done with the step before.
        if (STAGES == 1) threadgroup_barrier(mem_flags::mem_threadgroup);
        threadgroup uint4* stage_keys = key_stages + stage * STAGE_CHUNKS;
        threadgroup uint4* stage_values = value_stages + stage * STAGE_CHUNKS;
        if (all_real) {
            load_rows<true>(stage_keys, stage_values, source, visible, thread_index);
        } else {
            load_rows<false>(stage_keys, stage_values, source, visible, thread_index);
        }
        threadgroup_barrier(mem_flags::mem_threadgroup);
        stage = STAGES - 1 - stage;
        keys.first = reinterpret_cast<const threadgroup Stored*>(stage_keys);
        values.first = reinterpret_cast<const threadgroup Stored*>(stage_values);
        keys.stride = values.stride = 0;
#endif
        if (!has_rows) continue;
        const device float* bias = nullptr;
        if (has_input_bias && step.source == 0) {
            bias = input_bias + bias_offset(arguments.input_bias, batch, item.head, step.value_row);
        }
        if (has_cache_bias && step.source != 0) {
            bias = cache_bias + bias_offset(arguments.cache_bias, batch, item.head, step.value_row);
        }
        if (all_visible) {
            take_step<true>(rows, tile, keys, values, visible, step, first_query, bias, arguments, lane);
        } else {
            take_step<false>(rows, tile, keys, values, visible, step, first_query, bias, arguments, lane);
        }
        const uint summed = i + 1 - item.first_step;
        if (CARRY_STEPS > 0 && summed % CARRY_STEPS == 0) {
            const CarriedOutput waiting = carried_output(item, output, partials, first_row, arguments);
            if (summed > CARRY_STEPS) collect(rows, carried, waiting, row_count, arguments.scale_log2, lane);
            leave(rows, carried, waiting, row_count, lane);
        }
    }

    if (!has_rows) return;
    if (CARRY_STEPS > 0 && last_step - item.first_step >= CARRY_STEPS) {
        const CarriedOutput waiting = carried_output(item, output, partials, first_row, arguments);
        collect(rows, carried, waiting, row_count, arguments.scale_log2, lane);
    }
    UNROLL
    for (uint i = 0; i < ROW_TILES; ++i) rows.sum[i] = row_sum(rows.sum[i]);
    if (has_split_keys && item.partial_slot != WHOLE) {
        store_partial(rows, partials + slot_offset(item.partial_slot, QUERIES, HEAD_DIM), first_row, row_count,
                      arguments.scale_log2, lane);
    } else {
        store_output(rows, output + row_offset(arguments.output, batch, item.head, first_query), arguments.output.token,
                     row_count, lane);
        if (has_log_sum_exp) {
            store_log_sum_exp(rows, log_sum_exps + row_offset(arguments.log_sum_exp, batch, item.head, first_query),
                              arguments.log_sum_exp.token, row_count, arguments.scale_log2, lane);
        }
    }
}
