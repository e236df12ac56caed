// The permutation of 16-byte chunks that TMA applies when it writes a tile and wgmma when it reads one.
#pragma once

#include <cstdint>

namespace emulator {

// `span`: 32, 64 or 128 bytes; 0 and 16 leave the address as it is.
inline uint32_t swizzle(uint32_t address, uint32_t span) {
    if (span < 32) return address;
    const uint32_t chunks = span / 16;
    return address ^ (address >> 7 & (chunks - 1)) << 4;
}

}  // namespace emulator
