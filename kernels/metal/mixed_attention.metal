// Fused mixed attention for Apple GPUs since family Apple7 (M1, A14).
//
// What it computes. For one work item, a tile of queries of one head and batch row, and its list of key steps:
//
//     O = softmax(scale · Q Kᵀ) V        keys and values gathered from all steps, as if they were one long matrix
//
// in one pass with the online softmax: for each step, S = Q Kᵀ; m' = max(m, rowmax S); P = 2^(c·(S − m')) with c =
// scale · log2 e; l = 2^(c·(m − m')) l + rowsum P; O = 2^(c·(m − m')) O + P V. Scores, softmax and sums are f32. The
// factor c is applied to the f32 scores, in the same instruction that subtracts the maximum: folding it into the
// queries would round them once more and save nothing. A query that sees no key gets zeros.
//
// Shapes. Q, K, V: [batch, heads, tokens, HEAD_DIM] in any strides with adjacent channels; O likewise. The library is
// compiled for its head_dim, any multiple of 8: nothing is padded.
//
// Group structure and padding are not in the main loop. The host has turned them into key steps: a run of at most KEYS
// rows of one source and a bit per row. A row whose bit is 0 (padding, or past the end of the range) is neither read
// nor multiplied: it is zeroed in threadgroup memory, and its weight is 0. Steps without a visible row do not exist,
// and a step whose rows are all visible goes through code that knows no bits.
//
// Tiles. A threadgroup of SIMDGROUPS simdgroups takes one item of up to SIMDGROUPS · ROW_TILES · 8 queries; each
// simdgroup owns ROW_TILES · 8 rows and never exchanges them. More row tiles mean fewer reads of threadgroup memory for
// each multiplication, and more registers.
//
// Threadgroup memory: STAGES tiles of KEYS keys and of KEYS values, rows padded by 16 bytes so that the eight rows of a
// matrix start in different banks.
//
// Registers: per lane ROW_TILES · HEAD_DIM / 4 accumulators, ROW_TILES · KEYS / 4 scores, and the queries, loaded and
// rotated once: ROW_TILES · HEAD_DIM / 4 operands.
//
// Pipeline. With two stages, step j is loaded into stage j % 2 while slower simdgroups still compute on the other
// stage; one barrier, then everybody computes on it. A stage is overwritten two steps later, behind the barrier that
// all reach after they have left it. With one stage, a second barrier stands in front of the load.
//
// Bound. Multiplications of 8×8 matrices, 2 · KEYS · HEAD_DIM · ROW_TILES / 64 of them per step and simdgroup, against
// ROW_TILES · KEYS / 4 exponentials per lane.
#include "arguments.h"
#include "elements.h"
#include "rotation.h"

typedef TILE_ELEMENT Element;
typedef Element::Stored Stored;
typedef simdgroup_matrix<Element::Operand, 8, 8> Operand;
typedef simdgroup_matrix<float, 8, 8> Sums;

// One tuned row; see src/kernels/metal/tiling.rs.
constant constexpr uint HEAD_DIM = TILE_HEAD_DIM;
constant constexpr uint ROW_TILES = TILE_ROW_TILES;
constant constexpr uint SIMDGROUPS = TILE_SIMDGROUPS;
constant constexpr uint KEYS = TILE_KEYS;
constant constexpr uint STAGES = TILE_STAGES;

constant constexpr uint THREADS = SIMDGROUPS * 32;
constant constexpr uint SIMDGROUP_ROWS = ROW_TILES * 8;
constant constexpr uint QUERIES = SIMDGROUPS * SIMDGROUP_ROWS;
constant constexpr uint KEY_TILES = KEYS / 8;
constant constexpr uint CHANNEL_TILES = HEAD_DIM / 8;
constant constexpr uint CHUNK = 16 / sizeof(Stored);                 // elements of 16 bytes
constant constexpr uint CHUNKS = HEAD_DIM / CHUNK;                   // of a row in device memory
constant constexpr uint ROW_CHUNKS = CHUNKS + 1;                     // of a row in threadgroup memory
constant constexpr uint ROW = ROW_CHUNKS * CHUNK;                    // the same in elements
constant constexpr uint STAGE_CHUNKS = KEYS * ROW_CHUNKS;            // of a tile of keys or values
constant constexpr uint ALL_KEYS = 0xffffffffu >> (32 - KEYS);
constant constexpr uint WHOLE = 0xffffffffu;                         // slot of an item that is not split

