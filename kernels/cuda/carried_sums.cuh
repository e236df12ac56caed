// Long sums in parts.
//
// A sum that grows by one step after the other loses up to half a unit of its last place with each. Tensor cores cut off
// where other arithmetic rounds, so that these errors have one sign and grow with the number of keys. Therefore every
// T::CARRY_STEPS steps the sums of a thread join the older ones, which wait in global memory, and begin anew:
//
//     carried = 2^(b' − b) carried + sums;   sums = 0        b the base of a row (rebase.cuh), b' that of what is carried
//
// Then a sum is one of short sums, and adding them rounds. What lies in memory is read by nobody but the thread that wrote
// it. Numbers of 16 bytes are T::THREADS apart, so that a warp reads and writes neighbours.
#pragma once

#include <ptx.cuh>

#include "arguments.cuh"

// The carried sums of the rows that a thread has accumulators of: of each pair of rows, 4 numbers of every tile of 8 channels.
template <class T>
struct CarriedSums {
    static constexpr int TILES = T::HEAD_DIM / 8;
    // 16 bytes each: the tiles of a pair of rows, and its bases and sums.
    static constexpr int PAIRS = T::QUERIES * 2 / T::THREADS;
    static constexpr int BLOCK = PAIRS * (TILES + 1) * T::THREADS;

    float4* first;

    // `block` is where those of the block begin, in units of 16 bytes.
    __device__ __forceinline__ CarriedSums(const AttentionArguments& arguments, uint64_t block)
        : first(reinterpret_cast<float4*>(arguments.carried) + block + T::thread()) {}

    static __device__ __forceinline__ uint64_t of_block() { return uint64_t(blockIdx.x) * BLOCK; }

    __device__ __forceinline__ float4& tile(int pair, int n) const { return first[(pair * (TILES + 1) + n) * T::THREADS]; }

    // Adds what is carried of a pair of rows to the sums of later steps. `output` gives element e of tile n: 0 and 1 of the
    // first row, 2 and 3 of the second.
    template <class Output>
    __device__ __forceinline__ void collect(int pair, const Output& output, const float (&base)[2], float (&sum)[2]) const {
        const float4 state = tile(pair, TILES);
        const float factor[2] = {ptx::exp2_approx(state.x - base[0]), ptx::exp2_approx(state.y - base[1])};
        sum[0] = fmaf(state.z, factor[0], sum[0]);
        sum[1] = fmaf(state.w, factor[1], sum[1]);
#pragma unroll
        for (int n = 0; n < TILES; ++n) {
            const float4 carried = tile(pair, n);
            output(n, 0) = fmaf(carried.x, factor[0], output(n, 0));
            output(n, 1) = fmaf(carried.y, factor[0], output(n, 1));
            output(n, 2) = fmaf(carried.z, factor[1], output(n, 2));
            output(n, 3) = fmaf(carried.w, factor[1], output(n, 3));
        }
    }

    // Carries the sums of a pair of rows, which begin anew.
    template <class Output>
    __device__ __forceinline__ void leave(int pair, const Output& output, const float (&base)[2], float (&sum)[2]) const {
        tile(pair, TILES) = make_float4(base[0], base[1], sum[0], sum[1]);
        sum[0] = sum[1] = 0.0f;
#pragma unroll
        for (int n = 0; n < TILES; ++n) {
            tile(pair, n) = make_float4(output(n, 0), output(n, 1), output(n, 2), output(n, 3));
#pragma unroll
            for (int e = 0; e < 4; ++e) output(n, e) = 0.0f;
        }
    }
};
