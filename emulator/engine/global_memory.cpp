#include "global_memory.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <sys/mman.h>

#include "finding.h"
#include "publication.h"

namespace emulator {
namespace {

// Address space, not memory: only the pages of buffers are ever mapped.
constexpr size_t ARENA_BYTES = size_t(1) << 38;
// Between two buffers, so that a wrong index is reported for the buffer that was meant.
constexpr size_t GAP = 1 << 20;
constexpr size_t PAGE = 4096;
// What cudaMalloc promises; buffers are aligned to no more.
constexpr size_t ALIGNMENT = 256;

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
    const size_t mapped = round_up(bytes + ALIGNMENT, PAGE);
    if (!arena_ || mapped > ARENA_BYTES - GAP || offset > ARENA_BYTES - GAP - mapped) return nullptr;
    if (mprotect(arena_ + offset, mapped, PROT_READ | PROT_WRITE) != 0) return nullptr;
    unsigned char* start = arena_ + offset + ALIGNMENT;
    used_ = round_up(offset + mapped + GAP / 2, PAGE);
    Buffer buffer{name, start, bytes, writable, false, {}, {}};
    if (initial) {
        memcpy(start, initial, bytes);
    } else {
        memset(start, 0xff, bytes);
        buffer.initialised.assign(bytes, false);
    }
    buffers_.push_back(std::move(buffer));
    return start;
}

bool GlobalMemory::release(void* start) {
    Buffer* const buffer = nearest(start);
    if (!buffer || buffer->start != start || buffer->released) return false;
    buffer->released = true;
    buffer->initialised = {};
    buffer->cells = {};
    // The pages go, too: nobody may look at what was there.
    mmap(buffer->start - ALIGNMENT, round_up(buffer->bytes + ALIGNMENT, PAGE), PROT_NONE,
         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
    return true;
}

void GlobalMemory::host_access(const void* address, size_t bytes, bool write, Finding& finding) {
    const char* what = write ? "copy to the device" : "copy to the host";
    const auto refuse = [&](Kind kind, const char* format, auto... values) {
        finding.kind = kind;
        snprintf(finding.message, sizeof finding.message, format, what, bytes, values...);
    };
    Buffer* const buffer = nearest(address);
    if (!buffer) return refuse(Kind::OutOfBounds, "%s of %zu bytes at %p, which is no buffer", address);
    if (buffer->released) {
        return refuse(Kind::OutOfBounds, "%s of %zu bytes: buffer `%s` has been freed", buffer->name.c_str());
    }
    const ptrdiff_t offset = static_cast<const unsigned char*>(address) - buffer->start;
    if (offset < 0 || offset + bytes > buffer->bytes) {
        return refuse(Kind::OutOfBounds, "%s of %zu bytes at offset %td of buffer `%s`, which has %zu bytes", offset,
                      buffer->name.c_str(), buffer->bytes);
    }
    if (buffer->initialised.empty()) return;
    const auto first = buffer->initialised.begin() + offset, last = first + bytes;
    if (write) {
        std::fill(first, last, true);
    } else if (const auto missing = std::find(first, last, false); missing != last) {
        refuse(Kind::Uninitialised, "%s of %zu bytes: nobody has written offset %td of buffer `%s`",
               missing - buffer->initialised.begin(), buffer->name.c_str());
    }
}

void GlobalMemory::begin_launch() {
    for (Buffer& buffer : buffers_) buffer.cells.clear();
}

bool GlobalMemory::owns(const void* address) const {
    const auto byte = static_cast<const unsigned char*>(address);
    return arena_ && byte >= arena_ && byte < arena_ + ARENA_BYTES;
}

GlobalMemory::Buffer* GlobalMemory::nearest(const void* address) {
    const auto byte = static_cast<const unsigned char*>(address);
    const auto next = std::upper_bound(buffers_.begin(), buffers_.end(), byte,
                                       [](const unsigned char* b, const Buffer& x) { return b + GAP / 2 < x.start; });
    return owns(address) && next != buffers_.begin() ? &*std::prev(next) : nullptr;
}

GlobalMemory::Location GlobalMemory::locate(const void* address, size_t bytes, const char* what) {
    Buffer* const found = nearest(address);
    if (!found) report(Kind::OutOfBounds, "%s of %zu bytes in front of all buffers", what, bytes);
    Buffer& buffer = *found;
    if (buffer.released) {
        report(Kind::OutOfBounds, "%s of %zu bytes: buffer `%s` has been freed", what, bytes, buffer.name.c_str());
    }
    const ptrdiff_t offset = static_cast<const unsigned char*>(address) - buffer.start;
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
