// Warpgroup matrix instructions (sm_90a): the part of <ptx.cuh> whose operand lists are long.
//
// One instruction multiplies A [64, 16] by B [16, N] into f32 accumulators, N a multiple of 16 up to 256. A comes from
// shared memory (`wgmma_ss`, K-major) or from registers (`wgmma_rs`), B from shared memory in either order.
//
// Thread i of the warpgroup (warp w = i/32, lane l = i%32) holds row 16w + l/4 + 8((j/2)%2) and column
// 8(j/4) + 2(l%4) + j%2 of D in d[j]. Its A registers are laid out as those of mma_m16n8k16, for rows 16w to 16w+15.
#pragma once

#include <type_traits>

namespace ptx {

// Which index of an operand runs fastest in shared memory: K, or the other one (M or N).
enum class Major { K, MN };

// Bytes within which 16-byte chunks are permuted; the tensor map that filled the tile must use the same.
enum class Swizzle : uint32_t { B128 = 1, B64 = 2, B32 = 3 };

// Describes an operand in shared memory. With s the bytes of the swizzle, element (m, k) of a 16-bit operand lies at
//   K-major:   start + m/8·stride_bytes + m%8·s + 2k
//   MN-major:  start + m/(s/2)·leading_bytes + k/8·stride_bytes + k%8·s + 2(m%(s/2))
// before the swizzle is applied to the address bits; `leading_bytes` has no meaning for K-major. The next 16 columns of
// a K-major operand lie 32 bytes further.
__device__ __forceinline__ uint64_t wgmma_descriptor(uint32_t shared, uint32_t leading_bytes, uint32_t stride_bytes,
                                                     Swizzle swizzle = Swizzle::B128) {
    return uint64_t(shared & 0x3ffff) >> 4 | uint64_t(leading_bytes >> 4) << 16 | uint64_t(stride_bytes >> 4) << 32 |
           uint64_t(swizzle) << 62;
}

// Orders earlier writes to accumulators and A registers before the next wgmma.
__device__ __forceinline__ void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }

// Ends a group: the warpgroup's wgmmas since the last commit.
__device__ __forceinline__ void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }

// Waits until at most PENDING of the warpgroup's latest groups are still under way.
template <int PENDING>
__device__ __forceinline__ void wgmma_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(PENDING) : "memory");
}

// Tells the compiler that these registers change here, so that it moves no access to them across a wait.
template <int COUNT>
__device__ __forceinline__ void wgmma_fence_registers(float (&d)[COUNT]) {
#pragma unroll
    for (int i = 0; i < COUNT; ++i) asm volatile("" : "+f"(d[i])::"memory");
}

// PTX_NAMES_n names accumulators %0 to %(n-1) in an instruction, PTX_FLOATS_n binds d[0] to d[n-1] to them.
#define PTX_NAMES_8 "%0, %1, %2, %3, %4, %5, %6, %7"
#define PTX_NAMES_16 PTX_NAMES_8 ", %8, %9, %10, %11, %12, %13, %14, %15"
#define PTX_NAMES_24 PTX_NAMES_16 ", %16, %17, %18, %19, %20, %21, %22, %23"
#define PTX_NAMES_32 PTX_NAMES_24 ", %24, %25, %26, %27, %28, %29, %30, %31"
#define PTX_NAMES_40 PTX_NAMES_32 ", %32, %33, %34, %35, %36, %37, %38, %39"
#define PTX_NAMES_48 PTX_NAMES_40 ", %40, %41, %42, %43, %44, %45, %46, %47"
#define PTX_NAMES_56 PTX_NAMES_48 ", %48, %49, %50, %51, %52, %53, %54, %55"
#define PTX_NAMES_64 PTX_NAMES_56 ", %56, %57, %58, %59, %60, %61, %62, %63"
#define PTX_NAMES_72 PTX_NAMES_64 ", %64, %65, %66, %67, %68, %69, %70, %71"
#define PTX_NAMES_80 PTX_NAMES_72 ", %72, %73, %74, %75, %76, %77, %78, %79"
#define PTX_NAMES_88 PTX_NAMES_80 ", %80, %81, %82, %83, %84, %85, %86, %87"
#define PTX_NAMES_96 PTX_NAMES_88 ", %88, %89, %90, %91, %92, %93, %94, %95"
#define PTX_NAMES_104 PTX_NAMES_96 ", %96, %97, %98, %99, %100, %101, %102, %103"
#define PTX_NAMES_112 PTX_NAMES_104 ", %104, %105, %106, %107, %108, %109, %110, %111"
#define PTX_NAMES_120 PTX_NAMES_112 ", %112, %113, %114, %115, %116, %117, %118, %119"
#define PTX_NAMES_128 PTX_NAMES_120 ", %120, %121, %122, %123, %124, %125, %126, %127"
#define PTX_FLOATS_8 \
    "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), \
    "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7])
