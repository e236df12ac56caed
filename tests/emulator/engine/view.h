// What an agent knows to have happened: the happens-before relation as vector clocks.
//
// Agents of a block are its threads, its warps (which read for wgmma) and its mbarriers (for which TMA writes), in this
// order. An agent's own entry counts its steps; a meeting joins the views of those who meet.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

namespace emulator {

// Step `clock` of an agent; 0 means never.
struct Epoch {
    uint32_t clock = 0;
    uint16_t agent = 0;
};

struct View {
    std::vector<uint32_t> clock;     // per agent; agents beyond the end are unknown
    std::vector<uint32_t> counters;  // per global counter: how many of its publications are known

    uint32_t of(unsigned agent) const { return agent < clock.size() ? clock[agent] : 0; }

    bool knows(Epoch epoch) const { return epoch.clock <= of(epoch.agent); }

    uint32_t& entry(unsigned agent) {
        if (agent >= clock.size()) clock.resize(agent + 1, 0);
        return clock[agent];
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
