// RoPE of the keys, once per launch of `mixed_attention`.
//
// What it computes. rotated[b, h, row(token)] = R(θ[b, token]) · K[b, h, token], neighbouring channels turned in f32
// (rotation.h), for the tokens that are keys of any query.
//
// Why a pass of its own. Queries are used by one threadgroup each and are rotated while it loads them. A key tile is
// used by every query tile, so rotating it in the loads would repeat the work as often. Only keys are copied here: the
// anchors, not the far more numerous queries.
//
// Shapes. K: [batch, heads, tokens, head_dim] as projected; rotated: [batch, heads, rows, head_dim], the union of all
// input key ranges, in token order.
//
// Threads. A threadgroup of 32 × 8 threads takes 8 rows of one batch row; a simdgroup walks along all heads of a row, a
// pair of channels per lane, so that it reads and writes side by side.
//
// Bound: memory. Reads and writes each key once.
#include "arguments.h"
#include "elements.h"
#include "rotation.h"

typedef TILE_ELEMENT Element;

// The span that holds `row`.
inline uint span_of(const device KeySpan* spans, uint count, ulong row) {
    uint first = 0, last = count - 1;
    while (first < last) {
        const uint middle = (first + last + 1) / 2;
        if (spans[middle].first_row <= row) {
            first = middle;
        } else {
            last = middle - 1;
        }
    }
    return first;
}

kernel void rotate_keys(const device Element::Stored* keys [[buffer(0)]],
                        device Element::Stored* rotated [[buffer(1)]],
                        const device float* angles [[buffer(2)]],
                        const device KeySpan* spans [[buffer(3)]],
                        constant RotationArguments& arguments [[buffer(4)]],
                        uint2 group [[threadgroup_position_in_grid]],
                        uint2 size [[threads_per_threadgroup]],
                        uint2 thread_index [[thread_position_in_threadgroup]]) {
    const ulong row = ulong(group.x) * size.y + thread_index.y;
    if (row >= arguments.rows) return;
    const uint batch = group.y;
    const device KeySpan& span = spans[span_of(spans, arguments.span_count, row)];
    const ulong token = span.first_token + (row - span.first_row);
    const device float2* angles_of_token =
        reinterpret_cast<const device float2*>(angles + angle_offset(arguments.angles, batch, token));

    const uint pairs_per_head = arguments.head_dim / 2;
    for (uint i = thread_index.x; i < pairs_per_head * arguments.heads; i += size.x) {
        const uint head = i / pairs_per_head, pair = i % pairs_per_head;
        const device Element::Stored* source = keys + row_offset(arguments.keys, batch, head, token) + 2 * pair;
        device Element::Stored* target = rotated + row_offset(arguments.rotated, batch, head, row) + 2 * pair;
        Element::write(target, rotate(Element::read(source), angles_of_token[pair]));
    }
}
