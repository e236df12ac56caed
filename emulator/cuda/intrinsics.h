// The functions of CUDA C++ itself: barriers, shuffles, votes, atomics and arithmetic.
#pragma once

#include <bit>
#include <cmath>
#include <cstring>

#include "../engine/lanes.h"
#include "half.h"

// ---- Barriers -----------------------------------------------------------------------------------------------------

inline EMULATOR_UNCHECKED void emulated_syncthreads(emulator::Place place = emulator::Place::current()) {
    emulator::block_barrier(0, 0, emulator::Arrival::Wait, "__syncthreads", emulator::Ordering::Memory, place);
}
// The C library's headers know a function of this name.
#define __syncthreads() emulated_syncthreads()

inline EMULATOR_UNCHECKED void __syncwarp(unsigned mask = 0xffffffff,
                                          emulator::Place place = emulator::Place::current()) {
    emulator::warp_collective(mask, "__syncwarp", nullptr, nullptr, emulator::Ordering::Memory, place);
}

inline EMULATOR_UNCHECKED void __threadfence() { emulator::thread_fence(); }

// ---- Shuffles and votes -------------------------------------------------------------------------------------------

template <class T>
EMULATOR_UNCHECKED T __shfl_sync(unsigned mask, T value, int lane,
                                 emulator::Place place = emulator::Place::current()) {
    return emulator::shuffle(mask, value, unsigned(lane) % 32, "__shfl_sync", place);
}

template <class T>
EMULATOR_UNCHECKED T __shfl_xor_sync(unsigned mask, T value, int bits,
                                     emulator::Place place = emulator::Place::current()) {
    return emulator::shuffle(mask, value, emulator::lane_index() ^ unsigned(bits), "__shfl_xor_sync", place);
}

inline EMULATOR_UNCHECKED unsigned __ballot_sync(unsigned mask, int predicate,
                                                 emulator::Place place = emulator::Place::current()) {
    return emulator::vote(mask, predicate != 0, "__ballot_sync", place);
}

inline EMULATOR_UNCHECKED int __any_sync(unsigned mask, int predicate,
                                         emulator::Place place = emulator::Place::current()) {
    return emulator::vote(mask, predicate != 0, "__any_sync", place) != 0;
}

inline EMULATOR_UNCHECKED int __all_sync(unsigned mask, int predicate,
                                         emulator::Place place = emulator::Place::current()) {
    return emulator::vote(mask, predicate == 0, "__all_sync", place) == 0;
}

// ---- Global memory ------------------------------------------------------------------------------------------------

template <class T>
EMULATOR_UNCHECKED T __ldg(const T* address, emulator::Place place = emulator::Place::current()) {
    emulator::check_access(address, sizeof(T), emulator::Access::Read, "__ldg", place);
    return *address;
}

inline EMULATOR_UNCHECKED unsigned atomicAdd(unsigned* address, unsigned value,
                                             emulator::Place place = emulator::Place::current()) {
    return emulator::atomic_add(address, value, emulator::AtomicOrder::Relaxed, place);
}

// ---- Arithmetic ---------------------------------------------------------------------------------------------------

template <class T>
constexpr T min(T a, T b) {
    return b < a ? b : a;
}
template <class T>
constexpr T max(T a, T b) {
    return a < b ? b : a;
}

inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdividef(float a, float b) { return a / b; }
inline float __frcp_rn(float x) { return 1.0f / x; }
inline float __expf(float x) { return expf(x); }
inline float __logf(float x) { return logf(x); }
inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }

inline unsigned __float_as_uint(float x) { return std::bit_cast<unsigned>(x); }
inline float __uint_as_float(unsigned x) { return std::bit_cast<float>(x); }
inline int __float_as_int(float x) { return std::bit_cast<int>(x); }
inline float __int_as_float(int x) { return std::bit_cast<float>(x); }
inline int __float2int_rn(float x) { return int(nearbyintf(x)); }

inline int __popc(unsigned x) { return std::popcount(x); }
inline int __popcll(unsigned long long x) { return std::popcount(x); }
inline int __clz(int x) { return std::countl_zero(unsigned(x)); }
inline int __ffs(int x) { return x == 0 ? 0 : std::countr_zero(unsigned(x)) + 1; }
inline int __ffsll(long long x) { return x == 0 ? 0 : std::countr_zero(static_cast<unsigned long long>(x)) + 1; }
