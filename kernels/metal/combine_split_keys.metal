// Combines the parts of query tiles whose keys were split, right after `mixed_attention`.
//
//     m = max mᵢ;   O = Σ 2^(mᵢ − m) Oᵢ / Σ 2^(mᵢ − m) lᵢ        over the parts i of the tile, in slot order
//
// Why a launch of its own. Metal's atomics are relaxed, and a fence that reaches beyond the threadgroup exists only
// since Metal 3.2; before, the last threadgroup to arrive cannot know that it sees what the others wrote. A second
// dispatch in the same encoder can: the encoder puts a barrier in front of it. Only launches that split keys have it.
//
// A threadgroup takes one tile, a thread a pair of channels at a time.
#include "arguments.h"
#include "elements.h"
#include "log_sum_exp.h"

typedef TILE_ELEMENT Element;

constant bool has_log_sum_exp [[function_constant(0)]];  // log-sum-exps are wanted beside the output

kernel void combine_split_keys(const device float* partials [[buffer(0)]],
                               const device SlotReduction* reductions [[buffer(1)]],
                               device Element::Stored* output [[buffer(2)]],
                               device float* log_sum_exps [[buffer(3), function_constant(has_log_sum_exp)]],
                               constant CombineArguments& arguments [[buffer(4)]],
                               uint group [[threadgroup_position_in_grid]],
                               uint threads [[threads_per_threadgroup]],
                               uint thread_index [[thread_index_in_threadgroup]]) {
    const device SlotReduction& reduction = reductions[group];
    const uint head_dim = arguments.head_dim, tile_queries = arguments.tile_queries;
    const uint pairs = head_dim / 2;
    for (uint i = thread_index; i < reduction.query_len * pairs; i += threads) {
        const uint row = i / pairs, channel = i % pairs * 2;
        // Parts without a visible key have no maximum.
        float maximum = -FLT_MAX;
        for (uint part = 0; part < reduction.slots; ++part) {
            const device float* slot = partials + slot_offset(reduction.first_slot + part, tile_queries, head_dim);
            const device float* state = slot + tile_queries * head_dim + 2 * row;
            if (state[1] != 0.0f) maximum = max(maximum, state[0]);
        }
        float sum = 0.0f;
        float2 channels = float2(0.0f);
        for (uint part = 0; part < reduction.slots; ++part) {
            const device float* slot = partials + slot_offset(reduction.first_slot + part, tile_queries, head_dim);
            const device float* state = slot + tile_queries * head_dim + 2 * row;
            if (state[1] == 0.0f) continue;
            const float weight = fast::exp2(state[0] - maximum);
            sum = fma(weight, state[1], sum);
            channels += weight * *reinterpret_cast<const device float2*>(slot + row * head_dim + channel);
        }
        // No visible key: zeros. A NaN sum stays one.
        const float factor = sum == 0.0f ? 0.0f : 1.0f / sum;
        const long start = row_offset(arguments.output, reduction.batch, reduction.head, reduction.query_start + row);
        Element::write(output + start + channel, channels * factor);
        if (has_log_sum_exp && channel == 0) {
            const long place = row_offset(arguments.log_sum_exp, reduction.batch, reduction.head,
                                          reduction.query_start + row);
            log_sum_exps[place] = log_sum_exp(maximum, sum);
        }
    }
}
