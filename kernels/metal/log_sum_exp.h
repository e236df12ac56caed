// The logarithm of the sum of exp(scale · score) over the keys of a query: what it takes to join results over several
// parts of the keys.
#pragma once

#include <metal_stdlib>

// From the maximum of the scores in units of log2 and the sum of the weights relative to it; −∞ if no key was visible.
inline float log_sum_exp(float maximum, float sum) {
    return sum == 0.0f ? -INFINITY : fma(maximum, 0.693147181f, log(sum));
}
