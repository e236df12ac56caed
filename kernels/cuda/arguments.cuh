// What the host hands to the kernels. `src/kernels/cuda/arguments.rs` declares the same structs for Rust; both sides
// assert every size and offset. Lengths are in elements or tokens as said, never in bytes; offsets and strides have 64
// bits, because 150 million tokens of 192 channels overflow 32.
#pragma once

#include <stddef.h>
#include <stdint.h>

// A tensor [batch, heads, tokens, head_dim] whose channels are adjacent. Rows start at multiples of 16 bytes.
struct RowView {
    const void* data;       // channel 0 of token 0 of head 0 of batch row 0
    int64_t batch_stride;   // elements; 0 if one row serves the whole batch
    int64_t head_stride;    // elements
    int64_t token_stride;   // elements
};
static_assert(sizeof(RowView) == 32, "RowView");
static_assert(offsetof(RowView, token_stride) == 24, "RowView");

// As RowView, for writing.
struct MutableRowView {
    void* data;             // channel 0 of token 0 of head 0 of batch row 0
    int64_t batch_stride;   // elements
    int64_t head_stride;    // elements
    int64_t token_stride;   // elements
};
static_assert(sizeof(MutableRowView) == 32, "MutableRowView");
static_assert(offsetof(MutableRowView, token_stride) == 24, "MutableRowView");

// What is added to the scaled scores of each key, [batch, heads of the queries, tokens] in f32. Tokens are adjacent.
struct KeyBiasView {
    const float* data;      // null: nothing
    int64_t batch_stride;   // floats; 0 if one row serves the whole batch
    int64_t head_stride;    // floats; 0 if one row serves all heads
};
static_assert(sizeof(KeyBiasView) == 24, "KeyBiasView");

// The keys and values of one source: the input tokens, or the cache.
struct KeyValueViews {
    RowView keys;
    RowView values;
    KeyBiasView bias;       // only kernels of the general variant look at it
};
static_assert(sizeof(KeyValueViews) == 88, "KeyValueViews");

// RoPE angles [batch or 1, tokens, head_dim / 2] of (cos, sin) pairs in f32.
struct RotationTable {
    const float* data;      // null: nothing is rotated
    int64_t batch_stride;   // floats; 0 if one row serves the whole batch
    int64_t token_stride;   // floats
};
static_assert(sizeof(RotationTable) == 24, "RotationTable");
static_assert(offsetof(RotationTable, token_stride) == 16, "RotationTable");

constexpr uint32_t WHOLE = 0xffffffffu;       // `partial_slot` of an item that sees all keys of its queries
constexpr uint32_t LAST_ITEM = 0xffffffffu;   // `next` of the last item of a block
constexpr uint32_t NARROW_KEYS = 16;          // most keys of a narrow step

// A tile of queries of one head and batch row, and the key steps it sees: `plan::StepItem`.
struct StepItem {
    uint64_t query_start;   // first query token of the input
    uint32_t query_len;     // number of query tokens, at least 1
    uint32_t batch;
    uint32_t head;          // of the queries
    uint32_t kv_head;       // of the keys and values
    uint32_t first_step;    // its steps are [first_step, last_step) of AttentionArguments::steps
    uint32_t last_step;
    uint32_t partial_slot;  // slot of its partial result, or WHOLE
    uint32_t whole_steps;   // of its steps, how many at the beginning have no hidden key
    uint32_t narrow_steps;  // of its steps, how many at the end have no visible key but among the first NARROW_KEYS
    uint32_t next;          // the item that a persistent block takes after this one, or LAST_ITEM
};
static_assert(sizeof(StepItem) == 48, "StepItem");
static_assert(offsetof(StepItem, next) == 44, "StepItem");

// A query sees the keys whose token less its own is in [first, last]: `plan::Band`.
struct Band {
    int64_t first;
    int64_t last;
};
static_assert(sizeof(Band) == 16, "Band");

