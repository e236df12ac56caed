// As primitives.cu, for TMA and wgmma.
#include <ptx.cuh>

struct TileArguments {
    CUtensorMap a;
    CUtensorMap b;
    float* d;
    int32_t coordinates[4];
    uint32_t a_bytes;
    uint32_t b_bytes;
    uint32_t padding[24];  // to one size, whatever a toolkit aligns tensor maps to
};

// One TMA box copied out as it lies in shared memory, as 16-bit integers.
__device__ __forceinline__ void load_box(const TileArguments& p) {
    unsigned char* memory = ptx::dynamic_shared_memory();
    const uint32_t shared = ptx::shared_address(memory), mbarrier = shared + p.a_bytes;
    if (threadIdx.x == 0) {
        ptx::mbarrier_init(mbarrier, 1);
        ptx::fence_mbarrier_init();
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        const int32_t* c = p.coordinates;
        ptx::mbarrier_arrive_expect_tx(mbarrier, p.a_bytes);
        ptx::tma_load_4d(shared, &p.a, mbarrier, c[0], c[1], c[2], c[3]);
    }
    ptx::mbarrier_wait(mbarrier, 0);
    for (uint32_t i = threadIdx.x; i < p.a_bytes / 2; i += blockDim.x) {
        p.d[i] = float(reinterpret_cast<const uint16_t*>(memory)[i]);
    }
}

extern "C" __global__ void load_swizzled_128(const __grid_constant__ TileArguments p) { load_box(p); }
extern "C" __global__ void load_swizzled_64(const __grid_constant__ TileArguments p) { load_box(p); }
extern "C" __global__ void load_unswizzled(const __grid_constant__ TileArguments p) { load_box(p); }

// D [64, N] = A [64, 64] · B, with B [N, 64] (K-major) or [64, N] (MN-major), by one warpgroup. Tiles come by TMA with
// the 128-byte swizzle; an MN-major B lies as slabs [64, 64], one after the other.
template <class Element, int N, ptx::Major B, bool A_IN_REGISTERS>
__device__ __forceinline__ void multiply(const TileArguments& p) {
    constexpr uint32_t SLAB = 64 * 64 * 2;
    unsigned char* memory = ptx::dynamic_shared_memory();
    const uint32_t a_tile = ptx::shared_address(memory), b_tile = a_tile + p.a_bytes, mbarrier = b_tile + p.b_bytes;
    if (threadIdx.x == 0) {
        ptx::mbarrier_init(mbarrier, 1);
        ptx::fence_mbarrier_init();
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        ptx::mbarrier_arrive_expect_tx(mbarrier, p.a_bytes + p.b_bytes);
        ptx::tma_load_4d(a_tile, &p.a, mbarrier, 0, 0, 0, 0);
        if constexpr (B == ptx::Major::K) {
            ptx::tma_load_4d(b_tile, &p.b, mbarrier, 0, 0, 0, 0);
        } else {
            for (uint32_t i = 0; i * SLAB < p.b_bytes; ++i) {
                ptx::tma_load_4d(b_tile + i * SLAB, &p.b, mbarrier, int32_t(i) * 64, 0, 0, 0);
            }
        }
    }
    ptx::mbarrier_wait(mbarrier, 0);

    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    float d[N / 2];
    uint32_t a[4][4];
    if constexpr (A_IN_REGISTERS) {
        for (int step = 0; step < 4; ++step) {
            const int row = warp * 16 + lane % 16, chunk = step * 2 + lane / 16;
            ptx::ldmatrix_x4(a[step], a_tile + row * 128 + (chunk ^ row % 8) * 16);
        }
    }
    ptx::wgmma_fence_registers(d);
    ptx::wgmma_fence();
    for (int step = 0; step < 4; ++step) {
        const uint64_t b_operand = B == ptx::Major::K ? ptx::wgmma_descriptor(b_tile + step * 32, 16, 1024)
                                                      : ptx::wgmma_descriptor(b_tile + step * 2048, SLAB, 1024);
        if constexpr (A_IN_REGISTERS) {
            ptx::wgmma_rs<Element, N, B>(d, a[step], b_operand, step > 0);
        } else {
            const uint64_t a_operand = ptx::wgmma_descriptor(a_tile + step * 32, 16, 1024);
            ptx::wgmma_ss<Element, N, B>(d, a_operand, b_operand, step > 0);
        }
    }
    ptx::wgmma_commit();
    ptx::wgmma_wait<0>();
    ptx::wgmma_fence_registers(d);
    for (int i = 0; i < N / 2; ++i) {
        const int row = warp * 16 + lane / 4 + i / 2 % 2 * 8, column = i / 4 * 8 + lane % 4 * 2 + i % 2;
        p.d[row * N + column] = d[i];
    }
}

#define MULTIPLY(NAME, ELEMENT, N, MAJOR, A_IN_REGISTERS)                                         \
    extern "C" __global__ void __launch_bounds__(128) NAME(const __grid_constant__ TileArguments p) { \
        multiply<ELEMENT, N, ptx::Major::MAJOR, A_IN_REGISTERS>(p);                               \
    }

MULTIPLY(ss_f16_64_k, __half, 64, K, false)
MULTIPLY(ss_bf16_96_k, __nv_bfloat16, 96, K, false)
MULTIPLY(ss_f16_176_k, __half, 176, K, false)
MULTIPLY(ss_f16_256_k, __half, 256, K, false)
MULTIPLY(rs_f16_128_k, __half, 128, K, true)
MULTIPLY(ss_f16_128_mn, __half, 128, MN, false)
MULTIPLY(rs_f16_64_mn, __half, 64, MN, true)
MULTIPLY(rs_bf16_96_mn, __nv_bfloat16, 96, MN, true)
MULTIPLY(rs_f16_192_mn, __half, 192, MN, true)
MULTIPLY(rs_f16_256_mn, __half, 256, MN, true)
