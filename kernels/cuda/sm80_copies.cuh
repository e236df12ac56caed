// Queries, keys and values of the kernel for every GPU on their way to shared memory.
#pragma once

#include <ptx.cuh>

#include "carried_sums.cuh"
#include "rotation.cuh"
#include "sm80_block.cuh"

// Describes steps `first` and following of the block's item, one per thread.
template <class T>
__device__ __forceinline__ void sm80_describe_steps(const AttentionArguments& arguments, const Sm80Shared<T>& shared,
                                                    uint32_t first) {
    // Read again instead of held in registers, of which the products need all.
    const StepItem& item = arguments.items[blockIdx.x];
    const uint32_t number = first + threadIdx.x;
    if (threadIdx.x >= T::DESCRIBED || number >= item.last_step - item.first_step) return;
    const KeyStep& step = arguments.steps[item.first_step + number];
    const KeyValueViews& views = step.source != 0 ? arguments.cache : arguments.input;
    const bool is_last = item.first_step + number + 1 == item.last_step;
    uint32_t flags = (number < item.whole_steps ? Sm80StepRows::WHOLE : 0) | (is_last ? Sm80StepRows::LAST : 0);
    if constexpr (T::CARRY_STEPS > 0) {
        if (!is_last && (number + 1) % T::CARRY_STEPS == 0) flags |= Sm80StepRows::CARRY;
    }
    const auto rows = [&](const RowView& view, uint64_t row) {
        const uint32_t row_fraction = uint32_t(view.token_stride * T::Element::BYTES / T::ROW_THREADS);
        return Sm80StepRows{sm80_row<T>(view, item.batch, item.kv_head, row), row_fraction, flags};
    };
    Sm80Step& target = *shared.step(number);
    target.keys = rows(views.keys, step.key_row);
    target.values = rows(views.values, step.value_row);
    target.visible[0] = step.visible[0];
    target.visible[1] = step.visible[1];
    if constexpr (T::CARRY_STEPS > 0) target.carried = CarriedSums<T>::of_block();
}

// A value that the compiler keeps instead of computing it anew from the number of the thread in each step.
__device__ __forceinline__ uint32_t sm80_kept(uint32_t value) { return __shfl_sync(0xffffffffu, value, threadIdx.x % 32); }

// How a block copies the rows of keys and values: neighbouring threads neighbouring chunks, so many that all rows have
// them at the same places of their lines: all that a thread copies is a constant away from where it begins.
template <class T>
struct Sm80Copies {
    static constexpr int ROWS = T::THREADS / T::ROW_THREADS;   // rows at a time
    static_assert(T::THREADS % T::ROW_THREADS == 0 && ROWS % 8 == 0 && T::KEYS % ROWS == 0, "all rows are alike");

    uint32_t first_thread;    // of those that copy the first row of this thread
    uint32_t channel_bytes;   // where its first chunk begins in a row
    uint32_t keys;            // where it goes, as a shared address
    uint32_t values;

    __device__ __forceinline__ explicit Sm80Copies(const Sm80Shared<T>& shared) {
        const uint32_t row = threadIdx.x / T::ROW_THREADS, chunk = threadIdx.x % T::ROW_THREADS;
        first_thread = sm80_kept(row * T::ROW_THREADS);
        channel_bytes = sm80_kept(chunk * 16);
        const uint32_t tile = ptx::shared_address(shared.keys());
        const auto offset = [&](uint32_t swizzle) { return Swizzle<T::CHUNKS>::offset(row, chunk, swizzle); };
        const uint32_t key_swizzle = Swizzle<T::CHUNKS>::of_row(row);
        const uint32_t value_swizzle = T::Element::template value_swizzle<T::CHUNKS>(row);
        keys = sm80_kept(tile + offset(key_swizzle));
        // Both types of two bytes have one swizzle for both.
        values = T::TILE_BYTES + (T::Element::BYTES == 2 ? keys : sm80_kept(tile + offset(value_swizzle)));
    }

    // Starts the copies of rows to `target`. Rows that are not visible and channels past the end of a row become zero
    // without being read.
    template <class Visible>
    __device__ __forceinline__ void start(uint32_t target, const Sm80StepRows rows, uint32_t head_bytes,
                                          Visible visible) const {
        const unsigned char* from = ptx::advance(rows.first, first_thread, rows.row_fraction) + channel_bytes;
#pragma unroll
        for (int i = 0; i < T::KEYS; i += ROWS) {
            // ROWS rows further: a product that is the same for all, and an addition.
            if (i > 0) from = ptx::advance(from, blockDim.x, rows.row_fraction);
#pragma unroll
            for (int chunk = 0; chunk < T::CHUNKS; chunk += T::ROW_THREADS) {
                const bool read = channel_bytes + chunk * 16 < head_bytes && visible(i);
                ptx::cp_async_16(target + Swizzle<T::CHUNKS>::rows(i) + chunk * 16, from + chunk * 16, read ? 16 : 0);
            }
        }
    }
};

// Loads the query tile, rotated if there is a rotation table. Rows past the item's end become zero.
template <class T>
__device__ __forceinline__ void sm80_load_queries(const AttentionArguments& arguments, const StepItem& item,
                                                  unsigned char* tile) {
    using E = typename T::Element;
    const RowView& queries = arguments.queries;
    const RotationTable& rotation = arguments.query_rotation;
    const unsigned char* first = sm80_row<T>(queries, item.batch, item.head, item.query_start);
    const int64_t row_bytes = queries.token_stride * E::BYTES;
    for (uint32_t copy = threadIdx.x; copy < T::QUERIES * T::CHUNKS; copy += T::THREADS) {
        const uint32_t row = copy / T::CHUNKS, chunk = copy % T::CHUNKS;
        const uint32_t target = Swizzle<T::CHUNKS>::offset(row, chunk, Swizzle<T::CHUNKS>::of_row(row));
        const bool read = row < item.query_len && chunk * E::CHUNK < arguments.head_dim;
        const unsigned char* source = first + row * row_bytes + chunk * 16;
        if (rotation.data == nullptr) {
            ptx::cp_async_16(ptx::shared_address(tile) + target, source, read ? 16 : 0);
        } else {
            uint4 channels = make_uint4(0, 0, 0, 0);
            if (read) {
                channels = *reinterpret_cast<const uint4*>(source);
                channels = rotate<E>(channels, rotation, item.batch, item.query_start + row, chunk);
            }
            *reinterpret_cast<uint4*>(tile + target) = channels;
        }
    }
}
