// The online softmax where a step may raise the maximum of a row.
#pragma once

#include <ptx.cuh>

// The base of a row before it has a score, and while all of them are −∞: finite, so that −∞ − −∞ never comes up.
constexpr float NO_SCORE = -3.402823466e+38f;

// What a step's maximum means for the exponents of the step and for everything that was summed before. The base of a row is
// its maximum in units of log2: a score s has the weight 2^(scale_log2 · s − base).
struct Rebase {
    float base;
    float correction;   // factor of older sums: exactly 1 if the base has not changed

    // `before` is the base of older sums, which they were weighted with as it is, rounded: of two bases the difference says
    // what they must be multiplied with, whatever the products were rounded to. `maximum` is that of the step's scores.
    __device__ __forceinline__ Rebase(float before, float maximum, float scale_log2) {
        base = ptx::max_or_nan(maximum * scale_log2, before);
        correction = ptx::exp2_approx(before - base);
    }
};
