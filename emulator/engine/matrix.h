// ldmatrix and mma.sync: warp-wide instructions on fragments spread over the lanes.
#pragma once

#include <bit>
#include <cstring>

#include "emulator.h"
#include "numbers.h"
#include "tensor_core.h"

namespace emulator {

struct LoadMatrix {
    uint32_t* fragment;
    uint32_t row;  // shared address
};

template <int MATRICES, bool TRANSPOSED>
EMULATOR_UNCHECKED void load_matrices(void* const* lanes, unsigned) {
    for (int matrix = 0; matrix < MATRICES; ++matrix) {
        for (int lane = 0; lane < 32; ++lane) {
            uint32_t pair = 0;
            for (int half = 0; half < 2; ++half) {
                const int along = lane % 4 * 2 + half, across = lane / 4;
                const int row = TRANSPOSED ? along : across, column = TRANSPOSED ? across : along;
                const auto& owner = *static_cast<const LoadMatrix*>(lanes[matrix * 8 + row]);
                uint16_t element;
                memcpy(&element, shared_pointer(owner.row) + column * 2, sizeof element);
                pair |= uint32_t(element) << half * 16;
            }
            static_cast<const LoadMatrix*>(lanes[lane])->fragment[matrix] = pair;
        }
    }
}

template <int MATRICES, bool TRANSPOSED>
EMULATOR_UNCHECKED void load_matrix(uint32_t (&fragment)[MATRICES], uint32_t row, Place place) {
    const char* what = TRANSPOSED ? "ldmatrix (transposed)" : "ldmatrix";
    // Only these lanes' addresses count.
    if (lane_index() < MATRICES * 8) check_access(shared_pointer(row), 16, Access::Read, what, place);
    LoadMatrix mine{fragment, row};
    warp_collective(0xffffffff, what, &mine, load_matrices<MATRICES, TRANSPOSED>, Ordering::None, place);
}

struct MultiplyAdd {
    float* d;
    const uint32_t* a;
    const uint32_t* b;
};

// The decoding of one element out of a register; `half` is 0 for 32-bit elements.
inline EMULATOR_UNCHECKED float decode_f16(uint32_t bits, int half) {
    return f16_to_float(uint16_t(bits >> half * 16));
}
inline EMULATOR_UNCHECKED float decode_bf16(uint32_t bits, int half) {
    return bf16_to_float(uint16_t(bits >> half * 16));
}
// The hardware ignores the 13 low bits.
inline EMULATOR_UNCHECKED float decode_tf32(uint32_t bits, int) { return std::bit_cast<float>(bits & 0xffffe000); }

// d [16, 8] += a [16, DEPTH] · b [DEPTH, 8], half of the depth at a time, as Ampere adds it. A register holds
// `PER_REGISTER` neighbouring elements along the depth; a lane's registers cover the depth in two halves.
template <int DEPTH, int PER_REGISTER, float (*DECODE)(uint32_t, int)>
EMULATOR_UNCHECKED void multiply_add(void* const* lanes, unsigned) {
    float a[16][DEPTH], b[8][DEPTH];
    for (int lane = 0; lane < 32; ++lane) {
        const auto& mine = *static_cast<const MultiplyAdd*>(lanes[lane]);
        const int group = lane / 4, first = lane % 4 * PER_REGISTER;
        for (int upper = 0; upper < 2; ++upper) {
            for (int i = 0; i < PER_REGISTER; ++i) {
                const int k = first + i + upper * DEPTH / 2;
                a[group][k] = DECODE(mine.a[upper * 2], i);
                a[group + 8][k] = DECODE(mine.a[upper * 2 + 1], i);
                b[group][k] = DECODE(mine.b[upper], i);
            }
        }
    }
    for (int lane = 0; lane < 32; ++lane) {
        float* d = static_cast<const MultiplyAdd*>(lanes[lane])->d;
        for (int i = 0; i < 4; ++i) {
            const int row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
            d[i] = tensor_core_add(d[i], a[row], b[column], DEPTH, DEPTH / 2);
        }
    }
}

}  // namespace emulator
