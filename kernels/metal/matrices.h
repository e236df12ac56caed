// 8×8 matrices as what each lane of a simdgroup holds of them: a pair of neighbours in a row.
//
// Kernels keep pairs and make matrices where they multiply them, nowhere else. A `simdgroup_matrix` that lives in a
// struct or an array may be spilled to memory as a whole, and its constructors need not accept every address space.
//
// Relied on: that `thread_elements()` are two neighbouring elements of a row, and which ones (`Lane`). Apple does not
// write it down; it is the same on every GPU since Apple7 and for every type, and MLX and metal-flash-attention rely on
// it, too. So the sums of one product become the left operand of the next without moving.
#pragma once

#include <metal_simdgroup_matrix>
#include <metal_stdlib>

using namespace metal;

// Arrays stay in registers only if every index is a constant.
#define UNROLL _Pragma("clang loop unroll(full)")

// Where the first of a lane's two elements stands in every matrix.
struct Lane {
    uint row;
    uint column;
};

inline Lane lane_of(uint lane) {
    Lane place;
    place.row = (lane / 4 & 4) + lane / 2 % 4;
    place.column = (lane / 4 & 2) * 2 + lane % 2 * 2;
    return place;
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

// sums += left · right
template <class T>
inline void multiply_accumulate(thread float2& sums, vec<T, 2> left, vec<T, 2> right) {
    simdgroup_matrix<T, 8, 8> a, b;
    simdgroup_matrix<float, 8, 8> c;
    a.thread_elements()[0] = left.x;
    a.thread_elements()[1] = left.y;
    b.thread_elements()[0] = right.x;
    b.thread_elements()[1] = right.y;
    c.thread_elements()[0] = sums.x;
    c.thread_elements()[1] = sums.y;
    simdgroup_multiply_accumulate(c, a, b, c);
    sums = float2(c.thread_elements()[0], c.thread_elements()[1]);
}
