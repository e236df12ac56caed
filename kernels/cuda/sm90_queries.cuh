// The queries of the kernel for Hopper.
#pragma once

#include <ptx.cuh>

#include "rotation.cuh"
#include "sm90_block.cuh"

// The queries of a consumer on their way from global to shared memory, 16 rows by each warp: all loads are under way before
// the first is awaited.
template <class T>
struct Sm90Queries {
    static constexpr uint32_t CHUNKS = T::SLABS * T::SLAB_CHUNKS;
    uint4 channels[16 * CHUNKS / 32];

    // Row in the warpgroup, and chunk, of a lane's copy.
    static __device__ __forceinline__ uint32_t row(uint32_t copy) {
        return threadIdx.x % 128 / 32 * 16 + (copy * 32 + threadIdx.x % 32) / CHUNKS;
    }
    static __device__ __forceinline__ uint32_t chunk(uint32_t copy) { return (copy * 32 + threadIdx.x % 32) % CHUNKS; }

    // Starts the loads. Rows past the item's end and channels past head_dim become zero.
    __device__ __forceinline__ void load(const AttentionArguments& attention, const StepItem& item, uint32_t consumer) {
        using E = typename T::Element;
        const RowView& view = attention.queries;
        const int64_t offset = item.batch * view.batch_stride + item.head * view.head_stride +
                               int64_t(item.query_start + consumer * 64) * view.token_stride;
        const unsigned char* first = static_cast<const unsigned char*>(view.data) + offset * E::BYTES;
#pragma unroll
        for (uint32_t copy = 0; copy < 16 * CHUNKS / 32; ++copy) {
            channels[copy] = make_uint4(0, 0, 0, 0);
            if (consumer * 64 + row(copy) < item.query_len && chunk(copy) * E::CHUNK < attention.head_dim) {
                channels[copy] = *reinterpret_cast<const uint4*>(first + int64_t(row(copy)) * view.token_stride * E::BYTES +
                                                                 chunk(copy) * 16);
            }
        }
    }

    // Writes them to their tile, rotated if there is a rotation table.
    __device__ __forceinline__ void store(const AttentionArguments& attention, const StepItem& item, unsigned char* tile,
                                          uint32_t consumer) {
        using E = typename T::Element;
#pragma unroll
        for (uint32_t copy = 0; copy < 16 * CHUNKS / 32; ++copy) {
            const uint32_t in_item = consumer * 64 + row(copy);
            if (attention.query_rotation.data != nullptr && in_item < item.query_len &&
                chunk(copy) * E::CHUNK < attention.head_dim) {
                const uint64_t token = item.query_start + in_item;
                channels[copy] = rotate<E>(channels[copy], attention.query_rotation, item.batch, token, chunk(copy));
            }
            *reinterpret_cast<uint4*>(tile + chunk(copy) / T::SLAB_CHUNKS * T::QUERY_SLAB +
                                      slab_offset(row(copy), chunk(copy) % T::SLAB_CHUNKS)) = channels[copy];
        }
    }
};
