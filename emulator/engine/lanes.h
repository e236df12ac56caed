// Exchange of values between the lanes of a warp, for all vocabularies.
#pragma once

#include "emulator.h"

namespace emulator {

template <class T>
struct Shuffle {
    T value;
    unsigned source;  // lane
    T received;
};

template <class T>
EMULATOR_UNCHECKED void exchange(void* const* lanes, unsigned count) {
    for (unsigned i = 0; i < count; ++i) {
        if (!lanes[i]) continue;
        auto& mine = *static_cast<Shuffle<T>*>(lanes[i]);
        const void* theirs = mine.source < count ? lanes[mine.source] : nullptr;
        mine.received = static_cast<const Shuffle<T>*>(theirs ? theirs : lanes[i])->value;
    }
}

template <class T>
EMULATOR_UNCHECKED T shuffle(unsigned mask, T value, unsigned source, const char* what, Place place) {
    if (!(mask >> (source & 31) & 1)) misuse(place, "%s from lane %u, which is not in the mask", what, source);
    Shuffle<T> mine{value, source, value};
    warp_collective(mask, what, &mine, exchange<T>, Ordering::None, place);
    return mine.received;
}

// Which lanes say yes.
struct Vote {
    bool predicate;
    unsigned ballot;
};

inline EMULATOR_UNCHECKED void count_votes(void* const* lanes, unsigned count) {
    unsigned ballot = 0;
    for (unsigned i = 0; i < count; ++i) {
        if (lanes[i] && static_cast<const Vote*>(lanes[i])->predicate) ballot |= 1u << i;
    }
    for (unsigned i = 0; i < count; ++i) {
        if (lanes[i]) static_cast<Vote*>(lanes[i])->ballot = ballot;
    }
}

inline EMULATOR_UNCHECKED unsigned vote(unsigned mask, bool predicate, const char* what, Place place) {
    Vote mine{predicate, 0};
    warp_collective(mask, what, &mine, count_votes, Ordering::None, place);
    return mine.ballot;
}

// Every lane of the warp receives what `combine` makes of all lanes' values, from lane 0 up.
template <class T, T (*COMBINE)(T, T)>
EMULATOR_UNCHECKED void reduce_all(void* const* lanes, unsigned count) {
    T result = static_cast<const Shuffle<T>*>(lanes[0])->value;
    for (unsigned i = 1; i < count; ++i) result = COMBINE(result, static_cast<const Shuffle<T>*>(lanes[i])->value);
    for (unsigned i = 0; i < count; ++i) static_cast<Shuffle<T>*>(lanes[i])->received = result;
}

template <class T, T (*COMBINE)(T, T)>
EMULATOR_UNCHECKED T reduce(T value, const char* what, Place place) {
    Shuffle<T> mine{value, 0, value};
    warp_collective(0xffffffff, what, &mine, reduce_all<T, COMBINE>, Ordering::None, place);
    return mine.received;
}

}  // namespace emulator
