// As detectors.cu, for mbarriers, TMA and wgmma. Blocks have 160 threads: a warpgroup that consumes and a warp that
// produces.
#include <ptx.cuh>

struct HopperDetectorArguments {
    CUtensorMap map;      // boxes [1, 64, 64] of f16 with the 128-byte swizzle
    const float* input;   // 1024 floats
    float* output;        // one float per thread, not initialised
    uint32_t seeded;
    uint32_t padding[27];  // to one size, whatever a toolkit aligns tensor maps to
};

constexpr uint32_t TILE_BYTES = 64 * 64 * 2;
// Shared memory: a tile, then the mbarriers.
constexpr uint32_t TILE = 0, FULL = TILE_BYTES, EMPTY = FULL + 8;

__device__ __forceinline__ uint32_t shared_base() { return ptx::shared_address(ptx::dynamic_shared_memory()); }

__device__ __forceinline__ bool is_producer() { return threadIdx.x / 32 == 4; }

__device__ __forceinline__ void begin_block(uint32_t shared, uint32_t full_count = 1) {
    if (threadIdx.x == 0) {
        ptx::mbarrier_init(shared + FULL, full_count);
        ptx::mbarrier_init(shared + EMPTY, 4);
        ptx::fence_mbarrier_init();
    }
    __syncthreads();
}

__device__ __forceinline__ void load_tile(const HopperDetectorArguments& p, uint32_t shared, uint32_t tile,
                                          int32_t row, uint32_t expected = TILE_BYTES) {
    ptx::mbarrier_arrive_expect_tx(shared + FULL, expected);
    ptx::tma_load_4d(shared + tile, &p.map, shared + FULL, 0, row, 0, 0);
}

__device__ __forceinline__ float first_element(uint32_t tile) {
    return __half2float(reinterpret_cast<const __half*>(ptx::dynamic_shared_memory() + tile)[threadIdx.x]);
}

extern "C" __global__ void tile_read_before_its_wait(const __grid_constant__ HopperDetectorArguments p) {
    const uint32_t shared = shared_base();
    begin_block(shared);
    if (is_producer()) {
        if (threadIdx.x % 32 == 0) load_tile(p, shared, TILE, 0);
        __syncwarp();
        ptx::mbarrier_wait(shared + FULL, 0);
    } else {
        if (!p.seeded) ptx::mbarrier_wait(shared + FULL, 0);
        p.output[threadIdx.x] = first_element(TILE);
    }
}

extern "C" __global__ void wait_for_the_wrong_parity(const __grid_constant__ HopperDetectorArguments p) {
    const uint32_t shared = shared_base();
    begin_block(shared);
    if (threadIdx.x == 0) load_tile(p, shared, TILE, 0);
    __syncthreads();
    ptx::mbarrier_wait(shared + FULL, p.seeded ? 1 : 0);
    p.output[threadIdx.x] = first_element(TILE);
}

extern "C" __global__ void too_many_bytes_expected(const __grid_constant__ HopperDetectorArguments p) {
    const uint32_t shared = shared_base();
    begin_block(shared);
    if (threadIdx.x == 0) load_tile(p, shared, TILE, 0, TILE_BYTES + (p.seeded ? 16 : 0));
    ptx::mbarrier_wait(shared + FULL, 0);
    p.output[threadIdx.x] = first_element(TILE);
}

extern "C" __global__ void too_few_bytes_expected(const __grid_constant__ HopperDetectorArguments p) {
    const uint32_t shared = shared_base();
    begin_block(shared);
    if (threadIdx.x == 0) load_tile(p, shared, TILE, 0, TILE_BYTES - (p.seeded ? 16 : 0));
    ptx::mbarrier_wait(shared + FULL, 0);
    p.output[threadIdx.x] = first_element(TILE);
}

extern "C" __global__ void mbarrier_without_initialisation(const __grid_constant__ HopperDetectorArguments p) {
    const uint32_t shared = shared_base();
    begin_block(shared);
    if (threadIdx.x == 0) ptx::mbarrier_arrive(shared + FULL + (p.seeded ? 64 : 0));
    ptx::mbarrier_wait(shared + FULL, 0);
}

extern "C" __global__ void mbarrier_used_before_the_barrier(const __grid_constant__ HopperDetectorArguments p) {
    const uint32_t shared = shared_base();
    if (threadIdx.x == 0) {
        ptx::mbarrier_init(shared + FULL, 160);
        ptx::fence_mbarrier_init();
    }
    if (!p.seeded) __syncthreads();
    ptx::mbarrier_arrive(shared + FULL);
    ptx::mbarrier_wait(shared + FULL, 0);
}

// The producer must wait until all warps have read the tile before it loads the next one.
extern "C" __global__ void tile_overwritten_while_read(const __grid_constant__ HopperDetectorArguments p) {
    const uint32_t shared = shared_base();
    begin_block(shared);
    if (is_producer()) {
        if (threadIdx.x % 32 == 0) {
            load_tile(p, shared, TILE, 0);
            if (p.seeded) ptx::mbarrier_wait(shared + FULL, 0);
            else ptx::mbarrier_wait(shared + EMPTY, 0);
            load_tile(p, shared, TILE, 64);
            ptx::mbarrier_wait(shared + FULL, 1);
        }
    } else {
        ptx::mbarrier_wait(shared + FULL, 0);
        const float first = first_element(TILE);
        __syncwarp();
        if (threadIdx.x % 32 == 0) ptx::mbarrier_arrive(shared + EMPTY);
        ptx::mbarrier_wait(shared + FULL, 1);
        p.output[threadIdx.x] = first + first_element(TILE);
    }
}

