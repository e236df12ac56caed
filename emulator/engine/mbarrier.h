// mbarriers and the TMA loads that report to them.
#pragma once

#include <cstdint>
#include <string>

#include "emulator.h"
#include "view.h"

namespace emulator {

struct Mbarrier {
    uint32_t count;
    uint32_t missing_arrivals;
    int64_t missing_bytes = 0;  // negative while more bytes have come than are expected yet
    uint32_t phase = 0;         // parity of the running phase
    unsigned actor;             // in whose name TMA writes
    Epoch initialised;
    bool fenced = false;
    uint32_t loads = 0;         // issued so far
    View arriving;              // what those who arrived in the running phase knew
    View ended;                 // what whoever waits for the last ended phase gets to know
};

// A load that has been issued and whose data have not arrived.
struct TmaLoad {
    uint32_t destination;
    uint32_t mbarrier;
    uint32_t bytes;
    uint32_t load;  // its number on this mbarrier
    TensorMap map;
    int32_t coordinates[5];
};

// Lets one load arrive; false if none is under way. Called by the scheduler.
bool deliver_tma(size_t choice);

// What a thread that waits for an mbarrier misses.
std::string missing(uint32_t address);

}  // namespace emulator
