// Loads, stores, atomics, fences and cp.async.
#include <array>

#include "machine.h"

namespace emulator::ptx {
namespace {

enum class Space { Global, Shared, Parameters };

// Global memory that nobody writes during the launch.
const std::string READ_ONLY = "global.nc";

int32_t offset(const uint32_t* address) { return int32_t(address[1]); }

// Where `bytes` bytes of shared memory lie, if they are anywhere near it.
unsigned char* shared_location(Machine& m, const uint32_t* address, const char* what) {
    const uint32_t number = m.get<uint32_t>(address[0]) + address[1];
    unsigned char* const pointer = shared_pointer(number);
    if (!block().shared.owns(pointer)) {
        refuse(m, Kind::OutOfBounds, "%s at shared address %u, which is far from shared memory", what, number);
    }
    return pointer;
}

unsigned char* global_location(Machine& m, const uint32_t* address, const char* what) {
    auto* const pointer = reinterpret_cast<unsigned char*>(m.get<uint64_t>(address[0]) + int64_t(offset(address)));
    if (!current->memory.owns(pointer)) {
        refuse(m, Kind::OutOfBounds, "%s at %p, no global memory", what, static_cast<void*>(pointer));
    }
    return pointer;
}

const unsigned char* parameter_location(Machine& m, const uint32_t* address, size_t bytes) {
    const uint64_t start = reinterpret_cast<uint64_t>(current->arguments);
    const uint64_t at = m.get<uint64_t>(address[0]) + int64_t(offset(address)) - start;
    const uint64_t end = m.program.parameter_bytes;
    if (at > end || bytes > end - at) refuse(m, Kind::OutOfBounds, "read of parameter bytes %lld", (long long)at);
    if (at % bytes != 0) refuse(m, Kind::Misuse, "read of %zu parameter bytes at offset %llu", bytes, (long long)at);
    return reinterpret_cast<const unsigned char*>(start + at);
}

// The checked location of an access.
template <Space SPACE>
unsigned char* location(Machine& m, const uint32_t* address, size_t bytes, Access access) {
    const char* what = access == Access::Read ? "read" : "write";
    if constexpr (SPACE == Space::Parameters) {
        return const_cast<unsigned char*>(parameter_location(m, address, bytes));
    } else {
        unsigned char* const pointer =
            SPACE == Space::Shared ? shared_location(m, address, what) : global_location(m, address, what);
        check_access(pointer, bytes, access, what, m.place);
        return pointer;
    }
}

// A register may be wider than what is loaded into it.
template <Space SPACE, class T, unsigned COUNT, class Register>
void load(Machine& m, const uint32_t* o) {
    std::array<T, COUNT> values;
    memcpy(&values, location<SPACE>(m, o + COUNT, sizeof values, Access::Read), sizeof values);
    for (unsigned i = 0; i < COUNT; ++i) m.set<Register>(o[i], Register(values[i]));
}

template <Space SPACE, class T, unsigned COUNT>
void store(Machine& m, const uint32_t* o) {
    std::array<T, COUNT> values;
    for (unsigned i = 0; i < COUNT; ++i) values[i] = m.get<T>(o[2 + i]);
    memcpy(location<SPACE>(m, o, sizeof values, Access::Write), &values, sizeof values);
}

std::string vector_of(const std::string& width, unsigned count) {
    return count == 1 ? width : width + "*" + std::to_string(count);
}

std::string modifier(unsigned count) { return count == 1 ? "" : ".v" + std::to_string(count); }

template <Space SPACE, class T, unsigned COUNT, class Register>
void add_load(Opcodes& table, const std::string& space, const char* type, const char* address) {
    const std::string width = std::to_string(sizeof(Register) * 8);
    table.push_back({"ld." + space + modifier(COUNT) + "." + type, "=" + vector_of(width, COUNT) + " " + address,
                     load<SPACE, T, COUNT, Register>});
}

template <Space SPACE, class T, unsigned COUNT>
void add_loads_and_stores(Opcodes& table, const std::string& space, const char* type) {
    const char* address = SPACE == Space::Shared ? "[32]" : "[64]";
    add_load<SPACE, T, COUNT, T>(table, space, type, address);
    if constexpr (sizeof(T) == 4) add_load<SPACE, T, COUNT, uint64_t>(table, space, type, address);
    if constexpr (sizeof(T) == 2) add_load<SPACE, T, COUNT, uint32_t>(table, space, type, address);
    if constexpr (SPACE != Space::Parameters) {
        if (space == READ_ONLY) return;
        const std::string width = std::to_string(sizeof(T) * 8);
        table.push_back({"st." + space + modifier(COUNT) + "." + type,
                         std::string(address) + " " + vector_of(width, COUNT), store<SPACE, T, COUNT>});
    }
}

template <Space SPACE>
void add_space(Opcodes& table, const std::string& space) {
    for (const char* type : {"b16", "u16"}) add_loads_and_stores<SPACE, uint16_t, 1>(table, space, type);
    for (const char* type : {"b32", "u32", "s32", "f32"}) {
        add_loads_and_stores<SPACE, uint32_t, 1>(table, space, type);
        add_loads_and_stores<SPACE, uint32_t, 2>(table, space, type);
        add_loads_and_stores<SPACE, uint32_t, 4>(table, space, type);
    }
    for (const char* type : {"b64", "u64", "s64"}) {
        add_loads_and_stores<SPACE, uint64_t, 1>(table, space, type);
        add_loads_and_stores<SPACE, uint64_t, 2>(table, space, type);
    }
}

template <AtomicOrder ORDER>
void add_atomically(Machine& m, const uint32_t* o) {
    auto* const counter = reinterpret_cast<uint32_t*>(m.get<uint64_t>(o[1]) + int64_t(offset(o + 1)));
    m.set<uint32_t>(o[0], atomic_add(counter, m.get<uint32_t>(o[3]), ORDER, m.place));
}

void fence(Machine&, const uint32_t*) { thread_fence(); }

void copy_async(Machine& m, const uint32_t* o) {
    const uint32_t bytes = o[4], valid = m.get<uint32_t>(o[5]);
    if (bytes != 16) refuse(m, Kind::Misuse, "cp.async.cg of %u bytes", bytes);
    unsigned char* const destination = shared_location(m, o, "cp.async");
    const auto* const source = reinterpret_cast<const void*>(m.get<uint64_t>(o[2]) + int64_t(offset(o + 2)));
    async_copy(shared_address(destination), source, bytes, valid, m.place);
}

void commit(Machine&, const uint32_t*) { async_copy_commit(); }

void wait(Machine&, const uint32_t* o) { async_copy_wait(o[0]); }

}  // namespace

void add_memory(Opcodes& table) {
    add_space<Space::Parameters>(table, "param");
    add_space<Space::Shared>(table, "shared");
    add_space<Space::Global>(table, "global");
    add_space<Space::Global>(table, READ_ONLY);
    table.push_back({"atom.global.add.u32", "=32 [64] 32", add_atomically<AtomicOrder::Relaxed>});
    table.push_back({"atom.acq_rel.gpu.global.add.u32", "=32 [64] 32", add_atomically<AtomicOrder::AcquireRelease>});
    table.push_back({"membar.gl", "", fence});
    table.push_back({"cp.async.cg.shared.global", "[32] [64] # 32", copy_async});
    table.push_back({"cp.async.commit_group", "", commit});
    table.push_back({"cp.async.wait_group", "#", wait});
}

}  // namespace emulator::ptx
