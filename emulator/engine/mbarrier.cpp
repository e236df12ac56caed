#include "mbarrier.h"

#include <cstring>

#include "launch.h"
#include "swizzle.h"

namespace emulator {
namespace {

// The mbarrier at an address, as far as the running thread may know it.
Mbarrier& find(uint32_t address, const char* what) {
    const auto found = block().mbarriers.find(address);
    if (found == block().mbarriers.end()) {
        report(Kind::Misuse, "%s: shared address %u is no initialised mbarrier", what, address);
    }
    Mbarrier& mbarrier = found->second;
    if (!self().view.knows(mbarrier.initialised)) {
        report(Kind::Race, "%s: thread %u initialised the mbarrier and nothing orders the two", what,
               mbarrier.initialised.actor);
    }
    return mbarrier;
}

void end_phase_if_complete(uint32_t address, Mbarrier& mbarrier) {
    if (mbarrier.missing_arrivals != 0 || mbarrier.missing_bytes != 0) return;
    mbarrier.phase ^= 1;
    mbarrier.missing_arrivals = mbarrier.count;
    mbarrier.ended = mbarrier.arriving;
    ++block().progress;
    for (Thread& thread : block().threads) {
        if (thread.state == State::Mbarrier && thread.mbarrier == address) thread.state = State::Ready;
    }
}

// Books a load of `bytes` bytes on an mbarrier and returns it, its source still to be filled in.
TmaLoad begin_load(uint32_t destination, uint32_t bytes, uint32_t address, const char* what) {
    Mbarrier& mbarrier = find(address, what);
    if (!mbarrier.fenced) {
        report(Kind::Asynchronous, "%s: no fence_mbarrier_init between the mbarrier's initialisation and TMA", what);
    }
    const uint32_t load = ++mbarrier.loads;
    block().shared.begin_tma(shared_pointer(destination), bytes, {load, static_cast<uint16_t>(mbarrier.actor)},
                             self().view);
    TmaLoad issued = {};
    issued.destination = destination;
    issued.mbarrier = address;
    issued.bytes = bytes;
    issued.load = load;
    return issued;
}

void check_map(const TensorMap& map, unsigned rank) {
    if (map.magic != TensorMap::MAGIC) report(Kind::Misuse, "the tensor map is not one of this emulator");
    if (map.rank != rank) report(Kind::Misuse, "a load of rank %u through a tensor map of rank %u", rank, map.rank);
    const uint32_t row_bytes = map.box[0] * map.element_bytes;
    if (map.swizzle_span != 0 && row_bytes != map.swizzle_span) {
        report(Kind::Misuse, "rows of the box have %u bytes, the swizzle spans %u", row_bytes, map.swizzle_span);
    }
    bool legal = row_bytes % 16 == 0 && reinterpret_cast<uintptr_t>(map.base) % 16 == 0;
    for (unsigned i = 0; i < rank; ++i) legal &= map.box[i] >= 1 && map.box[i] <= 256;
    for (unsigned i = 0; i + 1 < rank; ++i) legal &= map.stride[i] % 16 == 0;
    if (!legal) report(Kind::Misuse, "the tensor map breaks a rule: base, strides and rows in 16 bytes, box up to 256");
}

// Calls `row(source, valid_elements, row_number)` for each row of the box; `source` points to its first element that
// lies inside the tensor, `skipped` elements into the row.
template <class Row>
void for_each_row(const TensorMap& map, const int32_t (&coordinates)[5], Row row) {
    uint32_t rows = 1;
    for (unsigned i = 1; i < map.rank; ++i) rows *= map.box[i];
    const int64_t first = std::max<int64_t>(coordinates[0], 0);
    const int64_t last = std::min<int64_t>(int64_t(coordinates[0]) + map.box[0], map.size[0]);
    for (uint32_t number = 0; number < rows; ++number) {
        const unsigned char* source = map.base + first * map.element_bytes;
        bool inside = first < last;
        uint32_t rest = number;
        for (unsigned i = 1; i < map.rank; ++i) {
            const int64_t at = int64_t(coordinates[i]) + rest % map.box[i];
            rest /= map.box[i];
            inside &= at >= 0 && at < int64_t(map.size[i]);
            source += at * int64_t(map.stride[i - 1]);
        }
        row(number, source, inside ? uint32_t(last - first) * map.element_bytes : 0,
            uint32_t(first - coordinates[0]) * map.element_bytes);
    }
}

void write_tile(const TmaLoad& load) {
    const TensorMap& map = load.map;
    const uint32_t row_bytes = map.box[0] * map.element_bytes;
    for_each_row(map, load.coordinates,
                 [&](uint32_t row, const unsigned char* source, uint32_t valid_bytes, uint32_t skipped_bytes) {
                     for (uint32_t i = 0; i < row_bytes; ++i) {
                         const uint32_t address = swizzle(load.destination + row * row_bytes + i, map.swizzle_span);
                         const bool valid = i >= skipped_bytes && i < skipped_bytes + valid_bytes;
                         *shared_pointer(address) = valid ? source[i - skipped_bytes] : 0;
                     }
                 });
}

}  // namespace

void mbarrier_init(uint32_t address, uint32_t count, Place place) {
    if (address % sizeof(uint64_t) != 0) misuse(place, "an mbarrier at shared address %u, no multiple of 8", address);
    if (count == 0) misuse(place, "an mbarrier without arrivals");
    current->origin = {nullptr, place};
    Block& here = block();
    here.shared.claim_mbarrier(shared_pointer(address), self().now(), self().view);
    Mbarrier mbarrier = {};
    mbarrier.count = count;
    mbarrier.missing_arrivals = count;
    mbarrier.actor = here.mbarrier_actor(here.mbarriers.size());
    mbarrier.initialised = self().now();
    here.mbarriers.insert({address, mbarrier});
    current->origin = {};
}

void mbarrier_fence_init() {
    for (auto& [address, mbarrier] : block().mbarriers) {
        if (mbarrier.initialised.actor == self().number) mbarrier.fenced = true;
    }
    self().step();
}

void mbarrier_arrive(uint32_t address, uint32_t expected_bytes, Place place) {
    current->origin = {nullptr, place};
    Mbarrier& mbarrier = find(address, "mbarrier arrive");
    if (mbarrier.missing_arrivals == 0) {
        report(Kind::Misuse, "more arrivals at the mbarrier than its %u, while %lld bytes are still missing",
               mbarrier.count, static_cast<long long>(mbarrier.missing_bytes));
    }
    mbarrier.arriving.join(self().view);
    self().step();
    mbarrier.missing_bytes += expected_bytes;
    --mbarrier.missing_arrivals;
    ++block().progress;
    end_phase_if_complete(address, mbarrier);
    current->origin = {};
}

bool mbarrier_try_wait(uint32_t address, uint32_t parity, Place place) {
    current->origin = {nullptr, place};
    if (parity > 1) report(Kind::Misuse, "mbarrier wait for parity %u", parity);
    const auto ended = [&] { return find(address, "mbarrier wait").phase != parity; };
    if (!ended()) {
        // In a random order the wait may be over before the phase is, as on a GPU.
        const bool short_wait = random_order() && current->random() % 4 == 0;
        self().mbarrier = address;
        suspend(short_wait ? State::Ready : State::Mbarrier, "mbarrier wait", place);
        if (!ended()) return false;
    }
    self().view.join(find(address, "mbarrier wait").ended);
    current->origin = {};
    return true;
}

std::string missing(uint32_t address) {
    const Mbarrier& mbarrier = block().mbarriers.at(address);
    std::string text = "the mbarrier at shared address " + std::to_string(address) + " misses " +
                       std::to_string(mbarrier.missing_arrivals) + " of " + std::to_string(mbarrier.count) +
                       " arrivals and " + std::to_string(mbarrier.missing_bytes) + " bytes in a phase of parity " +
                       std::to_string(mbarrier.phase);
    if (mbarrier.missing_bytes < 0) text += " (more bytes came than were expected)";
    return text;
}

void fence_proxy_async() {
    Thread& me = self();
    block().proxy_fences[me.number] = me.now().clock;
    me.step();
}

void tma_load(uint32_t destination, const TensorMap& map, uint32_t mbarrier, const int32_t* coordinates, unsigned rank,
              Place place) {
    current->origin = {nullptr, place};
    check_map(map, rank);
    if (destination % 128 != 0) report(Kind::Misuse, "TMA to shared address %u, no multiple of 128", destination);
    uint32_t bytes = map.element_bytes;
    for (unsigned i = 0; i < rank; ++i) bytes *= map.box[i];
    int32_t at[5] = {};
    std::copy_n(coordinates, rank, at);
    for_each_row(map, at, [&](uint32_t, const unsigned char* source, uint32_t valid_bytes, uint32_t) {
        if (valid_bytes > 0) check(source, valid_bytes, Access::Read, 1, "TMA load");
    });
    TmaLoad load = begin_load(destination, bytes, mbarrier, "TMA load");
    load.map = map;
    std::copy_n(at, 5, load.coordinates);
    block().tma_loads.push_back(load);
    ++block().progress;
    current->origin = {};
}

bool deliver_tma(size_t choice) {
    std::deque<TmaLoad>& loads = block().tma_loads;
    if (loads.empty()) return false;
    const auto chosen = loads.begin() + choice % loads.size();
    const TmaLoad load = *chosen;
    loads.erase(chosen);
    write_tile(load);
    Mbarrier& mbarrier = block().mbarriers.at(load.mbarrier);
    uint32_t& arrived = mbarrier.arriving.entry(mbarrier.actor);
    arrived = std::max(arrived, load.load);
    mbarrier.missing_bytes -= load.bytes;
    ++block().progress;
    end_phase_if_complete(load.mbarrier, mbarrier);
    return true;
}

}  // namespace emulator
