// The first thing found wrong in a launch. It ends the launch.
#pragma once

#include <cstdint>

#include "emulator.h"

namespace emulator {

// Numbered as `FindingKind` on the Rust side.
enum class Kind : uint32_t {
    None = 0,
    OutOfBounds = 1,
    Uninitialised = 2,
    Race = 3,
    Blocks = 4,
    Asynchronous = 5,
    Divergence = 6,
    Deadlock = 7,
    Misuse = 8,
    Setup = 9,
};

// Crosses the C interface: plain data only.
struct Finding {
    Kind kind = Kind::None;
    uint32_t block[3] = {};
    uint32_t thread = NO_THREAD;
    uint32_t line = 0;           // 0 where only the code address is known
    uint64_t code_offset = 0;    // in the library, for a plain load or store; 0 if unknown
    char file[256] = {};
    char message[512] = {};

    static constexpr uint32_t NO_THREAD = 0xffffffff;
};

// Where the access under check stands in the source: set by whoever was called by the kernel.
struct Origin {
    const void* code = nullptr;
    Place place = {};
};

// Keeps the finding if it is the first.
void record(Kind kind, const char* format, ...) __attribute__((format(printf, 2, 3)));

// Records it and never returns to the calling GPU thread.
[[noreturn]] void report(Kind kind, const char* format, ...) __attribute__((format(printf, 2, 3)));

}  // namespace emulator
