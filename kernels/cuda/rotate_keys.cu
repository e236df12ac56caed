// RoPE of the keys, once per launch of an attention kernel.
//
// What it computes. rotated[b, h, row(token)] = R(θ[b, token]) · K[b, h, token], neighbouring channels turned in f32
// (rotation.cuh), for the tokens that are keys of any query.
//
// Why a pass of its own. Queries are used by one block each and are rotated while it loads them, without a copy. A key
// tile is used by every query tile, so rotating it in the loads would repeat the work hundreds of times and keep the
// bulk copies from being used. Only keys are copied here: the anchors, not the far more numerous queries.
//
// Shapes. K: [batch, heads, tokens, head_dim] as projected; rotated: [batch, heads, rows, head_dim], the union of all
// input key ranges, in token order.
//
// A thread moves 16 bytes; neighbouring threads take neighbouring chunks of a row, then heads of a token, so that a
// warp reads what the projection wrote side by side and the angles of a token stay in L1.
//
// Bound: memory. Reads and writes each key once.
#include "elements.cuh"
#include "rotation.cuh"

// The span that holds `row`.
__device__ __forceinline__ KeySpan span_of(const RotationArguments& arguments, uint64_t row) {
    uint32_t first = 0, last = arguments.span_count - 1;
    while (first < last) {
        const uint32_t middle = (first + last + 1) / 2;
        if (arguments.spans[middle].first_row <= row) {
            first = middle;
        } else {
            last = middle - 1;
        }
    }
    return arguments.spans[first];
}

extern "C" __global__ void __launch_bounds__(ROTATE_THREADS)
    KERNEL_NAME(const __grid_constant__ RotationArguments arguments) {
    using E = TILE_ELEMENT;
    const uint32_t chunks_per_head = arguments.head_dim / E::CHUNK;
    const uint32_t chunks_per_row = chunks_per_head * arguments.heads;
    const uint64_t chunks = arguments.batch * arguments.rows * chunks_per_row;
    const uint64_t threads = uint64_t(gridDim.x) * blockDim.x;
    for (uint64_t i = uint64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < chunks; i += threads) {
        const uint64_t batch_row = i / chunks_per_row;
        const uint32_t in_row = uint32_t(i % chunks_per_row);
        const uint32_t batch = uint32_t(batch_row / arguments.rows), head = in_row / chunks_per_head;
        const uint32_t chunk = in_row % chunks_per_head;
        const uint64_t row = batch_row % arguments.rows;
        const KeySpan span = span_of(arguments, row);
        const uint64_t token = span.first_token + (row - span.first_row);

        const RowView& keys = arguments.keys;
        const MutableRowView& rotated = arguments.rotated;
        const int64_t source_row =
            batch * keys.batch_stride + head * keys.head_stride + int64_t(token) * keys.token_stride;
        const int64_t target_row =
            batch * rotated.batch_stride + head * rotated.head_stride + int64_t(row) * rotated.token_stride;
        const unsigned char* source = static_cast<const unsigned char*>(keys.data) + source_row * E::BYTES + chunk * 16;
        unsigned char* target = static_cast<unsigned char*>(rotated.data) + target_row * E::BYTES + chunk * 16;
        *reinterpret_cast<uint4*>(target) =
            rotate<E>(*reinterpret_cast<const uint4*>(source), arguments.rotation, batch, token, chunk);
    }
}
