#include "shared_memory.h"

#include <cstring>
#include <sys/mman.h>

#include "finding.h"
#include "launch.h"

namespace emulator {
namespace {

// Room on both sides in which a wrong index is still recognised as meant for this memory.
constexpr size_t MARGIN = 64 << 10;
// What the 128-byte swizzle needs of the base.
constexpr size_t ALIGNMENT = 1024;

}  // namespace

SharedMemory::SharedMemory(size_t bytes) : bytes_(bytes), mapped_bytes_(bytes + 2 * MARGIN + ALIGNMENT) {
    void* mapping =
        mmap(nullptr, mapped_bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    mapping_ = static_cast<unsigned char*>(mapping);
    const auto start = reinterpret_cast<uintptr_t>(mapping_) + MARGIN;
    base_ = reinterpret_cast<unsigned char*>((start + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT);
}

SharedMemory::~SharedMemory() { munmap(mapping_, mapped_bytes_); }

void SharedMemory::reset() {
    memset(base_, 0xff, bytes_);
    cells_.clear();
    cells_.resize((bytes_ + GRANULE - 1) / GRANULE);
}

bool SharedMemory::owns(const void* address) const {
    const auto byte = static_cast<const unsigned char*>(address);
    return byte >= base_ - MARGIN && byte < base_ + bytes_ + MARGIN;
}

SharedMemory::Span SharedMemory::cells(const void* address, size_t bytes, const char* what) const {
    const ptrdiff_t offset = static_cast<const unsigned char*>(address) - base_;
    if (offset < 0 || offset + bytes > bytes_) {
        report(Kind::OutOfBounds, "%s of %zu bytes at shared offset %td, the block has %zu bytes", what, bytes, offset,
               bytes_);
    }
    return {offset / GRANULE, (offset + bytes - 1) / GRANULE};
}

void SharedMemory::check_written(const Cell& cell, size_t index, const View& view, const char* what,
                                 const char* hazard) const {
    const size_t offset = index * GRANULE;
    if (cell.owner == Owner::Mbarrier) {
        report(Kind::Misuse, "%s of shared offset %zu, which is an mbarrier", what, offset);
    }
    if (cell.owner == Owner::CopyInFlight) {
        report(Kind::Asynchronous, "%s of shared offset %zu before the wait for the cp.async of %s into it", what,
               offset, current->block->actor_name(cell.written.actor).c_str());
    }
    if (view.knows(cell.written)) return;
    const std::string writer = current->block->actor_name(cell.written.actor);
    if (cell.owner == Owner::Tma) {
        report(Kind::Asynchronous, "%s of shared offset %zu before the wait for the TMA load (%s) into it", what,
               offset, writer.c_str());
    }
    report(Kind::Race, "%s of shared offset %zu: %s, %s wrote it and nothing orders the two", what, offset, hazard,
           writer.c_str());
}

void SharedMemory::check_reads(const Cell& cell, size_t index, Epoch writer, const View& view,
                               const char* what) const {
    const auto check = [&](Epoch read) {
        if (read.actor == writer.actor || view.knows(read)) return;
        report(Kind::Race, "%s of shared offset %zu: write after read, %s read it and nothing orders the two", what,
               index * GRANULE, current->block->actor_name(read.actor).c_str());
    };
    check(cell.last_read);
    if (!cell.other_reads) return;
    for (Epoch read : *cell.other_reads) check(read);
}

void SharedMemory::note(Cell& cell, Epoch reader) {
    if (cell.last_read.clock == 0 || cell.last_read.actor == reader.actor) {
        cell.last_read = reader;
        return;
    }
    if (!cell.other_reads) cell.other_reads = std::make_unique<std::vector<Epoch>>();
    for (Epoch& read : *cell.other_reads) {
        if (read.actor != reader.actor) continue;
        read = reader;
        return;
    }
    cell.other_reads->push_back(reader);
}

void SharedMemory::read(const void* address, size_t bytes, Epoch reader, const View& view, const char* what) {
    const Span span = cells(address, bytes, what);
    for (size_t i = span.first; i <= span.last; ++i) {
        Cell& cell = cells_[i];
        if (cell.written.clock == 0) {
            report(Kind::Uninitialised, "%s of shared offset %zu, which nobody has written", what, i * GRANULE);
        }
        check_written(cell, i, view, what, "read after write");
        note(cell, reader);
    }
}

void SharedMemory::read_async(const void* address, size_t bytes, const View& view, const std::vector<uint32_t>& fences,
                              const char* what) {
    const Span span = cells(address, bytes, what);
    for (size_t i = span.first; i <= span.last; ++i) {
        const Cell& cell = cells_[i];
        if (cell.written.clock == 0) {
            report(Kind::Uninitialised, "%s of shared offset %zu, which nobody has written", what, i * GRANULE);
        }
        check_written(cell, i, view, what, "read after write");
        const bool by_thread = cell.owner == Owner::Thread || cell.owner == Owner::CopyLanded;
        if (by_thread && cell.written.clock > fences[cell.written.actor]) {
            report(Kind::Asynchronous, "%s of shared offset %zu, which %s wrote without a fence_proxy_async after it",
                   what, i * GRANULE, current->block->actor_name(cell.written.actor).c_str());
        }
    }
}

void SharedMemory::note_read(const void* address, size_t bytes, Epoch reader) {
    const Span span = cells(address, bytes, "read");
    for (size_t i = span.first; i <= span.last; ++i) note(cells_[i], reader);
}

void SharedMemory::overwrite(const void* address, size_t bytes, Epoch writer, const View& view, Owner owner,
                             const char* what) {
    const Span span = cells(address, bytes, what);
    for (size_t i = span.first; i <= span.last; ++i) {
        Cell& cell = cells_[i];
        check_written(cell, i, view, what, "write after write");
        check_reads(cell, i, writer, view, what);
        cell.written = writer;
        cell.last_read = {};
        cell.other_reads.reset();
        cell.owner = owner;
    }
}

void SharedMemory::write(const void* address, size_t bytes, Epoch writer, const View& view, const char* what) {
    overwrite(address, bytes, writer, view, Owner::Thread, what);
}

void SharedMemory::begin_copy(const void* address, size_t bytes, Epoch writer, const View& view) {
    overwrite(address, bytes, writer, view, Owner::CopyInFlight, "cp.async destination");
}

void SharedMemory::land_copy(const void* address, size_t bytes, Epoch writer) {
    const Span span = cells(address, bytes, "cp.async destination");
    for (size_t i = span.first; i <= span.last; ++i) {
        cells_[i].written = writer;
        cells_[i].owner = Owner::CopyLanded;
    }
}

void SharedMemory::begin_tma(const void* address, size_t bytes, Epoch writer, const View& view) {
    overwrite(address, bytes, writer, view, Owner::Tma, "TMA destination");
    memset(const_cast<void*>(address), 0xff, bytes);
}

void SharedMemory::claim_mbarrier(const void* address, Epoch writer, const View& view) {
    overwrite(address, sizeof(uint64_t), writer, view, Owner::Mbarrier, "mbarrier_init");
}

}  // namespace emulator
