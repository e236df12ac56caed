// Windows: which keys of a step each row of queries sees, by the distance of their tokens. Comes after arguments.h.
#pragma once

// Row r of a run of queries sees key i of a step if first ≤ i − r ≤ last.
struct StepWindow {
    int first;
    int last;
};

// A difference of tokens in 32 bits. Further away than a tile is large nothing changes.
inline int near_difference(long difference) {
    const long far = 1 << 20;
    return int(difference < -far ? -far : difference > far ? far : difference);
}

// The window of a step for the rows from token `first_query` on.
inline StepWindow step_window(const device KeyStep& step, ulong first_query) {
    const long shift = long(first_query - step.value_row);
    StepWindow window;
    window.first = near_difference(step.band.first + shift);
    window.last = near_difference(step.band.last + shift);
    return window;
}

// Whether each of so many rows sees each of so many keys.
inline bool covers(StepWindow window, uint rows, uint keys) {
    return window.first <= 1 - int(rows) && window.last >= int(keys) - 1;
}