static_assert(HEAD_DIM % 8 == 0, "matrices are 8 × 8");
static_assert(KEYS % 8 == 0 && KEYS <= 32, "a step has one word of bits");
static_assert(STAGES == 1 || STAGES == 2, "two stages need one barrier per step; more do not help");
static_assert(STAGES * 2 * STAGE_CHUNKS * 16 == TILE_THREADGROUP_BYTES, "the host knows what the kernel uses");

// What is uniform over a launch.
constant bool has_rotation [[function_constant(0)]];        // queries are rotated
constant bool has_cache [[function_constant(1)]];           // some steps read the cache
constant bool has_partial_steps [[function_constant(2)]];   // some steps have rows that are not visible
constant bool has_split_keys [[function_constant(3)]];      // some items write partial results

// The queries of a simdgroup.
struct Queries {
    Operand tiles[ROW_TILES][CHANNEL_TILES];
};

// Their scores against the keys of a step; then the weights of these keys.
struct Scores {
    Sums tiles[ROW_TILES][KEY_TILES];
};

// What a simdgroup accumulates for its rows. A lane holds two columns of every matrix, all in row `matrix_row` of each
// row tile.
struct Rows {
    Sums output[ROW_TILES][CHANNEL_TILES];
    float maximum[ROW_TILES];     // of the raw scores, the same in the four lanes of a row
    float sum[ROW_TILES];         // of this lane's columns only
    float correction[ROW_TILES];  // what the last step multiplies older output with
};

// The keys and values of a step.
struct Source {
    const device Stored* keys;
    const device Stored* values;
    long key_stride;    // elements between rows
    long value_stride;
};

// Copies KEYS rows to a tile. Rows without a bit become zero without being read.
template <bool ALL_VISIBLE>
inline void load_rows(threadgroup uint4* tile, const device Stored* first, long stride, uint visible,
                      uint thread_index) {
    for (uint copy = thread_index; copy < KEYS * CHUNKS; copy += THREADS) {
        const uint row = copy / CHUNKS, chunk = copy % CHUNKS;
        uint4 channels = uint4(0);
        if (ALL_VISIBLE || (visible >> row & 1) != 0) {
            channels = *reinterpret_cast<const device uint4*>(first + long(row) * stride + chunk * CHUNK);
        }
        tile[row * ROW_CHUNKS + chunk] = channels;
    }
}

// Loads this simdgroup's queries, rotated if there is a rotation. Rows past the end of the item become zero.
inline void load_queries(thread Queries& queries, const device Stored* first, long stride, const device float* angles,
                         long angle_stride, uint row_count, uint lane) {
    UNROLL
    for (uint i = 0; i < ROW_TILES; ++i) {
        const uint row = i * 8 + matrix_row(lane);
        UNROLL
        for (uint c = 0; c < CHANNEL_TILES; ++c) {
            const uint channel = c * 8 + matrix_column(lane);
            float2 pair = float2(0.0f);
            if (row < row_count) {
                pair = Element::read(first + long(row) * stride + channel);
                if (has_rotation) {
                    const device float* angle = angles + long(row) * angle_stride + channel;
                    pair = rotate(pair, *reinterpret_cast<const device float2*>(angle));
                }
            }
            set_elements(queries.tiles[i][c], pair);
        }
    }
}

// S = Q Kᵀ
inline void multiply_keys(thread Scores& scores, thread Queries& queries, const threadgroup Stored* keys, uint lane) {
    UNROLL
    for (uint n = 0; n < KEY_TILES; ++n) {
        UNROLL
        for (uint i = 0; i < ROW_TILES; ++i) scores.tiles[i][n] = make_filled_simdgroup_matrix<float, 8, 8>(0.0f);
        UNROLL
        for (uint c = 0; c < CHANNEL_TILES; ++c) {
            Operand transposed;
            Element::load(transposed, keys + n * 8 * ROW + c * 8, ROW, true, lane);
            UNROLL
            for (uint i = 0; i < ROW_TILES; ++i) {
                simdgroup_multiply_accumulate(scores.tiles[i][n], queries.tiles[i][c], transposed, scores.tiles[i][n]);
            }
        }
    }
}

