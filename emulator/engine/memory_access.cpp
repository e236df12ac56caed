// Where an address leads: the thread's own stack, shared memory, a buffer, or a constant of the program.
#include <algorithm>
#include <link.h>

#include "launch.h"

namespace emulator {
namespace {

// The segments of all loaded libraries: constant tables of a kernel, names of source files.
bool is_program_data(const void* address, size_t bytes) {
    struct Query {
        uintptr_t first, last;
        bool found;
    } query{reinterpret_cast<uintptr_t>(address), reinterpret_cast<uintptr_t>(address) + bytes, false};
    dl_iterate_phdr(
        [](dl_phdr_info* library, size_t, void* data) {
            Query& query = *static_cast<Query*>(data);
            for (int i = 0; i < library->dlpi_phnum; ++i) {
                const auto& segment = library->dlpi_phdr[i];
                const uintptr_t start = library->dlpi_addr + segment.p_vaddr;
                const uintptr_t end = start + segment.p_memsz;
                query.found |= segment.p_type == PT_LOAD && query.first >= start && query.last <= end;
            }
            return int(query.found);
        },
        &query);
    return query.found;
}

Accessor accessor() { return {block().number, self().now(), self().view}; }

}  // namespace

void check(const void* address, size_t bytes, Access access, size_t alignment, const char* what) {
    if (bytes == 0) return;
    const auto byte = static_cast<const char*>(address);
    const Block& here = block();
    const Thread& me = self();
    if (byte >= me.stack && byte + bytes <= me.stack + STACK_BYTES) {
        return here.warpgroups[me.number / WARPGROUP].check_registers(address, bytes, what);
    }
    const char* stacks = here.threads.front().stack;
    if (byte >= stacks && byte < stacks + here.threads.size() * STACK_BYTES) {
        report(Kind::OutOfBounds, "%s of local memory of another thread", what);
    }
    if (reinterpret_cast<uintptr_t>(address) % alignment != 0) {
        report(Kind::Misuse, "%s of %zu bytes at an address that is no multiple of %zu", what, bytes, alignment);
    }
    SharedMemory& shared = block().shared;
    GlobalMemory& global = current->memory;
    if (shared.owns(address)) {
        if (access == Access::Read) shared.read(address, bytes, self().now(), self().view, what);
        else shared.write(address, bytes, self().now(), self().view, what);
    } else if (global.owns(address)) {
        if (access == Access::Read) global.read(address, bytes, accessor(), current->publications, what);
        else global.write(address, bytes, accessor(), current->publications, what);
    } else if (access == Access::Write || !is_program_data(address, bytes)) {
        report(Kind::OutOfBounds, "%s of %zu bytes at %p, which belongs to no buffer", what, bytes, address);
    }
}

void check_access(const void* address, size_t bytes, Access access, const char* what, Place place) {
    current->origin = {nullptr, place};
    check(address, bytes, access, bytes, what);
    current->origin = {};
}

unsigned char* shared_base() { return block().shared.base(); }

uint32_t shared_address(const void* pointer) {
    return uint32_t(static_cast<const unsigned char*>(pointer) - shared_base()) + SharedMemory::FIRST_ADDRESS;
}

unsigned char* shared_pointer(uint32_t address) { return shared_base() + address - SharedMemory::FIRST_ADDRESS; }

void* shared_array(const void* key, size_t bytes, size_t alignment, size_t after) {
    Block& here = block();
    const size_t start = (std::max(here.shared_arrays_end, after) + alignment - 1) / alignment * alignment;
    const auto [array, fresh] = here.shared_arrays.try_emplace(key, start);
    if (fresh) here.shared_arrays_end = start + bytes;
    return here.shared.base() + array->second;
}

uint32_t atomic_add(uint32_t* counter, uint32_t value, AtomicOrder order, Place place) {
    current->origin = {nullptr, place};
    if (!current->memory.owns(counter)) report(Kind::OutOfBounds, "atomic add at %p, no global memory", counter);
    Thread& me = self();
    current->memory.atomic(counter, sizeof *counter, accessor(), current->publications, "atomic add");
    const bool orders = order == AtomicOrder::AcquireRelease;
    const View learned =
        current->publications.publish(counter, block().number, orders ? me.view : me.released);
    (orders ? me.view : me.acquired).join(learned);
    me.step();
    const uint32_t old = *counter;
    *counter = old + value;
    current->origin = {};
    return old;
}

void thread_fence() {
    Thread& me = self();
    me.view.join(me.acquired);
    me.released = me.view;
    me.step();
}

}  // namespace emulator
