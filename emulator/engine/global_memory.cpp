#include "global_memory.h"

#include <algorithm>
#include <cstring>
#include <sys/mman.h>

#include "finding.h"
#include "publication.h"

namespace emulator {
namespace {

// Address space, not memory: only the pages of buffers are ever mapped.
constexpr size_t ARENA_BYTES = size_t(1) << 36;
// Between two buffers, so that a wrong index is reported for the buffer that was meant.
constexpr size_t GAP = 1 << 20;
constexpr size_t PAGE = 4096;

size_t round_up(size_t value, size_t unit) { return (value + unit - 1) / unit * unit; }

}  // namespace

GlobalMemory::GlobalMemory() {
    void* arena = mmap(nullptr, ARENA_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    arena_ = arena == MAP_FAILED ? nullptr : static_cast<unsigned char*>(arena);
}

GlobalMemory::~GlobalMemory() {
    if (arena_) munmap(arena_, ARENA_BYTES);
}

void* GlobalMemory::allocate(const char* name, size_t bytes, const void* initial, bool writable) {
    const size_t offset = used_ + GAP / 2;
    const size_t mapped = round_up(std::max<size_t>(bytes, 1), PAGE);
    if (!arena_ || mapped > ARENA_BYTES - GAP || offset > ARENA_BYTES - GAP - mapped) return nullptr;
    unsigned char* start = arena_ + offset;
    if (mprotect(start, mapped, PROT_READ | PROT_WRITE) != 0) return nullptr;
    used_ = round_up(offset + mapped + GAP / 2, PAGE);
    Buffer buffer{name, start, bytes, writable, {}, {}};
    if (initial) {
        memcpy(start, initial, bytes);
    } else {
        memset(start, 0xff, bytes);
        buffer.initialised.assign(bytes, false);
    }
    buffers_.push_back(std::move(buffer));
    return start;
}

void GlobalMemory::begin_launch() {
    for (Buffer& buffer : buffers_) buffer.cells.clear();
}

bool GlobalMemory::owns(const void* address) const {
    const auto byte = static_cast<const unsigned char*>(address);
    return arena_ && byte >= arena_ && byte < arena_ + ARENA_BYTES;
}

GlobalMemory::Location GlobalMemory::locate(const void* address, size_t bytes, const char* what) {
    const auto byte = static_cast<const unsigned char*>(address);
    // The buffer in whose half of the gap the address lies.
    const auto next = std::upper_bound(buffers_.begin(), buffers_.end(), byte,
                                       [](const unsigned char* b, const Buffer& x) { return b + GAP / 2 < x.start; });
    if (next == buffers_.begin()) report(Kind::OutOfBounds, "%s of %zu bytes in front of all buffers", what, bytes);
    Buffer& buffer = *std::prev(next);
    const ptrdiff_t offset = byte - buffer.start;
    if (offset < 0 || offset + bytes > buffer.bytes) {
        report(Kind::OutOfBounds, "%s of %zu bytes at offset %td of buffer `%s`, which has %zu bytes", what, bytes,
               offset, buffer.name.c_str(), buffer.bytes);
    }
    return {&buffer, static_cast<size_t>(offset)};
}

void GlobalMemory::check_ordered(const Buffer& buffer, const Cell& cell, size_t index, const Accessor& who,
                                 const Publications& known, const char* what) {
    if (cell.block == NOBODY) return;
    const size_t offset = index * GRANULE;
    if (cell.block == who.block) {
        if (cell.epoch.actor == who.epoch.actor || who.view.knows(cell.epoch)) return;
        report(Kind::Race,
               "%s at offset %zu of buffer `%s`: thread %u of this block wrote it and nothing orders the two", what,
               offset, buffer.name.c_str(), cell.epoch.actor);
    }
    if (known.covers(who.view, cell.block, cell.epoch)) return;
    report(Kind::Blocks,
           "%s at offset %zu of buffer `%s`: block number %u (thread %u) wrote it and nothing orders the two", what,
           offset, buffer.name.c_str(), cell.block, cell.epoch.actor);
}

void GlobalMemory::read(const void* address, size_t bytes, const Accessor& who, const Publications& known,
                        const char* what) {
    const Location at = locate(address, bytes, what);
    const Buffer& buffer = *at.buffer;
    if (!buffer.cells.empty()) {
        for (size_t i = at.offset / GRANULE; i <= (at.offset + bytes - 1) / GRANULE; ++i) {
            check_ordered(buffer, buffer.cells[i], i, who, known, what);
        }
    }
    if (buffer.initialised.empty()) return;
    for (size_t i = at.offset; i < at.offset + bytes; ++i) {
        if (buffer.initialised[i]) continue;
        report(Kind::Uninitialised, "%s at offset %zu of buffer `%s`, which nobody has written", what, i,
               buffer.name.c_str());
    }
}

void GlobalMemory::store(Location at, size_t bytes, const Accessor& who, const Publications& known, bool atomic,
                         const char* what) {
    Buffer& buffer = *at.buffer;
    if (!buffer.writable) {
        report(Kind::OutOfBounds, "%s at offset %zu of buffer `%s`, which is read-only", what, at.offset,
               buffer.name.c_str());
    }
    if (buffer.cells.empty()) buffer.cells.resize(round_up(buffer.bytes, GRANULE) / GRANULE);
    for (size_t i = at.offset / GRANULE; i <= (at.offset + bytes - 1) / GRANULE; ++i) {
        Cell& cell = buffer.cells[i];
        if (!(atomic && cell.atomic)) check_ordered(buffer, cell, i, who, known, what);
        cell = {who.block, who.epoch, atomic};
    }
    if (buffer.initialised.empty()) return;
    std::fill_n(buffer.initialised.begin() + at.offset, bytes, true);
}

void GlobalMemory::write(const void* address, size_t bytes, const Accessor& who, const Publications& known,
                         const char* what) {
    store(locate(address, bytes, what), bytes, who, known, false, what);
}

void GlobalMemory::atomic(const void* address, size_t bytes, const Accessor& who, const Publications& known,
                          const char* what) {
    const Location at = locate(address, bytes, what);
    if (!at.buffer->initialised.empty() && !at.buffer->initialised[at.offset]) {
        report(Kind::Uninitialised, "%s at offset %zu of buffer `%s`, which nobody has written", what, at.offset,
               at.buffer->name.c_str());
    }
    store(at, bytes, who, known, true, what);
}

}  // namespace emulator
