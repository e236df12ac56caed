//! What FEAT_BF16 adds to NEON: dot products of bf16 pairs, and rounding to bf16. In assembly: Rust has no intrinsics for them.

use std::arch::aarch64::*;
use std::arch::asm;

use half::bf16;

use super::{DotProducts, Neon};

/// Proof that the CPU has FEAT_BF16 besides NEON.
#[derive(Clone, Copy)]
pub(crate) struct NeonBf16(Neon);

impl NeonBf16 {
    /// The proof, if this CPU has the instructions.
    pub(crate) fn detect() -> Option<Self> {
        Neon::detect().filter(|_| std::arch::is_aarch64_feature_detected!("bf16")).map(Self)
    }
}

// SAFETY of every block below: `self` proves that the CPU has the instructions; pointers are vouched for by the caller.
#[allow(clippy::undocumented_unsafe_blocks)]
impl DotProducts for NeonBf16 {
    type Simd = Neon;

    #[inline(always)]
    fn simd(self) -> Neon {
        self.0
    }

    #[inline(always)]
    fn dot_add(self, left: float32x4_t, right: float32x4_t, sum: float32x4_t) -> float32x4_t {
        unsafe { bfdot(left, right, sum) }
    }

    #[inline(always)]
    fn pairs(self, first: float32x4_t, second: float32x4_t) -> float32x4_t {
        unsafe {
            let uint16x4x2_t(low, high) = vzip_u16(bfcvtn(first), bfcvtn(second));
            vreinterpretq_f32_u16(vcombine_u16(low, high))
        }
    }

    #[inline(always)]
    unsafe fn store_bf16(self, target: *mut bf16, numbers: float32x4_t) {
        unsafe { vst1_u16(target.cast(), bfcvtn(numbers)) }
    }
}

// Functions of their own, so that the assembler knows the instructions wherever the methods above are compiled.

/// `sum + left₀ right₀ + left₁ right₁` for the pairs of bf16 in each lane.
#[inline]
#[target_feature(enable = "neon,bf16")]
fn bfdot(left: float32x4_t, right: float32x4_t, mut sum: float32x4_t) -> float32x4_t {
    // SAFETY: the function has the feature; registers alone are read and written.
    unsafe {
        asm!(
            "bfdot {sum:v}.4s, {left:v}.8h, {right:v}.8h",
            sum = inout(vreg) sum,
            left = in(vreg) left,
            right = in(vreg) right,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sum
}

/// Four numbers rounded to bf16, to nearest even.
#[inline]
#[target_feature(enable = "neon,bf16")]
fn bfcvtn(numbers: float32x4_t) -> uint16x4_t {
    let rounded: uint16x4_t;
    // SAFETY: as above.
    unsafe {
        asm!(
            "bfcvtn {rounded:v}.4h, {numbers:v}.4s",
            rounded = lateout(vreg) rounded,
            numbers = in(vreg) numbers,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    rounded
}
