// The logarithm of the sum of exp(scale · score) over the keys of a query: what it takes to join results over several
// parts of the keys.
#pragma once

#include "arguments.cuh"

// Writes that of one query, from the maximum of the scores in units of log2 and the sum of the weights relative to it;
// −∞ if no key was visible. Nothing where it is not wanted.
__device__ __forceinline__ void store_log_sum_exp(const AttentionArguments& arguments, uint32_t batch, uint32_t head,
                                                  uint64_t token, float maximum, float sum) {
    const LogSumExpView& view = arguments.log_sum_exp;
    if (view.data == nullptr) return;
    constexpr float LN_2 = 0.693147181f;
    float* target = view.data + batch * view.batch_stride + int64_t(token) * view.token_stride + head;
    *target = sum == 0.0f ? -INFINITY : fmaf(maximum, LN_2, logf(sum));
}
