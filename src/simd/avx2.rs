//! AVX2 with FMA: 8 lanes, 16 registers.

use std::arch::x86_64::*;

use half::f16;

use super::Simd;

/// Proof that the CPU has AVX2, FMA and F16C.
#[derive(Clone, Copy)]
pub(crate) struct Avx2(());

impl Avx2 {
    /// The proof, if this CPU has the instructions.
    pub(crate) fn detect() -> Option<Self> {
        let present =
            is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c");
        present.then_some(Self(()))
    }
}

// SAFETY of every block below: `self` proves that the CPU has AVX2 and FMA; pointers are vouched for by the caller.
#[allow(clippy::undocumented_unsafe_blocks)]
impl Simd for Avx2 {
    type Vector = __m256;

    const LANES: usize = 8;

    #[inline(always)]
    fn splat(self, value: f32) -> __m256 {
        unsafe { _mm256_set1_ps(value) }
    }

    #[inline(always)]
    unsafe fn load(self, source: *const f32) -> __m256 {
        unsafe { _mm256_loadu_ps(source) }
    }

    #[inline(always)]
    fn prefetch(self, address: *const u8) {
        unsafe { _mm_prefetch::<_MM_HINT_T1>(address.cast()) }
    }

    #[inline(always)]
    unsafe fn store(self, target: *mut f32, value: __m256) {
        unsafe { _mm256_storeu_ps(target, value) }
    }

    #[inline(always)]
    unsafe fn store_f16(self, target: *mut f16, value: __m256) {
        unsafe { _mm_storeu_si128(target.cast(), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(value)) }
    }

    #[inline(always)]
    fn add(self, a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_add_ps(a, b) }
    }

    #[inline(always)]
    fn sub(self, a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_sub_ps(a, b) }
    }

    #[inline(always)]
    fn mul(self, a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_mul_ps(a, b) }
    }

    #[inline(always)]
    fn mul_add(self, a: __m256, b: __m256, c: __m256) -> __m256 {
        unsafe { _mm256_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    fn mul_sub(self, a: __m256, b: __m256, c: __m256) -> __m256 {
        unsafe { _mm256_fmsub_ps(a, b, c) }
    }

    #[inline(always)]
    fn max(self, a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_max_ps(a, b) }
    }

    #[inline(always)]
    fn scale_exponent(self, value: __m256, rounded: __m256, x: __m256, limit: __m256) -> __m256 {
        unsafe {
            let exponent = _mm256_slli_epi32::<23>(_mm256_castps_si256(rounded));
            let scaled = _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(value), exponent));
            _mm256_and_ps(_mm256_cmp_ps::<_CMP_NLT_UQ>(x, limit), scaled)
        }
    }

    #[inline(always)]
    unsafe fn transpose(self, source: *const f32, source_stride: usize, target: *mut f32, target_stride: usize) {
        unsafe {
            let (upper, lower) = (quad(source, source_stride), quad(source.add(4 * source_stride), source_stride));
            for i in 0..4 {
                let low = _mm256_permute2f128_ps::<0x20>(upper[i], lower[i]);
                let high = _mm256_permute2f128_ps::<0x31>(upper[i], lower[i]);
                _mm256_storeu_ps(target.add(i * target_stride), low);
                _mm256_storeu_ps(target.add((i + 4) * target_stride), high);
            }
        }
    }
}

/// Number `c` of the result holds, for four rows of 8 numbers, column `c` of each 128-bit lane: columns c and c + 4.
///
/// # Safety
/// The CPU has AVX2; `source` is valid for reads of four rows at this stride.
#[inline(always)]
unsafe fn quad(source: *const f32, stride: usize) -> [__m256; 4] {
    // SAFETY: passed on from the caller.
    unsafe {
        let (row_0, row_1) = (_mm256_loadu_ps(source), _mm256_loadu_ps(source.add(stride)));
        let (row_2, row_3) = (_mm256_loadu_ps(source.add(2 * stride)), _mm256_loadu_ps(source.add(3 * stride)));
        let (a, b) = (_mm256_unpacklo_ps(row_0, row_1), _mm256_unpackhi_ps(row_0, row_1));
        let (c, d) = (_mm256_unpacklo_ps(row_2, row_3), _mm256_unpackhi_ps(row_2, row_3));
        [
            _mm256_shuffle_ps::<0x44>(a, c),
            _mm256_shuffle_ps::<0xEE>(a, c),
            _mm256_shuffle_ps::<0x44>(b, d),
            _mm256_shuffle_ps::<0xEE>(b, d),
        ]
    }
}
