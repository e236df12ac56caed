// What differs between f16, bf16 and f32: storage, matrix fragments and the tensor-core instruction. The algorithm in
// attention_sm80.cuh is written in terms of these policies.
//
// Tiles are counted in chunks of 16 bytes. A matrix step spans two chunks of channels for every element type: 16
// channels of m16n8k16 for the 2-byte types, 8 channels of m16n8k8 for f32. `ldmatrix` moves 8 rows × 16 bytes whatever
// they mean, and hands each thread the 4 bytes that either instruction wants. So Q Kᵀ is the same code for all of them.
//
// Fragments of one warp (g = lane / 4, t = lane % 4), an accumulator tile of 16 queries × 8 columns being
//   c[0], c[1]: row g, columns 2t, 2t + 1;   c[2], c[3]: row g + 8, columns 2t, 2t + 1.
#pragma once

#include <ptx.cuh>

// A swizzled tile in shared memory: `CHUNKS` 16-byte chunks a row, rows adjacent. Chunk c of row r lies at chunk
// c ^ swizzle(r), so that the eight rows which one matrix load reads at one chunk cover all 32 banks.
template <int CHUNKS>
struct Swizzle {
    static_assert(CHUNKS % 4 == 0, "head_dim is padded to whole chunks");

    // Rows that fill whole 128-byte lines differ by their line; else two neighbouring rows share the halves of a line.
    static __device__ __forceinline__ uint32_t of_row(uint32_t row) {
        return CHUNKS % 8 == 0 ? row & 7 : (row >> 1) & 3;
    }

    // The four keys 2t (or 2t + 1) that a warp reads word by word at eight adjacent channels must not share a bank.
    static __device__ __forceinline__ uint32_t of_word_row(uint32_t row) {
        return ((row >> 1) & 3) << 1;
    }

    // Byte offset of a chunk.
    static __device__ __forceinline__ uint32_t offset(uint32_t row, uint32_t chunk, uint32_t swizzle) {
        return (row * CHUNKS + (chunk ^ swizzle)) * 16;
    }

    // The shared address so many chunks further in the same row, from that of chunk 0 or 1; `chunks` is even. Chunks that
    // change places lie in one line that begins at a multiple of its length: what would be permuted anew for every chunk is
    // one exclusive or.
    static __device__ __forceinline__ uint32_t further(uint32_t address, uint32_t chunks) {
        constexpr uint32_t PERMUTED = CHUNKS % 8 == 0 ? 7 : 3;
        return (address ^ (chunks & PERMUTED) * 16) + (chunks & ~PERMUTED) * 16;
    }

    // Bytes of so many rows, a multiple of 8: their swizzles repeat.
    static __device__ __forceinline__ constexpr uint32_t rows(uint32_t count) { return count * (CHUNKS * 16); }
};

// The 2-byte types. `Pair` supplies what differs between them.
template <class Pair>
struct HalfElement {
    using Scalar = typename Pair::Scalar;
    static constexpr int BYTES = 2;
    static constexpr int CHUNK = 8;      // elements of 16 bytes
    static constexpr int KEY_STEP = 16;  // keys of a step of P V
    static constexpr int VALUE_TILES = 2;  // channel tiles of one load

    struct A { uint32_t r[4]; };
    struct B { uint32_t r[2]; };

    static __device__ __forceinline__ A a(const uint32_t (&raw)[4]) { return {{raw[0], raw[1], raw[2], raw[3]}}; }
    static __device__ __forceinline__ B b(uint32_t r0, uint32_t r1) { return {{r0, r1}}; }
    static __device__ __forceinline__ void mma(float (&c)[4], const A& a, const B& b) { Pair::mma(c, a.r, b.r); }
    static __device__ __forceinline__ void mma_rounded(float (&c)[4], const A& a, const B& b) { mma(c, a, b); }

    // Accumulator tiles 2k and 2k + 1 of the scores are, packed, the operand A of step k.
    template <int TILES>
    static __device__ __forceinline__ A probabilities(const float (&p)[TILES][4], int step) {
        const float (&left)[4] = p[2 * step];
        const float (&right)[4] = p[2 * step + 1];
        return {{Pair::pack(left[0], left[1]), Pair::pack(left[2], left[3]), Pair::pack(right[0], right[1]),
                 Pair::pack(right[2], right[3])}};
    }

