// cp.async: a thread's own copies, in groups, that arrive at its wait and not a moment earlier.
#include <cstring>

#include "launch.h"

namespace emulator {

void async_copy(uint32_t destination, const void* source, size_t bytes, size_t valid_bytes, Place place) {
    current->origin = {nullptr, place};
    Thread& me = self();
    if (valid_bytes > bytes) report(Kind::Misuse, "cp.async of %zu valid bytes out of %zu", valid_bytes, bytes);
    unsigned char* shared = shared_pointer(destination);
    if (reinterpret_cast<uintptr_t>(shared) % bytes != 0) {
        report(Kind::Misuse, "cp.async to shared address %u, no multiple of %zu", destination, bytes);
    }
    // Also of a copy that reads nothing: unaligned addresses are undefined.
    if (reinterpret_cast<uintptr_t>(source) % bytes != 0) {
        report(Kind::Misuse, "cp.async from %p, no multiple of %zu", source, bytes);
    }
    if (valid_bytes > 0) {
        if (!current->memory.owns(source)) report(Kind::OutOfBounds, "cp.async from %p, no global memory", source);
        check(source, valid_bytes, Access::Read, 1, "cp.async source");
    }
    block().shared.begin_copy(shared, bytes, me.now(), me.view);
    me.copies.push_back({shared, source, bytes, valid_bytes, me.copy_group});
    current->origin = {};
}

void async_copy_commit() { ++self().copy_group; }

void async_copy_wait(unsigned pending) {
    Thread& me = self();
    std::vector<AsyncCopy> under_way;
    for (const AsyncCopy& copy : me.copies) {
        if (copy.group + pending >= me.copy_group) {
            under_way.push_back(copy);
            continue;
        }
        memset(copy.destination, 0, copy.bytes);
        memcpy(copy.destination, copy.source, copy.valid_bytes);
        block().shared.land_copy(copy.destination, copy.bytes, me.now());
    }
    me.copies = std::move(under_way);
}

}  // namespace emulator
