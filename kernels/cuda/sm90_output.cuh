// What a consumer of the kernel for Hopper writes of an item.
#pragma once

#include <ptx.cuh>

#include "combine.cuh"
#include "log_sum_exp.cuh"
#include "sm90_block.cuh"
#include "sm90_softmax.cuh"

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
                                  rows.base[half], rows.sum[half]);
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
        if ((lane & 3) == 0) *slot.state(row) = make_float2(rows.base[half], rows.sum[half]);
    }
}
