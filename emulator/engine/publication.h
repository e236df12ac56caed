// How one block learns what another one wrote: release and acquire through atomic counters in global memory.
//
// Adding to a counter publishes what the adding thread has released; whoever adds later and acquires knows all earlier
// publications of that counter, and what their publishers knew.
#pragma once

#include <cstdint>
#include <map>
#include <vector>

#include "view.h"

namespace emulator {

class Publications {
   public:
    // Adds a publication of `block` and returns what an acquiring reader learns of the earlier ones.
    View publish(const void* counter, uint32_t block, const View& released);

    // Whether a view includes that step of a thread of another block.
    bool covers(const View& view, uint32_t block, Epoch epoch) const;

   private:
    struct Publication {
        uint32_t block;
        View view;
    };
    std::map<const void*, size_t> numbers_;
    std::vector<std::vector<Publication>> by_counter_;
};

}  // namespace emulator
