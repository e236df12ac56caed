#include "wgmma.h"

#include <cmath>
#include <iterator>

#include "launch.h"
#include "swizzle.h"
#include "tensor_core.h"

namespace emulator {
namespace {

constexpr unsigned ROWS = 64;   // of A and D
constexpr unsigned DEPTH = 16;  // columns of A, rows of B
constexpr uint32_t CHUNK = 16;  // bytes that a swizzle keeps together

// An operand in shared memory, as its descriptor says.
class Operand {
   public:
    Operand(uint64_t descriptor, bool mn_major)
        : start_((descriptor & 0x3fff) << 4),
          leading_((descriptor >> 16 & 0x3fff) << 4),
          stride_((descriptor >> 32 & 0x3fff) << 4),
          mn_major_(mn_major) {
        const unsigned layout = descriptor >> 62;
        if (layout == 0) report(Kind::Misuse, "wgmma: operands without a swizzle are not emulated");
        if (descriptor >> 49 & 7) report(Kind::Misuse, "wgmma: descriptors with a base offset are not emulated");
        span_ = 256 >> layout;
    }

    // Where element (m, k) lies; m is the row of A or the column of B.
    uint32_t address(unsigned m, unsigned k) const {
        const unsigned wide = span_ / 2;  // elements that a swizzle spans
        const uint32_t plain = mn_major_ ? start_ + m / wide * leading_ + k / 8 * stride_ + k % 8 * span_ + m % wide * 2
                                         : start_ + m / 8 * stride_ + m % 8 * span_ + k * 2;
        return swizzle(plain, span_);
    }

    // Calls `visit` with each 16-byte chunk of an operand of `extent` rows (A) or columns (B).
    template <class Visit>
    void chunks(unsigned extent, Visit visit) const {
        constexpr unsigned ELEMENTS = CHUNK / 2;
        for (unsigned m = 0; m < extent; m += mn_major_ ? ELEMENTS : 1) {
            for (unsigned k = 0; k < DEPTH; k += mn_major_ ? 1 : ELEMENTS) visit(shared_pointer(address(m, k)));
        }
    }

    float at(unsigned m, unsigned k, float (*to_float)(uint16_t)) const {
        return to_float(*reinterpret_cast<const uint16_t*>(shared_pointer(address(m, k))));
    }

