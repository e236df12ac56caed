//! Element types of the kernels, and comparison that a NaN cannot pass.

use bytemuck::Pod;
use half::{bf16, f16};

/// An element type in memory.
pub trait Number: Pod {
    /// Rounds to the nearest.
    fn from_f64(value: f64) -> Self;
    fn to_f64(self) -> f64;
}

macro_rules! number {
    ($($type:ty, $from:expr, $to:expr);*) => {$(
        impl Number for $type {
            fn from_f64(value: f64) -> Self {
                $from(value)
            }
            fn to_f64(self) -> f64 {
                $to(self)
            }
        }
    )*};
}

number! {
    f16, f16::from_f64, f16::to_f64;
    bf16, bf16::from_f64, bf16::to_f64;
    f32, |value| value as f32, f64::from;
    f64, |value| value, |value| value
}

/// The largest distance of two numbers; infinite if any is not a number.
pub fn worst_error(got: &[f64], expected: &[f64]) -> f64 {
    if got.len() != expected.len() {
        return f64::INFINITY;
    }
    let distance = |(got, expected): (&f64, &f64)| {
        let distance = (got - expected).abs();
        if distance.is_nan() { f64::INFINITY } else { distance }
    };
    got.iter().zip(expected).map(distance).fold(0.0, f64::max)
}
