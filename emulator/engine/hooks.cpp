// The calls that a compiler puts in front of every load and store of a kernel built with -fsanitize=thread. The names
// are those of its run-time library, which is not linked.
#include <cstring>

#include "launch.h"

namespace {

using emulator::Access;
using emulator::current;

// Outside a launch (static initialisers) nothing is checked.
inline void hook(const void* code, const void* address, size_t bytes, Access access, size_t alignment) {
    emulator::Launch* const launch = current;
    if (!launch || !launch->thread) return;
    launch->origin = {code, {}};
    emulator::check(address, bytes, access, alignment, access == Access::Read ? "read" : "write");
    launch->origin = {};
}

}  // namespace

#define CODE __builtin_return_address(0)
#define EMULATOR_HOOKS(BYTES)                                                                                          \
    void __tsan_read##BYTES(void* p) { hook(CODE, p, BYTES, Access::Read, BYTES); }                                    \
    void __tsan_write##BYTES(void* p) { hook(CODE, p, BYTES, Access::Write, BYTES); }                                  \
    void __tsan_unaligned_read##BYTES(void* p) { hook(CODE, p, BYTES, Access::Read, 1); }                              \
    void __tsan_unaligned_write##BYTES(void* p) { hook(CODE, p, BYTES, Access::Write, 1); }                            \
    void __tsan_read_write##BYTES(void* p) {                                                                           \
        hook(CODE, p, BYTES, Access::Read, BYTES);                                                                     \
        hook(CODE, p, BYTES, Access::Write, BYTES);                                                                    \
    }                                                                                                                  \
    void __tsan_unaligned_read_write##BYTES(void* p) {                                                                 \
        hook(CODE, p, BYTES, Access::Read, 1);                                                                         \
        hook(CODE, p, BYTES, Access::Write, 1);                                                                        \
    }

extern "C" {

EMULATOR_HOOKS(1)
EMULATOR_HOOKS(2)
EMULATOR_HOOKS(4)
EMULATOR_HOOKS(8)
EMULATOR_HOOKS(16)

void __tsan_read_range(void* p, size_t bytes) { hook(CODE, p, bytes, Access::Read, 1); }
void __tsan_write_range(void* p, size_t bytes) { hook(CODE, p, bytes, Access::Write, 1); }

void* __tsan_memcpy(void* to, const void* from, size_t bytes) {
    hook(CODE, from, bytes, Access::Read, 1);
    hook(CODE, to, bytes, Access::Write, 1);
    return memcpy(to, from, bytes);
}

void* __tsan_memmove(void* to, const void* from, size_t bytes) {
    hook(CODE, from, bytes, Access::Read, 1);
    hook(CODE, to, bytes, Access::Write, 1);
    return memmove(to, from, bytes);
}

void* __tsan_memset(void* to, int value, size_t bytes) {
    hook(CODE, to, bytes, Access::Write, 1);
    return memset(to, value, bytes);
}

void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}

}  // extern "C"
