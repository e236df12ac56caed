// What an actor knows to have happened: the happens-before relation as vector clocks.
//
// Actors of a block are its threads, its warps (which read for wgmma) and its mbarriers (for which TMA writes), in this
// order. An actor's own entry counts its steps; a meeting joins the views of those who meet.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

namespace emulator {

// Step `clock` of an actor; 0 means never.
struct Epoch {
    uint32_t clock = 0;
    uint16_t actor = 0;
};

struct View {
    std::vector<uint32_t> clock;     // per actor; actors beyond the end are unknown
    std::vector<uint32_t> counters;  // per global counter: how many of its publications are known

    uint32_t of(unsigned actor) const { return actor < clock.size() ? clock[actor] : 0; }

    bool knows(Epoch epoch) const { return epoch.clock <= of(epoch.actor); }

    uint32_t& entry(unsigned actor) {
        if (actor >= clock.size()) clock.resize(actor + 1, 0);
        return clock[actor];
    }

    void join(const View& other) {
        join(clock, other.clock);
        join(counters, other.counters);
    }

   private:
    static void join(std::vector<uint32_t>& mine, const std::vector<uint32_t>& theirs) {
        if (mine.size() < theirs.size()) mine.resize(theirs.size(), 0);
        for (size_t i = 0; i < theirs.size(); ++i) mine[i] = std::max(mine[i], theirs[i]);
    }
};

}  // namespace emulator
