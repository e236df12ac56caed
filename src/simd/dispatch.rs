//! Enters the function that is compiled for an instruction set.

use candle_core::DType;

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use super::Bf16Pairs;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
use super::Simd128;
#[cfg(target_arch = "x86_64")]
use super::{Avx2, Avx512, Avx512Bf16};
use super::{Floats, Scalar, SimdLevel, Words};
#[cfg(target_arch = "aarch64")]
use super::{Neon, NeonBf16};

/// What is compiled for every instruction set.
pub(crate) trait Task {
    /// What it returns.
    type Output;

    /// Runs it with `ROWS × VECTORS` sums in registers. `#[inline(always)]` where it is implemented, as is everything hot
    /// that it calls: what the compiler leaves outside is compiled without the instructions.
    fn run<W: Words, const ROWS: usize, const VECTORS: usize>(self, words: W) -> Self::Output;
}

/// Runs a task on operands of this dtype.
pub(crate) fn dispatch<T: Task>(
    level: SimdLevel,
    #[cfg_attr(
        not(any(target_arch = "x86_64", target_arch = "aarch64")),
        expect(unused_variables, reason = "elsewhere all words are one number")
    )]
    dtype: DType,
    task: T,
) -> T::Output {
    match level {
        #[cfg(target_arch = "x86_64")]
        SimdLevel::Avx512Bf16 if dtype == DType::BF16 => {
            if let Some(simd) = Avx512Bf16::detect() {
                // SAFETY: `simd` proves the features of the function.
                return unsafe { avx512_bf16(simd, task) };
            }
        }
        #[cfg(target_arch = "x86_64")]
        SimdLevel::Avx512 | SimdLevel::Avx512Bf16 => {
            if let Some(simd) = Avx512::detect() {
                // SAFETY: `simd` proves the features of the function.
                return unsafe { avx512(simd, task) };
            }
        }
        #[cfg(target_arch = "x86_64")]
        SimdLevel::Avx2 => {
            if let Some(simd) = Avx2::detect() {
                // SAFETY: `simd` proves the features of the function.
                return unsafe { avx2(simd, task) };
            }
        }
        #[cfg(target_arch = "aarch64")]
        SimdLevel::NeonBf16 if dtype == DType::BF16 => {
            if let Some(simd) = NeonBf16::detect() {
                // SAFETY: `simd` proves the features of the function.
                return unsafe { neon_bf16(simd, task) };
            }
        }
        #[cfg(target_arch = "aarch64")]
        SimdLevel::Neon | SimdLevel::NeonBf16 => {
            if let Some(simd) = Neon::detect() {
                // SAFETY: `simd` proves the features of the function.
                return unsafe { neon(simd, task) };
            }
        }
        #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
        SimdLevel::Simd128 => return task.run::<_, 6, 2>(Floats(Simd128)),
        _ => {}
    }
    task.run::<_, 4, 2>(Floats(Scalar))
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,fma,f16c")]
fn avx512_bf16<T: Task>(simd: Avx512Bf16, task: T) -> T::Output {
    task.run::<_, 8, 3>(Bf16Pairs(simd))
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,fma,f16c")]
fn avx512<T: Task>(simd: Avx512, task: T) -> T::Output {
    task.run::<_, 8, 3>(Floats(simd))
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
fn avx2<T: Task>(simd: Avx2, task: T) -> T::Output {
    task.run::<_, 6, 2>(Floats(simd))
}

#[cfg(target_arch = "aarch64")]
#[target_feature(enable = "neon,bf16")]
fn neon_bf16<T: Task>(simd: NeonBf16, task: T) -> T::Output {
    task.run::<_, 8, 3>(Bf16Pairs(simd))
}

#[cfg(target_arch = "aarch64")]
#[target_feature(enable = "neon")]
fn neon<T: Task>(simd: Neon, task: T) -> T::Output {
    task.run::<_, 8, 3>(Floats(simd))
}
