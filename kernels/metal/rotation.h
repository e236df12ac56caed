// Rotary position embedding of a pair of neighbouring channels, in f32:
//
//     (x₀, x₁) → (x₀ cos θ − x₁ sin θ,  x₀ sin θ + x₁ cos θ)
#pragma once

#include <metal_stdlib>

// `angle` is (cos θ, sin θ).
inline float2 rotate(float2 x, float2 angle) {
    return float2(x.x * angle.x - x.y * angle.y, x.x * angle.y + x.y * angle.x);
}
