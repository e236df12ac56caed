//! NEON (64-bit Arm): 4 lanes, 32 registers.

use std::arch::aarch64::*;

use super::Simd;

/// Proof that the CPU has NEON.
#[derive(Clone, Copy)]
pub(crate) struct Neon(());

impl Neon {
    /// The proof, if this CPU has the instructions.
    pub(crate) fn detect() -> Option<Self> {
        std::arch::is_aarch64_feature_detected!("neon").then_some(Self(()))
    }
}

// SAFETY of every block below: `self` proves that the CPU has NEON; pointers are vouched for by the caller.
#[allow(clippy::undocumented_unsafe_blocks)]
impl Simd for Neon {
    type Vector = float32x4_t;

    const LANES: usize = 4;

    #[inline(always)]
    fn splat(self, value: f32) -> float32x4_t {
        unsafe { vdupq_n_f32(value) }
    }

    #[inline(always)]
    unsafe fn load(self, source: *const f32) -> float32x4_t {
        unsafe { vld1q_f32(source) }
    }

    #[inline(always)]
    unsafe fn store(self, target: *mut f32, value: float32x4_t) {
        unsafe { vst1q_f32(target, value) }
    }

    #[inline(always)]
    fn add(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        unsafe { vaddq_f32(a, b) }
    }

    #[inline(always)]
    fn sub(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        unsafe { vsubq_f32(a, b) }
    }

    #[inline(always)]
    fn mul(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        unsafe { vmulq_f32(a, b) }
    }

    #[inline(always)]
    fn mul_add(self, a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t {
        unsafe { vfmaq_f32(c, a, b) }
    }

    #[inline(always)]
    fn mul_sub(self, a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t {
        unsafe { vfmaq_f32(vnegq_f32(c), a, b) }
    }

    #[inline(always)]
    fn max(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        // Not vmaxq_f32, which returns NaN when only `a` is NaN: the contract is `b`, as on x86.
        unsafe { vbslq_f32(vcgtq_f32(a, b), a, b) }
    }

    #[inline(always)]
    fn scale_exponent(
        self,
        value: float32x4_t,
        rounded: float32x4_t,
        x: float32x4_t,
        limit: float32x4_t,
    ) -> float32x4_t {
        unsafe {
            let exponent = vshlq_n_u32::<23>(vreinterpretq_u32_f32(rounded));
            let scaled = vaddq_u32(vreinterpretq_u32_f32(value), exponent);
            vreinterpretq_f32_u32(vbicq_u32(scaled, vcltq_f32(x, limit)))
        }
    }

    #[inline(always)]
    unsafe fn transpose(self, source: *const f32, source_stride: usize, target: *mut f32, target_stride: usize) {
        unsafe {
            let row = |i: usize| vld1q_f32(source.add(i * source_stride));
            let (ab, cd) = (vtrnq_f32(row(0), row(1)), vtrnq_f32(row(2), row(3)));
            let columns = [
                vcombine_f32(vget_low_f32(ab.0), vget_low_f32(cd.0)),
                vcombine_f32(vget_low_f32(ab.1), vget_low_f32(cd.1)),
                vcombine_f32(vget_high_f32(ab.0), vget_high_f32(cd.0)),
                vcombine_f32(vget_high_f32(ab.1), vget_high_f32(cd.1)),
            ];
            for (i, value) in columns.into_iter().enumerate() {
                vst1q_f32(target.add(i * target_stride), value);
            }
        }
    }
}
