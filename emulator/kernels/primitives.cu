// One primitive per kernel, between plain loads and stores: a test compares the result with a plain computation.
#include <ptx.cuh>

struct MatrixArguments {
    const void* a;
    const void* b;
    float* d;
};

// Two neighbouring 16-bit elements of a matrix with `columns` columns.
__device__ __forceinline__ uint32_t pair(const void* matrix, int columns, int row, int column) {
    return *reinterpret_cast<const uint32_t*>(static_cast<const uint16_t*>(matrix) + row * columns + column);
}

__device__ __forceinline__ void store_fragment(float* d, const float (&fragment)[4]) {
    const int group = threadIdx.x / 4, first = threadIdx.x % 4 * 2;
    for (int i = 0; i < 4; ++i) d[(group + i / 2 * 8) * 8 + first + i % 2] = fragment[i];
}

// D [16, 8] = A [16, 16] · B [8, 16]ᵀ, elements of 16 bits.
template <void (*MMA)(float (&)[4], const uint32_t (&)[4], const uint32_t (&)[2])>
__device__ __forceinline__ void multiply_16(const MatrixArguments& p) {
    const int group = threadIdx.x / 4, first = threadIdx.x % 4 * 2;
    const uint32_t a[4] = {pair(p.a, 16, group, first), pair(p.a, 16, group + 8, first),
                           pair(p.a, 16, group, first + 8), pair(p.a, 16, group + 8, first + 8)};
    const uint32_t b[2] = {pair(p.b, 16, group, first), pair(p.b, 16, group, first + 8)};
    float d[4] = {};
    MMA(d, a, b);
    store_fragment(p.d, d);
}

__device__ __forceinline__ void mma_f16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    ptx::mma_m16n8k16_f16(d, a, b);
}
__device__ __forceinline__ void mma_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    ptx::mma_m16n8k16_bf16(d, a, b);
}

extern "C" __global__ void multiply_f16(MatrixArguments p) { multiply_16<mma_f16>(p); }

extern "C" __global__ void multiply_bf16(MatrixArguments p) { multiply_16<mma_bf16>(p); }

// D [16, 8] = A [16, 8] · B [8, 8]ᵀ in TF32.
__device__ __forceinline__ void multiply_8(const MatrixArguments& p) {
    const auto a_matrix = static_cast<const float*>(p.a), b_matrix = static_cast<const float*>(p.b);
    const int group = threadIdx.x / 4, column = threadIdx.x % 4;
    const auto a_at = [&](int row, int k) { return ptx::to_tf32(a_matrix[row * 8 + k]); };
    const auto b_at = [&](int row, int k) { return ptx::to_tf32(b_matrix[row * 8 + k]); };
    const uint32_t a[4] = {a_at(group, column), a_at(group + 8, column), a_at(group, column + 4),
                           a_at(group + 8, column + 4)};
    const uint32_t b[2] = {b_at(group, column), b_at(group, column + 4)};
    float d[4] = {};
    ptx::mma_m16n8k8_tf32(d, a, b);
    store_fragment(p.d, d);
}

extern "C" __global__ void multiply_tf32(MatrixArguments p) { multiply_8(p); }

extern "C" __global__ void cut_off_tf32(MatrixArguments p) { multiply_8(p); }

// D [16, 8] = A [16, 16] · B, fragments through ldmatrix: B is [8, 16] (ldmatrix) or [16, 8] (transposed).
template <bool TRANSPOSED>
__device__ __forceinline__ void multiply_loaded(const MatrixArguments& p) {
    unsigned char* shared = ptx::dynamic_shared_memory();
    const uint32_t a_tile = ptx::shared_address(shared), b_tile = a_tile + 16 * 16 * 2;
    const auto a_chunks = static_cast<const uint4*>(p.a), b_chunks = static_cast<const uint4*>(p.b);
    ptx::cp_async_16(a_tile + threadIdx.x * 16, a_chunks + threadIdx.x, 16);
    if (threadIdx.x < 16) ptx::cp_async_16(b_tile + threadIdx.x * 16, b_chunks + threadIdx.x, 16);
    ptx::cp_async_commit();
    ptx::cp_async_wait<0>();
    __syncwarp();
    uint32_t a[4], matrices[4];
    const int lane = threadIdx.x;
    ptx::ldmatrix_x4(a, a_tile + (lane % 16 * 16 + lane / 16 * 8) * 2);
    // B is two matrices; the other two are the same once more.
    if constexpr (TRANSPOSED) ptx::ldmatrix_x4_trans(matrices, b_tile + lane % 16 * 8 * 2);
    else ptx::ldmatrix_x4(matrices, b_tile + (lane % 8 * 16 + lane / 8 % 2 * 8) * 2);
    const uint32_t b[2] = {matrices[2], matrices[3]};
    float d[4] = {};
    ptx::mma_m16n8k16_f16(d, a, b);
    store_fragment(p.d, d);
}

extern "C" __global__ void multiply_loaded_rows(MatrixArguments p) { multiply_loaded<false>(p); }

extern "C" __global__ void multiply_loaded_columns(MatrixArguments p) { multiply_loaded<true>(p); }

// d[i] = the 16-bit element that ldmatrix_x4_trans gives lane i/8 as its number i%8, as a number.
extern "C" __global__ void transpose_four(MatrixArguments p) {
    unsigned char* shared = ptx::dynamic_shared_memory();
    const uint32_t tile = ptx::shared_address(shared);
    ptx::cp_async_16(tile + threadIdx.x * 16, static_cast<const uint4*>(p.a) + threadIdx.x, 16);
    ptx::cp_async_commit();
    ptx::cp_async_wait<0>();
    __syncwarp();
    uint32_t r[4];
    ptx::ldmatrix_x4_trans(r, tile + threadIdx.x * 16);
    for (int i = 0; i < 8; ++i) p.d[threadIdx.x * 8 + i] = float(r[i / 2] >> i % 2 * 16 & 0xffff);
}

// d [32, 4]: the first `lane % 17` bytes of 16, the rest zero.
extern "C" __global__ void copy_partially(MatrixArguments p) {
    unsigned char* shared = ptx::dynamic_shared_memory() + threadIdx.x * 16;
    ptx::cp_async_16(ptx::shared_address(shared), static_cast<const uint4*>(p.a) + threadIdx.x, threadIdx.x % 5 * 4);
    ptx::cp_async_commit();
    ptx::cp_async_wait<0>();
    for (int i = 0; i < 4; ++i) p.d[threadIdx.x * 4 + i] = reinterpret_cast<const float*>(shared)[i];
}

// d [32, 8]: conversions, exponential, shuffles and votes of a[lane].
extern "C" __global__ void convert(MatrixArguments p) {
    const float x = static_cast<const float*>(p.a)[threadIdx.x];
    float* d = p.d + threadIdx.x * 8;
    d[0] = float(ptx::pack_f16x2(x, 0.0f));
    d[1] = float(ptx::pack_bf16x2(0.0f, x) >> 16);
    d[2] = __uint_as_float(ptx::to_tf32(x));
    d[3] = ptx::exp2_approx(x);
    d[4] = __shfl_xor_sync(0xffffffff, x, 5);
    d[5] = __shfl_sync(0xffffffff, x, 3);
    d[6] = float(__popc(__ballot_sync(0xffffffff, x > 0.0f)));
    d[7] = float(__any_sync(0xffffffff, x > 2.0f) + 2 * __all_sync(0xffffffff, x > -100.0f));
}
