// The steps of an item as a consumer of the kernel for Hopper takes them: products in turns with exponentials.
#pragma once

#include <ptx.cuh>
#include <type_traits>

#include "key_bias.cuh"
#include "sm90_block.cuh"
#include "sm90_softmax.cuh"
#include "window.cuh"

// The operand so many times 16 bytes further. The address is in the low word: nothing is carried into the other.
__device__ __forceinline__ uint64_t sm90_further(uint64_t descriptor, uint32_t chunks) {
    return (descriptor & 0xffffffff00000000ull) | (uint32_t(descriptor) + chunks);
}

// Starts S = Q Kᵀ, from descriptors of the first 16 channels.
template <class T, int N>
__device__ __forceinline__ void sm90_start_scores(float (&scores)[N], uint64_t queries, uint64_t keys) {
    ptx::wgmma_fence();
#pragma unroll
    for (int step = 0; step < T::HEAD_DIM / 16; ++step) {
        const uint64_t a = sm90_further(queries, step / 4 * (T::QUERY_SLAB / 16) + step % 4 * 2);
        const uint64_t b = sm90_further(keys, step / 4 * (T::TILE_SLAB / 16) + step % 4 * 2);
        ptx::wgmma_ss<typename T::Element::Scalar, 2 * N, ptx::Major::K>(scores, a, b, step > 0);
    }
    ptx::wgmma_commit();
}

// Starts O += P V, from the descriptor of the first 16 values.
template <class T, int STEPS>
__device__ __forceinline__ void sm90_start_output(float (&output)[T::HEAD_DIM / 2],
                                                  const uint32_t (&probabilities)[STEPS][4], uint64_t values) {
    ptx::wgmma_fence();
#pragma unroll
    for (int step = 0; step < STEPS; ++step) {
        const uint64_t b = sm90_further(values, step * 128);
        ptx::wgmma_rs<typename T::Element::Scalar, T::HEAD_DIM, ptx::Major::MN>(output, probabilities[step], b, true);
    }
    ptx::wgmma_commit();
}

// Tells the producer that this warp has read a stage.
__device__ __forceinline__ void sm90_release(uint32_t barrier) {
    __syncwarp();
    if (threadIdx.x % 32 == 0) ptx::mbarrier_arrive(barrier);
}

// Waits until it is this consumer's turn to start products.
template <class T>
__device__ __forceinline__ void sm90_await_turn(uint32_t consumer) {
    if constexpr (T::TAKE_TURNS) ptx::bar_sync(SM90_TURN_BARRIERS + consumer, 256);
}

// Hands the turn to the next consumer.
template <class T>
__device__ __forceinline__ void sm90_pass_turn(uint32_t consumer) {
    // Of two, the other one.
    const uint32_t next = T::CONSUMERS == 2 ? 1 - consumer : (consumer + 1) % T::CONSUMERS;
    if constexpr (T::TAKE_TURNS) ptx::bar_arrive(SM90_TURN_BARRIERS + next, 256);
}

