// What differs between f16, bf16 and f32: how elements are stored, and what they are multiplied as. The kernels are
// written in terms of these policies.
//
// An 8×8 matrix is spread over the 32 lanes of a simdgroup, two neighbouring elements of a row in each lane, in the
// same way for every type. So the sums of one product become the left operand of the next without moving, and a lane's
// two channels are a pair that RoPE turns.
#pragma once

#include <metal_simdgroup_matrix>
#include <metal_stdlib>

using namespace metal;

// Arrays of matrices stay in registers only if every index is a constant.
#define UNROLL _Pragma("clang loop unroll(full)")

// Where the first of a lane's two elements stands.
inline uint matrix_row(uint lane) { return (lane / 4 & 4) + lane / 2 % 4; }
inline uint matrix_column(uint lane) { return (lane / 4 & 2) * 2 + lane % 2 * 2; }

// A lane's two elements.
inline float2 elements(thread simdgroup_matrix<float, 8, 8>& matrix) {
    return float2(matrix.thread_elements()[0], matrix.thread_elements()[1]);
}
template <class T>
inline void set_elements(thread simdgroup_matrix<T, 8, 8>& matrix, float2 pair) {
    matrix.thread_elements()[0] = T(pair.x);
    matrix.thread_elements()[1] = T(pair.y);
}

// Reductions over the four lanes that hold a row.
inline float row_max(float x) {
    x = max(x, simd_shuffle_xor(x, 1));
    return max(x, simd_shuffle_xor(x, 8));
}
inline float row_sum(float x) {
    x += simd_shuffle_xor(x, 1);
    return x + simd_shuffle_xor(x, 8);
}

// f16.
struct F16 {
    typedef half Stored;
    typedef half Operand;

    static float2 read(const device half* source) { return float2(*reinterpret_cast<const device half2*>(source)); }
    static void write(device half* target, float2 x) { *reinterpret_cast<device half2*>(target) = half2(x); }

    // The matrix whose first element is at `tile` among rows of `row` elements, or its transpose.
    static void load(thread simdgroup_matrix<half, 8, 8>& matrix, const threadgroup half* tile, uint row,
                     bool transposed, uint) {
        simdgroup_load(matrix, tile, row, ulong2(0, 0), transposed);
    }
};

// f32.
struct F32 {
    typedef float Stored;
    typedef float Operand;

    static float2 read(const device float* source) { return *reinterpret_cast<const device float2*>(source); }
    static void write(device float* target, float2 x) { *reinterpret_cast<device float2*>(target) = x; }

    static void load(thread simdgroup_matrix<float, 8, 8>& matrix, const threadgroup float* tile, uint row,
                     bool transposed, uint) {
        simdgroup_load(matrix, tile, row, ulong2(0, 0), transposed);
    }
};

#if defined(__HAVE_BFLOAT__)
// bf16 where the GPU multiplies it.
struct Bf16 {
    typedef bfloat Stored;
    typedef bfloat Operand;

    static float2 read(const device bfloat* source) { return float2(*reinterpret_cast<const device bfloat2*>(source)); }
    static void write(device bfloat* target, float2 x) { *reinterpret_cast<device bfloat2*>(target) = bfloat2(x); }

    static void load(thread simdgroup_matrix<bfloat, 8, 8>& matrix, const threadgroup bfloat* tile, uint row,
                     bool transposed, uint) {
        simdgroup_load(matrix, tile, row, ulong2(0, 0), transposed);
    }
};
#endif

// bf16 that is multiplied as f32: GPUs without bf16 arithmetic, and compilers that do not know the type. Tiles stay
// 2-byte; elements are widened on their way into registers.
struct WideBf16 {
    typedef ushort Stored;
    typedef float Operand;

    static float widen(ushort bits) { return as_type<float>(uint(bits) << 16); }

    // Rounds to the nearest, ties to even; a NaN stays one.
    static ushort narrow(float x) {
        const uint bits = as_type<uint>(x);
        const bool is_nan = (bits & 0x7fffffffu) > 0x7f800000u;
        return is_nan ? ushort(bits >> 16 | 0x40u) : ushort((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
    }

    static float2 read(const device ushort* source) {
        const ushort2 bits = *reinterpret_cast<const device ushort2*>(source);
        return float2(widen(bits.x), widen(bits.y));
    }
    static void write(device ushort* target, float2 x) {
        *reinterpret_cast<device ushort2*>(target) = ushort2(narrow(x.x), narrow(x.y));
    }

    static void load(thread simdgroup_matrix<float, 8, 8>& matrix, const threadgroup ushort* tile, uint row,
                     bool transposed, uint lane) {
        const uint first = matrix_row(lane), second = matrix_column(lane);
        const uint start = transposed ? second * row + first : first * row + second;
        set_elements(matrix, float2(widen(tile[start]), widen(tile[start + (transposed ? row : 1)])));
    }
};
