// A GPU thread that runs PTX: its registers and where it is.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <type_traits>
#include <vector>

#include "../engine/launch.h"
#include "program.h"

namespace emulator::ptx {

struct Machine {
    const Program& program;
    uint32_t* registers;
    uint32_t next = 0;  // instruction
    bool running = true;
    Place place = {};

    template <class T>
    T get(uint32_t slot) const {
        // What nobody has written holds any bits, and not all are a bool.
        if constexpr (std::is_same_v<T, bool>) return registers[slot] & 1;
        T value;
        memcpy(&value, registers + slot, sizeof value);
        return value;
    }

    template <class T>
    void set(uint32_t slot, T value) {
        memcpy(registers + slot, &value, sizeof value);
    }
};

// `operands` are slots, but for an address, which is the slot of its base and an offset, and what the opcode's
// description says.
using Execute = void (*)(Machine&, const uint32_t* operands);

// An instruction as it is written, with all its modifiers. Where several forms share a name, their operands differ.
//
// Operands are described one after the other, separated by spaces:
//   =32      destination register of 32 bits (also 16, 64, p for a predicate)
//   32       source: register or constant
//   =32*4    vector of 4; sources likewise
//   +32*64   accumulators, read and written, side by side: only the first slot is passed
//   [32]     address in a register of 32 bits (64), a variable or a parameter, with an offset
//   [64,32*4]  tensor map and 4 coordinates
//   #        number that the instruction itself holds: passed as it is
//   @        label: the number of its instruction
//   _        nothing
//   =32|p    destination with a predicate behind
struct Opcode {
    std::string name;
    std::string operands;
    Execute execute;
};

using Opcodes = std::vector<Opcode>;

// All that the interpreter knows, in an order that stays the same.
const Opcodes& opcodes();

void add_arithmetic(Opcodes& table);
void add_comparisons(Opcodes& table);
void add_conversions(Opcodes& table);
void add_memory(Opcodes& table);
void add_warp(Opcodes& table);
void add_hopper(Opcodes& table);
void add_control(Opcodes& table);

// Ends the launch with a finding at the running instruction.
template <class... Values>
[[noreturn]] void refuse(const Machine& machine, Kind kind, const char* format, Values... values) {
    current->origin = {nullptr, machine.place};
    report(kind, format, values...);
}

}  // namespace emulator::ptx
