//! What AVX-512 BF16 adds: dot products of bf16 pairs, and rounding to bf16.

use std::arch::x86_64::*;

use super::Avx512;

/// Proof that the CPU has AVX-512 BF16 besides what [`Avx512`] proves.
#[derive(Clone, Copy)]
pub(in crate::attention::cpu) struct Avx512Bf16(Avx512);

// SAFETY of every block below: `self` proves that the CPU has the instructions. `__m512` and `__m512bh` are both 512 bits
// for which every pattern is valid.
#[allow(clippy::undocumented_unsafe_blocks)]
impl Avx512Bf16 {
    /// The proof, if this CPU has the instructions.
    pub(in crate::attention::cpu) fn detect() -> Option<Self> {
        Avx512::detect().filter(|_| is_x86_feature_detected!("avx512bf16")).map(Self)
    }

    /// What every CPU with bf16 instructions has too.
    #[inline(always)]
    pub(in crate::attention::cpu) fn avx512(self) -> Avx512 {
        self.0
    }

    /// `sum + left₀ right₀ + left₁ right₁` for pairs of bf16 in the lanes of `left` and `right`; sums are f32.
    /// Subnormal numbers count as 0.
    #[inline(always)]
    pub(in crate::attention::cpu) fn dot_add(self, left: __m512, right: __m512, sum: __m512) -> __m512 {
        unsafe {
            let pairs = |words: __m512| std::mem::transmute::<__m512, __m512bh>(words);
            _mm512_dpbf16_ps(sum, pairs(left), pairs(right))
        }
    }

    /// Lane by lane, `first` and `second` rounded to bf16, `first` in the low half.
    #[inline(always)]
    pub(in crate::attention::cpu) fn pairs(self, first: __m512, second: __m512) -> __m512 {
        unsafe {
            // All of `first`, then all of `second`; the permutation interleaves them.
            let rounded = std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(second, first));
            let order = _mm512_loadu_si512(INTERLEAVED.as_ptr().cast());
            _mm512_castsi512_ps(_mm512_permutexvar_epi16(order, rounded))
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
