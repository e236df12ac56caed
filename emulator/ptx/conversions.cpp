// Moves and conversions.
#include "../engine/numbers.h"
#include "machine.h"

namespace emulator::ptx {
namespace {

template <class T>
void move(Machine& m, const uint32_t* o) {
    m.set<T>(o[0], m.get<T>(o[1]));
}

template <class To, class From>
void convert(Machine& m, const uint32_t* o) {
    m.set<To>(o[0], To(m.get<From>(o[1])));
}

template <class To, class From, To (*FUNCTION)(From)>
void convert_by(Machine& m, const uint32_t* o) {
    m.set<To>(o[0], FUNCTION(m.get<From>(o[1])));
}

// The first source goes into the upper half.
template <uint16_t (*ROUND)(float)>
void pack(Machine& m, const uint32_t* o) {
    const uint32_t upper = ROUND(m.get<float>(o[1])), lower = ROUND(m.get<float>(o[2]));
    m.set<uint32_t>(o[0], upper << 16 | lower);
}

// Halves in the order of their bits.
template <class Half>
void join(Machine& m, const uint32_t* o) {
    const Half halves[] = {m.get<Half>(o[1]), m.get<Half>(o[2])};
    memcpy(m.registers + o[0], halves, sizeof halves);
}

template <class Half>
void split(Machine& m, const uint32_t* o) {
    Half halves[2];
    memcpy(halves, m.registers + o[2], sizeof halves);
    m.set<Half>(o[0], halves[0]);
    m.set<Half>(o[1], halves[1]);
}

template <class To, class From>
void add_integer(Opcodes& table, const char* to, const char* from) {
    const std::string destination = std::to_string(sizeof(To) * 8), source = std::to_string(sizeof(From) * 8);
    table.push_back({std::string("cvt.") + to + "." + from, "=" + destination + " " + source, convert<To, From>});
}

// Every integer into one that is cut off or extended as the source is signed.
template <class To>
void add_widths(Opcodes& table, const char* to) {
    add_integer<To, uint16_t>(table, to, "u16");
    add_integer<To, int16_t>(table, to, "s16");
    add_integer<To, uint32_t>(table, to, "u32");
    add_integer<To, int32_t>(table, to, "s32");
    add_integer<To, uint64_t>(table, to, "u64");
    add_integer<To, int64_t>(table, to, "s64");
}

}  // namespace

void add_conversions(Opcodes& table) {
    table.push_back({"mov.pred", "=p p", move<bool>});
    for (const char* type : {"b16", "u16", "s16"}) {
        table.push_back({std::string("mov.") + type, "=16 16", move<uint16_t>});
    }
    for (const char* type : {"b32", "u32", "s32", "f32"}) {
        table.push_back({std::string("mov.") + type, "=32 32", move<uint32_t>});
    }
    for (const char* type : {"b64", "u64", "s64"}) {
        table.push_back({std::string("mov.") + type, "=64 64", move<uint64_t>});
    }
    table.push_back({"mov.b32", "=32 16*2", join<uint16_t>});
    table.push_back({"mov.b32", "=16*2 32", split<uint16_t>});
    table.push_back({"mov.b64", "=64 32*2", join<uint32_t>});
    table.push_back({"mov.b64", "=32*2 64", split<uint32_t>});
    // Addresses of global memory and of parameters are those of the host everywhere.
    table.push_back({"cvta.to.global.u64", "=64 64", move<uint64_t>});
    table.push_back({"cvta.param.u64", "=64 64", move<uint64_t>});

    add_widths<uint16_t>(table, "u16");
    add_widths<int16_t>(table, "s16");
    add_widths<uint32_t>(table, "u32");
    add_widths<int32_t>(table, "s32");
    add_widths<uint64_t>(table, "u64");
    add_widths<int64_t>(table, "s64");
    table.push_back({"cvt.rn.f32.u16", "=32 16", convert<float, uint16_t>});
    table.push_back({"cvt.rn.f32.u32", "=32 32", convert<float, uint32_t>});
    table.push_back({"cvt.rn.f32.s32", "=32 32", convert<float, int32_t>});
    table.push_back({"cvt.f32.f16", "=32 16", convert_by<float, uint16_t, f16_to_float>});
    table.push_back({"cvt.rna.tf32.f32", "=32 32", convert_by<uint32_t, float, float_to_tf32>});
    table.push_back({"cvt.rn.f16x2.f32", "=32 32 32", pack<float_to_f16>});
    table.push_back({"cvt.rn.bf16x2.f32", "=32 32 32", pack<float_to_bf16>});
}

}  // namespace emulator::ptx
