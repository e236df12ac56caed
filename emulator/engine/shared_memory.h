// The shared memory of a block, and for every two bytes of it who wrote and who read them last.
//
// An access is a race if an earlier conflicting one is not in the view of whoever makes it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "view.h"

namespace emulator {

class SharedMemory {
   public:
    // On a GPU the first KiB belongs to the system; here it makes address 0 invalid.
    static constexpr uint32_t FIRST_ADDRESS = 1024;

    explicit SharedMemory(size_t bytes);
    ~SharedMemory();
    SharedMemory(const SharedMemory&) = delete;
    SharedMemory& operator=(const SharedMemory&) = delete;

    // Forgets everything: contents become NaN, as for a new block.
    void reset();

    unsigned char* base() const { return base_; }
    size_t size() const { return bytes_; }

    // Whether an address is in this memory or so close that it must have been meant.
    bool owns(const void* address) const;

    // Checked accesses; they report and do not return if something is wrong. Bounds are checked too.
    void read(const void* address, size_t bytes, Epoch reader, const View& view, const char* what);
    void write(const void* address, size_t bytes, Epoch writer, const View& view, const char* what);

    // A read by the asynchronous proxy (wgmma): what threads wrote must lie behind a proxy fence of theirs.
    // `fences[t]` is the last step of thread t that it has fenced.
    void read_async(const void* address, size_t bytes, const View& view, const std::vector<uint32_t>& fences,
                    const char* what);
    // Notes that an actor has read, so that later writers must know of it.
    void note_read(const void* address, size_t bytes, Epoch reader);

    // cp.async: from `begin` to `land`, nobody may touch the bytes.
    void begin_copy(const void* address, size_t bytes, Epoch writer, const View& view);
    void land_copy(const void* address, size_t bytes, Epoch writer);

    // TMA: written by an mbarrier's actor at a step that its waiters will know.
    void begin_tma(const void* address, size_t bytes, Epoch writer, const View& view);

    // Ordinary accesses to an mbarrier are always wrong.
    void claim_mbarrier(const void* address, Epoch writer, const View& view);

   private:
    enum class Owner : uint8_t { Thread, CopyInFlight, CopyLanded, Tma, Mbarrier };

    // The accesses to one granule.
    struct Cell {
        Epoch written;
        Epoch last_read;
        std::unique_ptr<std::vector<Epoch>> other_reads;  // by further actors since the write
        Owner owner = Owner::Thread;
    };

    static constexpr size_t GRANULE = 2;

    struct Span {
        size_t first, last;
    };
    Span cells(const void* address, size_t bytes, const char* what) const;
    void check_written(const Cell& cell, size_t index, const View& view, const char* what, const char* hazard) const;
    void check_reads(const Cell& cell, size_t index, Epoch writer, const View& view, const char* what) const;
    void overwrite(const void* address, size_t bytes, Epoch writer, const View& view, Owner owner, const char* what);
    static void note(Cell& cell, Epoch reader);

    size_t bytes_;
    size_t mapped_bytes_;
    unsigned char* mapping_;
    unsigned char* base_;
    std::vector<Cell> cells_;
};

}  // namespace emulator
