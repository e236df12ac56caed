// Warpgroup matrix instructions that have been issued and not waited for.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <vector>

#include "emulator.h"

namespace emulator {

struct WgmmaInstruction {
    WgmmaShape shape;
    std::array<float*, 128> accumulators;               // by thread
    std::vector<std::array<uint32_t, 4>> a_registers;   // by thread; empty where A lies in shared memory
    uint64_t a_descriptor;
    uint64_t b_descriptor;
    bool accumulate;
    unsigned group;
};

struct Warpgroup {
    std::vector<WgmmaInstruction> issued;
    unsigned group = 0;   // that the next commit ends
    bool fenced = false;  // since the registers were last free to be touched
    // The true contents of accumulators that hold NaN until their wait.
    std::map<float*, std::vector<float>> accumulators;

    // Reports an access to accumulators that have not been waited for.
    void check_registers(const void* address, size_t bytes, const char* what) const;
};

}  // namespace emulator