#define PTX_FLOATS_16 \
    PTX_FLOATS_8, "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), \
    "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15])
#define PTX_FLOATS_24 \
    PTX_FLOATS_16, "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), \
    "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23])
#define PTX_FLOATS_32 \
    PTX_FLOATS_24, "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), \
    "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31])
#define PTX_FLOATS_40 \
    PTX_FLOATS_32, "+f"(d[32]), "+f"(d[33]), "+f"(d[34]), "+f"(d[35]), \
    "+f"(d[36]), "+f"(d[37]), "+f"(d[38]), "+f"(d[39])
#define PTX_FLOATS_48 \
    PTX_FLOATS_40, "+f"(d[40]), "+f"(d[41]), "+f"(d[42]), "+f"(d[43]), \
    "+f"(d[44]), "+f"(d[45]), "+f"(d[46]), "+f"(d[47])
#define PTX_FLOATS_56 \
    PTX_FLOATS_48, "+f"(d[48]), "+f"(d[49]), "+f"(d[50]), "+f"(d[51]), \
    "+f"(d[52]), "+f"(d[53]), "+f"(d[54]), "+f"(d[55])
#define PTX_FLOATS_64 \
    PTX_FLOATS_56, "+f"(d[56]), "+f"(d[57]), "+f"(d[58]), "+f"(d[59]), \
    "+f"(d[60]), "+f"(d[61]), "+f"(d[62]), "+f"(d[63])
#define PTX_FLOATS_72 \
    PTX_FLOATS_64, "+f"(d[64]), "+f"(d[65]), "+f"(d[66]), "+f"(d[67]), \
    "+f"(d[68]), "+f"(d[69]), "+f"(d[70]), "+f"(d[71])
#define PTX_FLOATS_80 \
    PTX_FLOATS_72, "+f"(d[72]), "+f"(d[73]), "+f"(d[74]), "+f"(d[75]), \
    "+f"(d[76]), "+f"(d[77]), "+f"(d[78]), "+f"(d[79])
#define PTX_FLOATS_88 \
    PTX_FLOATS_80, "+f"(d[80]), "+f"(d[81]), "+f"(d[82]), "+f"(d[83]), \
    "+f"(d[84]), "+f"(d[85]), "+f"(d[86]), "+f"(d[87])
#define PTX_FLOATS_96 \
    PTX_FLOATS_88, "+f"(d[88]), "+f"(d[89]), "+f"(d[90]), "+f"(d[91]), \
    "+f"(d[92]), "+f"(d[93]), "+f"(d[94]), "+f"(d[95])
#define PTX_FLOATS_104 \
    PTX_FLOATS_96, "+f"(d[96]), "+f"(d[97]), "+f"(d[98]), "+f"(d[99]), \
    "+f"(d[100]), "+f"(d[101]), "+f"(d[102]), "+f"(d[103])
#define PTX_FLOATS_112 \
    PTX_FLOATS_104, "+f"(d[104]), "+f"(d[105]), "+f"(d[106]), "+f"(d[107]), \
    "+f"(d[108]), "+f"(d[109]), "+f"(d[110]), "+f"(d[111])
#define PTX_FLOATS_120 \
    PTX_FLOATS_112, "+f"(d[112]), "+f"(d[113]), "+f"(d[114]), "+f"(d[115]), \
    "+f"(d[116]), "+f"(d[117]), "+f"(d[118]), "+f"(d[119])
#define PTX_FLOATS_128 \
    PTX_FLOATS_120, "+f"(d[120]), "+f"(d[121]), "+f"(d[122]), "+f"(d[123]), \
    "+f"(d[124]), "+f"(d[125]), "+f"(d[126]), "+f"(d[127])

#define PTX_WGMMA_SS(TYPE, N, REGISTERS, I0, I1, I2, I3)                                                             \
    asm volatile("{\n.reg .pred accumulate;\nsetp.ne.b32 accumulate, %" #I2 ", 0;\n"                                 \
                 "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." TYPE "." TYPE                                     \
                 " {" PTX_NAMES_##REGISTERS "}, %" #I0 ", %" #I1 ", accumulate, 1, 1, 0, %" #I3 ";\n}"               \
                 : PTX_FLOATS_##REGISTERS                                                                            \
                 : "l"(a), "l"(b), "r"(int(accumulate)), "n"(int(B == Major::MN))                                    \
                 : "memory")

