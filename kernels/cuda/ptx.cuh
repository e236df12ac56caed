// Every line of inline PTX of the CUDA kernels: one thin wrapper per instruction, named after what it does.
//
// Kernels include this header as <ptx.cuh> and write no `asm` themselves. The emulator has a header of the same name
// with the same signatures (emulator/cuda/ptx.cuh) that comes first in its include path, so the text of a kernel
// is the same on a GPU and in the emulator. A wrapper holds one instruction and no decision: its text is executed only
// where the emulator runs the PTX that nvcc makes of a kernel, and on a GPU.
//
// "Shared address" is always the 32-bit address inside the block's shared memory, as `shared_address` returns it.
#pragma once

#ifndef __CUDACC__
#error "this is the header for nvcc; write #include <ptx.cuh> so that the emulator's include path chooses its own"
#endif

#include <cstdint>
#include <cuda.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>

namespace ptx {

// ---- Shared memory ------------------------------------------------------------------------------------------------

// The block's dynamic shared memory, aligned to 1024 bytes (what the 128-byte swizzle needs).
__device__ __forceinline__ unsigned char* dynamic_shared_memory() {
    extern __shared__ __align__(1024) unsigned char dynamic_shared[];
    return dynamic_shared;
}

__device__ __forceinline__ uint32_t shared_address(const void* shared) {
    return static_cast<uint32_t>(__cvta_generic_to_shared(shared));
}

__device__ __forceinline__ float load_shared(uint32_t shared) {
    float x;
    asm volatile("ld.shared.f32 %0, [%1];" : "=f"(x) : "r"(shared) : "memory");
    return x;
}

// ---- Conversions and arithmetic -----------------------------------------------------------------------------------

// 2^x within 2 ulp; results below the smallest normal number are zero.
__device__ __forceinline__ float exp2_approx(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// The larger of two numbers; NaN if any of them is.
__device__ __forceinline__ float max_or_nan(float x, float y) {
    float larger;
    asm("max.NaN.f32 %0, %1, %2;" : "=f"(larger) : "f"(x), "f"(y));
    return larger;
}

// Rounds both to f16 (nearest even); `low` lands in bits 0–15.
__device__ __forceinline__ uint32_t pack_f16x2(float low, float high) {
    uint32_t packed;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
    return packed;
}

// Rounds both to bf16 (nearest even); `low` lands in bits 0–15.
__device__ __forceinline__ uint32_t pack_bf16x2(float low, float high) {
    uint32_t packed;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
    return packed;
}

// Rounds to TF32 (nearest, ties away from zero); the low 13 bits of the result are zero.
__device__ __forceinline__ uint32_t to_tf32(float x) {
    uint32_t rounded;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(rounded) : "f"(x));
    return rounded;
}

// The address `count` times `bytes` further, in one multiplication with an addition.
__device__ __forceinline__ const unsigned char* advance(const unsigned char* address, uint32_t count, uint32_t bytes) {
    uint64_t advanced;
    asm("mad.wide.u32 %0, %1, %2, %3;" : "=l"(advanced) : "r"(count), "r"(bytes), "l"(address));
    return reinterpret_cast<const unsigned char*>(advanced);
}

// ---- Asynchronous copies, 16 bytes each (sm_80) -------------------------------------------------------------------

// Copies `valid_bytes` (0 to 16) bytes and fills the rest of the 16 with zeros. Nothing is read where it is 0.
__device__ __forceinline__ void cp_async_16(uint32_t shared, const void* global, uint32_t valid_bytes) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared), "l"(global), "r"(valid_bytes)
                 : "memory");
}

// Ends a group: the calling thread's copies since the last commit.
__device__ __forceinline__ void cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Waits until at most PENDING of the calling thread's latest groups are still under way.
template <int PENDING>
__device__ __forceinline__ void cp_async_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
}

// ---- Warp-wide matrix instructions (sm_80) ------------------------------------------------------------------------

// Loads four 8x8 matrices of 16-bit elements; lane 8i+j gives the address of row j of matrix i (16-byte aligned).
// Lane l receives elements 2(l%4) and 2(l%4)+1 of row l/4.
__device__ __forceinline__ void ldmatrix_x4(uint32_t (&r)[4], uint32_t shared) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared)
                 : "memory");
}

// The same matrices, transposed: lane l receives rows 2(l%4) and 2(l%4)+1 of column l/4.
__device__ __forceinline__ void ldmatrix_x4_trans(uint32_t (&r)[4], uint32_t shared) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared)
                 : "memory");
}