   private:
    uint32_t start_, leading_, stride_, span_;
    bool mn_major_;
};

struct Request {
    const WgmmaShape* shape;
    float* accumulators;
    const uint32_t* a_registers;
    uint64_t a_descriptor, b_descriptor;
    bool accumulate;
};

// Row and column of D, or of A with its registers' halves numbered in order, that thread and number stand for.
unsigned row_of(unsigned thread, unsigned number) {
    return thread / WARP * 16 + thread % WARP / 4 + number / 2 % 2 * 8;
}
unsigned column_of(unsigned thread, unsigned number) { return number / 4 * 8 + thread % 4 * 2 + number % 2; }

Warpgroup& warpgroup() { return block().warpgroups[self().number / WARPGROUP]; }

template <class Visit>
void for_each_chunk(const WgmmaInstruction& instruction, Visit visit) {
    if (instruction.a_registers.empty()) Operand(instruction.a_descriptor, false).chunks(ROWS, visit);
    Operand(instruction.b_descriptor, instruction.shape.b_is_mn_major).chunks(instruction.shape.columns, visit);
}

// The operands must be readable from the issue on.
void check_operands(const WgmmaInstruction& instruction) {
    for_each_chunk(instruction, [](const unsigned char* chunk) {
        block().shared.read_async(chunk, CHUNK, self().view, block().proxy_fences, "wgmma operand read");
    });
}

// The reads may happen as late as the wait, by every warp; its lanes know of them from there on.
void note_operand_reads(const WgmmaInstruction& instruction) {
    const unsigned first = self().number / WARPGROUP * WARPGROUP;
    for (unsigned warp = first / WARP; warp < (first + WARPGROUP) / WARP; ++warp) {
        const unsigned actor = block().warp_actor(warp);
        uint32_t clock = 0;
        for (unsigned lane = 0; lane < WARP; ++lane) clock = ++block().threads[warp * WARP + lane].view.entry(actor);
        for_each_chunk(instruction, [&](const unsigned char* chunk) {
            block().shared.note_read(chunk, CHUNK, {clock, static_cast<uint16_t>(actor)});
        });
    }
}

void execute(const WgmmaInstruction& instruction, Warpgroup& group) {
    const WgmmaShape& shape = instruction.shape;
    float a[ROWS][DEPTH], b[256][DEPTH];
    if (instruction.a_registers.empty()) {
        const Operand operand(instruction.a_descriptor, false);
        for (unsigned m = 0; m < ROWS; ++m) {
            for (unsigned k = 0; k < DEPTH; ++k) a[m][k] = operand.at(m, k, shape.to_float);
        }
    } else {
        for (unsigned thread = 0; thread < WARPGROUP; ++thread) {
            for (unsigned i = 0; i < 8; ++i) {
                const uint32_t pair = instruction.a_registers[thread][i / 2];
                a[row_of(thread, i)][column_of(thread, i)] = shape.to_float(uint16_t(pair >> i % 2 * 16));
            }
        }
    }
    const Operand operand(instruction.b_descriptor, shape.b_is_mn_major);
    for (unsigned n = 0; n < shape.columns; ++n) {
        for (unsigned k = 0; k < DEPTH; ++k) b[n][k] = operand.at(n, k, shape.to_float);
    }
    for (unsigned thread = 0; thread < WARPGROUP; ++thread) {
        std::vector<float>& d = group.accumulators.at(instruction.accumulators[thread]);
        for (unsigned i = 0; i < shape.columns / 2; ++i) {
            const float* row = a[row_of(thread, i)];
            const float* column = b[column_of(thread, i)];
            d[i] = tensor_core_add(instruction.accumulate ? d[i] : 0.0f, row, column, DEPTH, DEPTH);
        }
    }
}

// Runs in the last of the warpgroup's threads to come.
void issue(void* const* arguments, unsigned) {
    Warpgroup& group = warpgroup();
    if (!group.fenced) report(Kind::Misuse, "wgmma without a wgmma_fence since the last wait");
    const Request& first = *static_cast<const Request*>(arguments[0]);
    WgmmaInstruction instruction = {};
    instruction.shape = *first.shape;
    instruction.a_descriptor = first.a_descriptor;
    instruction.b_descriptor = first.b_descriptor;
    instruction.accumulate = first.accumulate;
    instruction.group = group.group;
    for (unsigned thread = 0; thread < WARPGROUP; ++thread) {
        const Request& request = *static_cast<const Request*>(arguments[thread]);
        if (request.a_descriptor != first.a_descriptor || request.b_descriptor != first.b_descriptor ||
            request.accumulate != first.accumulate) {
            report(Kind::Divergence, "wgmma: descriptors or flags differ between threads of the warpgroup");
        }
        instruction.accumulators[thread] = request.accumulators;
        if (request.a_registers) {
            const uint32_t* a = request.a_registers;
            instruction.a_registers.push_back({a[0], a[1], a[2], a[3]});
        }
        const unsigned count = instruction.shape.columns / 2;
        const auto [kept, fresh] = group.accumulators.try_emplace(request.accumulators, request.accumulators,
                                                                  request.accumulators + count);
        if (fresh) std::fill_n(request.accumulators, count, NAN);
    }
    check_operands(instruction);
    group.issued.push_back(std::move(instruction));
}

void commit(void* const*, unsigned) { ++warpgroup().group; }

void fence(void* const*, unsigned) { warpgroup().fenced = true; }

// Runs in the last of the warpgroup's threads to come.
void wait(void* const* arguments, unsigned) {
    const unsigned pending = *static_cast<const unsigned*>(arguments[0]);
    Warpgroup& group = warpgroup();
    group.fenced = false;
    std::vector<WgmmaInstruction> under_way;
    for (WgmmaInstruction& instruction : group.issued) {
        if (instruction.group + pending >= group.group) {
            under_way.push_back(std::move(instruction));
            continue;
        }
        check_operands(instruction);
        execute(instruction, group);
        note_operand_reads(instruction);
    }
    group.issued = std::move(under_way);
    for (auto kept = group.accumulators.begin(); kept != group.accumulators.end();) {
        bool busy = false;
        for (const WgmmaInstruction& instruction : group.issued) {
            for (const float* accumulators : instruction.accumulators) busy |= accumulators == kept->first;
        }
        if (!busy) std::copy(kept->second.begin(), kept->second.end(), kept->first);
        kept = busy ? std::next(kept) : group.accumulators.erase(kept);
    }
}

void meet_warpgroup(const char* what, void* argument, WarpOperation operation, Place place) {
    const unsigned first = self().number / WARPGROUP * WARPGROUP;
    if (first + WARPGROUP > block().threads.size()) misuse(place, "%s by an incomplete warpgroup", what);
    meet({first, WARPGROUP, ~0u}, what, argument, operation, Ordering::None, place);
}

}  // namespace

void Warpgroup::check_registers(const void* address, size_t bytes, const char* what) const {
    if (accumulators.empty()) return;
    const auto first = static_cast<const char*>(address);
    // Accumulators do not overlap each other: the last to begin before the end of the access decides.
    const auto after = accumulators.lower_bound(reinterpret_cast<float*>(const_cast<char*>(first + bytes)));
    if (after == accumulators.begin()) return;
    const auto& [start, contents] = *std::prev(after);
    if (first < reinterpret_cast<const char*>(start + contents.size())) {
        report(Kind::Asynchronous, "%s of an accumulator register before the wait for its wgmma", what);
    }
}

void wgmma_issue(const WgmmaShape& shape, float* accumulators, const uint32_t* a_registers, uint64_t a_descriptor,
                 uint64_t b_descriptor, bool accumulate, Place place) {
    Request request{&shape, accumulators, a_registers, a_descriptor, b_descriptor, accumulate};
    meet_warpgroup("wgmma", &request, issue, place);
}

void wgmma_fence(Place place) { meet_warpgroup("wgmma_fence", nullptr, fence, place); }

void wgmma_commit(Place place) { meet_warpgroup("wgmma_commit", nullptr, commit, place); }

void wgmma_wait(unsigned pending, Place place) { meet_warpgroup("wgmma_wait", &pending, wait, place); }

void warpgroup_collective(const char* what, Place place) { meet_warpgroup(what, nullptr, nullptr, place); }

}  // namespace emulator
