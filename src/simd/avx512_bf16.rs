//! What AVX-512 BF16 adds: dot products of bf16 pairs, and rounding to bf16.

use std::arch::x86_64::*;

use half::bf16;

use super::{Avx512, DotProducts};

/// Whether this CPU takes longer for a dot product than for the two multiply-adds that it replaces. A core of Intel's (Emerald
/// Rapids) starts one in two cycles and four multiply-adds meanwhile: bf16 is for its AMX. AMD's Zen 4 and 5 start as many of
/// the one as of the other.
pub(super) fn is_slow() -> bool {
    let vendor = __cpuid(0);
    [vendor.ebx, vendor.edx, vendor.ecx].map(u32::to_le_bytes).as_flattened() == b"GenuineIntel"
}

/// Proof that the CPU has AVX-512 BF16 besides what [`Avx512`] proves.
#[derive(Clone, Copy)]
pub(crate) struct Avx512Bf16(Avx512);

impl Avx512Bf16 {
    /// The proof, if this CPU has the instructions.
    pub(crate) fn detect() -> Option<Self> {
        Avx512::detect().filter(|_| is_x86_feature_detected!("avx512bf16")).map(Self)
    }
}

// SAFETY of every block below: `self` proves that the CPU has the instructions. `__m512` and `__m512bh` are both 512 bits
// for which every pattern is valid.
#[allow(clippy::undocumented_unsafe_blocks)]
impl DotProducts for Avx512Bf16 {
    type Simd = Avx512;

    #[inline(always)]
    fn simd(self) -> Avx512 {
        self.0
    }

    #[inline(always)]
    fn dot_add(self, left: __m512, right: __m512, sum: __m512) -> __m512 {
        unsafe {
            let pairs = |words: __m512| std::mem::transmute::<__m512, __m512bh>(words);
            _mm512_dpbf16_ps(sum, pairs(left), pairs(right))
        }
    }

    #[inline(always)]
    fn pairs(self, first: __m512, second: __m512) -> __m512 {
        unsafe {
            // All of `first`, then all of `second`; the permutation interleaves them.
            let rounded = std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(second, first));
            let order = _mm512_loadu_si512(INTERLEAVED.as_ptr().cast());
            _mm512_castsi512_ps(_mm512_permutexvar_epi16(order, rounded))
        }
    }

    #[inline(always)]
    unsafe fn store_bf16(self, target: *mut bf16, numbers: __m512) {
        unsafe {
            let rounded = std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(numbers));
            _mm256_storeu_si256(target.cast(), rounded);
        }
    }
}

/// 0, 16, 1, 17, …
const INTERLEAVED: [i16; 32] = {
    let mut order = [0; 32];
    let mut lane = 0;
    while lane < 16 {
        (order[2 * lane], order[2 * lane + 1]) = (lane as i16, lane as i16 + 16);
        lane += 1;
    }
    order
};