// The online softmax: turns scores into weights relative to the new maximum; leaves the factor for older output.
template <bool ALL_VISIBLE>
inline void softmax(thread Scores& scores, thread Rows& rows, uint visible, float scale_log2, uint lane) {
    const uint mine = visible >> matrix_column(lane);
    UNROLL
    for (uint i = 0; i < ROW_TILES; ++i) {
        float maximum = rows.maximum[i];
        UNROLL
        for (uint n = 0; n < KEY_TILES; ++n) {
            const float2 score = elements(scores.tiles[i][n]);
            if (ALL_VISIBLE || (mine >> n * 8 & 1) != 0) maximum = max(maximum, score.x);
            if (ALL_VISIBLE || (mine >> n * 8 & 2) != 0) maximum = max(maximum, score.y);
        }
        maximum = row_max(maximum);
        // Without a visible key so far nothing has been summed; 0 keeps the exponents below finite.
        const float base = maximum == -FLT_MAX ? 0.0f : maximum * scale_log2;
        // Exactly 1 for an unchanged maximum, or every step would multiply a rounding error in once more.
        const float before = rows.maximum[i];
        const float correction = before == maximum ? 1.0f : fast::exp2((before - maximum) * scale_log2);
        rows.maximum[i] = maximum;
        float sum = 0.0f;
        UNROLL
        for (uint n = 0; n < KEY_TILES; ++n) {
            const float2 score = elements(scores.tiles[i][n]);
            const float2 exponent = float2(fma(score.x, scale_log2, -base), fma(score.y, scale_log2, -base));
            float2 weight = float2(fast::exp2(exponent.x), fast::exp2(exponent.y));
            if (!ALL_VISIBLE && (mine >> n * 8 & 1) == 0) weight.x = 0.0f;
            if (!ALL_VISIBLE && (mine >> n * 8 & 2) == 0) weight.y = 0.0f;
            set_elements(scores.tiles[i][n], weight);
            sum += weight.x + weight.y;
        }
        rows.sum[i] = fma(rows.sum[i], correction, sum);
        rows.correction[i] = correction;
    }
}

// O = correction · O + P V, where P V of this step is summed on its own: many short sums lose less than a long one.
inline void multiply_values(thread Rows& rows, thread Scores& weights, const threadgroup Stored* values, uint lane) {
    Operand left[KEY_TILES][ROW_TILES];
    UNROLL
    for (uint n = 0; n < KEY_TILES; ++n) {
        UNROLL
        for (uint i = 0; i < ROW_TILES; ++i) set_elements(left[n][i], elements(weights.tiles[i][n]));
    }
    UNROLL
    for (uint c = 0; c < CHANNEL_TILES; ++c) {
        Sums fresh[ROW_TILES];
        UNROLL
        for (uint i = 0; i < ROW_TILES; ++i) fresh[i] = make_filled_simdgroup_matrix<float, 8, 8>(0.0f);
        UNROLL
        for (uint n = 0; n < KEY_TILES; ++n) {
            Operand right;
            Element::load(right, values + n * 8 * ROW + c * 8, ROW, false, lane);
            UNROLL
            for (uint i = 0; i < ROW_TILES; ++i) {
                simdgroup_multiply_accumulate(fresh[i], left[n][i], right, fresh[i]);
            }
        }
        UNROLL
        for (uint i = 0; i < ROW_TILES; ++i) {
            const float2 older = elements(rows.output[i][c]), added = elements(fresh[i]);
            const float correction = rows.correction[i];
            set_elements(rows.output[i][c],
                         float2(fma(older.x, correction, added.x), fma(older.y, correction, added.y)));
        }
    }
}

// One step: load, meet, compute. `keys` and `values` are its stage.
template <bool ALL_VISIBLE>
inline void take_step(thread Rows& rows, thread Queries& queries, thread Source& source, threadgroup uint4* keys,
                      threadgroup uint4* values, uint visible, float scale_log2, bool has_rows, uint thread_index,
                      uint lane) {
    load_rows<ALL_VISIBLE>(keys, source.keys, source.key_stride, visible, thread_index);
    load_rows<ALL_VISIBLE>(values, source.values, source.value_stride, visible, thread_index);
    threadgroup_barrier(mem_flags::mem_threadgroup);
    // A simdgroup past the end of a short item only helps to load.
    if (!has_rows) return;
    Scores scores;
    multiply_keys(scores, queries, reinterpret_cast<const threadgroup Stored*>(keys), lane);
    softmax<ALL_VISIBLE>(scores, rows, visible, scale_log2, lane);
    multiply_values(rows, scores, reinterpret_cast<const threadgroup Stored*>(values), lane);
}

// Writes the normalised rows of a whole item.
inline void store_output(thread Rows& rows, device Stored* first, long stride, uint row_count, uint lane) {
    UNROLL
    for (uint i = 0; i < ROW_TILES; ++i) {
        const uint row = i * 8 + matrix_row(lane);
        if (row < row_count) {
            // No visible key: zeros. A NaN sum stays one.
            const float factor = rows.sum[i] == 0.0f ? 0.0f : 1.0f / rows.sum[i];
            device Stored* target = first + long(row) * stride + matrix_column(lane);
            UNROLL
            for (uint c = 0; c < CHANNEL_TILES; ++c) {
                Element::write(target + c * 8, elements(rows.output[i][c]) * factor);
            }
        }
    }
}

