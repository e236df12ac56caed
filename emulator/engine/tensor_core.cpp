#include "tensor_core.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>

namespace emulator {
namespace {

constexpr unsigned LARGEST_BLOCK = 16;

// 2^exponent.
double power_of_two(int exponent) { return std::bit_cast<double>(uint64_t(exponent + 1023) << 52); }

float toward_zero(double x) {
    const float nearest = float(x);
    return std::abs(double(nearest)) > std::abs(x) ? std::nextafter(nearest, 0.0f) : nearest;
}

float add_block(float c, const float* a, const float* b, unsigned count) {
    double products[LARGEST_BLOCK];
    double largest = std::abs(double(c)), plain = c;
    for (unsigned i = 0; i < count; ++i) {
        products[i] = double(a[i]) * b[i];
        largest = std::max(largest, std::abs(products[i]));
        plain += products[i];
    }
    // Infinities and NaN are what they are in any arithmetic.
    if (!std::isfinite(plain) || largest == 0.0) return float(plain);
    const int exponent = int(std::bit_cast<uint64_t>(largest) >> 52) - 1023;
    const double unit = power_of_two(exponent - 23), per_unit = power_of_two(23 - exponent);
    int32_t sum = int32_t(c * per_unit);
    for (unsigned i = 0; i < count; ++i) sum += int32_t(products[i] * per_unit);
    return toward_zero(sum * unit);
}

}  // namespace

float tensor_core_add(float c, const float* a, const float* b, unsigned depth, unsigned block) {
    for (unsigned k = 0; k < depth; k += block) c = add_block(c, a + k, b + k, std::min(block, depth - k));
    return c;
}

}  // namespace emulator
