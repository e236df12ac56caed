// The words and types of the Metal Shading Language that clang's C++ does not know.
//
// Two modes: by default the address spaces vanish and a kernel is executed; with MSL_CHECK they become clang's address
// spaces, so that a syntax check finds most of what Apple's compiler would refuse. Then these headers are C++14, too.
#pragma once

#include <cstdint>
#include <type_traits>
#include <utility>

#ifdef MSL_CHECK
#define device __attribute__((address_space(1)))
#define constant __attribute__((address_space(2))) const
#define threadgroup __attribute__((address_space(3)))
#else
#define device
#define constant const
#define threadgroup
#endif
#define kernel
#define thread
#define METAL_FUNC inline __attribute__((always_inline))
#define __METAL_VERSION__ 310
#define __HAVE_BFLOAT__ 1

using half = _Float16;
using bfloat = __bf16;
using uint = uint32_t;
using ushort = uint16_t;
using uchar = uint8_t;
using ulong = uint64_t;

#define EMULATOR_VECTORS(T)                             \
    typedef T T##2 __attribute__((ext_vector_type(2))); \
    typedef T T##3 __attribute__((ext_vector_type(3))); \
    typedef T T##4 __attribute__((ext_vector_type(4)));
EMULATOR_VECTORS(half)
EMULATOR_VECTORS(bfloat)
EMULATOR_VECTORS(float)
EMULATOR_VECTORS(int)
EMULATOR_VECTORS(uint)
EMULATOR_VECTORS(short)
EMULATOR_VECTORS(ushort)
EMULATOR_VECTORS(uchar)
EMULATOR_VECTORS(ulong)
#undef EMULATOR_VECTORS

namespace emulator {

template <class Vector>
using ElementOf = std::remove_reference_t<decltype(std::declval<Vector&>()[0])>;

template <class Vector, class Value>
using IsElement = std::is_convertible<Value, ElementOf<Vector>>;

// One number goes to all elements, a vector is converted, several numbers go to one element each.
template <class Vector, class Value, std::enable_if_t<IsElement<Vector, Value>::value, int> = 0>
METAL_FUNC Vector make_vector(Value value) {
    return Vector(ElementOf<Vector>(value));
}
template <class Vector, class Value, std::enable_if_t<!IsElement<Vector, Value>::value, int> = 0>
METAL_FUNC Vector make_vector(Value value) {
    return __builtin_convertvector(value, Vector);
}
template <class Vector, class First, class Second, class... Rest>
METAL_FUNC Vector make_vector(First first, Second second, Rest... rest) {
    return Vector{ElementOf<Vector>(first), ElementOf<Vector>(second), ElementOf<Vector>(rest)...};
}

}  // namespace emulator

// `float2(a, b)`: a call to clang, which has no such constructors. The names alone remain types.
#define half2(...) emulator::make_vector<half2>(__VA_ARGS__)
#define half4(...) emulator::make_vector<half4>(__VA_ARGS__)
#define bfloat2(...) emulator::make_vector<bfloat2>(__VA_ARGS__)
#define float2(...) emulator::make_vector<float2>(__VA_ARGS__)
#define float3(...) emulator::make_vector<float3>(__VA_ARGS__)
#define float4(...) emulator::make_vector<float4>(__VA_ARGS__)
#define int2(...) emulator::make_vector<int2>(__VA_ARGS__)
#define uint2(...) emulator::make_vector<uint2>(__VA_ARGS__)
#define uint3(...) emulator::make_vector<uint3>(__VA_ARGS__)
#define uint4(...) emulator::make_vector<uint4>(__VA_ARGS__)
#define ushort2(...) emulator::make_vector<ushort2>(__VA_ARGS__)
#define short2(...) emulator::make_vector<short2>(__VA_ARGS__)
#define ulong2(...) emulator::make_vector<ulong2>(__VA_ARGS__)
