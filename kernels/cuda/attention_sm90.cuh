// Fused mixed attention for Hopper (compute capability 9.0), f16 and bf16.
//
// What it computes: as attention_sm80.cuh, from the same work items and key steps, with the same online softmax.
//
// Shapes. Q, O: [batch, heads, tokens, head_dim], K, V: [batch, kv_heads, tokens, head_dim], in any strides with adjacent
// channels, rows at multiples of 16 bytes. An item names its head of each. head_dim is padded with zeros to HEAD_DIM, 64
// or 128.
//
// Tiles. A block has one producer warpgroup and CONSUMERS consumer warpgroups of 64 queries each; a step has up to 128
// keys. Blocks are persistent, one per multiprocessor; block i starts with item i, and each item names the next of its
// block: the host deals them out so that all blocks end at about the same time. A consumer without rows skips its products,
// and a step of up to 16 keys has products of that width.
//
// Shared memory, everything in slabs of 64 channels (rows of 128 bytes, 128-byte swizzle): the queries of each
// consumer, reused for its output; a ring of STAGES key tiles and STAGES value tiles with four mbarriers each (full and
// empty, of keys and of values) and the row bits of each stage.
//
// Registers. The producer gives up most of its registers (setmaxnreg); a consumer thread holds 64 scores, 32 packed
// probabilities and HEAD_DIM / 2 accumulators.
//
// Pipeline. The producer fills stages as they become empty: one thread waits for the stage and starts a TMA load. A
// hidden key may hold anything, NaN too: its score is replaced. A hidden value would still be multiplied by 0, so a
// value tile with hidden rows is copied by the whole producer warpgroup, which leaves them out and zero. A consumer
// keeps the tensor cores busy while it computes exponentials:
//
//     S₀ = Q K₀ᵀ;  P₀ = softmax S₀
//     for j = 1, 2, …:   start Sⱼ = Q Kⱼᵀ;   start O += Pⱼ₋₁ Vⱼ₋₁;   wait for Sⱼ;   exponentials of Sⱼ;
//                        wait for O;   rescale O to the new maximum;   Pⱼ
//     O += P V of the last step
//
// O stays in the accumulators of the tensor cores, which cut sums off where other arithmetic rounds: O of a step on its own,
// as sm80_softmax.cuh has it, would need HEAD_DIM / 2 registers more. Every CARRY_STEPS steps it moves to global memory
// (carried_sums.cuh), in the branch that rescales it. Without that the emulator, which cuts off more than Hopper does, finds
// 1.9 times the error of rounded sums after 16,384 keys and values of one sign in f16, 12.6 times after 131,072; with it,
// 1.02 times.
//
// P never leaves the registers: the accumulator layout of S is, packed, the layout of an A operand. With TAKE_TURNS the
// consumers start their products one after the other, so that one's exponentials meet another's products. The assembler may
// move the wait for O in front of the exponentials, which then meet other consumers' products alone; with
// PIN_EXPONENTIALS it cannot.
//
// Bound. head_dim 128: tensor cores. head_dim 64: the 16 exponentials per clock of a multiprocessor take as long as the
// products, so POLYNOMIAL of every 8 of them are computed by a polynomial on the FMA pipe instead.
//
// | file | idea |
// |---|---|
// | sm90_block.cuh | argument, tile, shared memory, barriers |
// | sm90_producer.cuh | keys and values on their way to shared memory |
// | sm90_queries.cuh | queries likewise, rotated |
// | sm90_steps.cuh | the pipeline of a consumer: products and exponentials |
// | sm90_softmax.cuh | scores to probabilities, older sums to a new maximum |
// | sm90_output.cuh | rows and partial results |
#pragma once

#include <ptx.cuh>

#include "combine.cuh"
#include "elements.cuh"
#include "sm90_block.cuh"
#include "sm90_output.cuh"
#include "sm90_producer.cuh"
#include "sm90_queries.cuh"
#include "sm90_steps.cuh"

template <class T>
__device__ __forceinline__ void sm90_consume(const AttentionArguments& attention, const Sm90Shared<T>& shared) {
    const uint32_t consumer = sm90_uniform(threadIdx.x / 128) - 1;
    const uint32_t barrier = SM90_CONSUMER_BARRIERS + consumer;
    unsigned char* queries = shared.base + shared.queries(consumer);
    RingPlace<T::STAGES> place;
    if (consumer == T::CONSUMERS - 1) sm90_pass_turn<T>(consumer);   // the first consumer begins
    StepItem item = attention.items[blockIdx.x];
    Sm90Queries<T> loaded;
    loaded.load(attention, item, consumer);
    while (true) {
        loaded.store(attention, item, queries, consumer);
        ptx::fence_proxy_async();   // wgmma reads what ordinary stores have written
        ptx::bar_sync(barrier, 128);

        Sm90Rows<T> rows;
#pragma unroll
        for (int i = 0; i < T::HEAD_DIM / 2; ++i) rows.output[i] = 0.0f;
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            rows.base[half] = NO_SCORE;
            rows.sum[half] = 0.0f;
        }
        if (sm90_uniform(consumer * 64 < item.query_len) != 0) {
            sm90_attend<T>(attention, item, shared, rows, consumer, place);
        } else {
            sm90_pass_by<T>(item, shared, consumer, place);
        }
        // Each lane has summed its own columns of a row.
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            rows.sum[half] += __shfl_xor_sync(0xffffffffu, rows.sum[half], 1);
            rows.sum[half] += __shfl_xor_sync(0xffffffffu, rows.sum[half], 2);
        }
        ptx::bar_sync(barrier, 128);   // all warps are done with the queries
        const uint32_t next = item.next;
        StepItem following = item;
        if (next != LAST_ITEM) following = attention.items[next];   // on its way while this one is written
        if (item.partial_slot == WHOLE) {
            sm90_store_output<T>(attention, item, rows, queries, consumer);
        } else {
            sm90_store_partial<T>(attention, item, rows, consumer);
            combine_if_last<T>(attention, item.partial_slot, shared.base + T::FLAG_OFFSET);
        }
        if (next == LAST_ITEM) break;
        item = following;
        loaded.load(attention, item, consumer);
    }
    if (consumer == 0) sm90_await_turn<T>(consumer);   // nobody arrives at a barrier and leaves it so
}

// The whole launch, by persistent blocks.
template <class T>
__device__ __forceinline__ void sm90_attention(const Sm90Arguments& arguments, unsigned char* shared_memory) {
    using S = Sm90Shared<T>;
    const S shared(shared_memory);
    if (threadIdx.x == 0) {
        for (uint32_t stage = 0; stage < T::STAGES; ++stage) {
            ptx::mbarrier_init(shared.barrier(S::KEYS_FULL, stage), 1);
            ptx::mbarrier_init(shared.barrier(S::VALUES_FULL, stage), 1);
            // One arrival per consumer warp.
            ptx::mbarrier_init(shared.barrier(S::KEYS_EMPTY, stage), T::CONSUMERS * 4);
            ptx::mbarrier_init(shared.barrier(S::VALUES_EMPTY, stage), T::CONSUMERS * 4);
        }
        ptx::fence_mbarrier_init();
    }
    __syncthreads();
    if (threadIdx.x < 128) {
        ptx::setmaxnreg_dec<T::PRODUCER_REGISTERS>();
        sm90_produce<T>(arguments, shared);
    } else {
        ptx::setmaxnreg_inc<T::CONSUMER_REGISTERS>();
        sm90_consume<T>(arguments.attention, shared);
    }
}
