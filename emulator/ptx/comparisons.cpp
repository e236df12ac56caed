// Comparisons and selections.
#include <cmath>

#include "machine.h"

namespace emulator::ptx {
namespace {

template <class T, auto HOLDS>
void compare(Machine& m, const uint32_t* o) {
    m.set<bool>(o[0], HOLDS(m.get<T>(o[1]), m.get<T>(o[2])));
}

template <class T>
void select(Machine& m, const uint32_t* o) {
    m.set<T>(o[0], m.get<bool>(o[3]) ? m.get<T>(o[1]) : m.get<T>(o[2]));
}

template <class T>
void add(Opcodes& table, const std::string& type, const std::string& width) {
    const std::string operands = "=p " + width + " " + width;
    const auto row = [&](const char* name, Execute execute) {
        table.push_back({std::string("setp.") + name + "." + type, operands, execute});
    };
    row("eq", compare<T, [](T x, T y) { return x == y; }>);
    // Of numbers: a comparison with NaN does not hold.
    row("ne", compare<T, [](T x, T y) { return (x < y || x > y); }>);
    row("lt", compare<T, [](T x, T y) { return x < y; }>);
    row("le", compare<T, [](T x, T y) { return x <= y; }>);
    row("gt", compare<T, [](T x, T y) { return (y < x); }>);
    row("ge", compare<T, [](T x, T y) { return (y <= x); }>);
    if constexpr (std::is_floating_point_v<T>) {
        // Here it holds.
        row("equ", compare<T, [](T x, T y) { return !(x < y || x > y); }>);
        row("neu", compare<T, [](T x, T y) { return x != y; }>);
        row("ltu", compare<T, [](T x, T y) { return !(x >= y); }>);
        row("leu", compare<T, [](T x, T y) { return !(x > y); }>);
        row("gtu", compare<T, [](T x, T y) { return !(x <= y); }>);
        row("geu", compare<T, [](T x, T y) { return !(x < y); }>);
        row("num", compare<T, [](T x, T y) { return !std::isnan(x) && !std::isnan(y); }>);
        row("nan", compare<T, [](T x, T y) { return std::isnan(x) || std::isnan(y); }>);
    }
}

}  // namespace

void add_comparisons(Opcodes& table) {
    add<uint16_t>(table, "u16", "16");
    add<uint16_t>(table, "b16", "16");
    add<int16_t>(table, "s16", "16");
    add<uint32_t>(table, "u32", "32");
    add<uint32_t>(table, "b32", "32");
    add<int32_t>(table, "s32", "32");
    add<uint64_t>(table, "u64", "64");
    add<uint64_t>(table, "b64", "64");
    add<int64_t>(table, "s64", "64");
    add<float>(table, "f32", "32");
    for (const char* type : {"b16", "u16", "s16"}) {
        table.push_back({std::string("selp.") + type, "=16 16 16 p", select<uint16_t>});
    }
    for (const char* type : {"b32", "u32", "s32", "f32"}) {
        table.push_back({std::string("selp.") + type, "=32 32 32 p", select<uint32_t>});
    }
    for (const char* type : {"b64", "u64", "s64"}) {
        table.push_back({std::string("selp.") + type, "=64 64 64 p", select<uint64_t>});
    }
}

}  // namespace emulator::ptx
