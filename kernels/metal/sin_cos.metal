// Sines or cosines of angles of any size, at f32 accuracy.
//
// The angles of an embedding are positions times wave numbers and reach thousands. candle compiles its kernels with fast
// math, whose sine is good to 2⁻¹³ between −π and π and worse beyond; `precise` reduces the angle first.
//
// Bound: memory.
#include <metal_stdlib>

using namespace metal;

constant bool is_cosine [[function_constant(0)]];

kernel void sin_cos(const device float* angles [[buffer(0)]],
                  device float* values [[buffer(1)]],
                  constant ulong& count [[buffer(2)]],
                  uint group [[threadgroup_position_in_grid]],
                  uint threads [[threads_per_threadgroup]],
                  uint thread_index [[thread_index_in_threadgroup]]) {
    const ulong i = ulong(group) * threads + thread_index;
    if (i >= count) return;
    values[i] = is_cosine ? precise::cos(angles[i]) : precise::sin(angles[i]);
}
