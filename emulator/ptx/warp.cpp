// What the lanes of a warp do together, and barriers.
#include "../engine/lanes.h"
#include "../engine/matrix.h"
#include "machine.h"

namespace emulator::ptx {
namespace {

// Lanes of segments of 32, whatever the operand for segments says: nothing else is emulated.
void check_segments(Machine& m, uint32_t slot) {
    const uint32_t segments = m.get<uint32_t>(slot);
    if (segments != 31) refuse(m, Kind::Misuse, "shfl with segments and clamp %u, not 31", segments);
}

template <bool BUTTERFLY>
void shuffle_lanes(Machine& m, const uint32_t* o) {
    const char* what = BUTTERFLY ? "shfl.bfly" : "shfl.idx";
    check_segments(m, o[4]);
    const uint32_t lane = m.get<uint32_t>(o[3]) ^ (BUTTERFLY ? lane_index() : 0);
    m.set<uint32_t>(o[0], shuffle(m.get<uint32_t>(o[5]), m.get<uint32_t>(o[2]), lane % WARP, what, m.place));
    m.set<bool>(o[1], lane < WARP);
}

void any(Machine& m, const uint32_t* o) {
    m.set<bool>(o[0], vote(m.get<uint32_t>(o[2]), m.get<bool>(o[1]), "vote.any", m.place) != 0);
}

void all(Machine& m, const uint32_t* o) {
    m.set<bool>(o[0], vote(m.get<uint32_t>(o[2]), !m.get<bool>(o[1]), "vote.all", m.place) == 0);
}

void ballot(Machine& m, const uint32_t* o) {
    m.set<uint32_t>(o[0], vote(m.get<uint32_t>(o[2]), m.get<bool>(o[1]), "vote.ballot", m.place));
}

void warp_barrier(Machine& m, const uint32_t* o) {
    warp_collective(m.get<uint32_t>(o[0]), "bar.warp.sync", nullptr, nullptr, Ordering::Memory, m.place);
}

void barrier_of_all(Machine& m, const uint32_t* o) {
    block_barrier(m.get<uint32_t>(o[0]), 0, Arrival::Wait, "bar.sync", Ordering::Memory, m.place);
}

template <Arrival ARRIVAL>
void barrier(Machine& m, const uint32_t* o) {
    const char* what = ARRIVAL == Arrival::Wait ? "bar.sync" : "bar.arrive";
    const uint32_t threads = m.get<uint32_t>(o[1]);
    if (threads == 0) refuse(m, Kind::Misuse, "%s of no threads", what);
    block_barrier(m.get<uint32_t>(o[0]), threads, ARRIVAL, what, Ordering::Memory, m.place);
}

template <bool TRANSPOSED>
void load_matrices_x4(Machine& m, const uint32_t* o) {
    const uint32_t row = m.get<uint32_t>(o[4]) + o[5];
    if (!block().shared.owns(shared_pointer(row))) {
        refuse(m, Kind::OutOfBounds, "ldmatrix at shared address %u, which is far from shared memory", row);
    }
    uint32_t fragment[4];
    load_matrix<4, TRANSPOSED>(fragment, row, m.place);
    for (unsigned i = 0; i < 4; ++i) m.set<uint32_t>(o[i], fragment[i]);
}

template <int DEPTH, int PER_REGISTER, float (*DECODE)(uint32_t, int)>
void multiply(Machine& m, const uint32_t* o) {
    uint32_t a[4], b[2];
    float d[4];
    for (unsigned i = 0; i < 4; ++i) a[i] = m.get<uint32_t>(o[4 + i]);
    for (unsigned i = 0; i < 2; ++i) b[i] = m.get<uint32_t>(o[8 + i]);
    for (unsigned i = 0; i < 4; ++i) d[i] = m.get<float>(o[10 + i]);
    MultiplyAdd mine{d, a, b};
    warp_collective(0xffffffff, "mma", &mine, multiply_add<DEPTH, PER_REGISTER, DECODE>, Ordering::None, m.place);
    for (unsigned i = 0; i < 4; ++i) m.set<float>(o[i], d[i]);
}

}  // namespace

void add_warp(Opcodes& table) {
    table.push_back({"shfl.sync.bfly.b32", "=32|p 32 32 32 32", shuffle_lanes<true>});
    table.push_back({"shfl.sync.idx.b32", "=32|p 32 32 32 32", shuffle_lanes<false>});
    table.push_back({"vote.sync.any.pred", "=p p 32", any});
    table.push_back({"vote.sync.all.pred", "=p p 32", all});
    table.push_back({"vote.sync.ballot.b32", "=32 p 32", ballot});
    table.push_back({"bar.warp.sync", "32", warp_barrier});
    table.push_back({"bar.sync", "32", barrier_of_all});
    table.push_back({"bar.sync", "32 32", barrier<Arrival::Wait>});
    table.push_back({"bar.arrive", "32 32", barrier<Arrival::Pass>});
    table.push_back({"ldmatrix.sync.aligned.m8n8.x4.shared.b16", "=32*4 [32]", load_matrices_x4<false>});
    table.push_back({"ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16", "=32*4 [32]", load_matrices_x4<true>});
    const char* fragments = "=32*4 32*4 32*2 32*4";
    table.push_back(
        {"mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32", fragments, multiply<16, 2, decode_f16>});
    table.push_back(
        {"mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32", fragments, multiply<16, 2, decode_bf16>});
    table.push_back(
        {"mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32", fragments, multiply<8, 1, decode_tf32>});
}

}  // namespace emulator::ptx
