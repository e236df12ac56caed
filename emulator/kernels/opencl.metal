// What only the front end for OpenCL C++ sees, and registers to count.
#include <metal_simdgroup_matrix>
#include <metal_stdlib>
using namespace metal;

// Sums of SUMS products that live side by side.
kernel void many_sums(const device float2* input [[buffer(0)]], device float2* output [[buffer(1)]],
                      uint thread_index [[thread_index_in_threadgroup]]) {
    float2 sums[SUMS];
    for (uint step = 0; step < 1000; ++step) {
#pragma clang loop unroll(full)
        for (uint i = 0; i < SUMS; ++i) {
            if (step == 0) sums[i] = float2(0.0f);
            sums[i] += input[step * SUMS + i];
        }
    }
#pragma clang loop unroll(full)
    for (uint i = 0; i < SUMS; ++i) output[thread_index * SUMS + i] = sums[i];
}

#ifdef KEPT_MATRIX
// A matrix as a member: where its constructor is for the thread's own memory alone, there is none for this.
struct Kept {
    simdgroup_matrix<float, 8, 8> matrix;
};

kernel void keeps_a_matrix(device float* output [[buffer(0)]]) {
    Kept kept;
    output[0] = kept.matrix.thread_elements()[0];
}
#endif
