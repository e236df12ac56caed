//! Runs the work items of a launch on the thread pool.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::item;
use super::kernel::Blocked;
use super::operands::Operands;
use super::output::{Results, Target, combine};
use crate::element::Element;
use crate::scratch::{self, Buffer, Purpose};
use crate::simd::{SimdLevel, Task, Words, dispatch};

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
    // The buffer is lent outside of the task: a closure that the compiler does not inline would be compiled without the
    // instructions.
    scratch::with(Purpose::Item, |buffer| dispatch(level, T::DTYPE, Items { operands, next, target, buffer }));
}

/// The items that a thread takes.
struct Items<'a, 'o, T> {
    operands: &'a Operands<'o, T>,
    next: &'a AtomicUsize,
    target: &'a Target<'o, T>,
    buffer: &'a mut Buffer,
}

impl<T: Element> Task for Items<'_, '_, T> {
    type Output = ();

    #[inline(always)]
    fn run<W: Words, const ROWS: usize, const VECTORS: usize>(self, words: W) {
        let kernel = Blocked::<W, ROWS, VECTORS>(words);
        while let Some(item) = self.operands.schedule.items().get(self.next.fetch_add(1, Ordering::Relaxed)) {
            item::run(kernel, self.operands, item, self.buffer, self.target);
        }
    }
}
