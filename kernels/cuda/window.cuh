// Windows: which keys of a step each row of queries sees, by the distance of their tokens.
#pragma once

#include "arguments.cuh"

// Row r of a run of queries sees key i of a step if first ≤ i − r ≤ last.
struct StepWindow {
    int first, last;

    // For ROWS queries from token `first_query` on, and a step of KEYS keys.
    template <int ROWS, int KEYS>
    static __device__ __forceinline__ StepWindow of(const KeyStep& step, uint64_t first_query) {
        const int64_t shift = int64_t(first_query - step.value_row);
        return {within<ROWS, KEYS>(step.band.first + shift), within<ROWS, KEYS>(step.band.last + shift)};
    }

    template <int ROWS, int KEYS>
    __device__ __forceinline__ bool covers() const {
        return first <= 1 - ROWS && last >= KEYS - 1;
    }

    __device__ __forceinline__ bool sees(int row, int key) const { return key - row >= first && key - row <= last; }

private:
    // Further away nothing changes, and 32 bits hold it.
    template <int ROWS, int KEYS>
    static __device__ __forceinline__ int within(int64_t difference) {
        const int64_t low = -ROWS, high = KEYS;
        return int(difference < low ? low : difference > high ? high : difference);
    }
};
