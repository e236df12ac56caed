// Scores to probabilities, and these times the values, in the kernel for every GPU.
#pragma once

#include <ptx.cuh>

#include "carried_sums.cuh"
#include "rebase.cuh"
#include "sm80_block.cuh"

// Probabilities as operands A of the product with the values.
template <class T>
struct Sm80Probabilities {
    typename T::Element::A operands[T::KEY_STEPS][T::ROW_TILES];
};

// The online softmax: turns scores into probabilities relative to the new maximum, which as operands take fewer registers;
// leaves the factor for older output.
template <class T>
__device__ __forceinline__ void sm80_softmax(Sm80Probabilities<T>& probabilities,
                                             float (&scores)[T::ROW_TILES][T::KEY_TILES][4], Sm80Accumulators<T>& sums,
                                             float scale_log2) {
#pragma unroll
    for (int i = 0; i < T::ROW_TILES; ++i) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            float maximum = fmaxf(scores[i][0][2 * half], scores[i][0][2 * half + 1]);
#pragma unroll
            for (int n = 1; n < T::KEY_TILES; ++n) {
                maximum = fmaxf(maximum, fmaxf(scores[i][n][2 * half], scores[i][n][2 * half + 1]));
            }
            maximum = fmaxf(maximum, __shfl_xor_sync(0xffffffffu, maximum, 1));
            maximum = fmaxf(maximum, __shfl_xor_sync(0xffffffffu, maximum, 2));
            const Rebase rebase(sums.base.of[i][half], maximum, scale_log2);
            sums.base.of[i][half] = rebase.base;
            float sum;
#pragma unroll
            for (int n = 0; n < T::KEY_TILES; ++n) {
#pragma unroll
                for (int e = 2 * half; e < 2 * half + 2; ++e) {
                    scores[i][n][e] = ptx::exp2_approx(fmaf(scores[i][n][e], scale_log2, -rebase.base));
                    sum = n == 0 && e == 2 * half ? scores[i][n][e] : sum + scores[i][n][e];
                }
            }
            sums.sum.of[i][half] = fmaf(sums.sum.of[i][half], rebase.correction, sum);
            sums.correction.of[i][half] = rebase.correction;
        }
#pragma unroll
        for (int k = 0; k < T::KEY_STEPS; ++k) {
            probabilities.operands[k][i] = T::Element::template probabilities<T::KEY_TILES>(scores[i], k);
        }
    }
}

// O = correction · O + P V. Tensor cores cut sums off where other arithmetic rounds, so that errors of a long sum add up
// instead of cancelling: the products of SUMMED_STEPS are summed on their own and added outside, the first in the same
// instruction that rescales. `between` is done after half of the channels: a branch there keeps the assembler from beginning
// all products at once, for which there are not enough registers.
template <class T, class Between>
__device__ __forceinline__ void sm80_accumulate(Sm80Accumulators<T>& sums, const Sm80Probabilities<T>& probabilities,
                                                uint32_t values, Between between) {
    using E = typename T::Element;
    constexpr int WIDTH = E::VALUE_TILES;
#pragma unroll
    for (int first = 0; first < T::CHANNEL_TILES; first += WIDTH) {
        if (first == T::CHANNEL_TILES / 2) between();
        float products[T::ROW_TILES][WIDTH][4] = {};
#pragma unroll
        for (int step = 0; step < T::KEY_STEPS; ++step) {
            typename E::B b[WIDTH];
            E::template values<T::CHUNKS>(b, values, step, first);
#pragma unroll
            for (int i = 0; i < T::ROW_TILES; ++i) {
#pragma unroll
                for (int n = 0; n < WIDTH; ++n) {
                    E::mma(products[i][n], probabilities.operands[step][i], b[n]);
                    if ((step + 1) % T::SUMMED_STEPS != 0) continue;
#pragma unroll
                    for (int e = 0; e < 4; ++e) {
                        float& output = sums.output[i][first + n][e];
                        const bool is_rescaled = step >= T::SUMMED_STEPS;
                        output = is_rescaled ? output + products[i][n][e]
                                             : fmaf(output, sums.correction.of[i][e / 2], products[i][n][e]);
                        products[i][n][e] = 0.0f;
                    }
                }
            }
        }
    }
}

// Adds what is carried to the sums.
template <class T>
__device__ __forceinline__ void sm80_collect(const CarriedSums<T>& carried, Sm80Accumulators<T>& sums) {
#pragma unroll
    for (int i = 0; i < T::ROW_TILES; ++i) {
        const auto output = [&](int n, int e) -> float& { return sums.output[i][n][e]; };
        carried.collect(i, output, sums.base.of[i], sums.sum.of[i]);
    }
}

// Carries the sums, which begin anew.
template <class T>
__device__ __forceinline__ void sm80_leave(const CarriedSums<T>& carried, Sm80Accumulators<T>& sums) {
#pragma unroll
    for (int i = 0; i < T::ROW_TILES; ++i) {
        const auto output = [&](int n, int e) -> float& { return sums.output[i][n][e]; };
        carried.leave(i, output, sums.base.of[i], sums.sum.of[i]);
    }
}