    // Where row `row` of a value tile has chunk 0.
    template <int CHUNKS>
    static __device__ __forceinline__ uint32_t value_swizzle(uint32_t row) { return Swizzle<CHUNKS>::of_row(row); }

    // What a lane reads first of a value tile, a shared address.
    template <int CHUNKS>
    static __device__ __forceinline__ uint32_t first_value(uint32_t tile, uint32_t lane) {
        const uint32_t row = lane & 15;
        return tile + Swizzle<CHUNKS>::offset(row, lane >> 4, value_swizzle<CHUNKS>(row));
    }

    // Operands B of step `step` for channel tiles n and n + 1, n even.
    template <int CHUNKS>
    static __device__ __forceinline__ void values(B (&b)[2], uint32_t first, int step, int n) {
        uint32_t raw[4];
        ptx::ldmatrix_x4_trans(raw, Swizzle<CHUNKS>::further(first, n) + Swizzle<CHUNKS>::rows(step * KEY_STEP));
        b[0] = {{raw[0], raw[1]}};
        b[1] = {{raw[2], raw[3]}};
    }

    static __device__ __forceinline__ void unpack(float (&x)[CHUNK], const uint4& raw) {
        const uint32_t words[4] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const float2 pair = Pair::unpack(words[i]);
            x[2 * i] = pair.x;
            x[2 * i + 1] = pair.y;
        }
    }

    static __device__ __forceinline__ uint4 pack(const float (&x)[CHUNK]) {
        return make_uint4(Pair::pack(x[0], x[1]), Pair::pack(x[2], x[3]), Pair::pack(x[4], x[5]),
                          Pair::pack(x[6], x[7]));
    }

    // Two adjacent elements in one word.
    static __device__ __forceinline__ uint32_t pack_pair(float x, float y) { return Pair::pack(x, y); }

    // Two adjacent channels into shared memory.
    static __device__ __forceinline__ void store_pair(unsigned char* target, float x, float y) {
        *reinterpret_cast<uint32_t*>(target) = pack_pair(x, y);
    }
};

struct F16Pair {
    using Scalar = __half;
    static __device__ __forceinline__ uint32_t pack(float x, float y) { return ptx::pack_f16x2(x, y); }
    static __device__ __forceinline__ float2 unpack(uint32_t raw) {
        return __half22float2(reinterpret_cast<const __half2&>(raw));
    }
    static __device__ __forceinline__ void mma(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
        ptx::mma_m16n8k16_f16(c, a, b);
    }
};

struct Bf16Pair {
    using Scalar = __nv_bfloat16;
    static __device__ __forceinline__ uint32_t pack(float x, float y) { return ptx::pack_bf16x2(x, y); }
    static __device__ __forceinline__ float2 unpack(uint32_t raw) {
        return make_float2(__uint_as_float(raw << 16), __uint_as_float(raw & 0xffff0000u));
    }
    static __device__ __forceinline__ void mma(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
        ptx::mma_m16n8k16_bf16(c, a, b);
    }
};

using F16 = HalfElement<F16Pair>;
using Bf16 = HalfElement<Bf16Pair>;

// f32 on TF32 tensor cores, which read 8 exponent and 10 mantissa bits.
//
// COMPENSATED splits every operand into x = big + small, both TF32, and adds the three products that matter,
// small·big + big·small + big·big (the small ones first). What is left out is 2⁻²² of the product: f32-level accuracy
// for three times the instructions. Otherwise operands are rounded to TF32: 2⁻¹¹.
template <bool COMPENSATED>
struct FloatElement {
    static constexpr int BYTES = 4;
    static constexpr int CHUNK = 4;
    static constexpr int KEY_STEP = 8;
    static constexpr int VALUE_TILES = 1;

    template <int WORDS>
    struct Operand {
        uint32_t big[WORDS];
        uint32_t small[COMPENSATED ? WORDS : 1];
    };
    using A = Operand<4>;
    using B = Operand<2>;

