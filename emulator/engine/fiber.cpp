#include "fiber.h"

#include <cstdint>

#ifndef EMULATOR_PORTABLE_FIBERS
// Saves the callee-saved registers on the old stack and takes those of the new one. The floating-point control words
// are the same on both sides, since kernels never change them.
asm(R"(
    .text
    .local emulator_change_stack
    .type emulator_change_stack, @function
emulator_change_stack:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
    .size emulator_change_stack, . - emulator_change_stack
)");
extern "C" __attribute__((visibility("hidden"))) void emulator_change_stack(void** from, void* to);
#endif

namespace emulator {

#ifdef EMULATOR_PORTABLE_FIBERS

void Fiber::prepare(char* stack, size_t bytes, void (*entry)()) {
    getcontext(&context_);
    context_.uc_stack.ss_sp = stack;
    context_.uc_stack.ss_size = bytes;
    context_.uc_link = nullptr;
    makecontext(&context_, entry, 0);
}

void Fiber::change(Fiber& from, Fiber& to) { swapcontext(&from.context_, &to.context_); }

#else

void Fiber::prepare(char* stack, size_t bytes, void (*entry)()) {
    constexpr int SAVED_REGISTERS = 6;
    auto top = reinterpret_cast<void**>(reinterpret_cast<uintptr_t>(stack + bytes) & ~uintptr_t(15));
    *--top = nullptr;  // a return address of `entry`: keeps the stack aligned as after a call
    *--top = reinterpret_cast<void*>(entry);
    for (int i = 0; i < SAVED_REGISTERS; ++i) *--top = nullptr;
    stack_pointer_ = top;
}

void Fiber::change(Fiber& from, Fiber& to) { emulator_change_stack(&from.stack_pointer_, to.stack_pointer_); }

#endif

}  // namespace emulator
