// What a Metal kernel gets from its attributes, in OpenCL C++. Nothing runs: on AMD GPUs, whose registers are counted,
// these are instructions of theirs, elsewhere declarations.
#pragma once

#include <metal_stdlib>

namespace emulator {

// Becomes the pointer or reference that a parameter asks for.
struct Memory {
    ulong start;
    template <class T>
    operator __global T*() const {
        return (__global T*)start;
    }
    template <class T>
    operator __constant T&() const {
        return *(__constant T*)start;
    }
};

#ifdef __AMDGCN__
inline Memory buffer(uint index) {
    return {((const __constant ulong*)__builtin_amdgcn_kernarg_segment_ptr())[index]};
}
inline uint threadgroup_position_in_grid() { return __builtin_amdgcn_workgroup_id_x(); }
inline uint thread_index_in_threadgroup() { return __builtin_amdgcn_workitem_id_x(); }
inline uint thread_index_in_simdgroup() { return __builtin_amdgcn_workitem_id_x() % 32; }
// The same in all lanes.
inline uint simdgroup_index_in_threadgroup() {
    return __builtin_amdgcn_readfirstlane(__builtin_amdgcn_workitem_id_x() / 32);
}
#endif

// The `number`-th threadgroup array of a kernel: some address, whose arrays do not overlap.
template <class Array>
inline __local Array& threadgroup_array(ulong number) {
    return *(__local Array*)(0x8000ul * (number + 1));
}

}  // namespace emulator
