//! Plain Rust, for any CPU. Four lanes, which compilers turn into the baseline vectors of most of them.

use super::Simd;

/// The level that needs no instruction set.
#[derive(Clone, Copy)]
pub(crate) struct Scalar;

const LANES: usize = 4;

#[inline(always)]
fn zip(a: [f32; LANES], b: [f32; LANES], f: impl Fn(f32, f32) -> f32) -> [f32; LANES] {
    std::array::from_fn(|lane| f(a[lane], b[lane]))
}

impl Simd for Scalar {
    type Vector = [f32; LANES];

    const LANES: usize = LANES;

    #[inline(always)]
    fn splat(self, value: f32) -> Self::Vector {
        [value; LANES]
    }

    #[inline(always)]
    unsafe fn load(self, source: *const f32) -> Self::Vector {
        // SAFETY: the caller vouches for LANES numbers; arrays of f32 are read unaligned.
        unsafe { source.cast::<Self::Vector>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn store(self, target: *mut f32, value: Self::Vector) {
        // SAFETY: the caller vouches for LANES numbers.
        unsafe { target.cast::<Self::Vector>().write_unaligned(value) }
    }

    #[inline(always)]
    fn add(self, a: Self::Vector, b: Self::Vector) -> Self::Vector {
        zip(a, b, |a, b| a + b)
    }

    #[inline(always)]
    fn sub(self, a: Self::Vector, b: Self::Vector) -> Self::Vector {
        zip(a, b, |a, b| a - b)
    }

    #[inline(always)]
    fn mul(self, a: Self::Vector, b: Self::Vector) -> Self::Vector {
        zip(a, b, |a, b| a * b)
    }

    #[inline(always)]
    fn mul_add(self, a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector {
        // Not `f32::mul_add`: without an FMA instruction that is a library call.
        std::array::from_fn(|lane| a[lane] * b[lane] + c[lane])
    }

    #[inline(always)]
    fn mul_sub(self, a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector {
        std::array::from_fn(|lane| a[lane] * b[lane] - c[lane])
    }

    #[inline(always)]
    fn max(self, a: Self::Vector, b: Self::Vector) -> Self::Vector {
        zip(a, b, |a, b| if a > b { a } else { b })
    }

    #[inline(always)]
    fn scale_exponent(
        self,
        value: Self::Vector,
        rounded: Self::Vector,
        x: Self::Vector,
        limit: Self::Vector,
    ) -> Self::Vector {
        let scaled = |value: f32, rounded: f32| f32::from_bits(value.to_bits().wrapping_add(rounded.to_bits() << 23));
        std::array::from_fn(|lane| if x[lane] < limit[lane] { 0.0 } else { scaled(value[lane], rounded[lane]) })
    }

    #[inline(always)]
    unsafe fn transpose(self, source: *const f32, source_stride: usize, target: *mut f32, target_stride: usize) {
        for row in 0..LANES {
            for column in 0..LANES {
                // SAFETY: the caller vouches for LANES rows of LANES numbers at both strides.
                unsafe { *target.add(row * target_stride + column) = *source.add(column * source_stride + row) };
            }
        }
    }
}
