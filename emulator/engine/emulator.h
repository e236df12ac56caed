// What the engine offers to the vocabularies (cuda/, metal/): the header between a GPU's instructions and the fibers.
//
// Plain loads and stores of a kernel do not pass through here: the compiler reports them to hooks.cpp.
#pragma once

#include <cstddef>
#include <cstdint>
#ifndef MSL_CHECK
#include <source_location>
#endif

// A function whose own loads and stores are not the kernel's: the wrappers around primitives.
#define EMULATOR_UNCHECKED __attribute__((no_sanitize("thread")))

namespace emulator {

// The line of kernel source that a finding names. Every primitive takes it as a defaulted last argument. PTX, which no
// C++ compiler reads, makes its own.
#ifndef MSL_CHECK
class Place {
   public:
    constexpr Place() = default;
    constexpr Place(const char* file, uint32_t line) : file_(file), line_(line) {}

    static constexpr Place current(std::source_location here = std::source_location::current()) {
        Place place(here.file_name(), here.line());
        place.column_ = here.column();
        return place;
    }

    constexpr const char* file_name() const { return file_; }
    constexpr uint32_t line() const { return line_; }
    constexpr uint32_t column() const { return column_; }

   private:
    const char* file_ = "";
    uint32_t line_ = 0, column_ = 0;
};
#else
// Metal's text is checked as the C++14 that it is; nothing runs.
struct Place {
    static constexpr Place current() { return Place(); }
};
#endif

struct Dim3 {
    uint32_t x = 1, y = 1, z = 1;
};

// ---- Who runs -----------------------------------------------------------------------------------------------------

Dim3 thread_index();
Dim3 block_index();
Dim3 block_size();
Dim3 grid_size();
unsigned linear_thread_index();
unsigned lane_index();
unsigned warp_index();

// The bytes that the launch was given as arguments.
const void* launch_arguments();

// ---- Memory -------------------------------------------------------------------------------------------------------

enum class Access { Read, Write };

// Checks an access that the compiler does not see, aligned to its own size.
void check_access(const void* address, size_t bytes, Access access, const char* what, Place place);

// Shared memory by pointer and by shared address. Addresses begin at a number other than zero, as on a GPU.
unsigned char* shared_base();
uint32_t shared_address(const void* pointer);
unsigned char* shared_pointer(uint32_t address);

// An array of `bytes` bytes in shared memory behind offset `after`; the same one for the same key in all threads.
void* shared_array(const void* key, size_t bytes, size_t alignment, size_t after);

// ---- Meetings -----------------------------------------------------------------------------------------------------

// Runs once all lanes have come, with their arguments by lane; null for lanes outside the mask.
using WarpOperation = void (*)(void* const* arguments, unsigned lanes);

// All lanes of `mask` meet here. `operation` may be null. Only a meeting that orders memory makes the lanes' writes
// known to each other.
enum class Ordering { None, Memory };
void warp_collective(uint32_t mask, const char* what, void* argument, WarpOperation operation, Ordering ordering,
                     Place place);

// Barrier `id` of `threads` threads; 0 threads means the whole block.
enum class Arrival { Wait, Pass };
void block_barrier(unsigned id, unsigned threads, Arrival arrival, const char* what, Ordering ordering, Place place);

// All threads of the calling warpgroup (128 threads) meet here.
void warpgroup_collective(const char* what, Place place);

// ---- Between blocks -----------------------------------------------------------------------------------------------

// `Relaxed` orders nothing by itself: a `thread_fence` in front publishes, one behind makes known.
enum class AtomicOrder { Relaxed, AcquireRelease };
uint32_t atomic_add(uint32_t* counter, uint32_t value, AtomicOrder order, Place place);
void thread_fence();

// ---- cp.async -----------------------------------------------------------------------------------------------------

// The data arrive at the wait, never earlier.
void async_copy(uint32_t destination, const void* source, size_t bytes, size_t valid_bytes, Place place);
void async_copy_commit();
void async_copy_wait(unsigned pending);

// ---- mbarrier and TMA ---------------------------------------------------------------------------------------------

void mbarrier_init(uint32_t address, uint32_t count, Place place);
void mbarrier_fence_init();
void mbarrier_arrive(uint32_t address, uint32_t expected_bytes, Place place);
bool mbarrier_try_wait(uint32_t address, uint32_t parity, Place place);
void fence_proxy_async();

// Stands for the opaque 128 bytes of a CUtensorMap. Its fields mirror the arguments of cuTensorMapEncodeTiled.
struct alignas(64) TensorMap {
    static constexpr uint64_t MAGIC = 0x70616d726f736e74;
    uint64_t magic;
    const unsigned char* base;
    uint32_t rank;
    uint32_t element_bytes;
    uint64_t size[5];       // in elements, innermost first
    uint64_t stride[4];     // in bytes, of dimensions 1 and up
    uint32_t box[5];        // in elements
    uint32_t swizzle_span;  // 0, 32, 64 or 128 bytes
};
static_assert(sizeof(TensorMap) == 128, "as the driver's");

void tma_load(uint32_t destination, const TensorMap& map, uint32_t mbarrier, const int32_t* coordinates, unsigned rank,
              Place place);

// ---- wgmma --------------------------------------------------------------------------------------------------------

struct WgmmaShape {
    unsigned columns;               // N
    bool b_is_mn_major;
    float (*to_float)(uint16_t);    // decodes an element of A and B
};

// Registers `a` are null where A lies in shared memory. The accumulators hold NaN from here to their wait.
void wgmma_issue(const WgmmaShape& shape, float* accumulators, const uint32_t* a_registers, uint64_t a_descriptor,
                 uint64_t b_descriptor, bool accumulate, Place place);
void wgmma_fence(Place place);
void wgmma_commit(Place place);
void wgmma_wait(unsigned pending, Place place);

// ---- Findings -----------------------------------------------------------------------------------------------------

// A primitive used against its rules. Ends the launch.
[[noreturn]] void misuse(Place place, const char* format, ...) __attribute__((format(printf, 2, 3)));

}  // namespace emulator
