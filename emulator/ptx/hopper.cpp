// mbarriers, TMA, wgmma and what else only Hopper has.
#include <utility>

#include "../engine/numbers.h"
#include "machine.h"

namespace emulator::ptx {
namespace {

uint32_t shared_number(Machine& m, const uint32_t* address) { return m.get<uint32_t>(address[0]) + address[1]; }

void init(Machine& m, const uint32_t* o) { mbarrier_init(shared_number(m, o), m.get<uint32_t>(o[2]), m.place); }

void fence_init(Machine&, const uint32_t*) { mbarrier_fence_init(); }

void arrive(Machine& m, const uint32_t* o) { mbarrier_arrive(shared_number(m, o), 0, m.place); }

void arrive_expect(Machine& m, const uint32_t* o) {
    mbarrier_arrive(shared_number(m, o), m.get<uint32_t>(o[2]), m.place);
}

void try_wait(Machine& m, const uint32_t* o) {
    m.set<bool>(o[0], mbarrier_try_wait(shared_number(m, o + 1), m.get<uint32_t>(o[3]), m.place));
}

void fence_async(Machine&, const uint32_t*) { fence_proxy_async(); }

void load_tensor(Machine& m, const uint32_t* o) {
    const uint64_t map = m.get<uint64_t>(o[2]) + int64_t(int32_t(o[3]));
    const uint64_t at = map - reinterpret_cast<uint64_t>(current->arguments);
    const uint64_t end = m.program.parameter_bytes;
    if (at > end || sizeof(TensorMap) > end - at || map % alignof(TensorMap) != 0) {
        refuse(m, Kind::Misuse, "the tensor map of a TMA load is no parameter, or not aligned to %zu bytes",
               alignof(TensorMap));
    }
    int32_t coordinates[4];
    for (unsigned i = 0; i < 4; ++i) coordinates[i] = m.get<int32_t>(o[4 + i]);
    tma_load(shared_number(m, o), *reinterpret_cast<const TensorMap*>(map), shared_number(m, o + 8), coordinates, 4,
             m.place);
}

template <bool MORE>
void set_registers(Machine& m, const uint32_t* o) {
    const char* what = MORE ? "setmaxnreg.inc" : "setmaxnreg.dec";
    if (o[0] < 24 || o[0] > 256 || o[0] % 8 != 0) refuse(m, Kind::Misuse, "%s to %u registers", what, o[0]);
    warpgroup_collective(what, m.place);
}

void matrix_fence(Machine& m, const uint32_t*) { wgmma_fence(m.place); }
void matrix_commit(Machine& m, const uint32_t*) { wgmma_commit(m.place); }
void matrix_wait(Machine& m, const uint32_t* o) { wgmma_wait(o[0], m.place); }

// Factors of A and B may be 1 and -1; the kernels have no use for -1.
void check_factors(Machine& m, const uint32_t* factors) {
    if (factors[0] != 1 || factors[1] != 1) refuse(m, Kind::Misuse, "wgmma with negated operands is not emulated");
}

template <unsigned COLUMNS, float (*DECODE)(uint16_t)>
void multiply_from_shared(Machine& m, const uint32_t* o) {
    check_factors(m, o + 4);
    if (o[6] != 0) refuse(m, Kind::Misuse, "wgmma with a transposed A is not emulated");
    wgmma_issue({COLUMNS, o[7] != 0, DECODE}, reinterpret_cast<float*>(m.registers + o[0]), nullptr,
                m.get<uint64_t>(o[1]), m.get<uint64_t>(o[2]), m.get<bool>(o[3]), m.place);
}

template <unsigned COLUMNS, float (*DECODE)(uint16_t)>
void multiply_from_registers(Machine& m, const uint32_t* o) {
    check_factors(m, o + 7);
    uint32_t a[4];
    for (unsigned i = 0; i < 4; ++i) a[i] = m.get<uint32_t>(o[1 + i]);
    wgmma_issue({COLUMNS, o[9] != 0, DECODE}, reinterpret_cast<float*>(m.registers + o[0]), a, 0,
                m.get<uint64_t>(o[5]), m.get<bool>(o[6]), m.place);
}

template <unsigned COLUMNS, float (*DECODE)(uint16_t)>
void add_products(Opcodes& table, const std::string& type) {
    const std::string columns = std::to_string(COLUMNS), accumulators = "+32*" + std::to_string(COLUMNS / 2);
    const std::string name = "wgmma.mma_async.sync.aligned.m64n" + columns + "k16.f32." + type + "." + type;
    table.push_back({name, accumulators + " 64 64 p # # # #", multiply_from_shared<COLUMNS, DECODE>});
    table.push_back({name, accumulators + " 32*4 64 p # # #", multiply_from_registers<COLUMNS, DECODE>});
}

template <size_t... WIDTHS>
void add_all_products(Opcodes& table, std::index_sequence<WIDTHS...>) {
    (add_products<8 * (WIDTHS + 1), f16_to_float>(table, "f16"), ...);
    (add_products<8 * (WIDTHS + 1), bf16_to_float>(table, "bf16"), ...);
}

}  // namespace

void add_hopper(Opcodes& table) {
    table.push_back({"mbarrier.init.shared::cta.b64", "[32] 32", init});
    table.push_back({"mbarrier.arrive.shared::cta.b64", "_ [32]", arrive});
    table.push_back({"mbarrier.arrive.expect_tx.shared::cta.b64", "_ [32] 32", arrive_expect});
    table.push_back({"mbarrier.try_wait.parity.shared::cta.b64", "=p [32] 32", try_wait});
    table.push_back({"fence.mbarrier_init.release.cluster", "", fence_init});
    table.push_back({"fence.proxy.async.shared::cta", "", fence_async});
    table.push_back({"cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes",
                     "[32] [64,32*4] [32]", load_tensor});
    table.push_back({"setmaxnreg.inc.sync.aligned.u32", "#", set_registers<true>});
    table.push_back({"setmaxnreg.dec.sync.aligned.u32", "#", set_registers<false>});
    table.push_back({"wgmma.fence.sync.aligned", "", matrix_fence});
    table.push_back({"wgmma.commit_group.sync.aligned", "", matrix_commit});
    table.push_back({"wgmma.wait_group.sync.aligned", "#", matrix_wait});
    add_all_products(table, std::make_index_sequence<32>());
}

}  // namespace emulator::ptx
