// The rounding of a float to bfloat16 that clang calls for `__bf16` and that libgcc lacks before version 13.
#include <bit>
#include <cstdint>

// Declared as returning a float, since not every compiler knows the type: both come back in the low bits of the same
// register.
extern "C" __attribute__((weak)) float __truncsfbf2(float value) {
    const uint32_t bits = std::bit_cast<uint32_t>(value);
    if ((bits & 0x7fffffff) > 0x7f800000) return std::bit_cast<float>(0x7fffu);
    return std::bit_cast<float>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
