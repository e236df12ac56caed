// What the host hands to the kernels, besides the buffers that each kernel lists. `src/kernels/metal/arguments.rs`
// and `src/plan/` declare the same structs for Rust; both sides assert their sizes. Lengths and strides are in elements
// or tokens as said, never in bytes, and have 64 bits where they can grow with the input: 150 million tokens of 192
// channels overflow 32.
#pragma once

#include <metal_stdlib>

// A tensor [batch, heads, tokens, head_dim] whose channels are adjacent, in a buffer that is bound at its first
// element. Rows start at multiples of 16 bytes.
struct RowStrides {
    long batch;  // elements; 0 if one row serves the whole batch
    long head;   // elements
    long token;  // elements
};
static_assert(sizeof(RowStrides) == 24, "RowStrides");

// Where the row of a token starts.
inline long row_offset(constant RowStrides& strides, uint batch, uint head, ulong row) {
    return long(batch) * strides.batch + long(head) * strides.head + long(row) * strides.token;
}

// RoPE angles [batch or 1, tokens, head_dim / 2] of (cos, sin) pairs in f32.
struct AngleStrides {
    long batch;  // floats; 0 if one row serves the whole batch
    long token;  // floats
};
static_assert(sizeof(AngleStrides) == 16, "AngleStrides");

// Where the angles of a token start.
inline long angle_offset(constant AngleStrides& strides, uint batch, ulong token) {
    return long(batch) * strides.batch + long(token) * strides.token;
}

// Biases of keys, [batch or 1, heads of the queries or 1, tokens] in f32. Tokens are adjacent.
struct BiasStrides {
    long batch;  // floats; 0 if one row serves the whole batch
    long head;   // floats; 0 if one row serves all heads
};
static_assert(sizeof(BiasStrides) == 16, "BiasStrides");

// Where the bias of a token is.
inline long bias_offset(constant BiasStrides& strides, uint batch, uint head, ulong token) {
    return long(batch) * strides.batch + long(head) * strides.head + long(token);
}

// A tile of queries of one head and batch row, and the key steps it sees: `plan::StepItem`.
struct StepItem {
    ulong query_start;  // first query token of the input
    uint query_len;     // number of query tokens, at least 1
    uint batch;
    uint head;          // of the queries
    uint kv_head;       // of the keys and values
    uint first_step;    // its steps are [first_step, last_step)
    uint last_step;
    uint partial_slot;  // slot of its partial result, or WHOLE
    uint whole_steps;   // of its steps, how many at the beginning have no hidden key
    uint narrow_steps;  // only the kernel for Hopper looks at these two
    uint next;
};
static_assert(sizeof(StepItem) == 48, "StepItem");

// A query sees the keys whose token less its own is in [first, last]: `plan::Band`.
struct Band {
    long first;
    long last;
};
static_assert(sizeof(Band) == 16, "Band");

// A key tile with at least one visible key, as one batch row sees it: `plan::KeyStep`.
struct KeyStep {
    ulong key_row;     // row of its first key in the keys of its source
    ulong value_row;   // row of its first value in the values of its source
    uint visible[4];   // bit i: key i is inside the range and no padding. Everything else must not be touched.
    uint source;       // 0: input, 1: cache
    uint len;          // number of keys inside the range
    Band band;         // which of the visible keys a query sees; key i is token value_row + i
};
static_assert(sizeof(KeyStep) == 56, "KeyStep");

// A query tile whose keys were split: `plan::SlotReduction`.
struct SlotReduction {
    ulong query_start;  // first query token of the input
    uint query_len;     // number of query tokens
    uint batch;
    uint head;
    uint first_slot;    // its partial results are in slots [first_slot, first_slot + slots)
    uint slots;
    uint counter;       // of no use here
};
static_assert(sizeof(SlotReduction) == 32, "SlotReduction");

// One launch of `mixed_attention`.
struct AttentionArguments {
    RowStrides queries;
    RowStrides input_keys;    // rotated already where there is RoPE
    RowStrides input_values;
    RowStrides cache_keys;
    RowStrides cache_values;
    RowStrides output;
    RowStrides log_sum_exp;   // floats
    AngleStrides angles;
    BiasStrides input_bias;
    BiasStrides cache_bias;
    float scale_log2;         // factor of the scores · log2(e), positive
    float inverse_scale;      // 1 / factor of the scores
};
static_assert(sizeof(AttentionArguments) == 224, "AttentionArguments");

// One launch of `combine_split_keys`.
struct CombineArguments {
    RowStrides output;
    RowStrides log_sum_exp;   // floats
    uint head_dim;            // a multiple of 8
    uint tile_queries;        // rows of a slot
};
static_assert(sizeof(CombineArguments) == 56, "CombineArguments");

// A run of key tokens that is rotated: `plan::KeySpan`.
struct KeySpan {
    ulong first_token;  // of the input
    ulong first_row;    // of the rotated keys
    ulong len;
};
static_assert(sizeof(KeySpan) == 24, "KeySpan");

// One launch of `rotate_keys`.
struct RotationArguments {
    RowStrides keys;          // as projected
    RowStrides rotated;       // [batch, heads, rows, head_dim]
    AngleStrides angles;
    ulong rows;               // rows per batch row
    uint span_count;          // at least 1
    uint heads;
    uint head_dim;            // a multiple of 8
    uint padding;
};
static_assert(sizeof(RotationArguments) == 88, "RotationArguments");

// Where a slot of the partial results starts. It holds, per query of a tile, `head_dim` unnormalised sums; then, per
// query, the maximum of the scores in units of log2 and the sum of the weights.
inline ulong slot_offset(uint slot, uint tile_queries, uint head_dim) {
    return ulong(slot) * (ulong(tile_queries) * (head_dim + 2));
}
