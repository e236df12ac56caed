// How a Metal kernel gets what its attributes ask for: buffers, threadgroup memory, positions, function constants.
#pragma once

#include <cstring>
#include <metal_stdlib>

namespace emulator {

// `MetalArguments` on the Rust side.
struct MetalArguments {
    void* buffers[31];
    uint32_t threadgroup_offsets[8];
    uint64_t threadgroup_bytes;
    uint64_t constants[64];
};

inline EMULATOR_UNCHECKED const MetalArguments& metal_arguments() {
    return *static_cast<const MetalArguments*>(launch_arguments());
}

// Becomes the pointer or reference that a parameter asks for.
struct Memory {
    void* start;
    template <class T>
    EMULATOR_UNCHECKED operator T*() const {
        return static_cast<T*>(start);
    }
    template <class T>
    EMULATOR_UNCHECKED operator T&() const {
        return *static_cast<T*>(start);
    }
};

// Becomes the vector or number that a parameter asks for.
struct Position {
    Dim3 value;
    EMULATOR_UNCHECKED operator metal::vec<uint, 3>() const { return uint3(value.x, value.y, value.z); }
    EMULATOR_UNCHECKED operator metal::vec<uint, 2>() const { return uint2(value.x, value.y); }
    EMULATOR_UNCHECKED operator uint() const { return value.x; }
};

inline EMULATOR_UNCHECKED Memory buffer(unsigned index) { return {metal_arguments().buffers[index]}; }
inline EMULATOR_UNCHECKED Memory threadgroup_memory(unsigned index) {
    return {shared_base() + metal_arguments().threadgroup_offsets[index]};
}

inline EMULATOR_UNCHECKED Position threadgroup_position_in_grid() { return {block_index()}; }
inline EMULATOR_UNCHECKED Position threadgroups_per_grid() { return {grid_size()}; }
inline EMULATOR_UNCHECKED Position thread_position_in_threadgroup() { return {thread_index()}; }
inline EMULATOR_UNCHECKED Position threads_per_threadgroup() { return {block_size()}; }
inline EMULATOR_UNCHECKED uint thread_index_in_threadgroup() { return linear_thread_index(); }
inline EMULATOR_UNCHECKED uint thread_index_in_simdgroup() { return lane_index(); }
inline EMULATOR_UNCHECKED uint simdgroup_index_in_threadgroup() { return warp_index(); }

// A value that is chosen when the pipeline is made.
template <class T, unsigned INDEX>
struct FunctionConstant {
#ifdef MSL_CHECK
    operator T() const;
#else
    EMULATOR_UNCHECKED operator T() const {
        T value;
        memcpy(&value, &metal_arguments().constants[INDEX], sizeof value);
        return value;
    }
#endif
};

// The array that a `threadgroup` declaration inside a function stands for.
template <class Array, unsigned PLACE>
EMULATOR_UNCHECKED Array& threadgroup_array() {
    static const char key = 0;
    return *static_cast<Array*>(shared_array(&key, sizeof(Array), 16, metal_arguments().threadgroup_bytes));
}

}  // namespace emulator