// Writes the sums of one part of a split item to its slot.
inline void store_partial(thread Rows& rows, device float* slot, uint first_row, uint row_count, float scale_log2,
                          uint lane) {
    UNROLL
    for (uint i = 0; i < ROW_TILES; ++i) {
        const uint row = i * 8 + matrix_row(lane), tile_row = first_row + row;
        if (row < row_count) {
            device float* target = slot + tile_row * HEAD_DIM + matrix_column(lane);
            UNROLL
            for (uint c = 0; c < CHANNEL_TILES; ++c) {
                *reinterpret_cast<device float2*>(target + c * 8) = elements(rows.output[i][c]);
            }
            if (matrix_column(lane) == 0) {
                const float2 state = float2(rows.maximum[i] * scale_log2, rows.sum[i]);
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
    constant AttentionArguments& arguments [[buffer(10)]],
    uint group [[threadgroup_position_in_grid]],
    uint thread_index [[thread_index_in_threadgroup]],
    uint simdgroup [[simdgroup_index_in_threadgroup]],
    uint lane [[thread_index_in_simdgroup]]) {
    threadgroup uint4 keys[STAGES * STAGE_CHUNKS];
    threadgroup uint4 values[STAGES * STAGE_CHUNKS];

    const device StepItem& item = items[group];
    const uint batch = item.batch, head = item.head, last_step = item.last_step;
    const uint first_row = simdgroup * SIMDGROUP_ROWS;
    const bool has_rows = first_row < item.query_len;
    const uint row_count = has_rows ? min(item.query_len - first_row, SIMDGROUP_ROWS) : 0;
    const ulong first_query = item.query_start + first_row;

    Queries tile;
    load_queries(tile, queries + row_offset(arguments.queries, batch, head, first_query), arguments.queries.token,
                 has_rotation ? angles + angle_offset(arguments.angles, batch, first_query) : nullptr,
                 arguments.angles.token, row_count, lane);
    Rows rows;
    UNROLL
    for (uint i = 0; i < ROW_TILES; ++i) {
        rows.maximum[i] = -FLT_MAX;
        rows.sum[i] = 0.0f;
        UNROLL
        for (uint c = 0; c < CHANNEL_TILES; ++c) rows.output[i][c] = make_filled_simdgroup_matrix<float, 8, 8>(0.0f);
    }

    uint stage = 0;
    for (uint i = item.first_step; i < last_step; ++i) {
        const device KeyStep& step = steps[i];
        const uint visible = step.visible[0];
        Source source;
        if (has_cache && step.source != 0) {
            source.keys = cache_keys + row_offset(arguments.cache_keys, batch, head, step.key_row);
            source.values = cache_values + row_offset(arguments.cache_values, batch, head, step.value_row);
            source.key_stride = arguments.cache_keys.token;
            source.value_stride = arguments.cache_values.token;
        } else {
            source.keys = input_keys + row_offset(arguments.input_keys, batch, head, step.key_row);
            source.values = input_values + row_offset(arguments.input_values, batch, head, step.value_row);
            source.key_stride = arguments.input_keys.token;
            source.value_stride = arguments.input_values.token;
        }
        // With one stage, everybody must be done with the step before.
        if (STAGES == 1) threadgroup_barrier(mem_flags::mem_threadgroup);
        threadgroup uint4* stage_keys = keys + stage * STAGE_CHUNKS;
        threadgroup uint4* stage_values = values + stage * STAGE_CHUNKS;
        if (!has_partial_steps || visible == ALL_KEYS) {
            take_step<true>(rows, tile, source, stage_keys, stage_values, visible, arguments.scale_log2, has_rows,
                            thread_index, lane);
        } else {
            take_step<false>(rows, tile, source, stage_keys, stage_values, visible, arguments.scale_log2, has_rows,
                             thread_index, lane);
        }
        stage = STAGES - 1 - stage;
    }

    if (!has_rows) return;
    UNROLL
    for (uint i = 0; i < ROW_TILES; ++i) rows.sum[i] = row_sum(rows.sum[i]);
    if (has_split_keys && item.partial_slot != WHOLE) {
        store_partial(rows, partials + slot_offset(item.partial_slot, QUERIES, HEAD_DIM), first_row, row_count,
                      arguments.scale_log2, lane);
    } else {
        store_output(rows, output + row_offset(arguments.output, batch, head, first_query), arguments.output.token,
                     row_count, lane);
    }
}
