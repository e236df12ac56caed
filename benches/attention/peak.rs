//! What the machine can do at most: the multiply-adds that a kernel is made of, in a loop without loads.

use std::hint::black_box;
use std::time::Duration;

use candle_core::DType;
use candle_mixed_attention::SimdLevel;

use crate::clock::Clock;

/// Chains of dependent instructions, enough to hide their latency on every machine.
const CHAINS: usize = 24;

/// GFLOP/s of one core: multiply-adds of the SIMD level in use, bf16 dot products where its kernel for `dtype` has them.
/// The best of runs that take about as long as `run`, the best of a workload: over a millisecond a core reaches more than over
/// a tenth of a second, in which its frequency falls, and in which the host does other things, too.
pub fn gflops_per_core(dtype: DType, run: Duration) -> f64 {
    let level = SimdLevel::active().expect("an instruction set of this CPU");
    const STEPS: usize = 100_000;
    let timed = |steps| {
        let run = Clock::start();
        let flops = multiply_adds(level, dtype, steps);
        (flops, run.elapsed().cpu)
    };
    let (_, few) = timed(STEPS);
    let steps = STEPS.max((run.as_secs_f64() / few.as_secs_f64() * STEPS as f64) as usize);
    let (mut best, mut runs) = (0f64, 0);
    let start = Clock::start();
    while runs < 10 || start.elapsed().wall < Duration::from_millis(300) {
        let (flops, time) = timed(steps);
        best = best.max(flops as f64 / time.as_secs_f64() / 1e9);
        runs += 1;
    }
    best
}

/// Runs `steps` rounds of all chains and returns their floating-point operations.
fn multiply_adds(level: SimdLevel, dtype: DType, steps: usize) -> usize {
    let per_lane = 2 * CHAINS * steps;
    match level {
        // SAFETY: the level is one that this CPU has.
        #[cfg(target_arch = "x86_64")]
        SimdLevel::Avx512Bf16 if dtype == DType::BF16 => unsafe {
            x86::avx512_bf16(steps);
            32 * per_lane
        },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        SimdLevel::Avx512 | SimdLevel::Avx512Bf16 => unsafe {
            x86::avx512(steps);
            16 * per_lane
        },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        SimdLevel::Avx2 => unsafe {
            x86::avx2(steps);
            8 * per_lane
        },
        // SAFETY: as above.
        #[cfg(target_arch = "aarch64")]
        SimdLevel::NeonBf16 if dtype == DType::BF16 => unsafe {
            aarch64::bf16(steps);
            8 * per_lane
        },
        // SAFETY: as above.
        #[cfg(target_arch = "aarch64")]
        SimdLevel::Neon | SimdLevel::NeonBf16 => unsafe {
            aarch64::neon(steps);
            4 * per_lane
        },
        _ => {
            let (factor, mut sums) = (black_box([0.5f32; 4]), [[0.25f32; 4]; CHAINS]);
            for _ in 0..steps {
                for sum in &mut sums {
                    *sum = std::array::from_fn(|lane| factor[lane] * sum[lane] + factor[lane]);
                }
            }
            black_box(sums);
            4 * per_lane
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;
    use std::hint::black_box;

    use super::CHAINS;

    #[target_feature(enable = "avx2,fma")]
    pub fn avx2(steps: usize) {
        let factor = black_box(_mm256_set1_ps(0.5));
        // 16 registers hold 12 chains; two rounds make up the count.
        let mut sums = [_mm256_set1_ps(0.25); CHAINS / 2];
        for _ in 0..2 * steps {
            for sum in &mut sums {
                *sum = _mm256_fmadd_ps(factor, *sum, factor);
            }
        }
        black_box(sums);
    }

    #[target_feature(enable = "avx512f")]
    pub fn avx512(steps: usize) {
        let factor = black_box(_mm512_set1_ps(0.5));
        let mut sums = [_mm512_set1_ps(0.25); CHAINS];
        for _ in 0..steps {
            for sum in &mut sums {
                *sum = _mm512_fmadd_ps(factor, *sum, factor);
            }
        }
        black_box(sums);
    }

    #[target_feature(enable = "avx512f,avx512bf16")]
    pub fn avx512_bf16(steps: usize) {
        let half = black_box(_mm512_set1_ps(0.5));
        let factor = _mm512_cvtne2ps_pbh(half, half);
        let mut sums = [_mm512_set1_ps(0.25); CHAINS];
        for _ in 0..steps {
            for sum in &mut sums {
                *sum = _mm512_dpbf16_ps(*sum, factor, factor);
            }
        }
        black_box(sums);
    }
}

#[cfg(target_arch = "aarch64")]
mod aarch64 {
    use std::arch::aarch64::*;
    use std::arch::asm;
    use std::hint::black_box;

    use super::CHAINS;

    #[target_feature(enable = "neon")]
    pub fn neon(steps: usize) {
        let factor = black_box(vdupq_n_f32(0.5));
        let mut sums = [vdupq_n_f32(0.25); CHAINS];
        for _ in 0..steps {
            for sum in &mut sums {
                *sum = vfmaq_f32(factor, factor, *sum);
            }
        }
        black_box(sums);
    }

    #[target_feature(enable = "neon,bf16")]
    pub fn bf16(steps: usize) {
        let factor = black_box(vdupq_n_f32(0.5));
        let mut sums = [vdupq_n_f32(0.25); CHAINS];
        for _ in 0..steps {
            for sum in &mut sums {
                // SAFETY: the function has the feature; registers alone are read and written.
                unsafe {
                    asm!(
                        "bfdot {sum:v}.4s, {factor:v}.8h, {factor:v}.8h",
                        sum = inout(vreg) *sum,
                        factor = in(vreg) factor,
                        options(pure, nomem, nostack, preserves_flags),
                    );
                }
            }
        }
        black_box(sums);
    }
}
