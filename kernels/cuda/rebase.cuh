// The online softmax where a step may raise the maximum of a row.
#pragma once

#include <ptx.cuh>

// What a step's maximum means for the exponents of the step and for everything that was summed before.
struct Rebase {
    float base;         // a score s has the weight 2^(scale_log2 · s − base)
    float correction;   // factor of older sums: exactly 1 if the maximum has not changed

    // The difference comes before the product: fma(before, scale_log2, −base) would be the rounding error of `base`
    // for an unchanged maximum, and its power a factor that every step multiplies in again.
    __device__ __forceinline__ Rebase(float before, float maximum, float scale_log2) {
        // Scores that are all −∞ so far must not make −∞ − −∞.
        const float finite = maximum == -INFINITY ? 0.0f : maximum;
        base = finite * scale_log2;
        correction = ptx::exp2_approx((before - finite) * scale_log2);
    }
};
