// What kernels/cuda/ptx.cuh is to nvcc, for the emulator: the same names and signatures, run by the engine.
//
// Every function that the engine watches takes the caller's place in the source as a defaulted last argument.
#pragma once

#include <cstdint>
#include <cstring>

#include "half.h"
#include "intrinsics.h"
#include "language.h"

// Opaque to kernels; tests fill it in (TensorMap in emulator/src/device.rs).
struct alignas(64) CUtensorMap {
    emulator::TensorMap map;
};

namespace ptx {

using emulator::Place;

// ---- Shared memory ------------------------------------------------------------------------------------------------

inline EMULATOR_UNCHECKED unsigned char* dynamic_shared_memory() { return emulator::shared_base(); }

inline EMULATOR_UNCHECKED uint32_t shared_address(const void* shared) { return emulator::shared_address(shared); }

inline EMULATOR_UNCHECKED float load_shared(uint32_t shared, Place place = Place::current()) {
    const unsigned char* from = emulator::shared_pointer(shared);
    emulator::check_access(from, sizeof(float), emulator::Access::Read, "load_shared", place);
    float x;
    memcpy(&x, from, sizeof x);
    return x;
}

// ---- Conversions and arithmetic -----------------------------------------------------------------------------------

inline EMULATOR_UNCHECKED float exp2_approx(float x) { return emulator::exp2_flushed(x); }

inline EMULATOR_UNCHECKED float max_or_nan(float x, float y) { return emulator::max_or_nan(x, y); }

inline EMULATOR_UNCHECKED uint32_t pack_f16x2(float low, float high) {
    return emulator::float_to_f16(low) | uint32_t(emulator::float_to_f16(high)) << 16;
}

inline EMULATOR_UNCHECKED uint32_t pack_bf16x2(float low, float high) {
    return emulator::float_to_bf16(low) | uint32_t(emulator::float_to_bf16(high)) << 16;
}

inline EMULATOR_UNCHECKED uint32_t to_tf32(float x) { return emulator::float_to_tf32(x); }

inline EMULATOR_UNCHECKED const unsigned char* advance(const unsigned char* address, uint32_t count, uint32_t bytes) {
    return address + uint64_t(count) * bytes;
}

// ---- Asynchronous copies ------------------------------------------------------------------------------------------

inline EMULATOR_UNCHECKED void cp_async_16(uint32_t shared, const void* global, uint32_t valid_bytes,
                                           Place place = Place::current()) {
    emulator::async_copy(shared, global, 16, valid_bytes, place);
}

inline EMULATOR_UNCHECKED void cp_async_commit() { emulator::async_copy_commit(); }

template <int PENDING>
EMULATOR_UNCHECKED void cp_async_wait() {
    emulator::async_copy_wait(PENDING);
}

}  // namespace ptx

#include "matrix.h"

