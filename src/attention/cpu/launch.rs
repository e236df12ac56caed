//! Runs the work items of a launch on the thread pool and puts their results where they belong.

use std::sync::atomic::{AtomicUsize, Ordering};

#[cfg(target_arch = "x86_64")]
use candle_core::DType;

use super::element::Element;
use super::item::{self, Launch, Sink};
use super::kernel::{Blocked, StripKernel};
use super::scratch::{self, Buffer, Purpose};
#[cfg(target_arch = "aarch64")]
use super::simd::Neon;
use super::simd::Scalar;
use super::simd::SimdLevel;
#[cfg(target_arch = "x86_64")]
use super::simd::{Avx2, Avx512, Avx512Bf16};
#[cfg(target_arch = "x86_64")]
use super::words::Bf16Pairs;
use super::words::Floats;
use crate::plan::{Reduction, WorkItem};

/// Below this many multiply-adds a launch runs on the calling thread: waking another one takes longer.
const SEQUENTIAL_BELOW: u64 = 4_000_000;

/// Threads that are worth waking for these pairs of a query and a key.
pub(super) fn threads(pairs: u64, head_dim: usize) -> usize {
    let multiply_adds = pairs.saturating_mul(2 * head_dim as u64);
    if multiply_adds < SEQUENTIAL_BELOW { 1 } else { rayon::current_num_threads() }
}

/// Runs the whole schedule and returns rows `[batch, tokens, heads, head_dim]`.
pub(super) fn run<T: Element>(launch: &Launch<'_, T>, level: SimdLevel, shape: OutputShape, threads: usize) -> Vec<T> {
    let mut output = vec![T::ZERO; shape.len()];
    let slot_len = launch.schedule.tile().queries * (shape.head_dim + 2);
    let mut partial = vec![0f32; launch.schedule.partial_slots() * slot_len];
    {
        let target =
            Target { output: Shared(output.as_mut_ptr()), shape, partial: Shared(partial.as_mut_ptr()), slot_len };
        let next = AtomicUsize::new(0);
        let work = || work_on(launch, level, &next, &target);
        let threads = threads.min(launch.schedule.items().len());
        if threads <= 1 {
            work();
        } else {
            rayon::scope(|scope| {
                (1..threads).for_each(|_| scope.spawn(|_| work()));
                work();
            });
        }
    }
    for reduction in launch.schedule.reductions() {
        combine(reduction, &partial, slot_len, shape, &mut output);
    }
    output
}

/// The extents of the output.
#[derive(Debug, Clone, Copy)]
pub(super) struct OutputShape {
    pub batch: usize,
    pub tokens: usize,
    pub heads: usize,
    pub head_dim: usize,
}

impl OutputShape {
    fn len(&self) -> usize {
        self.batch * self.tokens * self.heads * self.head_dim
    }

    /// Offset of the channels of one token and head.
    fn offset(&self, batch: usize, token: usize, head: usize) -> usize {
        ((batch * self.tokens + token) * self.heads + head) * self.head_dim
    }
}

/// A pointer that several threads write through, each to places of its own.
#[derive(Clone, Copy)]
struct Shared<T>(*mut T);

// SAFETY: threads only write, and only to places that the schedule gives to one work item; see `Target`.
unsafe impl<T: Send> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Shared<T> {}

/// Where work items write.
///
/// Invariant: `output` points to `shape.len()` numbers and `partial` to `partial_slots · slot_len`, both for as long as
/// the items run; the schedule gives each (batch, token, head) to one whole item, or each slot to one part.
struct Target<T> {
    output: Shared<T>,
    shape: OutputShape,
    partial: Shared<f32>,
    slot_len: usize,
}

/// Takes items off the list, longest first, until none is left.
fn work_on<T: Element>(launch: &Launch<'_, T>, level: SimdLevel, next: &AtomicUsize, target: &Target<T>) {
    scratch::with(Purpose::Item, |buffer| dispatch(launch, level, next, target, buffer));
}

