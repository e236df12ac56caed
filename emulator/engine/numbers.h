// Number formats and functions of GPUs that a host does not have. Conversions round to nearest even unless they say otherwise.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

#include "emulator.h"

namespace emulator {

inline EMULATOR_UNCHECKED float f16_to_float(uint16_t half) {
    const uint32_t sign = uint32_t(half & 0x8000) << 16;
    const uint32_t exponent = half >> 10 & 31;
    const uint32_t mantissa = half & 0x3ff;
    if (exponent == 31) return std::bit_cast<float>(sign | 0x7f800000 | mantissa << 13);
    if (exponent != 0) return std::bit_cast<float>(sign | (exponent + 112) << 23 | mantissa << 13);
    const float subnormal = float(mantissa) * 0x1p-24f;
    return sign ? -subnormal : subnormal;
}

inline EMULATOR_UNCHECKED uint16_t float_to_f16(float value) {
    const uint32_t bits = std::bit_cast<uint32_t>(value);
    const uint16_t sign = bits >> 16 & 0x8000;
    const uint32_t magnitude = bits & 0x7fffffff;
    if (magnitude > 0x7f800000) return 0x7fff;
    if (magnitude >= 0x477ff000) return sign | 0x7c00;
    if (magnitude < 0x38800000) {
        // Adding 0.5 lets the float addition round to a multiple of 2^-24.
        const float shifted = std::bit_cast<float>(magnitude) + 0.5f;
        return sign | uint16_t(std::bit_cast<uint32_t>(shifted) - 0x3f000000);
    }
    const uint32_t rounded = magnitude + 0xfff + (magnitude >> 13 & 1);
    return sign | uint16_t((rounded - 0x38000000) >> 13);
}

inline EMULATOR_UNCHECKED float bf16_to_float(uint16_t bits) { return std::bit_cast<float>(uint32_t(bits) << 16); }

inline EMULATOR_UNCHECKED uint16_t float_to_bf16(float value) {
    const uint32_t bits = std::bit_cast<uint32_t>(value);
    if ((bits & 0x7fffffff) > 0x7f800000) return 0x7fff;
    return uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

// Rounds to TF32, ties away from zero.
inline EMULATOR_UNCHECKED uint32_t float_to_tf32(float value) {
    const uint32_t bits = std::bit_cast<uint32_t>(value);
    if ((bits & 0x7fffffff) >= 0x7f800000) return bits & 0xffffe000;
    return (bits + 0x1000) & 0xffffe000;
}

// 2^x; results below the smallest normal number are zero.
inline EMULATOR_UNCHECKED float exp2_flushed(float x) {
    const float y = exp2f(x);
    return y < 0x1p-126f ? 0.0f : y;
}

// The larger of two numbers; NaN if any of them is.
inline EMULATOR_UNCHECKED float max_or_nan(float x, float y) { return x != x || x > y ? x : y; }

}  // namespace emulator
