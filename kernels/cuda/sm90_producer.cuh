// The producer of the kernel for Hopper: brings the keys and values of each step to shared memory.
#pragma once

#include <ptx.cuh>

#include "sm90_block.cuh"

// Starts the TMA load of a whole tile, which reports to `full`. One thread calls it.
template <class T>
__device__ __forceinline__ void sm90_load_tile(uint32_t tile, uint32_t full, const CUtensorMap* map,
                                               const RowView& view, const StepItem& item, uint64_t row) {
    const int32_t batch = view.batch_stride == 0 ? 0 : int32_t(item.batch);
    ptx::mbarrier_arrive_expect_tx(full, T::TILE_BYTES);
#pragma unroll
    for (int slab = 0; slab < T::SLABS; ++slab) {
        ptx::tma_load_4d(tile + slab * T::TILE_SLAB, map, full, slab * 64, int32_t(row), int32_t(item.kv_head), batch);
    }
}

// Copies the visible rows of a value tile and makes the others zero. All threads of the producer call it.
template <class T>
__device__ __forceinline__ void sm90_copy_visible(uint32_t tile, const RowView& view, const StepItem& item,
                                                  const KeyStep& step, uint32_t head_dim) {
    const uint64_t low = step.visible[0], high = step.visible[1];
    using E = typename T::Element;
    constexpr uint32_t CHUNKS = T::SLABS * T::SLAB_CHUNKS;
    // Keys that are copied at a time. A thread stays at its chunk and, modulo 8, at its row: the swizzle is the same.
    constexpr uint32_t KEYS = 128 / CHUNKS;
    static_assert(KEYS % 8 == 0, "rows of one swizzle");
    const uint32_t chunk = threadIdx.x % CHUNKS, first = threadIdx.x / CHUNKS;
    const int64_t offset = item.batch * view.batch_stride + item.kv_head * view.head_stride +
                           int64_t(step.value_row + first) * view.token_stride;
    const unsigned char* source = static_cast<const unsigned char*>(view.data) + offset * E::BYTES + chunk * 16;
    uint32_t target = tile + chunk / T::SLAB_CHUNKS * T::TILE_SLAB + slab_offset(first, chunk % T::SLAB_CHUNKS);
    const bool inside = chunk * E::CHUNK < head_dim;
#pragma unroll 1
    for (uint32_t key = first; key < T::KEYS; key += KEYS) {
        const uint64_t bits = key < 64 ? low : high;
        ptx::cp_async_16(target, source, inside && (bits >> (key & 63) & 1) != 0 ? 16 : 0);
        source += KEYS * view.token_stride * E::BYTES;
        target += KEYS * 128;
    }
    ptx::cp_async_commit();
    ptx::cp_async_wait<0>();
    ptx::fence_proxy_async();   // wgmma reads what ordinary copies have written
}

// Only thread 0 waits for stages: a thread that looked too late would take a phase for the one before. The others meet
// it where they have something to copy.
template <class T>
__device__ __forceinline__ void sm90_produce(const Sm90Arguments& arguments, const Sm90Shared<T>& shared) {
    using S = Sm90Shared<T>;
    const AttentionArguments& attention = arguments.attention;
    const bool leader = threadIdx.x == 0;
    RingPlace<T::STAGES> place;
    for (uint32_t index = blockIdx.x; index != LAST_ITEM;) {
        const StepItem item = attention.items[index];
        index = item.next;
        for (uint32_t i = item.first_step; i < item.last_step; ++i) {
            // By reference: a producer thread has few registers, and time.
            const KeyStep& step = attention.steps[i];
            const KeyValueViews& source = step.source != 0 ? attention.cache : attention.input;
            const CUtensorMap* maps = arguments.maps + 2 * step.source;
            const bool all_visible = (step.visible[0] & step.visible[1]) == ~uint64_t(0);
            const uint32_t values = shared.address + shared.values(place.stage);
            const uint32_t values_full = shared.barrier(S::VALUES_FULL, place.stage);
            if (leader) {
                ptx::mbarrier_wait(shared.barrier(S::KEYS_EMPTY, place.stage), place.parity ^ 1);
                shared.visible(place.stage)[0] = step.visible[0];
                shared.visible(place.stage)[1] = step.visible[1];
                sm90_load_tile<T>(shared.address + shared.keys(place.stage), shared.barrier(S::KEYS_FULL, place.stage),
                                  maps, source.keys, item, step.key_row);
                ptx::mbarrier_wait(shared.barrier(S::VALUES_EMPTY, place.stage), place.parity ^ 1);
                if (all_visible) sm90_load_tile<T>(values, values_full, maps + 1, source.values, item, step.value_row);
            }
            if (!all_visible) {
                __syncwarp();
                ptx::bar_sync(SM90_PRODUCER_BARRIER, 128);   // the stage is empty
                sm90_copy_visible<T>(values, source.values, item, step, attention.head_dim);
                ptx::bar_sync(SM90_PRODUCER_BARRIER, 128);   // everybody's rows have landed
                if (leader) ptx::mbarrier_arrive(values_full);
            }
            place.advance();
        }
    }
}
