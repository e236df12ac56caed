// Combines the parts of query tiles whose keys were split, inside the same launch.
//
//     m = max mᵢ;   O = Σ 2^(mᵢ − m) Oᵢ / Σ 2^(mᵢ − m) lᵢ        over the parts i of the tile, in slot order
//
// Each part leaves (Oᵢ, mᵢ, lᵢ) in its slot of global memory and counts itself in. The block that completes the count
// reads all slots and writes the rows, in slot order whoever comes last: the result does not depend on timing.
#pragma once

#include <ptx.cuh>

#include "arguments.cuh"
#include "log_sum_exp.cuh"

// A slot of `AttentionArguments::partials`, for tiles of T::QUERIES rows of T::HEAD_DIM channels.
template <class T>
struct PartialSlot {
    float* data;

    __device__ __forceinline__ PartialSlot(const AttentionArguments& arguments, uint32_t slot)
        : data(arguments.partials + uint64_t(slot) * (T::QUERIES * (T::HEAD_DIM + 2))) {}

    // The unnormalised sums of a row.
    __device__ __forceinline__ float* channels(uint32_t row) const { return data + row * T::HEAD_DIM; }

    // (maximum in units of log2, sum) of a row.
    __device__ __forceinline__ float2* state(uint32_t row) const {
        return reinterpret_cast<float2*>(data + T::QUERIES * T::HEAD_DIM) + row;
    }
};

// Writes the rows of one tile from its slots. A thread takes 16 bytes of output at a time.
template <class T>
__device__ __forceinline__ void combine(const AttentionArguments& arguments, const SlotReduction& reduction) {
    using E = typename T::Element;
    const MutableRowView& output = arguments.output;
    const int64_t offset = reduction.batch * output.batch_stride + reduction.head * output.head_stride +
                           int64_t(reduction.query_start) * output.token_stride;
    unsigned char* first = static_cast<unsigned char*>(output.data) + offset * E::BYTES;
    constexpr uint32_t CHUNKS = T::HEAD_DIM / E::CHUNK;
    for (uint32_t copy = T::thread(); copy < reduction.query_len * CHUNKS; copy += T::THREADS) {
        const uint32_t row = copy / CHUNKS, chunk = copy % CHUNKS;
        if (chunk * E::CHUNK >= arguments.head_dim) continue;
        float maximum = -INFINITY;
        for (uint32_t i = 0; i < reduction.slots; ++i) {
            maximum = fmaxf(maximum, PartialSlot<T>(arguments, reduction.first_slot + i).state(row)->x);
        }
        float sum = 0.0f;
        float channels[E::CHUNK] = {};
        for (uint32_t i = 0; i < reduction.slots; ++i) {
            const PartialSlot<T> slot(arguments, reduction.first_slot + i);
            const float2 state = *slot.state(row);
            // A part without a visible key is left out, so that −∞ − −∞ never comes up.
            if (state.y == 0.0f) continue;
            const float weight = ptx::exp2_approx(state.x - maximum);
            sum = fmaf(weight, state.y, sum);
            const float4* part = reinterpret_cast<const float4*>(slot.channels(row) + chunk * E::CHUNK);
#pragma unroll
            for (int quad = 0; quad < E::CHUNK / 4; ++quad) {
                const float4 values = part[quad];
                channels[4 * quad] = fmaf(weight, values.x, channels[4 * quad]);
                channels[4 * quad + 1] = fmaf(weight, values.y, channels[4 * quad + 1]);
                channels[4 * quad + 2] = fmaf(weight, values.z, channels[4 * quad + 2]);
                channels[4 * quad + 3] = fmaf(weight, values.w, channels[4 * quad + 3]);
            }
        }
        if constexpr (T::GENERAL) {
            if (chunk == 0) {
                const uint64_t token = reduction.query_start + row;
                store_log_sum_exp(arguments, reduction.batch, reduction.head, token, maximum, sum);
            }
        }
        const float factor = sum == 0.0f ? 0.0f : 1.0f / sum;
#pragma unroll
        for (int i = 0; i < E::CHUNK; ++i) channels[i] *= factor;
        unsigned char* target = first + int64_t(row) * output.token_stride * E::BYTES + chunk * 16;
        *reinterpret_cast<uint4*>(target) = E::pack(channels);
    }
}

// Counts the part in `slot` in, and combines its tile if it was the last. All T::THREADS threads call it after they
// have written the slot; the first word of `shared_memory` is theirs to use.
template <class T>
__device__ __forceinline__ void combine_if_last(const AttentionArguments& arguments, uint32_t slot,
                                                unsigned char* shared_memory) {
    uint32_t* last = reinterpret_cast<uint32_t*>(shared_memory);
    const SlotReduction reduction = arguments.reduction_of_slot[slot];
    T::sync();   // the whole slot is written, before the count
    if (T::thread() == 0) {
        uint32_t* counter = arguments.arrivals + reduction.counter;
        const bool complete = ptx::atomic_add_acq_rel(counter, 1) + 1 == reduction.slots;
        // Nobody else comes in this launch: ready for the next.
        if (complete) *counter = 0;
        *last = complete;
    }
    T::sync();
    if (*last) combine<T>(arguments, reduction);
}
