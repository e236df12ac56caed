//! Runs the work items of a launch on the thread pool, in the function that is compiled for the instruction set.

use std::sync::atomic::{AtomicUsize, Ordering};

#[cfg(target_arch = "x86_64")]
use candle_core::DType;

use super::item;
use super::kernel::{Blocked, StripKernel};
use super::operands::Operands;
use super::output::{Results, Target, combine};
use super::scratch::{self, Buffer, Purpose};
#[cfg(target_arch = "aarch64")]
use super::simd::Neon;
use super::simd::Scalar;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
use super::simd::Simd128;
use super::simd::SimdLevel;
#[cfg(target_arch = "x86_64")]
use super::simd::{Avx2, Avx512, Avx512Bf16};
#[cfg(target_arch = "x86_64")]
use super::words::Bf16Pairs;
use super::words::Floats;
use crate::element::Element;

/// Below this many multiply-adds a launch runs on the calling thread: waking another one takes longer.
const SEQUENTIAL_BELOW: u64 = 4_000_000;

/// Threads that are worth waking for these pairs of a query and a key.
pub(super) fn threads(pairs: u64, head_dim: usize) -> usize {
    let multiply_adds = pairs.saturating_mul(2 * head_dim as u64);
    if multiply_adds < SEQUENTIAL_BELOW { 1 } else { rayon::current_num_threads() }
}

/// Runs the whole schedule.
pub(super) fn run<T: Element>(
    operands: &Operands<'_, T>,
    level: SimdLevel,
    mut results: Results<T>,
    threads: usize,
) -> Results<T> {
    let slot_len = operands.schedule.tile().queries * (operands.head_dim + 2);
    let mut partial = vec![0f32; operands.schedule.partial_slots() * slot_len];
    {
        let target = Target::new(&mut results, operands.exponent, &mut partial, slot_len);
        let next = AtomicUsize::new(0);
        let work = || work_on(operands, level, &next, &target);
        let threads = threads.min(operands.schedule.items().len());
        if threads <= 1 {
            work();
        } else {
            rayon::scope(|scope| {
                (1..threads).for_each(|_| scope.spawn(|_| work()));
                work();
            });
        }
    }
    for reduction in operands.schedule.reductions() {
        combine(reduction, operands.exponent, &partial, slot_len, &mut results);
    }
    results
}

/// Takes items off the list, longest first, until none is left.
fn work_on<T: Element>(operands: &Operands<'_, T>, level: SimdLevel, next: &AtomicUsize, target: &Target<'_, T>) {
    scratch::with(Purpose::Item, |buffer| dispatch(operands, level, next, target, buffer));
}

/// Enters the function that is compiled for an instruction set. The buffer is lent outside of it: a closure that the
/// compiler does not inline would be compiled without the instructions.
fn dispatch<T: Element>(
    operands: &Operands<'_, T>,
    level: SimdLevel,
    next: &AtomicUsize,
    target: &Target<'_, T>,
    buffer: &mut Buffer,
) {
    match level {
        #[cfg(target_arch = "x86_64")]
        SimdLevel::Avx512Bf16 if T::DTYPE == DType::BF16 => {
            if let Some(simd) = Avx512Bf16::detect() {
                // SAFETY: `simd` proves the features of the function.
                return unsafe { avx512_bf16(simd, operands, next, target, buffer) };
            }
        }
        #[cfg(target_arch = "x86_64")]
        SimdLevel::Avx512 | SimdLevel::Avx512Bf16 => {
            if let Some(simd) = Avx512::detect() {
                // SAFETY: `simd` proves the features of the function.
                return unsafe { avx512(simd, operands, next, target, buffer) };
            }
        }
        #[cfg(target_arch = "x86_64")]
        SimdLevel::Avx2 => {
            if let Some(simd) = Avx2::detect() {
                // SAFETY: `simd` proves the features of the function.
                return unsafe { avx2(simd, operands, next, target, buffer) };
            }
        }
        #[cfg(target_arch = "aarch64")]
        SimdLevel::Neon => {
            if let Some(simd) = Neon::detect() {
                // SAFETY: `simd` proves the features of the function.
                return unsafe { neon(simd, operands, next, target, buffer) };
            }
        }
        #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
        SimdLevel::Simd128 => {
            return loop_over_items(Blocked::<_, 6, 2>(Floats(Simd128)), operands, next, target, buffer);
        }
        _ => {}
    }
    loop_over_items(Blocked::<_, 4, 2>(Floats(Scalar)), operands, next, target, buffer);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,fma,f16c")]
fn avx512_bf16<T: Element>(
    simd: Avx512Bf16,
    operands: &Operands<'_, T>,
    next: &AtomicUsize,
    target: &Target<'_, T>,
    buffer: &mut Buffer,
) {
    loop_over_items(Blocked::<_, 8, 3>(Bf16Pairs(simd)), operands, next, target, buffer);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,fma,f16c")]
fn avx512<T: Element>(
    simd: Avx512,
    operands: &Operands<'_, T>,
    next: &AtomicUsize,
    target: &Target<'_, T>,
    buffer: &mut Buffer,
) {
    loop_over_items(Blocked::<_, 8, 3>(Floats(simd)), operands, next, target, buffer);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
fn avx2<T: Element>(
    simd: Avx2,
    operands: &Operands<'_, T>,
    next: &AtomicUsize,
    target: &Target<'_, T>,
    buffer: &mut Buffer,
) {
    loop_over_items(Blocked::<_, 6, 2>(Floats(simd)), operands, next, target, buffer);
}

#[cfg(target_arch = "aarch64")]
#[target_feature(enable = "neon")]
fn neon<T: Element>(
    simd: Neon,
    operands: &Operands<'_, T>,
    next: &AtomicUsize,
    target: &Target<'_, T>,
    buffer: &mut Buffer,
) {
    loop_over_items(Blocked::<_, 8, 3>(Floats(simd)), operands, next, target, buffer);
}

#[inline(always)]
fn loop_over_items<K: StripKernel, T: Element>(
    kernel: K,
    operands: &Operands<'_, T>,
    next: &AtomicUsize,
    target: &Target<'_, T>,
    buffer: &mut Buffer,
) {
    while let Some(item) = operands.schedule.items().get(next.fetch_add(1, Ordering::Relaxed)) {
        item::run(kernel, operands, item, buffer, target);
    }
}
