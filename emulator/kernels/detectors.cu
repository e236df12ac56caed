// One mistake per kernel, made where `seeded` is set; otherwise the kernel is right. Blocks have 64 threads.
#include <ptx.cuh>

struct DetectorArguments {
    const float* input;   // one float per thread of the grid
    float* output;        // the same, not initialised
    float* partials;      // the same, not initialised
    uint32_t* counter;    // 0
    uint32_t seeded;
};

__device__ __forceinline__ float* shared_floats() { return reinterpret_cast<float*>(ptx::dynamic_shared_memory()); }

__device__ __forceinline__ uint32_t grid_thread() { return blockIdx.x * blockDim.x + threadIdx.x; }

extern "C" __global__ void missing_barrier(DetectorArguments p) {
    float* shared = shared_floats();
    shared[threadIdx.x] = p.input[grid_thread()];
    if (!p.seeded) __syncthreads();
    p.output[grid_thread()] = shared[threadIdx.x ^ 32];
}

extern "C" __global__ void missing_barrier_before_reuse(DetectorArguments p) {
    float* shared = shared_floats();
    shared[threadIdx.x] = p.input[grid_thread()];
    __syncthreads();
    const float first = shared[threadIdx.x ^ 32];
    if (!p.seeded) __syncthreads();
    shared[threadIdx.x] = first;
    __syncthreads();
    p.output[grid_thread()] = shared[threadIdx.x];
}

extern "C" __global__ void missing_warp_barrier(DetectorArguments p) {
    float* shared = shared_floats();
    shared[threadIdx.x] = p.input[grid_thread()];
    if (!p.seeded) __syncwarp();
    p.output[grid_thread()] = shared[threadIdx.x ^ 1];
}

extern "C" __global__ void named_barrier_of_the_wrong_warps(DetectorArguments p) {
    float* shared = shared_floats();
    shared[threadIdx.x] = p.input[grid_thread()];
    if (p.seeded) ptx::bar_sync(1 + threadIdx.x / 32, 32);
    else ptx::bar_sync(1, 64);
    p.output[grid_thread()] = shared[threadIdx.x ^ 32];
}

// The producer warp may only pass its barrier once it has written.
extern "C" __global__ void early_arrival(DetectorArguments p) {
    float* shared = shared_floats();
    if (threadIdx.x < 32) {
        if (p.seeded) ptx::bar_arrive(1, 64);
        shared[threadIdx.x] = p.input[grid_thread()];
        if (!p.seeded) ptx::bar_arrive(1, 64);
    } else {
        ptx::bar_sync(1, 64);
        p.output[grid_thread()] = shared[threadIdx.x - 32];
    }
}

extern "C" __global__ void read_beyond_the_buffer(DetectorArguments p) {
    p.output[grid_thread()] = p.input[grid_thread() + p.seeded];
}

extern "C" __global__ void write_beyond_the_buffer(DetectorArguments p) {
    p.output[grid_thread() + p.seeded] = 1.0f;
}

extern "C" __global__ void write_to_an_input(DetectorArguments p) {
    float* target = p.seeded ? const_cast<float*>(p.input) : p.output;
    target[grid_thread()] = 1.0f;
}

extern "C" __global__ void beyond_shared_memory(DetectorArguments p) {
    shared_floats()[threadIdx.x + (p.seeded ? 4096 : 0)] = p.input[grid_thread()];
}

extern "C" __global__ void misaligned_read(DetectorArguments p) {
    const float4 four = __ldg(reinterpret_cast<const float4*>(p.input + threadIdx.x / 4 * 4 + p.seeded));
    p.output[grid_thread()] = four.x + four.y + four.z + four.w;
}

extern "C" __global__ void uninitialised_shared_memory(DetectorArguments p) {
    float* shared = shared_floats();
    if (!p.seeded || threadIdx.x != 7) shared[threadIdx.x] = p.input[grid_thread()];
    __syncthreads();
    p.output[grid_thread()] = shared[threadIdx.x ^ 32];
}

extern "C" __global__ void uninitialised_global_memory(DetectorArguments p) {
    if (!p.seeded) p.output[grid_thread()] = 0.0f;
    p.output[grid_thread()] += p.input[grid_thread()];
}

extern "C" __global__ void copy_read_before_its_wait(DetectorArguments p) {
    float* shared = shared_floats();
    ptx::cp_async_16(ptx::shared_address(shared + threadIdx.x * 4), p.input, 16);
    ptx::cp_async_commit();
    if (p.seeded) ptx::cp_async_wait<1>();
    else ptx::cp_async_wait<0>();
    p.output[grid_thread()] = shared[threadIdx.x * 4];
}

extern "C" __global__ void copy_read_before_the_barrier(DetectorArguments p) {
    float* shared = shared_floats();
    ptx::cp_async_16(ptx::shared_address(shared + threadIdx.x * 4), p.input, 16);
    ptx::cp_async_commit();
    ptx::cp_async_wait<0>();
    if (!p.seeded) __syncthreads();
    p.output[grid_thread()] = shared[(threadIdx.x ^ 32) * 4];
}

extern "C" __global__ void two_blocks_write_one_address(DetectorArguments p) {
    p.output[p.seeded ? threadIdx.x : grid_thread()] = 1.0f;
}

// The last block to arrive adds up what all have written.
extern "C" __global__ void combination_without_fences(DetectorArguments p) {
    uint32_t* shared = reinterpret_cast<uint32_t*>(ptx::dynamic_shared_memory());
    p.partials[grid_thread()] = p.input[grid_thread()];
    __syncthreads();
    if (threadIdx.x == 0) {
        if (!p.seeded) __threadfence();
        *shared = atomicAdd(p.counter, 1);
        __threadfence();
    }
    __syncthreads();
    if (*shared != gridDim.x - 1) return;
    float sum = 0.0f;
    for (uint32_t block = 0; block < gridDim.x; ++block) sum += p.partials[block * blockDim.x + threadIdx.x];
    p.output[threadIdx.x] = sum;
}

extern "C" __global__ void combination_released_too_early(DetectorArguments p) {
    uint32_t* shared = reinterpret_cast<uint32_t*>(ptx::dynamic_shared_memory());
    p.partials[grid_thread()] = p.input[grid_thread()];
    if (!p.seeded) __syncthreads();
    if (threadIdx.x == 0) *shared = ptx::atomic_add_acq_rel(p.counter, 1);
    __syncthreads();
    if (*shared != gridDim.x - 1) return;
    float sum = 0.0f;
    for (uint32_t block = 0; block < gridDim.x; ++block) sum += p.partials[block * blockDim.x + threadIdx.x];
    p.output[threadIdx.x] = sum;
}

extern "C" __global__ void divergent_shuffle(DetectorArguments p) {
    float x = p.input[grid_thread()];
    if (!p.seeded || threadIdx.x % 32 < 16) x += __shfl_xor_sync(0xffffffff, x, 1);
    p.output[grid_thread()] = x;
}

extern "C" __global__ void shuffles_of_different_lines(DetectorArguments p) {
    float x = p.input[grid_thread()];
    if (!p.seeded || threadIdx.x % 32 < 16)
        x += __shfl_xor_sync(0xffffffff, x, 1);
    else
        x += __shfl_xor_sync(0xffffffff, x, 1);
    p.output[grid_thread()] = x;
}

extern "C" __global__ void barrier_that_a_lane_skips(DetectorArguments p) {
    if (!p.seeded || threadIdx.x != 5) __syncthreads();
    p.output[grid_thread()] = 1.0f;
}
