// The online softmax of a consumer of the kernel for Hopper, in the accumulators of its scores.
#pragma once

#include <ptx.cuh>

#include "carried_sums.cuh"
#include "exp2.cuh"
#include "rebase.cuh"
#include "sm90_block.cuh"
#include "window.cuh"

// What a consumer thread holds: of the 64 rows of its warpgroup, row 16 w + lane / 4 + 8 half for half = 0 and 1.
template <class T>
struct Sm90Rows {
    float output[T::HEAD_DIM / 2];
    float base[2];         // rebase.cuh; the same in the four lanes of a row
    float sum[2];          // this lane's columns only
    float correction[2];   // what the last step multiplies older sums with
};

// Row in the warpgroup that this thread holds accumulators of.
__device__ __forceinline__ uint32_t sm90_row(int half) {
    return threadIdx.x % 128 / 32 * 16 + threadIdx.x % 32 / 4 + half * 8;
}

// Adds the bias of each key that has a bit to its scores.
template <class T>
__device__ __forceinline__ void sm90_add_bias(float (&scores)[T::KEYS / 2], const float* bias, uint64_t low,
                                              uint64_t high, float inverse_scale) {
    const uint32_t first = 2 * (threadIdx.x & 3);
#pragma unroll
    for (int n = 0; n < T::KEYS / 8; ++n) {
#pragma unroll
        for (int e = 0; e < 2; ++e) {
            const int column = 8 * n + e;
            const uint64_t mine = (column < 64 ? low : high) >> first;
            if ((mine >> (column % 64) & 1) == 0) continue;
            const float added = bias[first + column] * inverse_scale;
            scores[4 * n + e] += added;
            scores[4 * n + e + 2] += added;
        }
    }
}

// Scores of keys without a bit become −∞.
template <int N>
__device__ __forceinline__ void sm90_hide(float (&scores)[N], uint64_t low, uint64_t high) {
    const uint32_t shift = 2 * (threadIdx.x & 3);
#pragma unroll
    for (int i = 0; i < N; ++i) {
        const int column = i / 4 * 8 + i % 2;
        const uint64_t mine = (column < 64 ? low : high) >> shift;
        if ((mine >> (column % 64) & 1) == 0) scores[i] = -INFINITY;
    }
}

// Scores of keys that the window of a row leaves out become −∞. Row 0 of the window is the first of the warpgroup.
template <class T>
__device__ __forceinline__ void sm90_hide_outside(float (&scores)[T::KEYS / 2], const StepWindow& window) {
    const int first_key = 2 * (threadIdx.x & 3);
#pragma unroll
    for (int i = 0; i < T::KEYS / 2; ++i) {
        const int key = first_key + i / 4 * 8 + i % 2;
        if (!window.sees(int(sm90_row(i / 2 % 2)), key)) scores[i] = -INFINITY;
    }
}

// Turns scores into probabilities relative to the new maximum; leaves the factor for what was summed before. A NaN
// among the scores becomes the maximum and so reaches the sum, whatever the polynomial makes of it.
template <class T, int N>
__device__ __forceinline__ void sm90_softmax(float (&scores)[N], Sm90Rows<T>& rows, float scale_log2) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        float maximum = ptx::max_or_nan(scores[2 * half], scores[2 * half + 1]);
#pragma unroll
        for (int i = 2 * half + 4; i < N; i += 4) {
            maximum = ptx::max_or_nan(maximum, ptx::max_or_nan(scores[i], scores[i + 1]));
        }
        maximum = ptx::max_or_nan(maximum, __shfl_xor_sync(0xffffffffu, maximum, 1));
        maximum = ptx::max_or_nan(maximum, __shfl_xor_sync(0xffffffffu, maximum, 2));
        const Rebase rebase(rows.base[half], maximum, scale_log2);
        rows.base[half] = rebase.base;
        rows.correction[half] = rebase.correction;
        float sum;
#pragma unroll
        for (int i = 2 * half; i < N; i += 4) {
#pragma unroll
            for (int e = i; e < i + 2; ++e) {
                const float x = fmaf(scores[e], scale_log2, -rebase.base);
                // Elements of a row come in pairs, every fourth index: this counts them.
                scores[e] = (e / 4 * 2 + e % 2) % 8 < T::POLYNOMIAL ? exp2_polynomial(x) : ptx::exp2_approx(x);
                sum = e == 2 * half ? scores[e] : sum + scores[e];
            }
        }
        rows.sum[half] = fmaf(rows.sum[half], rows.correction[half], sum);
    }
}

// Adds what is carried to the sums.
template <class T>
__device__ __forceinline__ void sm90_collect(const AttentionArguments& attention, Sm90Rows<T>& rows) {
    const auto output = [&](int n, int e) -> float& { return rows.output[4 * n + e]; };
    using Carried = CarriedSums<T>;
    Carried(attention, Carried::of_block()).collect(0, output, rows.base, rows.sum);
}

// Turns what was summed before to the new maximum. Most steps find no new one in any row of the warp. Where `done` steps have
// been summed and it is time, the sums are carried, and begin anew.
template <class T>
__device__ __forceinline__ void sm90_rescale(const AttentionArguments& attention, Sm90Rows<T>& rows, uint32_t done) {
    const bool is_time = done % T::CARRY_STEPS == 0;
    if (__any_sync(0xffffffffu, is_time || rows.correction[0] != 1.0f || rows.correction[1] != 1.0f)) {
#pragma unroll
        for (int i = 0; i < T::HEAD_DIM / 2; ++i) rows.output[i] *= rows.correction[i / 2 % 2];
        if (is_time) {
            if (done > T::CARRY_STEPS) sm90_collect<T>(attention, rows);
            const auto output = [&](int n, int e) -> float& { return rows.output[4 * n + e]; };
            using Carried = CarriedSums<T>;
            Carried(attention, Carried::of_block()).leave(0, output, rows.base, rows.sum);
        }
    }
}

// Accumulators of S as A operands.
template <class T, int STEPS>
__device__ __forceinline__ void sm90_pack(uint32_t (&probabilities)[STEPS][4], const float (&scores)[8 * STEPS]) {
#pragma unroll
    for (int step = 0; step < STEPS; ++step) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            probabilities[step][i] = T::Element::pack_pair(scores[8 * step + 2 * i], scores[8 * step + 2 * i + 1]);
        }
    }
}
