// A kernel in PTX, decoded by emulator/src/ptx/: what the interpreter runs. The Rust side has the same layouts.
#pragma once

#include <cstdint>

namespace emulator::ptx {

// A register lies in one slot of 32 bits (predicates and 16-bit registers in the low bits) or in two, the first one
// even. Constants have slots, too, so that an operand is a slot whatever it is.
struct Instruction {
    uint32_t opcode;         // in the table of opcodes
    uint32_t operands;       // the first of its operands
    int32_t guard;           // the slot of its predicate, or -1
    uint32_t negated;        // whether it runs where the predicate is false
    uint32_t line;
    uint32_t watched;        // the first of the accumulator slots that it touches, in `Program::watched`
    uint32_t watched_count;
};

// A slot whose contents depend on the thread or the launch; `Program::initial` has what to add.
struct Special {
    enum Kind : uint32_t {
        ThreadX, ThreadY, ThreadZ,
        BlockSizeX, BlockSizeY, BlockSizeZ,
        BlockX, BlockY, BlockZ,
        GridX, GridY, GridZ,
        Lane,
        SharedMemory,   // the shared address of dynamic shared memory
        Parameters,     // 64 bits: where the kernel's parameters lie
    };
    uint32_t slot;
    uint32_t kind;
};

struct Program {
    const char* file;
    const Instruction* instructions;
    const uint32_t* operands;
    const uint32_t* watched;
    const uint32_t* initial;       // the contents of all slots at the start of a thread
    const Special* specials;
    uint32_t slots;
    uint32_t special_count;
    uint32_t parameter_bytes;
    uint32_t most_threads;         // of a block; 0 if the kernel does not say
};

}  // namespace emulator::ptx
