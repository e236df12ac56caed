// Warp and warpgroup collectives, block barriers.
#include <algorithm>
#include <array>
#include <cstring>
#include <span>

#include "launch.h"

namespace emulator {
namespace {

bool same_place(Place a, Place b) {
    if (a.line() != b.line() || a.column() != b.column()) return false;
    return a.file_name() == b.file_name() || strcmp(a.file_name(), b.file_name()) == 0;
}

void join_views(std::span<Thread* const> who) {
    View joined;
    for (const Thread* thread : who) joined.join(thread->view);
    for (Thread* thread : who) {
        thread->view = joined;
        thread->step();
    }
}

Participants warp_participants(uint32_t mask) {
    const unsigned first = self().warp() * WARP;
    const unsigned count = std::min<unsigned>(WARP, block().threads.size() - first);
    const uint32_t present = count == WARP ? ~0u : (1u << count) - 1;
    return {first, count, mask & present};
}

// Checks that whole warps came, each from one place.
void check_warps(const Barrier& barrier, const char* what) {
    std::vector<const Barrier::Comer*> first(block().warps(), nullptr);
    std::vector<unsigned> comers(block().warps(), 0);
    for (const Barrier::Comer& comer : barrier.comers) {
        const unsigned warp = comer.thread / WARP;
        if (!first[warp]) first[warp] = &comer;
        ++comers[warp];
        if (!same_place(first[warp]->place, comer.place)) {
            report(Kind::Divergence, "%s: lanes of warp %u come from line %u and from line %u", what, warp,
                   first[warp]->place.line(), comer.place.line());
        }
    }
    for (unsigned warp = 0; warp < comers.size(); ++warp) {
        const unsigned size = std::min<unsigned>(WARP, block().threads.size() - warp * WARP);
        if (comers[warp] == 0 || comers[warp] == size) continue;
        report(Kind::Divergence, "%s: only %u of %u lanes of warp %u came", what, comers[warp], size, warp);
    }
}

// Ends the barrier's round: those who wait learn what all who came knew.
void complete(Barrier& barrier, const char* what, Ordering ordering) {
    check_warps(barrier, what);
    for (const Barrier::Comer& comer : barrier.comers) {
        if (comer.arrival == Arrival::Pass) continue;
        Thread& thread = block().threads[comer.thread];
        if (ordering == Ordering::Memory) thread.view.join(barrier.joined);
        thread.state = State::Ready;
    }
    barrier = {};
    ++block().progress;
}

// Whether another participant waits at the collective that `me` has come to. Reports it if that can never be.
bool has_come(const Thread& other, const Thread& me, const char* what, Place place) {
    switch (other.state) {
        case State::Ready:
        case State::Mbarrier:
            return false;
        case State::Done:
            report(Kind::Divergence, "%s, but thread %u has left the kernel", what, other.number);
        case State::Barrier:
            // A barrier takes whole warps, so this one needs me; one of another warp may still complete.
            if (other.warp() == me.warp()) {
                report(Kind::Divergence, "%s, but thread %u waits at %s in line %u", what, other.number,
                       other.waits_for, other.place.line());
            }
            return false;
        case State::Collective:
            break;
    }
    if (!other.participants.contain(me.number)) return false;
    const bool same = other.operation == me.operation &&
                      (other.waits_for == what || strcmp(other.waits_for, what) == 0) &&
                      other.participants == me.participants && same_place(other.place, place);
    if (!same) {
        report(Kind::Divergence, "%s (mask %08x), but thread %u is at %s (mask %08x) in line %u", what,
               me.participants.mask, other.number, other.waits_for, other.participants.mask, other.place.line());
    }
    return true;
}

}  // namespace

void meet(Participants participants, const char* what, void* argument, WarpOperation operation, Ordering ordering,
          Place place) {
    current->origin = {nullptr, place};
    Thread& me = self();
    if (!participants.contain(me.number)) {
        report(Kind::Divergence, "%s: the calling lane %u is not in its own mask %08x", what, me.lane(),
               participants.mask);
    }
    me.participants = participants;
    me.argument = argument;
    me.operation = operation;

    // Whoever comes last looks at all the others; before that, one who is missing is enough. The search begins behind
    // the calling thread, where it is short if threads run in order.
    for (unsigned step = 1; step < participants.count; ++step) {
        const unsigned i = participants.first + (me.number - participants.first + step) % participants.count;
        if (!participants.contain(i)) continue;
        if (!has_come(block().threads[i], me, what, place)) return suspend(State::Collective, what, place);
    }

    std::array<Thread*, WARPGROUP> room;
    size_t count = 0;
    for (unsigned i = participants.first; i < participants.first + participants.count; ++i) {
        if (participants.contain(i)) room[count++] = &block().threads[i];
    }
    const std::span<Thread* const> who(room.data(), count);
    if (operation) {
        std::array<void*, WARPGROUP> arguments = {};
        for (Thread* thread : who) arguments[thread->number - participants.first] = thread->argument;
        operation(arguments.data(), participants.count);
    }
    if (ordering == Ordering::Memory) join_views(who);
    for (Thread* thread : who) thread->state = State::Ready;
    ++block().progress;
    current->origin = {};
}

void warp_collective(uint32_t mask, const char* what, void* argument, WarpOperation operation, Ordering ordering,
                     Place place) {
    meet(warp_participants(mask), what, argument, operation, ordering, place);
}

void block_barrier(unsigned id, unsigned threads, Arrival arrival, const char* what, Ordering ordering, Place place) {
    current->origin = {nullptr, place};
    const unsigned expected = threads == 0 ? block().threads.size() : threads;
    if (id >= block().barriers.size()) report(Kind::Misuse, "%s: there is no barrier %u", what, id);
    if (threads % WARP != 0) report(Kind::Misuse, "%s of %u threads, no multiple of %u", what, threads, WARP);
    Barrier& barrier = block().barriers[id];
    if (barrier.comers.empty()) barrier.expected = expected;
    if (barrier.expected != expected) {
        report(Kind::Misuse, "%s: barrier %u is for %u threads here and for %u in line %u", what, id, expected,
               barrier.expected, barrier.comers.front().place.line());
    }
    for (const Barrier::Comer& comer : barrier.comers) {
        if (comer.thread != self().number) continue;
        report(Kind::Misuse, "%s: the thread came to barrier %u twice before it completed", what, id);
    }
    barrier.comers.push_back({self().number, arrival, place});
    barrier.joined.join(self().view);
    self().step();
    ++block().progress;
    if (barrier.comers.size() == expected) {
        complete(barrier, what, ordering);
        current->origin = {};
    } else if (arrival == Arrival::Wait) {
        suspend(State::Barrier, what, place);
    }
}

}  // namespace emulator
