// What the kernel for every GPU writes of an item.
#pragma once

#include <ptx.cuh>

#include "combine.cuh"
#include "log_sum_exp.cuh"
#include "sm80_block.cuh"

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