    template <int WORDS>
    static __device__ __forceinline__ void split(Operand<WORDS>& operand, int i, float x) {
        operand.big[i] = ptx::to_tf32(x);
        if constexpr (COMPENSATED) {
            operand.small[i] = ptx::to_tf32(x - __uint_as_float(operand.big[i]));
        }
    }

    static __device__ __forceinline__ A a(const uint32_t (&raw)[4]) {
        A a;
#pragma unroll
        for (int i = 0; i < 4; ++i) split(a, i, __uint_as_float(raw[i]));
        return a;
    }

    static __device__ __forceinline__ B b(uint32_t r0, uint32_t r1) {
        B b;
        split(b, 0, __uint_as_float(r0));
        split(b, 1, __uint_as_float(r1));
        return b;
    }

    static __device__ __forceinline__ void mma(float (&c)[4], const A& a, const B& b) {
        if constexpr (COMPENSATED) {
            ptx::mma_m16n8k8_tf32(c, a.small, b.big);
            ptx::mma_m16n8k8_tf32(c, a.big, b.small);
        }
        ptx::mma_m16n8k8_tf32(c, a.big, b.big);
    }

    // The same with c added outside of the tensor core, where that makes a difference.
    static __device__ __forceinline__ void mma_rounded(float (&c)[4], const A& a, const B& b) {
        if constexpr (COMPENSATED) {
            float products[4] = {};
            mma(products, a, b);
#pragma unroll
            for (int i = 0; i < 4; ++i) c[i] += products[i];
        } else {
            mma(c, a, b);
        }
    }

    // The instruction wants columns t and t + 4 where the scores have 2t and 2t + 1. The sum over keys may run in any
    // order, so column t stands for key 2t and column t + 4 for key 2t + 1, here and in `values`.
    template <int TILES>
    static __device__ __forceinline__ A probabilities(const float (&p)[TILES][4], int step) {
        A a;
        split(a, 0, p[step][0]);
        split(a, 1, p[step][2]);
        split(a, 2, p[step][1]);
        split(a, 3, p[step][3]);
        return a;
    }

    template <int CHUNKS>
    static __device__ __forceinline__ uint32_t value_swizzle(uint32_t row) { return Swizzle<CHUNKS>::of_word_row(row); }

    // What a lane reads first of a value tile, a shared address: of two rows that share a swizzle the first.
    template <int CHUNKS>
    static __device__ __forceinline__ uint32_t first_value(uint32_t tile, uint32_t lane) {
        const uint32_t row = 2 * (lane & 3);
        return tile + Swizzle<CHUNKS>::offset(row, lane >> 4, value_swizzle<CHUNKS>(row)) + (lane >> 2) % CHUNK * 4;
    }

    // Operand B of step `step` for channel tile n.
    template <int CHUNKS>
    static __device__ __forceinline__ void values(B (&b)[1], uint32_t first, int step, int n) {
        const uint32_t word = Swizzle<CHUNKS>::further(first, 2 * n) + Swizzle<CHUNKS>::rows(step * KEY_STEP);
        split(b[0], 0, ptx::load_shared(word));
        split(b[0], 1, ptx::load_shared(word + CHUNKS * 16));
    }

    static __device__ __forceinline__ void unpack(float (&x)[CHUNK], const uint4& raw) {
        x[0] = __uint_as_float(raw.x);
        x[1] = __uint_as_float(raw.y);
        x[2] = __uint_as_float(raw.z);
        x[3] = __uint_as_float(raw.w);
    }

    static __device__ __forceinline__ uint4 pack(const float (&x)[CHUNK]) {
        return make_uint4(__float_as_uint(x[0]), __float_as_uint(x[1]), __float_as_uint(x[2]), __float_as_uint(x[3]));
    }

    static __device__ __forceinline__ void store_pair(unsigned char* target, float x, float y) {
        *reinterpret_cast<float2*>(target) = make_float2(x, y);
    }
};

using F32 = FloatElement<true>;
using Tf32 = FloatElement<false>;
