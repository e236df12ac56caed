// The Metal vocabulary: one mistake per kernel where `seeded` is set, and matrix products to compare.
#include <metal_stdlib>
using namespace metal;

constant bool seeded [[function_constant(0)]];

kernel void missing_threadgroup_barrier(const device float* input [[buffer(0)]], device float* output [[buffer(1)]],
                                        threadgroup float* shared [[threadgroup(0)]],
                                        uint thread_index [[thread_index_in_threadgroup]]) {
    shared[thread_index] = input[thread_index];
    if (!seeded) threadgroup_barrier(mem_flags::mem_threadgroup);
    output[thread_index] = shared[thread_index ^ 32];
}

kernel void barrier_without_memory(const device float* input [[buffer(0)]], device float* output [[buffer(1)]],
                                   uint thread_index [[thread_index_in_threadgroup]]) {
    threadgroup float shared[64];
    shared[thread_index] = input[thread_index];
    threadgroup_barrier(seeded ? mem_flags::mem_none : mem_flags::mem_threadgroup);
    output[thread_index] = shared[thread_index ^ 32];
}

kernel void beyond_the_buffer(const device float* input [[buffer(0)]], device float* output [[buffer(1)]],
                              uint thread_index [[thread_index_in_threadgroup]]) {
    output[thread_index] = input[thread_index + (seeded ? 1024 : 0)];
}

kernel void load_beyond_the_buffer(const device float* input [[buffer(0)]], device float* output [[buffer(1)]],
                                   uint simdgroup [[simdgroup_index_in_threadgroup]]) {
    simdgroup_matrix<float, 8, 8> m;
    simdgroup_load(m, input + (seeded ? 1000 : 0), 8);
    if (simdgroup == 0) simdgroup_store(m, output, 8);
}

kernel void divergent_maximum(const device float* input [[buffer(0)]], device float* output [[buffer(1)]],
                              uint thread_index [[thread_index_in_threadgroup]],
                              uint lane [[thread_index_in_simdgroup]]) {
    float x = input[thread_index];
    if (!seeded || lane < 16) x = simd_max(x);
    output[thread_index] = x;
}

kernel void two_groups_write_one_address(const device float* input [[buffer(0)]], device float* output [[buffer(1)]],
                                         uint3 group [[threadgroup_position_in_grid]],
                                         uint thread_index [[thread_index_in_threadgroup]]) {
    output[(seeded ? 0 : group.x * 64) + thread_index] = input[thread_index];
}

// D = A · Bᵀ + A, each [8, 8], by each simdgroup on its own.
template <typename T>
kernel void multiply(const device T* a [[buffer(0)]], const device T* b [[buffer(1)]], device float* d [[buffer(2)]],
                     uint simdgroup [[simdgroup_index_in_threadgroup]]) {
    simdgroup_matrix<T, 8, 8> left, right;
    simdgroup_load(left, a, 8);
    simdgroup_load(right, b, 8, ulong2(0, 0), true);
    simdgroup_matrix<float, 8, 8> sum = make_filled_simdgroup_matrix<float, 8, 8>(0.0f);
    simdgroup_multiply_accumulate(sum, left, right, sum);
    simdgroup_multiply_accumulate(sum, left, simdgroup_matrix<T, 8, 8>(T(1)), sum);
    sum.thread_elements() *= 1.0f;
    simdgroup_store(sum, d + simdgroup * 64, 8);
}
template [[host_name("multiply_f16")]] [[kernel]] decltype(multiply<half>) multiply<half>;
template [[host_name("multiply_bf16")]] [[kernel]] decltype(multiply<bfloat>) multiply<bfloat>;
template [[host_name("multiply_f32")]] [[kernel]] decltype(multiply<float>) multiply<float>;

// Sums, maxima and shuffles of a simdgroup, and a vector.
kernel void reduce(const device float* input [[buffer(0)]], device float4* output [[buffer(1)]],
                   uint thread_index [[thread_index_in_threadgroup]]) {
    const float x = input[thread_index];
    output[thread_index] = float4(simd_sum(x), simd_max(x), simd_shuffle_xor(x, 1), simd_broadcast(x, 2));
}

#ifdef WRONG_ADDRESS_SPACE
kernel void mixes_address_spaces(device float* output [[buffer(0)]], threadgroup float* shared [[threadgroup(0)]]) {
    device float* wrong = shared;
    output[0] = wrong[0];
}
#endif

#ifdef WRONG_STANDARD
kernel void decides_as_in_cpp17(device float* output [[buffer(0)]]) {
    if constexpr (sizeof(float) == 4) output[0] = 1.0f;
}
#endif