/// Enters the function that is compiled for an instruction set. The buffer is lent outside of it: a closure that the
/// compiler does not inline would be compiled without the instructions.
fn dispatch<T: Element>(
    launch: &Launch<'_, T>,
    level: SimdLevel,
    next: &AtomicUsize,
    target: &Target<T>,
    buffer: &mut Buffer,
) {
    match level {
        #[cfg(target_arch = "x86_64")]
        SimdLevel::Avx512Bf16 if T::DTYPE == DType::BF16 => {
            if let Some(simd) = Avx512Bf16::detect() {
                // SAFETY: `simd` proves the features of the function.
                return unsafe { avx512_bf16(simd, launch, next, target, buffer) };
            }
        }
        #[cfg(target_arch = "x86_64")]
        SimdLevel::Avx512 | SimdLevel::Avx512Bf16 => {
            if let Some(simd) = Avx512::detect() {
                // SAFETY: `simd` proves the features of the function.
                return unsafe { avx512(simd, launch, next, target, buffer) };
            }
        }
        #[cfg(target_arch = "x86_64")]
        SimdLevel::Avx2 => {
            if let Some(simd) = Avx2::detect() {
                // SAFETY: `simd` proves the features of the function.
                return unsafe { avx2(simd, launch, next, target, buffer) };
            }
        }
        #[cfg(target_arch = "aarch64")]
        SimdLevel::Neon => {
            if let Some(simd) = Neon::detect() {
                // SAFETY: `simd` proves the features of the function.
                return unsafe { neon(simd, launch, next, target, buffer) };
            }
        }
        _ => {}
    }
    loop_over_items(Blocked::<_, 4, 2>(Floats(Scalar)), launch, next, target, buffer);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,fma,f16c")]
fn avx512_bf16<T: Element>(
    simd: Avx512Bf16,
    launch: &Launch<'_, T>,
    next: &AtomicUsize,
    target: &Target<T>,
    buffer: &mut Buffer,
) {
    loop_over_items(Blocked::<_, 8, 3>(Bf16Pairs(simd)), launch, next, target, buffer);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,fma,f16c")]
fn avx512<T: Element>(
    simd: Avx512,
    launch: &Launch<'_, T>,
    next: &AtomicUsize,
    target: &Target<T>,
    buffer: &mut Buffer,
) {
    loop_over_items(Blocked::<_, 8, 3>(Floats(simd)), launch, next, target, buffer);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
fn avx2<T: Element>(simd: Avx2, launch: &Launch<'_, T>, next: &AtomicUsize, target: &Target<T>, buffer: &mut Buffer) {
    loop_over_items(Blocked::<_, 6, 2>(Floats(simd)), launch, next, target, buffer);
}

#[cfg(target_arch = "aarch64")]
#[target_feature(enable = "neon")]
fn neon<T: Element>(simd: Neon, launch: &Launch<'_, T>, next: &AtomicUsize, target: &Target<T>, buffer: &mut Buffer) {
    loop_over_items(Blocked::<_, 8, 3>(Floats(simd)), launch, next, target, buffer);
}

#[inline(always)]
fn loop_over_items<K: StripKernel, T: Element>(
    kernel: K,
    launch: &Launch<'_, T>,
    next: &AtomicUsize,
    target: &Target<T>,
    buffer: &mut Buffer,
) {
    while let Some(item) = launch.schedule.items().get(next.fetch_add(1, Ordering::Relaxed)) {
        if item.partial_slot == WorkItem::WHOLE {
            item::run(kernel, launch, item, buffer, &mut WholeSink { target, item });
        } else {
            item::run(kernel, launch, item, buffer, &mut PartialSink { target, item });
        }
    }
}

/// Writes rows of a whole item to the output.
struct WholeSink<'a, T> {
    target: &'a Target<T>,
    item: &'a WorkItem,
}

impl<T: Element> Sink for WholeSink<'_, T> {
    #[inline(always)]
    fn write(&mut self, row: usize, channels: &[f32], _: f32, sum: f32) {
        let (item, shape) = (self.item, self.target.shape);
        let token = item.query_start as usize + row;
        let offset = shape.offset(item.batch as usize, token, item.head as usize);
        assert!(channels.len() == shape.head_dim && offset + shape.head_dim <= shape.len());
        // SAFETY: inside the output by the assertion; no other item writes this token and head.
        let target = unsafe { std::slice::from_raw_parts_mut(self.target.output.0.add(offset), shape.head_dim) };
        T::narrow_times(channels, normalisation(sum), target);
    }
}

/// Writes rows of a part of a split item to its slot: `head_dim` channels, maximum and sum per row.
struct PartialSink<'a, T> {
    target: &'a Target<T>,
    item: &'a WorkItem,
}

impl<T: Element> Sink for PartialSink<'_, T> {
    #[inline(always)]
    fn write(&mut self, row: usize, channels: &[f32], maximum: f32, sum: f32) {
        let row_len = channels.len() + 2;
        assert!((row + 1) * row_len <= self.target.slot_len);
        let offset = self.item.partial_slot as usize * self.target.slot_len + row * row_len;
        // SAFETY: inside the item's slot by the assertion; the schedule numbers `partial_slots` slots and gives each to
        // one item.
        let target = unsafe { std::slice::from_raw_parts_mut(self.target.partial.0.add(offset), row_len) };
        target[..channels.len()].copy_from_slice(channels);
        (target[channels.len()], target[channels.len() + 1]) = (maximum, sum);
    }
}

/// What turns sums of values into the result: 0 where no key was visible.
#[inline(always)]
fn normalisation(sum: f32) -> f32 {
    if sum == 0.0 { 0.0 } else { 1.0 / sum }
}

/// Combines the parts of one query tile: `Σ_i 2^(m_i − m) O_i / Σ_i 2^(m_i − m) l_i` with `m = max m_i`.
fn combine<T: Element>(reduction: &Reduction, partial: &[f32], slot_len: usize, shape: OutputShape, output: &mut [T]) {
    let row_len = shape.head_dim + 2;
    let mut channels = vec![0f32; shape.head_dim];
    for row in 0..reduction.query_len as usize {
        let slots = reduction.first_slot as usize..(reduction.first_slot + reduction.slots) as usize;
        let parts = slots.map(|slot| partial[slot * slot_len + row * row_len..][..row_len].split_at(shape.head_dim));
        let maximum = parts.clone().fold(f32::NEG_INFINITY, |maximum, (_, state)| maximum.max(state[0]));
        channels.fill(0.0);
        let mut sum = 0.0;
        // A part without a visible key has sum 0 and is left out, so that `−∞ − −∞` never comes up.
        for (part, state) in parts.filter(|(_, state)| state[1] != 0.0) {
            let weight = (state[0] - maximum).exp2();
            sum += weight * state[1];
            channels.iter_mut().zip(part).for_each(|(channel, part)| *channel += weight * part);
        }
        let token = reduction.query_start as usize + row;
        let offset = shape.offset(reduction.batch as usize, token, reduction.head as usize);
        T::narrow_times(&channels, normalisation(sum), &mut output[offset..offset + shape.head_dim]);
    }
}
