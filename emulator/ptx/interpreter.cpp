// Runs decoded PTX: what a fiber of the engine executes as the kernel.
#include <alloca.h>

#include "interpreter.h"
#include "machine.h"

namespace emulator::ptx {
namespace {

// Far more than any thread of a test runs; a wrong loop must end.
constexpr uint64_t MOST_STEPS = 100'000'000;

void branch(Machine& m, const uint32_t* o) { m.next = o[0]; }

void leave(Machine& m, const uint32_t*) { m.running = false; }

uint32_t value_of(uint32_t kind) {
    const Dim3 thread = thread_index(), size = block_size(), block = block_index(), grid = grid_size();
    switch (kind) {
        case Special::ThreadX: return thread.x;
        case Special::ThreadY: return thread.y;
        case Special::ThreadZ: return thread.z;
        case Special::BlockSizeX: return size.x;
        case Special::BlockSizeY: return size.y;
        case Special::BlockSizeZ: return size.z;
        case Special::BlockX: return block.x;
        case Special::BlockY: return block.y;
        case Special::BlockZ: return block.z;
        case Special::GridX: return grid.x;
        case Special::GridY: return grid.y;
        case Special::GridZ: return grid.z;
        case Special::Lane: return lane_index();
        default: return shared_address(shared_base());
    }
}

void set_specials(Machine& m) {
    for (uint32_t i = 0; i < m.program.special_count; ++i) {
        const Special special = m.program.specials[i];
        if (special.kind == Special::Parameters) {
            const uint64_t offset = m.get<uint64_t>(special.slot);
            m.set<uint64_t>(special.slot, reinterpret_cast<uint64_t>(current->arguments) + offset);
        } else {
            m.set<uint32_t>(special.slot, m.get<uint32_t>(special.slot) + value_of(special.kind));
        }
    }
}

// Registers that a wgmma is still writing may not be touched.
void check_watched(const Machine& m, const Instruction& instruction) {
    const Warpgroup& group = block().warpgroups[self().number / WARPGROUP];
    if (group.accumulators.empty()) return;
    current->origin = {nullptr, m.place};
    for (uint32_t i = 0; i < instruction.watched_count; ++i) {
        const uint32_t slot = m.program.watched[instruction.watched + i];
        group.check_registers(m.registers + slot, sizeof(uint32_t), "access");
    }
    current->origin = {};
}

}  // namespace

void add_control(Opcodes& table) {
    table.push_back({"bra", "@", branch});
    table.push_back({"bra.uni", "@", branch});
    table.push_back({"ret", "", leave});
}

const Opcodes& opcodes() {
    static const Opcodes table = [] {
        Opcodes table;
        add_control(table);
        add_arithmetic(table);
        add_comparisons(table);
        add_conversions(table);
        add_memory(table);
        add_warp(table);
        add_hopper(table);
        return table;
    }();
    return table;
}

void interpret(const void*) {
    const Program& program = *current->code.program;
    const Opcode* const table = opcodes().data();
    const size_t bytes = program.slots * sizeof(uint32_t);
    // On the fiber's stack, which vanishes with it. 64-bit registers are read by copies and need no alignment.
    auto* const registers = static_cast<uint32_t*>(alloca(bytes));
    memcpy(registers, program.initial, bytes);
    Machine machine{.program = program, .registers = registers};
    set_specials(machine);
    for (uint64_t steps = 0; machine.running; ++steps) {
        const Instruction& instruction = program.instructions[machine.next++];
        if (instruction.guard >= 0 && machine.get<bool>(instruction.guard) == bool(instruction.negated)) continue;
        machine.place = Place(program.file, instruction.line);
        if (steps == MOST_STEPS) refuse(machine, Kind::Deadlock, "the thread does not end");
        if (instruction.watched_count > 0) check_watched(machine, instruction);
        table[instruction.opcode].execute(machine, program.operands + instruction.operands);
    }
}

}  // namespace emulator::ptx