#define PTX_WGMMA_RS(TYPE, N, REGISTERS, I0, I1, I2, I3, I4, I5, I6)                                                 \
    asm volatile("{\n.reg .pred accumulate;\nsetp.ne.b32 accumulate, %" #I5 ", 0;\n"                                 \
                 "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." TYPE "." TYPE                                     \
                 " {" PTX_NAMES_##REGISTERS "}, {%" #I0 ", %" #I1 ", %" #I2 ", %" #I3 "}, %" #I4                     \
                 ", accumulate, 1, 1, %" #I6 ";\n}"                                                                  \
                 : PTX_FLOATS_##REGISTERS                                                                            \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(int(accumulate)),                         \
                   "n"(int(B == Major::MN))                                                                          \
                 : "memory")

template <int N>
struct Wgmma;

// One width N: R = N/2 accumulators, then R to R6, the numbers of the operands that follow them.
#define PTX_WGMMA(N, R, R1, R2, R3, R4, R5, R6)                                                                      \
    template <>                                                                                                      \
    struct Wgmma<N> {                                                                                                \
        template <class Element, Major B>                                                                            \
        static __device__ __forceinline__ void ss(float (&d)[R], uint64_t a, uint64_t b, bool accumulate) {          \
            if constexpr (std::is_same_v<Element, __half>)                                                           \
                PTX_WGMMA_SS("f16", N, R, R, R1, R2, R3);                                                            \
            else                                                                                                     \
                PTX_WGMMA_SS("bf16", N, R, R, R1, R2, R3);                                                           \
        }                                                                                                            \
        template <class Element, Major B>                                                                            \
        static __device__ __forceinline__ void rs(float (&d)[R], const uint32_t (&a)[4], uint64_t b,                 \
                                                  bool accumulate) {                                                 \
            if constexpr (std::is_same_v<Element, __half>)                                                           \
                PTX_WGMMA_RS("f16", N, R, R, R1, R2, R3, R4, R5, R6);                                                \
            else                                                                                                     \
                PTX_WGMMA_RS("bf16", N, R, R, R1, R2, R3, R4, R5, R6);                                               \
        }                                                                                                            \
    };

PTX_WGMMA(16, 8, 9, 10, 11, 12, 13, 14)
PTX_WGMMA(32, 16, 17, 18, 19, 20, 21, 22)
PTX_WGMMA(48, 24, 25, 26, 27, 28, 29, 30)
PTX_WGMMA(64, 32, 33, 34, 35, 36, 37, 38)
PTX_WGMMA(80, 40, 41, 42, 43, 44, 45, 46)
PTX_WGMMA(96, 48, 49, 50, 51, 52, 53, 54)
PTX_WGMMA(112, 56, 57, 58, 59, 60, 61, 62)
PTX_WGMMA(128, 64, 65, 66, 67, 68, 69, 70)
PTX_WGMMA(144, 72, 73, 74, 75, 76, 77, 78)
PTX_WGMMA(160, 80, 81, 82, 83, 84, 85, 86)
PTX_WGMMA(176, 88, 89, 90, 91, 92, 93, 94)
PTX_WGMMA(192, 96, 97, 98, 99, 100, 101, 102)
PTX_WGMMA(208, 104, 105, 106, 107, 108, 109, 110)
PTX_WGMMA(224, 112, 113, 114, 115, 116, 117, 118)
PTX_WGMMA(240, 120, 121, 122, 123, 124, 125, 126)
PTX_WGMMA(256, 128, 129, 130, 131, 132, 133, 134)

#undef PTX_WGMMA
#undef PTX_WGMMA_RS
#undef PTX_WGMMA_SS

// D = A·B, or D += A·B where `accumulate`. D must not be touched before the wait for its group.
template <class Element, int N, Major B>
__device__ __forceinline__ void wgmma_ss(float (&d)[N / 2], uint64_t a, uint64_t b, bool accumulate) {
    static_assert(std::is_same_v<Element, __half> || std::is_same_v<Element, __nv_bfloat16>);
    Wgmma<N>::template ss<Element, B>(d, a, b, accumulate);
}

// The same with A in registers; they must not be touched before the wait either.
template <class Element, int N, Major B>
__device__ __forceinline__ void wgmma_rs(float (&d)[N / 2], const uint32_t (&a)[4], uint64_t b, bool accumulate) {
    static_assert(std::is_same_v<Element, __half> || std::is_same_v<Element, __nv_bfloat16>);
    Wgmma<N>::template rs<Element, B>(d, a, b, accumulate);
}

}  // namespace ptx
