//! AVX-512: 16 lanes, 32 registers.

use std::arch::x86_64::*;

use half::f16;

use super::Simd;

/// Proof that the CPU has AVX-512 F, BW, DQ and VL.
#[derive(Clone, Copy)]
pub(crate) struct Avx512(());

impl Avx512 {
    /// The proof, if this CPU has the instructions.
    pub(crate) fn detect() -> Option<Self> {
        let present = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c");
        present.then_some(Self(()))
    }
}

// SAFETY of every block below: `self` proves that the CPU has AVX-512; pointers are vouched for by the caller.
#[allow(clippy::undocumented_unsafe_blocks)]
impl Simd for Avx512 {
    type Vector = __m512;

    const LANES: usize = 16;

    #[inline(always)]
    fn splat(self, value: f32) -> __m512 {
        unsafe { _mm512_set1_ps(value) }
    }

    #[inline(always)]
    unsafe fn load(self, source: *const f32) -> __m512 {
        unsafe { _mm512_loadu_ps(source) }
    }

    #[inline(always)]
    fn prefetch(self, address: *const u8) {
        unsafe { _mm_prefetch::<_MM_HINT_T1>(address.cast()) }
    }

    #[inline(always)]
    unsafe fn store(self, target: *mut f32, value: __m512) {
        unsafe { _mm512_storeu_ps(target, value) }
    }

    #[inline(always)]
    unsafe fn store_f16(self, target: *mut f16, value: __m512) {
        unsafe { _mm256_storeu_si256(target.cast(), _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(value)) }
    }

    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_add_ps(a, b) }
    }

    #[inline(always)]
    fn sub(self, a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_sub_ps(a, b) }
    }

    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_mul_ps(a, b) }
    }

    #[inline(always)]
    fn mul_add(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    fn mul_sub(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        unsafe { _mm512_fmsub_ps(a, b, c) }
    }

    #[inline(always)]
    fn max(self, a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_max_ps(a, b) }
    }

    #[inline(always)]
    fn scale_exponent(self, value: __m512, rounded: __m512, x: __m512, limit: __m512) -> __m512 {
        unsafe {
            let exponent = _mm512_slli_epi32::<23>(_mm512_castps_si512(rounded));
            let present = _mm512_cmp_ps_mask::<_CMP_NLT_UQ>(x, limit);
            masked_add(present, value, exponent)
        }
    }

    #[inline(always)]
    unsafe fn transpose(self, source: *const f32, source_stride: usize, target: *mut f32, target_stride: usize) {
        unsafe {
            let quads_a = quad(source, source_stride);
            let quads_b = quad(source.add(4 * source_stride), source_stride);
            let quads_c = quad(source.add(8 * source_stride), source_stride);
            let quads_d = quad(source.add(12 * source_stride), source_stride);
            for column in 0..4 {
                let (a, b, c, d) = (quads_a[column], quads_b[column], quads_c[column], quads_d[column]);
                // Lanes 0 and 2 of both, and lanes 1 and 3 of both.
                let (ab_even, ab_odd) = (_mm512_shuffle_f32x4::<0x88>(a, b), _mm512_shuffle_f32x4::<0xDD>(a, b));
                let (cd_even, cd_odd) = (_mm512_shuffle_f32x4::<0x88>(c, d), _mm512_shuffle_f32x4::<0xDD>(c, d));
                let target = target.add(column * target_stride);
                _mm512_storeu_ps(target, _mm512_shuffle_f32x4::<0x88>(ab_even, cd_even));
                _mm512_storeu_ps(target.add(4 * target_stride), _mm512_shuffle_f32x4::<0x88>(ab_odd, cd_odd));
                _mm512_storeu_ps(target.add(8 * target_stride), _mm512_shuffle_f32x4::<0xDD>(ab_even, cd_even));
                _mm512_storeu_ps(target.add(12 * target_stride), _mm512_shuffle_f32x4::<0xDD>(ab_odd, cd_odd));
            }
        }
    }
}

/// `number + exponent`, as integers, and 0 outside of the mask.
///
/// The compiler makes two instructions of [`_mm512_maskz_add_epi32`] where the result is taken for numbers: it moves the mask
/// behind the cast.
#[target_feature(enable = "avx512f")]
#[inline]
fn masked_add(mask: __mmask16, number: __m512, exponent: __m512i) -> __m512 {
    let sum;
    // SAFETY: the instruction reads and writes the named registers and nothing else.
    unsafe {
        std::arch::asm!(
            "vpaddd {sum}{{{mask}}}{{z}}, {number}, {exponent}",
            sum = lateout(zmm_reg) sum,
            mask = in(kreg) mask,
            number = in(zmm_reg) number,
            exponent = in(zmm_reg) exponent,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sum
}

/// Number `c` of the result holds, for four rows of 16 numbers, column `c` of each 128-bit lane: columns c, c + 4, c + 8
/// and c + 12.
///
/// # Safety
/// The CPU has AVX-512; `source` is valid for reads of four rows at this stride.
#[inline(always)]
unsafe fn quad(source: *const f32, stride: usize) -> [__m512; 4] {
    // SAFETY: passed on from the caller.
    unsafe {
        let (row_0, row_1) = (_mm512_loadu_ps(source), _mm512_loadu_ps(source.add(stride)));
        let (row_2, row_3) = (_mm512_loadu_ps(source.add(2 * stride)), _mm512_loadu_ps(source.add(3 * stride)));
        let (a, b) = (_mm512_unpacklo_ps(row_0, row_1), _mm512_unpackhi_ps(row_0, row_1));
        let (c, d) = (_mm512_unpacklo_ps(row_2, row_3), _mm512_unpackhi_ps(row_2, row_3));
        [
            _mm512_shuffle_ps::<0x44>(a, c),
            _mm512_shuffle_ps::<0xEE>(a, c),
            _mm512_shuffle_ps::<0x44>(b, d),
            _mm512_shuffle_ps::<0xEE>(b, d),
        ]
    }
}