extern "C" __global__ void block_ends_during_a_load(const __grid_constant__ HopperDetectorArguments p) {
    const uint32_t shared = shared_base();
    begin_block(shared);
    if (threadIdx.x == 0) load_tile(p, shared, TILE, 0);
    if (!p.seeded) ptx::mbarrier_wait(shared + FULL, 0);
}

__device__ __forceinline__ uint64_t tile_descriptor(uint32_t tile) { return ptx::wgmma_descriptor(tile, 16, 1024); }

__device__ __forceinline__ void multiply(float (&d)[32], uint32_t tile) {
    ptx::wgmma_ss<__half, 64, ptx::Major::K>(d, tile_descriptor(tile), tile_descriptor(tile), false);
}

extern "C" __global__ void result_read_before_its_wait(const __grid_constant__ HopperDetectorArguments p) {
    const uint32_t shared = shared_base();
    begin_block(shared);
    if (is_producer()) {
        if (threadIdx.x % 32 == 0) load_tile(p, shared, TILE, 0);
        return;
    }
    ptx::mbarrier_wait(shared + FULL, 0);
    float d[32];
    ptx::wgmma_fence();
    multiply(d, shared + TILE);
    ptx::wgmma_commit();
    if (p.seeded) ptx::wgmma_wait<1>();
    else ptx::wgmma_wait<0>();
    p.output[threadIdx.x] = d[0];
    ptx::wgmma_wait<0>();
}

extern "C" __global__ void wgmma_without_its_fence(const __grid_constant__ HopperDetectorArguments p) {
    const uint32_t shared = shared_base();
    begin_block(shared);
    if (is_producer()) {
        if (threadIdx.x % 32 == 0) load_tile(p, shared, TILE, 0);
        return;
    }
    ptx::mbarrier_wait(shared + FULL, 0);
    float d[32];
    if (!p.seeded) ptx::wgmma_fence();
    multiply(d, shared + TILE);
    ptx::wgmma_commit();
    ptx::wgmma_wait<0>();
    p.output[threadIdx.x] = d[0];
}

// The tile may be given back only after the wait, since wgmma reads it until then.
extern "C" __global__ void tile_given_back_before_the_wait(const __grid_constant__ HopperDetectorArguments p) {
    const uint32_t shared = shared_base();
    begin_block(shared);
    if (is_producer()) {
        if (threadIdx.x % 32 == 0) {
            load_tile(p, shared, TILE, 0);
            ptx::mbarrier_wait(shared + EMPTY, 0);
            load_tile(p, shared, TILE, 64);
            ptx::mbarrier_wait(shared + FULL, 1);
        }
        return;
    }
    ptx::mbarrier_wait(shared + FULL, 0);
    float d[32];
    ptx::wgmma_fence();
    multiply(d, shared + TILE);
    ptx::wgmma_commit();
    if (p.seeded && threadIdx.x % 32 == 0) ptx::mbarrier_arrive(shared + EMPTY);
    // Time for the next load to begin.
    ptx::bar_sync(1, 128);
    ptx::wgmma_wait<0>();
    if (!p.seeded && threadIdx.x % 32 == 0) ptx::mbarrier_arrive(shared + EMPTY);
    p.output[threadIdx.x] = d[0];
}

extern "C" __global__ void operand_without_a_proxy_fence(const __grid_constant__ HopperDetectorArguments p) {
    const uint32_t shared = shared_base();
    if (is_producer()) return;
    auto tile = reinterpret_cast<uint32_t*>(ptx::dynamic_shared_memory());
    for (uint32_t i = threadIdx.x; i < TILE_BYTES / 4; i += 128) tile[i] = ptx::pack_f16x2(1.0f, 2.0f);
    if (!p.seeded) ptx::fence_proxy_async();
    ptx::bar_sync(1, 128);
    float d[32];
    ptx::wgmma_fence();
    multiply(d, shared + TILE);
    ptx::wgmma_commit();
    ptx::wgmma_wait<0>();
    p.output[threadIdx.x] = d[0];
}

extern "C" __global__ void wgmma_by_half_a_warpgroup(const __grid_constant__ HopperDetectorArguments p) {
    const uint32_t shared = shared_base();
    begin_block(shared);
    if (is_producer()) {
        if (threadIdx.x % 32 == 0) load_tile(p, shared, TILE, 0);
        return;
    }
    ptx::mbarrier_wait(shared + FULL, 0);
    if (p.seeded && threadIdx.x >= 64) return;
    float d[32];
    ptx::wgmma_fence();
    multiply(d, shared + TILE);
    ptx::wgmma_commit();
    ptx::wgmma_wait<0>();
    p.output[threadIdx.x] = d[0];
}