namespace ptx {

// ---- Synchronisation ----------------------------------------------------------------------------------------------

inline EMULATOR_UNCHECKED void bar_sync(uint32_t id, uint32_t threads, Place place = Place::current()) {
    emulator::block_barrier(id, threads, emulator::Arrival::Wait, "bar_sync", emulator::Ordering::Memory, place);
}

inline EMULATOR_UNCHECKED void bar_arrive(uint32_t id, uint32_t threads, Place place = Place::current()) {
    emulator::block_barrier(id, threads, emulator::Arrival::Pass, "bar_arrive", emulator::Ordering::Memory, place);
}

inline EMULATOR_UNCHECKED uint32_t atomic_add_acq_rel(uint32_t* counter, uint32_t value,
                                                      Place place = Place::current()) {
    return emulator::atomic_add(counter, value, emulator::AtomicOrder::AcquireRelease, place);
}

// ---- mbarrier -----------------------------------------------------------------------------------------------------

inline EMULATOR_UNCHECKED void mbarrier_init(uint32_t mbarrier, uint32_t count, Place place = Place::current()) {
    emulator::mbarrier_init(mbarrier, count, place);
}

inline EMULATOR_UNCHECKED void fence_mbarrier_init() { emulator::mbarrier_fence_init(); }

inline EMULATOR_UNCHECKED void mbarrier_arrive(uint32_t mbarrier, Place place = Place::current()) {
    emulator::mbarrier_arrive(mbarrier, 0, place);
}

inline EMULATOR_UNCHECKED void mbarrier_arrive_expect_tx(uint32_t mbarrier, uint32_t bytes,
                                                         Place place = Place::current()) {
    emulator::mbarrier_arrive(mbarrier, bytes, place);
}

inline EMULATOR_UNCHECKED bool mbarrier_try_wait(uint32_t mbarrier, uint32_t parity, Place place = Place::current()) {
    return emulator::mbarrier_try_wait(mbarrier, parity, place);
}

inline EMULATOR_UNCHECKED void mbarrier_wait(uint32_t mbarrier, uint32_t parity, Place place = Place::current()) {
    while (!ptx::mbarrier_try_wait(mbarrier, parity, place)) {
    }
}

// ---- TMA ----------------------------------------------------------------------------------------------------------

inline EMULATOR_UNCHECKED void fence_proxy_async() { emulator::fence_proxy_async(); }

inline EMULATOR_UNCHECKED void tma_load_4d(uint32_t shared, const CUtensorMap* map, uint32_t mbarrier, int32_t c0,
                                           int32_t c1, int32_t c2, int32_t c3, Place place = Place::current()) {
    const int32_t coordinates[] = {c0, c1, c2, c3};
    emulator::tma_load(shared, map->map, mbarrier, coordinates, 4, place);
}

// ---- Registers per thread -----------------------------------------------------------------------------------------

template <int REGISTERS>
EMULATOR_UNCHECKED void setmaxnreg_inc(Place place = Place::current()) {
    static_assert(REGISTERS % 8 == 0 && REGISTERS >= 24 && REGISTERS <= 256);
    emulator::warpgroup_collective("setmaxnreg_inc", place);
}

template <int REGISTERS>
EMULATOR_UNCHECKED void setmaxnreg_dec(Place place = Place::current()) {
    static_assert(REGISTERS % 8 == 0 && REGISTERS >= 24 && REGISTERS <= 256);
    emulator::warpgroup_collective("setmaxnreg_dec", place);
}

// ---- wgmma --------------------------------------------------------------------------------------------------------

enum class Major { K, MN };

enum class Swizzle : uint32_t { B128 = 1, B64 = 2, B32 = 3 };

inline EMULATOR_UNCHECKED uint64_t wgmma_descriptor(uint32_t shared, uint32_t leading_bytes, uint32_t stride_bytes,
                                                    Swizzle swizzle = Swizzle::B128) {
    return uint64_t(shared & 0x3ffff) >> 4 | uint64_t(leading_bytes >> 4) << 16 | uint64_t(stride_bytes >> 4) << 32 |
           uint64_t(swizzle) << 62;
}

inline EMULATOR_UNCHECKED void wgmma_fence(Place place = Place::current()) { emulator::wgmma_fence(place); }

inline EMULATOR_UNCHECKED void wgmma_commit(Place place = Place::current()) { emulator::wgmma_commit(place); }

template <int PENDING>
EMULATOR_UNCHECKED void wgmma_wait(Place place = Place::current()) {
    emulator::wgmma_wait(PENDING, place);
}

template <int COUNT>
void wgmma_fence_registers(float (&)[COUNT]) {}

template <class Element, int N, Major B>
EMULATOR_UNCHECKED emulator::WgmmaShape wgmma_shape() {
    static_assert(N % 16 == 0 && N >= 16 && N <= 256);
    static_assert(std::is_same_v<Element, __half> || std::is_same_v<Element, __nv_bfloat16>);
    constexpr bool IS_F16 = std::is_same_v<Element, __half>;
    return {N, B == Major::MN, IS_F16 ? emulator::f16_to_float : emulator::bf16_to_float};
}

template <class Element, int N, Major B>
EMULATOR_UNCHECKED void wgmma_ss(float (&d)[N / 2], uint64_t a, uint64_t b, bool accumulate,
                                 Place place = Place::current()) {
    emulator::wgmma_issue(wgmma_shape<Element, N, B>(), d, nullptr, a, b, accumulate, place);
}

template <class Element, int N, Major B>
EMULATOR_UNCHECKED void wgmma_rs(float (&d)[N / 2], const uint32_t (&a)[4], uint64_t b, bool accumulate,
                                 Place place = Place::current()) {
    emulator::wgmma_issue(wgmma_shape<Element, N, B>(), d, a, 0, b, accumulate, place);
}

}  // namespace ptx
