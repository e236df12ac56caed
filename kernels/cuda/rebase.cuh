// The online softmax where a step may raise the maximum of a row.
#pragma once

#include <ptx.cuh>

// The maximum of a row before it has a score, and while all of them are −∞: finite, so that −∞ − −∞ never comes up.
constexpr float NO_SCORE = -3.402823466e+38f;

// What a step's maximum means for the exponents of the step and for everything that was summed before.
struct Rebase {
    float base;         // a score s has the weight 2^(scale_log2 · s − base)
    float correction;   // factor of older sums: exactly 1 if the maximum has not changed

    // The difference comes before the product: fma(before, scale_log2, −base) would be the rounding error of `base`
    // for an unchanged maximum, and its power a factor that every step multiplies in again.
    __device__ __forceinline__ Rebase(float before, float maximum, float scale_log2) {
        base = ptx::max_or_nan(maximum * scale_log2, NO_SCORE);
        correction = ptx::exp2_approx((before - maximum) * scale_log2);
    }
};