// All steps of one item, at least one. `place` is where its first step is in the ring.
template <class T>
__device__ __forceinline__ void sm90_attend(const AttentionArguments& attention, const StepItem& item,
                                            const Sm90Shared<T>& shared, Sm90Rows<T>& rows, uint32_t consumer,
                                            RingPlace<T::STAGES>& place) {
    using S = Sm90Shared<T>;
    const uint32_t steps = sm90_uniform(item.last_step - item.first_step);
    // With windows and biases all steps are wide.
    const uint32_t wide = T::GENERAL ? steps : sm90_uniform(item.last_step - item.first_step - item.narrow_steps);
    const uint32_t whole = sm90_uniform(item.whole_steps);
    const float scale_log2 = attention.scale_log2;
    const uint32_t origin = shared.address / 16;
    const auto operand = [&](uint32_t leading_bytes, uint32_t first, uint32_t number, uint32_t bytes) {
        return sm90_further(ptx::wgmma_descriptor(0, leading_bytes, 1024), origin + number * (bytes / 16) + first / 16);
    };
    float scores[T::KEYS / 2];
    uint32_t probabilities[T::KEYS / 16][4];
    RingPlace<T::STAGES> behind = place;

    const auto window_of = [&](uint32_t i) {
        return StepWindow::of<64, T::KEYS>(attention.steps[item.first_step + i], item.query_start + consumer * 64);
    };
    const auto start_scores = [&] {
        sm90_await_turn<T>(consumer);
        ptx::wgmma_fence_registers(scores);
        sm90_start_scores<T>(scores, operand(16, 0, consumer, T::SLABS * T::QUERY_SLAB),
                             operand(16, T::KEYS_OFFSET, place.stage, T::TILE_BYTES));
    };
    const auto start_output = [&] {
        ptx::mbarrier_wait(shared.barrier(S::VALUES_FULL, behind.stage), behind.parity);
        ptx::wgmma_fence_registers(rows.output);
        sm90_start_output<T>(rows.output, probabilities,
                             operand(T::TILE_SLAB, T::VALUES_OFFSET, behind.stage, T::TILE_BYTES));
    };
    const auto finish_output = [&] {
        ptx::wgmma_fence_registers(rows.output);
        sm90_release(shared.barrier(S::VALUES_EMPTY, behind.stage));
    };
    // One step from the wait for its keys to its packed probabilities. OVERLAP: with the product of the step before; MASKED:
    // some keys are hidden, or in a window or biased.
    const auto run = [&](auto overlap, auto masked, uint32_t i) {
        constexpr bool OVERLAP = decltype(overlap)::value, MASKED = decltype(masked)::value;
        place.stage = sm90_uniform(place.stage);
        place.parity = sm90_uniform(place.parity);
        ptx::mbarrier_wait(shared.barrier(S::KEYS_FULL, place.stage), place.parity);
        start_scores();
        if constexpr (OVERLAP) start_output();
        sm90_pass_turn<T>(consumer);
        ptx::wgmma_wait<OVERLAP ? 1 : 0>();
        ptx::wgmma_fence_registers(scores);
        if constexpr (MASKED) {
            const uint64_t low = shared.visible(place.stage)[0], high = shared.visible(place.stage)[1];
            if constexpr (T::GENERAL) {
                const float* bias = step_bias(attention, attention.steps[item.first_step + i], item.batch, item.head);
                if (bias != nullptr) sm90_add_bias<T>(scores, bias, low, high, attention.inverse_scale);
            }
            sm90_hide(scores, low, high);
            if constexpr (T::GENERAL) sm90_hide_outside<T>(scores, window_of(i));
        }
        if constexpr (!T::PIN_EXPONENTIALS) sm90_release(shared.barrier(S::KEYS_EMPTY, place.stage));
        sm90_softmax<T>(scores, rows, scale_log2);
        // Sums are never negative, but the assembler does not know: exponentials come before this, and this before the wait.
        if constexpr (T::PIN_EXPONENTIALS) {
            sm90_release(shared.barrier(S::KEYS_EMPTY, place.stage) + (rows.sum[0] + rows.sum[1] < 0.0f ? 8 : 0));
        }
        if constexpr (OVERLAP) {
            ptx::wgmma_wait<0>();
            finish_output();
            sm90_rescale<T>(attention, rows, i);
        }
        sm90_pack<T>(probabilities, scores);
        behind = place;
        place.advance();
    };
    // Two copies of a step, because a branch between the two waits would keep the compiler from putting exponentials there.
    const auto run_general = [&](auto overlap, uint32_t i) {
        const bool is_whole = i < whole && window_of(i).template covers<64, T::KEYS>() &&
                              step_bias(attention, attention.steps[item.first_step + i], item.batch, item.head) == nullptr;
        if (__all_sync(0xffffffffu, is_whole)) {
            run(overlap, std::false_type(), i);
        } else {
            run(overlap, std::true_type(), i);
        }
    };

    // A step of so few keys that a wide one would be for nothing.
    const auto run_narrow = [&] {
        float few_scores[NARROW_KEYS / 2];
        uint32_t few_probabilities[NARROW_KEYS / 16][4];
        place.stage = sm90_uniform(place.stage);
        ptx::mbarrier_wait(shared.barrier(S::KEYS_FULL, place.stage), place.parity);
        sm90_await_turn<T>(consumer);
        ptx::wgmma_fence_registers(few_scores);
        sm90_start_scores<T>(few_scores, operand(16, 0, consumer, T::SLABS * T::QUERY_SLAB),
                             operand(16, T::KEYS_OFFSET, place.stage, T::TILE_BYTES));
        sm90_pass_turn<T>(consumer);
        ptx::wgmma_wait<0>();
        ptx::wgmma_fence_registers(few_scores);
        sm90_hide(few_scores, shared.visible(place.stage)[0], 0);
        sm90_release(shared.barrier(S::KEYS_EMPTY, place.stage));
        sm90_softmax<T>(few_scores, rows, scale_log2);
        sm90_rescale<T>(attention, rows, 1);   // few steps: nothing is carried
        sm90_pack<T>(few_probabilities, few_scores);
        ptx::mbarrier_wait(shared.barrier(S::VALUES_FULL, place.stage), place.parity);
        ptx::wgmma_fence_registers(rows.output);
        sm90_start_output<T>(rows.output, few_probabilities,
                             operand(T::TILE_SLAB, T::VALUES_OFFSET, place.stage, T::TILE_BYTES));
        ptx::wgmma_wait<0>();
        ptx::wgmma_fence_registers(rows.output);
        sm90_release(shared.barrier(S::VALUES_EMPTY, place.stage));
        place.advance();
    };

    if (wide > 0) {
        if constexpr (T::GENERAL) {
            run_general(std::false_type(), 0);
            for (uint32_t i = 1; i < wide; ++i) run_general(std::true_type(), i);
        } else {
            if (whole > 0) {
                run(std::false_type(), std::false_type(), 0);
            } else {
                run(std::false_type(), std::true_type(), 0);
            }
            uint32_t i = 1;
            for (; i < whole; ++i) run(std::true_type(), std::false_type(), i);
            for (; i < wide; ++i) run(std::true_type(), std::true_type(), i);
        }
        start_output();
        ptx::wgmma_wait<0>();
        finish_output();
    }
    if constexpr (!T::GENERAL) {
#pragma unroll 1
        for (uint32_t i = wide; i < steps; ++i) run_narrow();
    }
    if (wide > T::CARRY_STEPS) sm90_collect<T>(attention, rows);
}

// What a consumer without rows does of an item: it gives back what it does not read.
template <class T>
__device__ __forceinline__ void sm90_pass_by(const StepItem& item, const Sm90Shared<T>& shared, uint32_t consumer,
                                             RingPlace<T::STAGES>& place) {
    using S = Sm90Shared<T>;
#pragma unroll 1
    for (uint32_t i = item.first_step; i < item.last_step; ++i) {
        ptx::mbarrier_wait(shared.barrier(S::KEYS_FULL, place.stage), place.parity);
        sm90_await_turn<T>(consumer);
        sm90_pass_turn<T>(consumer);
        sm90_release(shared.barrier(S::KEYS_EMPTY, place.stage));
        ptx::mbarrier_wait(shared.barrier(S::VALUES_FULL, place.stage), place.parity);
        sm90_release(shared.barrier(S::VALUES_EMPTY, place.stage));
        place.advance();
    }
}
