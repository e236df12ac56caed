// The buffers of a device: bounds, uninitialised data, and whose writes may be seen by whom.
//
// Blocks run one after the other, so a missing synchronisation between two blocks would never show in the data. It is
// found by bookkeeping: a block may only touch what another one wrote if it knows a publication made after the write
// (see publication.h).
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "emulator.h"
#include "view.h"

namespace emulator {

// Who accesses global memory.
struct Accessor {
    uint32_t block;  // number in the grid
    Epoch epoch;     // of the thread in its block
    const View& view;
};

class Publications;
struct Finding;

class GlobalMemory {
   public:
    GlobalMemory();
    ~GlobalMemory();
    GlobalMemory(const GlobalMemory&) = delete;
    GlobalMemory& operator=(const GlobalMemory&) = delete;

    // A new buffer, a copy of `initial`; without it, NaN that must not be read before it is written. Null if the
    // address space is used up.
    void* allocate(const char* name, size_t bytes, const void* initial, bool writable);

    // Takes a buffer away by its start; whether there is one. Its addresses are never given out again.
    bool release(void* start);

    // Checks a copy by the host, to the device if it writes.
    void host_access(const void* address, size_t bytes, bool write, Finding& finding);

    // Forgets who wrote what: kernels on one stream are ordered.
    void begin_launch();

    bool owns(const void* address) const;
    void read(const void* address, size_t bytes, const Accessor& who, const Publications& known, const char* what);
    void write(const void* address, size_t bytes, const Accessor& who, const Publications& known, const char* what);
    // Atomic accesses do not race with each other.
    void atomic(const void* address, size_t bytes, const Accessor& who, const Publications& known, const char* what);

   private:
    // The last write to one granule.
    struct Cell {
        uint32_t block = NOBODY;
        Epoch epoch;
        bool atomic = false;
    };
    struct Buffer {
        std::string name;
        unsigned char* start;
        size_t bytes;
        bool writable;
        bool released;
        std::vector<bool> initialised;  // per byte; empty where all of it is
        std::vector<Cell> cells;        // per granule; empty until the first write of a launch
    };
    struct Location {
        Buffer* buffer;
        size_t offset;
    };

    static constexpr uint32_t NOBODY = 0xffffffff;
    static constexpr size_t GRANULE = 2;

    // The buffer in whose half of the gap an address lies, or null.
    Buffer* nearest(const void* address);
    Location locate(const void* address, size_t bytes, const char* what);
    static void check_ordered(const Buffer& buffer, const Cell& cell, size_t index, const Accessor& who,
                              const Publications& known, const char* what);
    static void store(Location at, size_t bytes, const Accessor& who, const Publications& known, bool atomic,
                      const char* what);

    unsigned char* arena_;
    size_t used_ = 0;
    std::vector<Buffer> buffers_;  // by address
};

}  // namespace emulator