// d += a·b with a [16, 16] row-major, b [16, 8] column-major, f32 accumulators. With g = lane/4, t = lane%4:
// a[0] = rows g, columns 2t..; a[1] = rows g+8; a[2] = rows g, columns 2t+8..; a[3] = rows g+8, columns 2t+8..;
// b[0] = k 2t.., column g; b[1] = k 2t+8..; d[0..1] = row g, columns 2t, 2t+1; d[2..3] = row g+8.
__device__ __forceinline__ void mma_m16n8k16_f16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
                 "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

__device__ __forceinline__ void mma_m16n8k16_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
                 "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// d += a·b with a [16, 8], b [8, 8] in TF32, one element per register: a[0] = (g, t), a[1] = (g+8, t),
// a[2] = (g, t+4), a[3] = (g+8, t+4); b[0] = (t, g), b[1] = (t+4, g); d as above.
__device__ __forceinline__ void mma_m16n8k8_tf32(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
                 "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// ---- Synchronisation ----------------------------------------------------------------------------------------------

// Barrier `id` (1 to 15; 0 is __syncthreads) of `threads` threads, a multiple of 32.
__device__ __forceinline__ void bar_sync(uint32_t id, uint32_t threads) {
    asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

// Arrives at a barrier without waiting for it.
__device__ __forceinline__ void bar_arrive(uint32_t id, uint32_t threads) {
    asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

// Adds to a counter in global memory and returns its old value. Whoever sees this addition also sees everything that
// the calling thread's block wrote before it (up to a block barrier in front of it), and the other way round.
__device__ __forceinline__ uint32_t atomic_add_acq_rel(uint32_t* counter, uint32_t value) {
    uint32_t old;
    asm volatile("atom.acq_rel.gpu.global.add.u32 %0, [%1], %2;"
                 : "=r"(old)
                 : "l"(__cvta_generic_to_global(counter)), "r"(value)
                 : "memory");
    return old;
}

// ---- mbarrier (sm_90) ---------------------------------------------------------------------------------------------

// A phase ends when `count` arrivals and all expected bytes have come. `mbarrier` is a shared address, 8-byte aligned.
__device__ __forceinline__ void mbarrier_init(uint32_t mbarrier, uint32_t count) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(mbarrier), "r"(count) : "memory");
}

// Makes initialised mbarriers known to TMA; a block barrier makes them known to the other threads.
__device__ __forceinline__ void fence_mbarrier_init() {
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

__device__ __forceinline__ void mbarrier_arrive(uint32_t mbarrier) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(mbarrier) : "memory");
}

// Arrives, and adds `bytes` to what the current phase waits for.
__device__ __forceinline__ void mbarrier_arrive_expect_tx(uint32_t mbarrier, uint32_t bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(mbarrier), "r"(bytes) : "memory");
}

// Whether the phase of this parity has ended (the phases of a barrier have parity 0, 1, 0, …). May sleep a while.
__device__ __forceinline__ bool mbarrier_try_wait(uint32_t mbarrier, uint32_t parity) {
    uint32_t ended;
    asm volatile("{\n.reg .pred ended;\nmbarrier.try_wait.parity.shared::cta.b64 ended, [%1], %2;\n"
                 "selp.u32 %0, 1, 0, ended;\n}"
                 : "=r"(ended)
                 : "r"(mbarrier), "r"(parity)
                 : "memory");
    return ended != 0;
}

__device__ __forceinline__ void mbarrier_wait(uint32_t mbarrier, uint32_t parity) {
    while (!mbarrier_try_wait(mbarrier, parity)) {
    }
}

// ---- TMA (sm_90) --------------------------------------------------------------------------------------------------

// Orders the calling thread's ordinary accesses to shared memory before later ones by TMA and wgmma.
__device__ __forceinline__ void fence_proxy_async() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// Loads the map's box at these coordinates (innermost first) and reports its bytes, full box even at an edge, to
// `mbarrier`. Elements outside the tensor become zero.
__device__ __forceinline__ void tma_load_4d(uint32_t shared, const CUtensorMap* map, uint32_t mbarrier, int32_t c0,
                                            int32_t c1, int32_t c2, int32_t c3) {
    asm volatile("cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes "
                 "[%0], [%1, {%3, %4, %5, %6}], [%2];" ::"r"(shared),
                 "l"(map), "r"(mbarrier), "r"(c0), "r"(c1), "r"(c2), "r"(c3)
                 : "memory");
}

// ---- Registers per thread (sm_90a) --------------------------------------------------------------------------------

// Executed by all warps of a warpgroup; REGISTERS is a multiple of 8 from 24 to 256.
template <int REGISTERS>
__device__ __forceinline__ void setmaxnreg_inc() {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(REGISTERS));
}

template <int REGISTERS>
__device__ __forceinline__ void setmaxnreg_dec() {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(REGISTERS));
}

}  // namespace ptx

#include "ptx_wgmma.cuh"
