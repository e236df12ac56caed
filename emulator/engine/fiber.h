// A stack that can be left in the middle and entered again. Switching costs a few nanoseconds on x86-64.
#pragma once

#include <cstddef>

#if !defined(__x86_64__) || defined(EMULATOR_UCONTEXT)
#include <ucontext.h>
#define EMULATOR_PORTABLE_FIBERS 1
#endif

namespace emulator {

class Fiber {
   public:
    // The next switch to this fiber enters `entry`, which must never return.
    void prepare(char* stack, size_t bytes, void (*entry)());

    // Leaves the running code in `from` and continues `to`.
    static void change(Fiber& from, Fiber& to);

   private:
#ifdef EMULATOR_PORTABLE_FIBERS
    ucontext_t context_;
#else
    void* stack_pointer_ = nullptr;
#endif
};

}  // namespace emulator
