// Scores of the kernel for every GPU: products of queries and keys, their biases, and what is hidden of them.
#pragma once

#include <ptx.cuh>

#include "key_bias.cuh"
#include "sm80_block.cuh"
#include "window.cuh"

// Where a lane begins to read what its warp multiplies, as shared addresses.
template <class T>
struct Sm80Operands {
    uint32_t queries;
    uint32_t keys;
    uint32_t values;

    __device__ __forceinline__ explicit Sm80Operands(const Sm80Shared<T>& shared) {
        const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32;
        const auto offset = [](uint32_t row, uint32_t chunk) {
            return Swizzle<T::CHUNKS>::offset(row, chunk, Swizzle<T::CHUNKS>::of_row(row));
        };
        queries = sm80_kept(ptx::shared_address(shared.queries()) + offset(warp * T::WARP_ROWS + (lane & 15), lane >> 4));
        keys = sm80_kept(ptx::shared_address(shared.keys()) + offset((lane & 7) + ((lane >> 4) << 3), lane >> 3 & 1));
        values = sm80_kept(T::Element::template first_value<T::CHUNKS>(ptx::shared_address(shared.values()), lane));
    }

    // Operand A of channel step `step` for row tile `i` of the warp.
    __device__ __forceinline__ typename T::Element::A query(int i, int step) const {
        uint32_t raw[4];
        ptx::ldmatrix_x4(raw, Swizzle<T::CHUNKS>::further(queries, 2 * step) + Swizzle<T::CHUNKS>::rows(i * 16));
        return T::Element::a(raw);
    }
};

// The queries of a warp as operands: all of them in registers, or read again where they are needed.
template <class T, bool RESIDENT>
struct Sm80Queries;

template <class T>
struct Sm80Queries<T, true> {
    typename T::Element::A operands[T::ROW_TILES][T::CHANNEL_STEPS];

    __device__ __forceinline__ void load(const Sm80Operands<T>& from) {
#pragma unroll
        for (int i = 0; i < T::ROW_TILES; ++i) {
#pragma unroll
            for (int step = 0; step < T::CHANNEL_STEPS; ++step) operands[i][step] = from.query(i, step);
        }
    }
    __device__ __forceinline__ typename T::Element::A operand(const Sm80Operands<T>&, int i, int step) const {
        return operands[i][step];
    }
};

template <class T>
struct Sm80Queries<T, false> {
    __device__ __forceinline__ void load(const Sm80Operands<T>&) {}
    __device__ __forceinline__ typename T::Element::A operand(const Sm80Operands<T>& from, int i, int step) const {
        return from.query(i, step);
    }
};

// S = Q Kᵀ
template <class T>
__device__ __forceinline__ void sm80_scores(float (&scores)[T::ROW_TILES][T::KEY_TILES][4],
                                            const Sm80Queries<T, T::RESIDENT_QUERIES>& queries,
                                            const Sm80Operands<T>& operands) {
    using E = typename T::Element;
#pragma unroll
    for (int i = 0; i < T::ROW_TILES; ++i) {
#pragma unroll
        for (int n = 0; n < T::KEY_TILES; ++n) {
#pragma unroll
            for (int e = 0; e < 4; ++e) scores[i][n][e] = 0.0f;
        }
    }
#pragma unroll T::SCORE_UNROLL
    for (int step = 0; step < T::CHANNEL_STEPS; ++step) {
        typename E::A a[T::ROW_TILES];
#pragma unroll
        for (int i = 0; i < T::ROW_TILES; ++i) a[i] = queries.operand(operands, i, step);
#pragma unroll
        for (int n = 0; n < T::KEY_TILES / 2; ++n) {
            uint32_t raw[4];
            ptx::ldmatrix_x4(raw, Swizzle<T::CHUNKS>::further(operands.keys, 2 * step) + Swizzle<T::CHUNKS>::rows(n * 16));
            const typename E::B left = E::b(raw[0], raw[1]), right = E::b(raw[2], raw[3]);
#pragma unroll
            for (int i = 0; i < T::ROW_TILES; ++i) {
                E::mma_rounded(scores[i][2 * n], a[i], left);
                E::mma_rounded(scores[i][2 * n + 1], a[i], right);
            }
        }
    }
}

// Adds the bias of each key that has a bit to its scores. They come right from memory: few, and the same for all warps.
template <class T>
__device__ __forceinline__ void sm80_add_bias(float (&scores)[T::ROW_TILES][T::KEY_TILES][4], const float* bias,
                                              const uint64_t (&visible)[2], float inverse_scale) {
    const uint32_t first = 2 * (threadIdx.x & 3);
#pragma unroll
    for (int n = 0; n < T::KEY_TILES; ++n) {
#pragma unroll
        for (int e = 0; e < 2; ++e) {
            if ((visible[n / 8] >> first >> (8 * n % 64 + e) & 1) == 0) continue;
            const float added = bias[first + 8 * n + e] * inverse_scale;
#pragma unroll
            for (int i = 0; i < T::ROW_TILES; ++i) {
                scores[i][n][e] += added;
                scores[i][n][e + 2] += added;
            }
        }
    }
}

// Scores of keys without a bit become −∞.
template <class T>
__device__ __forceinline__ void sm80_hide(float (&scores)[T::ROW_TILES][T::KEY_TILES][4], const uint64_t (&visible)[2]) {
    const uint32_t first = 2 * (threadIdx.x & 3);
#pragma unroll
    for (int n = 0; n < T::KEY_TILES; ++n) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
            const bool seen = (visible[n / 8] >> first >> (8 * n % 64 + (e & 1)) & 1) != 0;
#pragma unroll
            for (int i = 0; i < T::ROW_TILES; ++i) scores[i][n][e] = seen ? scores[i][n][e] : -INFINITY;
        }
    }
}

// Scores of keys that the window of a row leaves out become −∞. Row 0 of the window is the first of the warp.
template <class T>
__device__ __forceinline__ void sm80_hide_outside(float (&scores)[T::ROW_TILES][T::KEY_TILES][4],
                                                  const StepWindow& window) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int i = 0; i < T::ROW_TILES; ++i) {
#pragma unroll
        for (int n = 0; n < T::KEY_TILES; ++n) {
#pragma unroll
            for (int e = 0; e < 4; ++e) {
                const int row = i * 16 + e / 2 * 8 + lane / 4, key = n * 8 + 2 * (lane & 3) + e % 2;
                scores[i][n][e] = window.sees(row, key) ? scores[i][n][e] : -INFINITY;
            }
        }
    }
}
