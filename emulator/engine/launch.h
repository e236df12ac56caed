// The running launch: a grid of blocks, one block at a time, its threads as fibers that take turns.
//
// All state hangs on one thread-local pointer, so that launches on several host threads do not meet.
#pragma once

#include <array>
#include <deque>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "emulator.h"
#include "fiber.h"
#include "finding.h"
#include "global_memory.h"
#include "mbarrier.h"
#include "publication.h"
#include "shared_memory.h"
#include "view.h"
#include "wgmma.h"

namespace emulator {

namespace ptx {
struct Program;
}

constexpr unsigned WARP = 32;
constexpr unsigned WARPGROUP = 128;
// Per thread; a kernel's local arrays and register tiles live here.
constexpr size_t STACK_BYTES = 256 << 10;

// Crosses the C interface.
struct Shape {
    uint32_t grid[3];
    uint32_t block[3];
    uint64_t shared_bytes;
    uint64_t order;  // 0: ascending, 1: descending, otherwise the seed of a random order
};

// Several threads that meet: lanes of a warp, or a warpgroup.
struct Participants {
    unsigned first;
    unsigned count;
    uint32_t mask;  // which of them, for a warp

    bool contain(unsigned thread) const {
        if (thread < first || thread >= first + count) return false;
        return count > WARP || mask >> (thread - first) & 1;
    }
    bool operator==(const Participants&) const = default;
};

// A 16-byte copy whose data have not arrived.
struct AsyncCopy {
    unsigned char* destination;
    const void* source;
    size_t bytes;
    size_t valid_bytes;
    unsigned group;
};

enum class State { Ready, Collective, Barrier, Mbarrier, Done };

struct Thread {
    Dim3 index;
    unsigned number;
    Fiber fiber;
    char* stack;

    State state = State::Ready;
    const char* waits_for = "";
    Place place = {};

    // The collective it waits in.
    Participants participants = {};
    void* argument = nullptr;
    WarpOperation operation = nullptr;
    // The mbarrier it waits for.
    uint32_t mbarrier = 0;

    View view = {};
    View released = {};  // what its last thread_fence published
    View acquired = {};  // what its relaxed atomics will make known at the next thread_fence

    std::vector<AsyncCopy> copies = {};
    unsigned copy_group = 0;

    unsigned lane() const { return number % WARP; }
    unsigned warp() const { return number / WARP; }
    Epoch now() const { return {view.of(number), static_cast<uint16_t>(number)}; }
    void step() { ++view.entry(number); }
};

// A block barrier between two of its completions.
struct Barrier {
    struct Comer {
        unsigned thread;
        Arrival arrival;
        Place place;
    };
    unsigned expected = 0;
    std::vector<Comer> comers;
    View joined;  // what they knew when they came
};

struct Block {
    Block(const Shape& shape, char* stacks);

    void begin(Dim3 block_index, unsigned block_number);
    std::string actor_name(unsigned actor) const;

    unsigned warp_actor(unsigned warp) const { return threads.size() + warp; }
    unsigned mbarrier_actor(size_t ordinal) const { return threads.size() + warps() + ordinal; }
    unsigned warps() const { return (threads.size() + WARP - 1) / WARP; }

    Dim3 index;
    unsigned number = 0;
    std::vector<Thread> threads;
    SharedMemory shared;
    std::map<const void*, size_t> shared_arrays;
    size_t shared_arrays_end = 0;
    std::array<Barrier, 16> barriers;
    std::map<uint32_t, Mbarrier> mbarriers;
    std::deque<TmaLoad> tma_loads;
    std::vector<Warpgroup> warpgroups;
    std::vector<uint32_t> proxy_fences;  // per thread: its last step behind a fence_proxy_async
    uint64_t progress = 0;               // counts everything that may end somebody's wait
};

// What every thread runs.
struct Code {
    void (*call)(const void* arguments);
    const ptx::Program* program;  // null where `call` is the kernel itself and no interpreter
};

// The bytes of a kernel's parameters.
struct ArgumentBytes {
    const void* start;
    size_t count;
};

struct Launch {
    const Shape& shape;
    GlobalMemory& memory;
    Finding& finding;
    Code code;
    const void* arguments;

    std::mt19937_64 random = {};
    Publications publications = {};
    Origin origin = {};
    Fiber scheduler = {};
    Block* block = nullptr;
    Thread* thread = nullptr;  // null while the scheduler runs
};

extern constinit thread_local Launch* current;

inline Thread& self() { return *current->thread; }
inline Block& block() { return *current->block; }

// Runs the whole grid; the first finding ends it.
void launch_kernel(GlobalMemory& memory, const Shape& shape, Code code, ArgumentBytes arguments, Finding& finding);

// Whether the order of threads is random in this launch.
bool random_order();

// Leaves the calling GPU thread in this state until somebody makes it ready.
void suspend(State state, const char* waits_for, Place place);

// Leaves the calling GPU thread for good.
[[noreturn]] void abandon_thread();

// The last of the participants to come runs `operation` and goes on; the others wait for it.
void meet(Participants participants, const char* what, void* argument, WarpOperation operation, Ordering ordering,
          Place place);

// Checks an access by the running thread, wherever it goes. The caller has set `current->origin`.
void check(const void* address, size_t bytes, Access access, size_t alignment, const char* what);

}  // namespace emulator
