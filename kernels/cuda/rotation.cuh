// Rotary position embedding of 16 bytes of neighbouring channels, in f32:
//
//     (x₀, x₁) → (x₀ cos θ − x₁ sin θ,  x₀ sin θ + x₁ cos θ)
#pragma once

#include "arguments.cuh"
#include "elements.cuh"

// Rotates chunk `chunk` of the row of `token` in batch row `batch`.
template <class Element>
__device__ __forceinline__ uint4 rotate(const uint4& raw, const RotationTable& rotation, uint32_t batch, uint64_t token,
                                        uint32_t chunk) {
    const float* row = rotation.data + batch * rotation.batch_stride + int64_t(token) * rotation.token_stride;
    const float2* angles = reinterpret_cast<const float2*>(row + chunk * Element::CHUNK);
    float x[Element::CHUNK];
    Element::unpack(x, raw);
#pragma unroll
    for (int pair = 0; pair < Element::CHUNK / 2; ++pair) {
        const float2 angle = angles[pair];
        const float x0 = x[2 * pair], x1 = x[2 * pair + 1];
        x[2 * pair] = x0 * angle.x - x1 * angle.y;
        x[2 * pair + 1] = x0 * angle.y + x1 * angle.x;
    }
    return Element::pack(x);
}