// A key tile with at least one visible key, as one batch row sees it: `plan::KeyStep`.
struct KeyStep {
    uint64_t key_row;       // row of its first key in the key view of its source
    uint64_t value_row;     // row of its first value in the value view of its source
    uint64_t visible[2];    // bit i: key i is inside the range and no padding. Everything else must not be touched.
    uint32_t source;        // 0: input, 1: cache
    uint32_t len;           // number of keys inside the range, 1..=128
    Band band;              // which of the visible keys a query sees; key i is token value_row + i
};
static_assert(sizeof(KeyStep) == 56, "KeyStep");
static_assert(offsetof(KeyStep, source) == 32, "KeyStep");
static_assert(offsetof(KeyStep, band) == 40, "KeyStep");

// The query tile that a partial slot belongs to: `plan::SlotReduction`.
struct SlotReduction {
    uint64_t query_start;   // first query token of the input
    uint32_t query_len;     // number of query tokens
    uint32_t batch;
    uint32_t head;
    uint32_t first_slot;    // its partial results are in slots [first_slot, first_slot + slots)
    uint32_t slots;
    uint32_t counter;       // its place in AttentionArguments::arrivals
};
static_assert(sizeof(SlotReduction) == 32, "SlotReduction");
static_assert(offsetof(SlotReduction, counter) == 28, "SlotReduction");

// The log-sum-exps of all scores of a query, [batch, tokens, heads] in f32.
struct LogSumExpView {
    float* data;            // null: not wanted
    int64_t batch_stride;   // floats
    int64_t token_stride;   // floats
};
static_assert(sizeof(LogSumExpView) == 24, "LogSumExpView");

// One launch of an attention kernel.
struct AttentionArguments {
    RowView queries;
    KeyValueViews input;             // read by steps of source 0
    KeyValueViews cache;             // read by steps of source 1
    MutableRowView output;           // [batch, heads, tokens, head_dim]
    RotationTable query_rotation;    // applied to the queries while they are loaded; keys come rotated
    const StepItem* items;           // at least one per block
    const KeyStep* steps;
    const SlotReduction* reduction_of_slot;
    float* partials;                 // per slot: sums [tile's queries, padded head_dim], then (maximum, sum) per query
    uint32_t* arrivals;              // per split tile: how many parts have arrived; 0 before and after each launch
    float* carried;                  // per block: what carried_sums.cuh keeps; null if no item has that many steps
    uint32_t padding;
    uint32_t head_dim;               // a multiple of 8
    float scale_log2;                // factor of the scores · log2(e), positive
    float inverse_scale;             // 1 / factor of the scores
    LogSumExpView log_sum_exp;       // only kernels of the general variant look at it
};
static_assert(sizeof(AttentionArguments) == 352, "AttentionArguments");
static_assert(offsetof(AttentionArguments, output) == 208, "AttentionArguments");
static_assert(offsetof(AttentionArguments, items) == 264, "AttentionArguments");
static_assert(offsetof(AttentionArguments, padding) == 312, "AttentionArguments");
static_assert(offsetof(AttentionArguments, log_sum_exp) == 328, "AttentionArguments");

// A run of key tokens that is rotated: `plan::KeySpan`.
struct KeySpan {
    uint64_t first_token;   // of the input
    uint64_t first_row;     // of the rotated keys
    uint64_t len;
};
static_assert(sizeof(KeySpan) == 24, "KeySpan");

// One launch of the RoPE kernel.
struct RotationArguments {
    RowView keys;                // as projected, [batch, heads, tokens, head_dim]
    MutableRowView rotated;      // [batch, heads, rows, head_dim]
    RotationTable rotation;
    const KeySpan* spans;        // ascending and disjoint in both tokens and rows; together they cover all rows
    uint64_t rows;               // rows per batch row
    uint32_t span_count;         // at least 1
    uint32_t batch;
    uint32_t heads;
    uint32_t head_dim;           // a multiple of 8
};
static_assert(sizeof(RotationArguments) == 120, "RotationArguments");
static_assert(offsetof(RotationArguments, spans) == 88, "RotationArguments");
static_assert(offsetof(RotationArguments, head_dim) == 116, "RotationArguments");
