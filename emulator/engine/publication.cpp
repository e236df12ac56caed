#include "publication.h"

#include <algorithm>

namespace emulator {

View Publications::publish(const void* counter, uint32_t block, const View& released) {
    const auto [number, fresh] = numbers_.try_emplace(counter, by_counter_.size());
    if (fresh) by_counter_.emplace_back();
    std::vector<Publication>& publications = by_counter_[number->second];
    View learned;
    for (const Publication& publication : publications) {
        // Clocks count the steps of the publisher's block and mean nothing in another one.
        View inherited;
        inherited.counters = publication.view.counters;
        learned.join(inherited);
        if (publication.block == block) learned.join(publication.view);
    }
    if (learned.counters.size() <= number->second) learned.counters.resize(number->second + 1, 0);
    uint32_t& known = learned.counters[number->second];
    known = std::max<uint32_t>(known, publications.size());
    publications.push_back({block, released});
    return learned;
}

bool Publications::covers(const View& view, uint32_t block, Epoch epoch) const {
    for (size_t counter = 0; counter < view.counters.size(); ++counter) {
        const std::vector<Publication>& publications = by_counter_[counter];
        for (size_t i = 0; i < view.counters[counter]; ++i) {
            if (publications[i].block == block && publications[i].view.knows(epoch)) return true;
        }
    }
    return false;
}

}  // namespace emulator
