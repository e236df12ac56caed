// Arithmetic and logic on registers.
#include <bit>
#include <cmath>
#include <functional>
#include <limits>
#include <type_traits>

#include "../engine/numbers.h"
#include "machine.h"

namespace emulator::ptx {
namespace {

template <class T, auto FUNCTION>
void unary(Machine& m, const uint32_t* o) {
    m.set<T>(o[0], FUNCTION(m.get<T>(o[1])));
}

template <class T, auto FUNCTION>
void binary(Machine& m, const uint32_t* o) {
    m.set<T>(o[0], FUNCTION(m.get<T>(o[1]), m.get<T>(o[2])));
}

template <class T, auto FUNCTION>
void ternary(Machine& m, const uint32_t* o) {
    m.set<T>(o[0], FUNCTION(m.get<T>(o[1]), m.get<T>(o[2]), m.get<T>(o[3])));
}

template <class T, class Wide>
void multiply_wide(Machine& m, const uint32_t* o) {
    m.set<Wide>(o[0], Wide(m.get<T>(o[1])) * Wide(m.get<T>(o[2])));
}

template <class T, class Wide>
void multiply_add_wide(Machine& m, const uint32_t* o) {
    m.set<Wide>(o[0], Wide(m.get<T>(o[1])) * Wide(m.get<T>(o[2])) + m.get<Wide>(o[3]));
}

// Shifts by more than the width are shifts by the width.
template <class T>
void shift_left(Machine& m, const uint32_t* o) {
    const uint32_t by = m.get<uint32_t>(o[2]);
    m.set<T>(o[0], by < sizeof(T) * 8 ? m.get<T>(o[1]) << by : 0);
}

template <class T>
void shift_right(Machine& m, const uint32_t* o) {
    const uint32_t by = m.get<uint32_t>(o[2]), most = sizeof(T) * 8 - 1;
    const T value = m.get<T>(o[1]);
    if constexpr (std::is_signed_v<T>) m.set<T>(o[0], value >> std::min(by, most));
    else m.set<T>(o[0], by <= most ? value >> by : 0);
}

template <class T, auto FUNCTION>
void divide(Machine& m, const uint32_t* o) {
    const T dividend = m.get<T>(o[1]), divisor = m.get<T>(o[2]);
    if (divisor == 0) refuse(m, Kind::Misuse, "division by zero");
    m.set<T>(o[0], FUNCTION(dividend, divisor));
}

// The `length` low bits of the first source, from `position` on in the second.
void insert_bits(Machine& m, const uint32_t* o) {
    const uint32_t position = m.get<uint32_t>(o[3]) & 0xff, length = m.get<uint32_t>(o[4]) & 0xff;
    const uint64_t mask = length == 0 || position > 31 ? 0 : ((uint64_t(1) << std::min(length, 32u)) - 1) << position;
    const uint64_t inserted = uint64_t(m.get<uint32_t>(o[1])) << std::min(position, 32u);
    m.set<uint32_t>(o[0], uint32_t((inserted & mask) | (m.get<uint32_t>(o[2]) & ~mask)));
}

void count_bits(Machine& m, const uint32_t* o) { m.set<uint32_t>(o[0], std::popcount(m.get<uint32_t>(o[1]))); }

float smaller(float x, float y) { return fminf(x, y); }
float larger(float x, float y) { return fmaxf(x, y); }
float negative(float x) { return std::bit_cast<float>(std::bit_cast<uint32_t>(x) ^ 0x80000000); }
float magnitude(float x) { return std::bit_cast<float>(std::bit_cast<uint32_t>(x) & 0x7fffffff); }
float reciprocal(float x) { return 1.0f / x; }
float fused(float x, float y, float z) { return fmaf(x, y, z); }

template <class T>
constexpr auto multiply_add = [](T x, T y, T z) { return T(x * y + z); };

// What looks at bits and not at numbers.
template <class T>
void add_logic(Opcodes& table, const std::string& type, const std::string& width) {
    const std::string one = "=" + width + " " + width, two = one + " " + width;
    table.push_back({"and." + type, two, binary<T, std::bit_and<T>{}>});
    table.push_back({"or." + type, two, binary<T, std::bit_or<T>{}>});
    table.push_back({"xor." + type, two, binary<T, std::bit_xor<T>{}>});
    if constexpr (std::is_same_v<T, bool>) table.push_back({"not." + type, one, unary<T, std::logical_not<T>{}>});
    else table.push_back({"not." + type, one, unary<T, std::bit_not<T>{}>});
}

template <class T, class Unsigned>
void add_integers(Opcodes& table, const std::string& type, const std::string& width) {
    const std::string one = "=" + width + " " + width, two = one + " " + width, three = two + " " + width;
    table.push_back({"add." + type, two, binary<Unsigned, std::plus<Unsigned>{}>});
    table.push_back({"sub." + type, two, binary<Unsigned, std::minus<Unsigned>{}>});
    table.push_back({"mul.lo." + type, two, binary<Unsigned, std::multiplies<Unsigned>{}>});
    table.push_back({"mad.lo." + type, three, ternary<Unsigned, multiply_add<Unsigned>>});
    table.push_back({"div." + type, two, divide<T, std::divides<T>{}>});
    table.push_back({"rem." + type, two, divide<T, std::modulus<T>{}>});
    table.push_back({"min." + type, two, binary<T, [](T x, T y) { return std::min(x, y); }>});
    table.push_back({"max." + type, two, binary<T, [](T x, T y) { return std::max(x, y); }>});
    table.push_back({"shr." + type, one + " 32", shift_right<T>});
}

}  // namespace

void add_arithmetic(Opcodes& table) {
    add_integers<uint16_t, uint16_t>(table, "u16", "16");
    add_integers<int16_t, uint16_t>(table, "s16", "16");
    add_integers<uint32_t, uint32_t>(table, "u32", "32");
    add_integers<int32_t, uint32_t>(table, "s32", "32");
    add_integers<uint64_t, uint64_t>(table, "u64", "64");
    add_integers<int64_t, uint64_t>(table, "s64", "64");
    table.push_back({"mul.wide.u16", "=32 16 16", multiply_wide<uint16_t, uint32_t>});
    table.push_back({"mul.wide.u32", "=64 32 32", multiply_wide<uint32_t, uint64_t>});
    table.push_back({"mul.wide.s32", "=64 32 32", multiply_wide<int32_t, int64_t>});
    table.push_back({"mad.wide.u32", "=64 32 32 64", multiply_add_wide<uint32_t, uint64_t>});
    table.push_back({"mad.wide.s32", "=64 32 32 64", multiply_add_wide<int32_t, int64_t>});

    add_logic<bool>(table, "pred", "p");
    add_logic<uint16_t>(table, "b16", "16");
    add_logic<uint32_t>(table, "b32", "32");
    add_logic<uint64_t>(table, "b64", "64");
    table.push_back({"shl.b16", "=16 16 32", shift_left<uint16_t>});
    table.push_back({"shl.b32", "=32 32 32", shift_left<uint32_t>});
    table.push_back({"shl.b64", "=64 64 32", shift_left<uint64_t>});
    table.push_back({"bfi.b32", "=32 32 32 32 32", insert_bits});
    table.push_back({"popc.b32", "=32 32", count_bits});

    table.push_back({"add.f32", "=32 32 32", binary<float, std::plus<float>{}>});
    table.push_back({"sub.f32", "=32 32 32", binary<float, std::minus<float>{}>});
    table.push_back({"mul.f32", "=32 32 32", binary<float, std::multiplies<float>{}>});
    table.push_back({"fma.rn.f32", "=32 32 32 32", ternary<float, fused>});
    table.push_back({"min.f32", "=32 32 32", binary<float, smaller>});
    table.push_back({"max.f32", "=32 32 32", binary<float, larger>});
    table.push_back({"max.NaN.f32", "=32 32 32", binary<float, max_or_nan>});
    table.push_back({"neg.f32", "=32 32", unary<float, negative>});
    table.push_back({"abs.f32", "=32 32", unary<float, magnitude>});
    table.push_back({"rcp.rn.f32", "=32 32", unary<float, reciprocal>});
    table.push_back({"ex2.approx.ftz.f32", "=32 32", unary<float, exp2_flushed>});
}

}  // namespace emulator::ptx
