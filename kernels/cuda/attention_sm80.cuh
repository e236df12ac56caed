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
//
// | file | idea |
// |---|---|
// | sm80_block.cuh | tile, shared memory, described steps, accumulators |
// | sm80_copies.cuh | queries, keys and values on their way to shared memory |
// | sm80_scores.cuh | queries times keys, biases, what is hidden |
// | sm80_softmax.cuh | scores to probabilities, these times values, sums that are carried |
// | sm80_output.cuh | rows and partial results |
#pragma once

#include <ptx.cuh>

#include "carried_sums.cuh"
#include "combine.cuh"
#include "key_bias.cuh"
#include "sm80_block.cuh"
#include "sm80_copies.cuh"
#include "sm80_output.cuh"
#include "sm80_scores.cuh"
#include "sm80_softmax.cuh"
#include "window.cuh"

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
