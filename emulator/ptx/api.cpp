// The C interface of the interpreter, for the Rust side (emulator/src/ptx/).
#include "../engine/kernel_table.h"
#include "interpreter.h"
#include "machine.h"

extern "C" {

// This library has no compiled kernels.
extern const emulator::Kernel emulator_kernels[];
const emulator::Kernel emulator_kernels[] = {{nullptr, nullptr, 0}};

// Name and operands of an opcode; false behind the last one.
bool emulator_ptx_opcode(size_t number, const char** name, const char** operands) {
    const emulator::ptx::Opcodes& table = emulator::ptx::opcodes();
    if (number >= table.size()) return false;
    *name = table[number].name.c_str();
    *operands = table[number].operands.c_str();
    return true;
}

// Runs a program. `finding->kind` tells whether something was found.
void emulator_ptx_launch(emulator::GlobalMemory* device, const emulator::ptx::Program* program,
                         const emulator::Shape* shape, const void* arguments, size_t argument_bytes,
                         emulator::Finding* finding) {
    *finding = emulator::Finding{};
    const auto refuse = [&](const char* format, auto... values) {
        finding->kind = emulator::Kind::Setup;
        snprintf(finding->message, sizeof finding->message, format, values...);
    };
    if (program->parameter_bytes != argument_bytes) {
        return refuse("the kernel takes %zu bytes of arguments, not %zu", size_t(program->parameter_bytes),
                      argument_bytes);
    }
    const size_t threads = size_t(shape->block[0]) * shape->block[1] * shape->block[2];
    if (program->most_threads != 0 && threads > program->most_threads) {
        return refuse("the kernel is compiled for at most %zu threads, not %zu", size_t(program->most_threads),
                      threads);
    }
    emulator::launch_kernel(*device, *shape, {emulator::ptx::interpret, program}, {arguments, argument_bytes},
                            *finding);
}

}  // extern "C"
