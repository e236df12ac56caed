// 8x8 matrices spread over the lanes of a simdgroup, two neighbouring elements of a row per lane.
#pragma once

#include <utility>

#include "../engine/emulator.h"

#include "language.h"

namespace metal {

template <class T, int ROWS = 8, int COLUMNS = 8>
struct simdgroup_matrix {
    static_assert(ROWS == 8 && COLUMNS == 8, "Metal has no others");
    typedef T Elements __attribute__((ext_vector_type(2)));

    simdgroup_matrix() = default;
    // A multiple of the unit matrix.
    explicit EMULATOR_UNCHECKED simdgroup_matrix(T diagonal) {
        const unsigned lane = emulator::lane_index();
        for (int i = 0; i < 2; ++i) elements[i] = row(lane) == column(lane) + i ? diagonal : T(0);
    }

    thread Elements& thread_elements() { return elements; }

    // Where the first of a lane's two elements stands.
    static EMULATOR_UNCHECKED int row(unsigned lane) { return int(lane / 4 & 4) + int(lane / 2 % 4); }
    static EMULATOR_UNCHECKED int column(unsigned lane) { return int(lane / 4 & 2) * 2 + int(lane % 2) * 2; }

    Elements elements;
};

using simdgroup_float8x8 = simdgroup_matrix<float>;
using simdgroup_half8x8 = simdgroup_matrix<half>;
using simdgroup_bfloat8x8 = simdgroup_matrix<bfloat>;

template <class T, int ROWS, int COLUMNS>
METAL_FUNC simdgroup_matrix<T, ROWS, COLUMNS> make_filled_simdgroup_matrix(T value) {
    simdgroup_matrix<T, ROWS, COLUMNS> matrix;
    matrix.elements = value;
    return matrix;
}

struct MatrixProduct {
    void* d;
    const void* a;
    const void* b;
    const void* c;
};

template <class T>
EMULATOR_UNCHECKED void gather(float (&full)[8][8], const void* matrix, unsigned lane) {
    using Matrix = simdgroup_matrix<T>;
    for (int i = 0; i < 2; ++i) {
        full[Matrix::row(lane)][Matrix::column(lane) + i] = float(static_cast<const Matrix*>(matrix)->elements[i]);
    }
}

template <class D, class A, class B, class C>
EMULATOR_UNCHECKED void multiply_matrices(void* const* lanes, unsigned) {
    float a[8][8], b[8][8], c[8][8];
    for (unsigned lane = 0; lane < 32; ++lane) {
        const auto& mine = *static_cast<const MatrixProduct*>(lanes[lane]);
        gather<A>(a, mine.a, lane);
        gather<B>(b, mine.b, lane);
        gather<C>(c, mine.c, lane);
    }
    for (unsigned lane = 0; lane < 32; ++lane) {
        using Matrix = simdgroup_matrix<D>;
        for (int i = 0; i < 2; ++i) {
            const int row = Matrix::row(lane), column = Matrix::column(lane) + i;
            float sum = c[row][column];
            for (int k = 0; k < 8; ++k) sum += a[row][k] * b[k][column];
            static_cast<Matrix*>(static_cast<const MatrixProduct*>(lanes[lane])->d)->elements[i] = D(sum);
        }
    }
}

template <class D, class A, class B, class C>
EMULATOR_UNCHECKED void simdgroup_multiply_accumulate(thread simdgroup_matrix<D>& d,
                                                      thread const simdgroup_matrix<A>& a,
                                                      thread const simdgroup_matrix<B>& b,
                                                      thread const simdgroup_matrix<C>& c,
                                                      emulator::Place place = emulator::Place::current()) {
    MatrixProduct mine{&d, &a, &b, &c};
    emulator::warp_collective(0xffffffff, "simdgroup_multiply_accumulate", &mine, multiply_matrices<D, A, B, C>,
                              emulator::Ordering::None, place);
}

// Calls `visit` with the address of each of the lane's elements in a matrix in memory.
template <class Pointer, class Visit>
EMULATOR_UNCHECKED void visit_elements(Pointer matrix, ulong row_stride, ulong2 origin, bool transpose, Visit visit) {
    using Matrix = simdgroup_matrix<float>;
    const unsigned lane = emulator::lane_index();
    for (int i = 0; i < 2; ++i) {
        ulong row = Matrix::row(lane), column = Matrix::column(lane) + i;
        if (transpose) std::swap(row, column);
        visit(i, matrix + (origin[1] + row) * row_stride + origin[0] + column);
    }
}

// The check of a load or store; address spaces have no pointers in common with the engine's.
template <class Pointer>
EMULATOR_UNCHECKED void check_element(Pointer element, emulator::Access access, const char* what,
                                      emulator::Place place) {
#ifndef MSL_CHECK
    emulator::check_access(element, sizeof *element, access, what, place);
#endif
}

#define EMULATOR_MATRIX_ACCESS(SPACE)                                                                                  \
    template <class T>                                                                                                 \
    EMULATOR_UNCHECKED void simdgroup_load(thread simdgroup_matrix<T>& m, const SPACE T* matrix, ulong row_stride = 8, \
                                           ulong2 origin = 0, bool transpose = false,                                  \
                                           emulator::Place place = emulator::Place::current()) {                       \
        emulator::warp_collective(0xffffffff, "simdgroup_load", nullptr, nullptr, emulator::Ordering::None, place);    \
        visit_elements(matrix, row_stride, origin, transpose, [&](int i, const SPACE T* element) EMULATOR_UNCHECKED {  \
            check_element(element, emulator::Access::Read, "simdgroup_load", place);                                   \
            m.elements[i] = *element;                                                                                  \
        });                                                                                                            \
    }                                                                                                                  \
    template <class T>                                                                                                 \
    EMULATOR_UNCHECKED void simdgroup_store(thread const simdgroup_matrix<T>& m, SPACE T* matrix,                      \
                                            ulong row_stride = 8, ulong2 origin = 0, bool transpose = false,           \
                                            emulator::Place place = emulator::Place::current()) {                      \
        emulator::warp_collective(0xffffffff, "simdgroup_store", nullptr, nullptr, emulator::Ordering::None, place);   \
        visit_elements(matrix, row_stride, origin, transpose, [&](int i, SPACE T* element) EMULATOR_UNCHECKED {        \
            check_element(element, emulator::Access::Write, "simdgroup_store", place);                                 \
            *element = m.elements[i];                                                                                  \
        });                                                                                                            \
    }

EMULATOR_MATRIX_ACCESS(device)
#ifdef MSL_CHECK
EMULATOR_MATRIX_ACCESS(threadgroup)
#endif
#undef EMULATOR_MATRIX_ACCESS

}  // namespace metal
