//! Which instruction set runs the CPU kernel: detected, and lowered on request.

use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;

use crate::error::AttentionError;

/// An instruction set of the fused CPU kernel; the variable below counts for linear layers of f16 and bf16, too.
///
/// The fastest one present is used. Setting the environment variable `MIXED_ATTENTION_SIMD` to one of the names below, or
/// [`AttentionOptions::simd`](crate::AttentionOptions::simd), asks for another one, so that each can be tested on one
/// machine; a level that the CPU lacks is an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SimdLevel {
    /// Plain Rust (`scalar`).
    Scalar,
    /// WebAssembly, where the crate is compiled with the target feature `simd128` (`simd128`).
    Simd128,
    /// 64-bit Arm (`neon`).
    Neon,
    /// 64-bit Arm with bf16 dot products (`neonbf16`); for f32 and f16 the same as `neon`. These instructions take bf16 numbers
    /// below 2⁻¹²⁶ as 0. Not chosen by itself on Apple's CPUs, where nobody has measured whether it is faster.
    NeonBf16,
    /// x86 with AVX2, FMA and F16C (`avx2`).
    Avx2,
    /// x86 with AVX-512 F, BW, DQ and VL (`avx512`).
    Avx512,
    /// AVX-512 with bf16 dot products (`avx512bf16`); for f32 and f16 the same as `avx512`. These instructions take bf16
    /// numbers below 2⁻¹²⁶ as 0; the other levels do not. Slower than `avx512` on Intel's CPUs.
    Avx512Bf16,
}

/// A level that does not exist or that this CPU lacks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("SIMD level '{asked}' is not available; this CPU has {}", list(available))]
pub struct UnknownSimdLevel {
    /// The name that was asked for.
    pub asked: String,
    /// The levels that this CPU has.
    pub available: Vec<SimdLevel>,
}

impl SimdLevel {
    /// The levels of this CPU, lowest first.
    pub fn available() -> &'static [SimdLevel] {
        static AVAILABLE: OnceLock<Vec<SimdLevel>> = OnceLock::new();
        AVAILABLE.get_or_init(|| {
            let mut levels = vec![SimdLevel::Scalar];
            #[cfg(target_arch = "x86_64")]
            {
                levels.extend(super::Avx2::detect().map(|_| SimdLevel::Avx2));
                levels.extend(super::Avx512::detect().map(|_| SimdLevel::Avx512));
                levels.extend(super::Avx512Bf16::detect().map(|_| SimdLevel::Avx512Bf16));
            }
            #[cfg(target_arch = "aarch64")]
            {
                levels.extend(super::Neon::detect().map(|_| SimdLevel::Neon));
                levels.extend(super::NeonBf16::detect().map(|_| SimdLevel::NeonBf16));
            }
            #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
            levels.push(SimdLevel::Simd128);
            levels
        })
    }

    /// The fastest level of this CPU, or the one that `MIXED_ATTENTION_SIMD` names. The variable is read once.
    ///
    /// # Errors
    /// The variable names a level that does not exist or that this CPU lacks.
    pub fn active() -> Result<SimdLevel, UnknownSimdLevel> {
        static ACTIVE: OnceLock<Result<SimdLevel, UnknownSimdLevel>> = OnceLock::new();
        let detect = || match std::env::var("MIXED_ATTENTION_SIMD") {
            Ok(name) if !name.is_empty() => name.parse::<SimdLevel>()?.check(),
            _ => Ok(Self::fastest()),
        };
        ACTIVE.get_or_init(detect).clone()
    }

    /// The highest level, unless its dot products are slow.
    fn fastest() -> SimdLevel {
        match Self::available().last() {
            #[cfg(target_arch = "x86_64")]
            Some(SimdLevel::Avx512Bf16) if super::avx512_bf16::is_slow() => SimdLevel::Avx512,
            Some(SimdLevel::NeonBf16) if cfg!(target_vendor = "apple") => SimdLevel::Neon,
            highest => highest.copied().unwrap_or(SimdLevel::Scalar),
        }
    }

    /// This level, if the CPU has it.
    ///
    /// # Errors
    /// It has not.
    pub fn check(self) -> Result<SimdLevel, UnknownSimdLevel> {
        if Self::available().contains(&self) { Ok(self) } else { Err(UnknownSimdLevel::new(&self.to_string())) }
    }

    const NAMES: [(SimdLevel, &'static str); 7] = [
        (SimdLevel::Scalar, "scalar"),
        (SimdLevel::Simd128, "simd128"),
        (SimdLevel::Neon, "neon"),
        (SimdLevel::NeonBf16, "neonbf16"),
        (SimdLevel::Avx2, "avx2"),
        (SimdLevel::Avx512, "avx512"),
        (SimdLevel::Avx512Bf16, "avx512bf16"),
    ];
}

fn list(levels: &[SimdLevel]) -> String {
    levels.iter().map(SimdLevel::to_string).collect::<Vec<_>>().join(", ")
}

impl From<UnknownSimdLevel> for AttentionError {
    fn from(error: UnknownSimdLevel) -> Self {
        AttentionError::value("SIMD level", "one that this CPU has", error)
    }
}

impl UnknownSimdLevel {
    fn new(asked: &str) -> Self {
        Self { asked: asked.to_string(), available: SimdLevel::available().to_vec() }
    }
}

impl FromStr for SimdLevel {
    type Err = UnknownSimdLevel;

    fn from_str(name: &str) -> Result<Self, UnknownSimdLevel> {
        let known = Self::NAMES.iter().find(|(_, known)| *known == name);
        known.map(|(level, _)| *level).ok_or_else(|| UnknownSimdLevel::new(name))
    }
}

impl fmt::Display for SimdLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::NAMES.iter().find(|(level, _)| level == self).map_or("", |(_, name)| name);
        f.write_str(name)
    }
}
