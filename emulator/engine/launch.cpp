#include "launch.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <sys/mman.h>

namespace emulator {

constinit thread_local Launch* current = nullptr;

namespace {

size_t count(const uint32_t (&extent)[3]) { return size_t(extent[0]) * extent[1] * extent[2]; }

Dim3 position(size_t number, const uint32_t (&extent)[3]) {
    return {uint32_t(number % extent[0]), uint32_t(number / extent[0] % extent[1]),
            uint32_t(number / extent[0] / extent[1])};
}

// The stacks of all threads, each with an unmapped page below it.
class Stacks {
   public:
    explicit Stacks(size_t threads) : bytes_(threads * STACK_BYTES) {
        void* memory =
            mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        start_ = static_cast<char*>(memory);
        for (size_t i = 0; i < threads; ++i) mprotect(start_ + i * STACK_BYTES, 4096, PROT_NONE);
    }
    ~Stacks() { munmap(start_, bytes_); }
    char* start() const { return start_; }

   private:
    size_t bytes_;
    char* start_;
};

[[noreturn]] void thread_main() {
    current->code.call(current->arguments);
    self().state = State::Done;
    Fiber::change(self().fiber, current->scheduler);
    __builtin_unreachable();
}

// 0, 1, 2, … in the order of this launch.
void arrange(std::vector<unsigned>& order) {
    std::iota(order.begin(), order.end(), 0);
    if (current->shape.order == 1) std::reverse(order.begin(), order.end());
    if (random_order()) std::shuffle(order.begin(), order.end(), current->random);
}

void resume(Thread& thread) {
    current->thread = &thread;
    Fiber::change(current->scheduler, thread.fiber);
    current->thread = nullptr;
    current->origin = {};
}

// Lets those who wait for an mbarrier look again: a kernel may do other work when a phase has not ended.
bool wake_pollers() {
    bool woken = false;
    for (Thread& thread : block().threads) {
        if (thread.state != State::Mbarrier) continue;
        thread.state = State::Ready;
        woken = true;
    }
    return woken;
}

// Nobody can go on. Meetings that some have come to and others cannot are divergence, all else is a deadlock.
void report_standstill() {
    std::vector<Thread>& threads = block().threads;
    const auto stuck = std::find_if(threads.begin(), threads.end(), [](const Thread& thread) {
        return thread.state == State::Collective || thread.state == State::Barrier;
    });
    const auto waiter = std::find_if(threads.begin(), threads.end(),
                                     [](const Thread& thread) { return thread.state == State::Mbarrier; });
    Thread& first = stuck != threads.end() ? *stuck : *waiter;
    const auto other = std::find_if(threads.begin(), threads.end(), [&](const Thread& thread) {
        return thread.state != first.state || thread.place.line() != first.place.line();
    });
    current->thread = &first;
    current->origin = {nullptr, first.place};
    std::string rest = "all threads wait there";
    if (other != threads.end()) {
        rest = "thread " + std::to_string(other->number);
        rest += other->state == State::Done ? std::string(" has left the kernel")
                                            : std::string(" waits at ") + other->waits_for + " in line " +
                                                  std::to_string(other->place.line());
    }
    if (waiter != threads.end()) rest += "; " + missing(waiter->mbarrier);
    const bool diverged = stuck != threads.end() && waiter == threads.end();
    record(diverged ? Kind::Divergence : Kind::Deadlock, "nobody can go on: thread %u waits at %s; %s", first.number,
           first.waits_for, rest.c_str());
    current->thread = nullptr;
}

void run_block() {
    Block& block = emulator::block();
    std::vector<unsigned> order(block.threads.size());
    arrange(order);
    uint64_t progress_at_last_poll = ~uint64_t(0);
    for (;;) {
        if (random_order()) std::shuffle(order.begin(), order.end(), current->random);
        bool ran = false;
        for (unsigned number : order) {
            Thread& thread = block.threads[number];
            if (thread.state != State::Ready) continue;
            resume(thread);
            if (current->finding.kind != Kind::None) return;
            ran = true;
        }
        if (random_order() && current->random() % 4 == 0 && deliver_tma(current->random())) continue;
        if (ran) continue;
        const bool done = std::all_of(block.threads.begin(), block.threads.end(),
                                      [](const Thread& thread) { return thread.state == State::Done; });
        if (done) break;
        if (deliver_tma(random_order() ? current->random() : 0)) continue;
        if (progress_at_last_poll != block.progress && wake_pollers()) {
            progress_at_last_poll = block.progress;
            continue;
        }
        return report_standstill();
    }
    for (const auto& [address, mbarrier] : block.mbarriers) {
        const bool awaited = std::any_of(block.threads.begin(), block.threads.end(), [&](const Thread& thread) {
            return thread.view.of(mbarrier.actor) >= mbarrier.loads;
        });
        if (awaited) continue;
        record(Kind::Asynchronous, "the block ended and nobody waited for a TMA load that reports to shared address %u",
               address);
    }
}

}  // namespace

Block::Block(const Shape& shape, char* stacks) : threads(count(shape.block)), shared(shape.shared_bytes) {
    for (unsigned i = 0; i < threads.size(); ++i) {
        threads[i].stack = stacks + i * STACK_BYTES;
        threads[i].number = i;
        threads[i].index = position(i, shape.block);
    }
}

void Block::begin(Dim3 block_index, unsigned block_number) {
    index = block_index;
    number = block_number;
    for (Thread& thread : threads) {
        Thread fresh{.index = thread.index, .number = thread.number, .fiber = {}, .stack = thread.stack};
        thread = std::move(fresh);
        thread.fiber.prepare(thread.stack, STACK_BYTES, thread_main);
        thread.step();
    }
    shared.reset();
    shared_arrays.clear();
    shared_arrays_end = 0;
    barriers = {};
    mbarriers.clear();
    tma_loads.clear();
    warpgroups.assign((threads.size() + WARPGROUP - 1) / WARPGROUP, {});
    proxy_fences.assign(threads.size(), 0);
    progress = 0;
}

std::string Block::actor_name(unsigned actor) const {
    if (actor < threads.size()) return "thread " + std::to_string(actor);
    actor -= threads.size();
    if (actor < warps()) return "a wgmma of warp " + std::to_string(actor);
    for (const auto& [address, mbarrier] : mbarriers) {
        if (mbarrier.actor == threads.size() + actor) return "mbarrier at shared address " + std::to_string(address);
    }
    return "an unknown actor";
}

void launch_kernel(GlobalMemory& memory, const Shape& shape, Code code, ArgumentBytes arguments, Finding& finding) {
    const size_t threads = count(shape.block), blocks = count(shape.grid);
    if (threads == 0 || threads > 1024) {
        finding.kind = Kind::Setup;
        snprintf(finding.message, sizeof finding.message, "a block of %zu threads", threads);
        return;
    }
    // Kernel parameters may be aligned to more than the caller's bytes are.
    struct alignas(128) Line {
        unsigned char bytes[128];
    };
    std::vector<Line> aligned(arguments.count / sizeof(Line) + 1);
    memcpy(aligned.data(), arguments.start, arguments.count);
    Launch launch{.shape = shape,
                  .memory = memory,
                  .finding = finding,
                  .code = code,
                  .arguments = aligned.data(),
                  .random = std::mt19937_64(shape.order)};
    current = &launch;
    memory.begin_launch();
    {
        Stacks stacks(threads);
        Block block(shape, stacks.start());
        launch.block = &block;
        std::vector<unsigned> order(blocks);
        arrange(order);
        for (unsigned number : order) {
            block.begin(position(number, shape.grid), number);
            run_block();
            if (finding.kind != Kind::None) break;
        }
    }
    launch.block = nullptr;
    current = nullptr;
}

void suspend(State state, const char* waits_for, Place place) {
    Thread& thread = self();
    thread.state = state;
    thread.waits_for = waits_for;
    thread.place = place;
    Fiber::change(thread.fiber, current->scheduler);
}

void abandon_thread() {
    self().state = State::Done;
    Fiber::change(self().fiber, current->scheduler);
    __builtin_unreachable();
}

bool random_order() { return current->shape.order >= 2; }

Dim3 thread_index() { return self().index; }
Dim3 block_index() { return block().index; }
Dim3 block_size() { return {current->shape.block[0], current->shape.block[1], current->shape.block[2]}; }
Dim3 grid_size() { return {current->shape.grid[0], current->shape.grid[1], current->shape.grid[2]}; }
unsigned linear_thread_index() { return self().number; }
unsigned lane_index() { return self().lane(); }
unsigned warp_index() { return self().warp(); }
const void* launch_arguments() { return current->arguments; }

}  // namespace emulator
