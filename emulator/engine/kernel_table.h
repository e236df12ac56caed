// How a kernel, a plain C++ function to the host compiler, is called with the bytes of its arguments.
#pragma once

#include <cstddef>
#include <cstdint>
#include <new>
#include <tuple>
#include <utility>

#include "emulator.h"

namespace emulator {

// An entry of the table `emulator_kernels` that every kernel library defines; a null name ends it.
struct Kernel {
    const char* name;
    void (*call)(const void* arguments);
    size_t argument_bytes;
};

// Where each parameter lies: one after the other, each at its own alignment, as in a CUDA launch.
template <class... Parameters>
struct ArgumentLayout {
    static constexpr size_t COUNT = sizeof...(Parameters);
    size_t offsets[COUNT + 1] = {};
    constexpr ArgumentLayout() {
        const size_t sizes[] = {sizeof(Parameters)..., 0};
        const size_t alignments[] = {alignof(Parameters)..., 1};
        size_t end = 0;
        for (size_t i = 0; i < COUNT; ++i) {
            offsets[i] = (end + alignments[i] - 1) / alignments[i] * alignments[i];
            end = offsets[i] + sizes[i];
        }
        offsets[COUNT] = end;
    }
};

// Makes the table's entry for one kernel.
template <auto KERNEL>
struct KernelEntry;

template <class... Parameters, void (*KERNEL)(Parameters...)>
struct KernelEntry<KERNEL> {
    static constexpr ArgumentLayout<Parameters...> LAYOUT = {};

    static EMULATOR_UNCHECKED void call(const void* arguments) {
        call(static_cast<const unsigned char*>(arguments), std::index_sequence_for<Parameters...>());
    }

    static constexpr Kernel named(const char* name) { return {name, call, LAYOUT.offsets[sizeof...(Parameters)]}; }

   private:
    template <size_t... I>
    static EMULATOR_UNCHECKED void call(const unsigned char* arguments, std::index_sequence<I...>) {
        KERNEL(*std::launder(reinterpret_cast<const Parameters*>(arguments + LAYOUT.offsets[I]))...);
    }
};

}  // namespace emulator
