// The warp-wide matrix instructions of <ptx.cuh>.
#pragma once

#include "../engine/matrix.h"
#include "intrinsics.h"

namespace ptx {

using emulator::Place;

inline EMULATOR_UNCHECKED void ldmatrix_x4(uint32_t (&r)[4], uint32_t shared, Place place = Place::current()) {
    emulator::load_matrix<4, false>(r, shared, place);
}

inline EMULATOR_UNCHECKED void ldmatrix_x4_trans(uint32_t (&r)[4], uint32_t shared, Place place = Place::current()) {
    emulator::load_matrix<4, true>(r, shared, place);
}

inline EMULATOR_UNCHECKED void mma_m16n8k16_f16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                                                Place place = Place::current()) {
    emulator::MultiplyAdd mine{d, a, b};
    emulator::warp_collective(0xffffffff, "mma_m16n8k16_f16", &mine,
                              emulator::multiply_add<16, 2, emulator::decode_f16>, emulator::Ordering::None, place);
}

inline EMULATOR_UNCHECKED void mma_m16n8k16_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                                                 Place place = Place::current()) {
    emulator::MultiplyAdd mine{d, a, b};
    emulator::warp_collective(0xffffffff, "mma_m16n8k16_bf16", &mine,
                              emulator::multiply_add<16, 2, emulator::decode_bf16>, emulator::Ordering::None, place);
}

inline EMULATOR_UNCHECKED void mma_m16n8k8_tf32(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                                                Place place = Place::current()) {
    emulator::MultiplyAdd mine{d, a, b};
    emulator::warp_collective(0xffffffff, "mma_m16n8k8_tf32", &mine,
                              emulator::multiply_add<8, 1, emulator::decode_tf32>, emulator::Ordering::None, place);
}

}  // namespace ptx
