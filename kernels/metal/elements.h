// What differs between f16, bf16 and f32: how elements are stored, and what they are multiplied as. The kernels are
// written in terms of these policies.
#pragma once

#include <metal_stdlib>

using namespace metal;

// f16.
struct F16 {
    typedef half Stored;
    typedef half Operand;

    static Operand operand(half x) { return x; }

    static float2 read(const device half* source) { return float2(*reinterpret_cast<const device half2*>(source)); }
    static void write(device half* target, float2 x) { *reinterpret_cast<device half2*>(target) = half2(x); }
};

// f32.
struct F32 {
    typedef float Stored;
    typedef float Operand;

    static Operand operand(float x) { return x; }

    static float2 read(const device float* source) { return *reinterpret_cast<const device float2*>(source); }
    static void write(device float* target, float2 x) { *reinterpret_cast<device float2*>(target) = x; }
};

#if defined(__HAVE_BFLOAT__)
// bf16 where the GPU multiplies it.
struct Bf16 {
    typedef bfloat Stored;
    typedef bfloat Operand;

    static Operand operand(bfloat x) { return x; }

    static float2 read(const device bfloat* source) { return float2(*reinterpret_cast<const device bfloat2*>(source)); }
    static void write(device bfloat* target, float2 x) { *reinterpret_cast<device bfloat2*>(target) = bfloat2(x); }
};
#endif

// bf16 that is multiplied as f32: GPUs without bf16 arithmetic, and compilers that do not know the type. Tiles stay
// 2-byte; elements are widened between a load and its product.
struct WideBf16 {
    typedef ushort Stored;
    typedef float Operand;

    static Operand operand(ushort bits) { return as_type<float>(uint(bits) << 16); }

    // Rounds to the nearest, ties to even; a NaN stays one.
    static ushort narrow(float x) {
        const uint bits = as_type<uint>(x);
        const bool is_nan = (bits & 0x7fffffffu) > 0x7f800000u;
        return is_nan ? ushort(bits >> 16 | 0x40u) : ushort((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
    }

    static float2 read(const device ushort* source) {
        const ushort2 bits = *reinterpret_cast<const device ushort2*>(source);
        return float2(operand(bits.x), operand(bits.y));
    }
    static void write(device ushort* target, float2 x) {
        *reinterpret_cast<device ushort2*>(target) = ushort2(narrow(x.x), narrow(x.y));
    }
};
