//! An allocator that counts: what a call takes at most is then a number, and not luck.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    /// Bytes that this thread took and did not give back; below zero where it gave back those of another one.
    static IN_USE: Cell<isize> = const { Cell::new(0) };
    static MOST: Cell<isize> = const { Cell::new(0) };
}

/// The system's allocator with counts for each thread.
pub(super) struct Counting;

fn count(bytes: isize) {
    let used = IN_USE.get() + bytes;
    IN_USE.set(used);
    MOST.set(MOST.get().max(used));
}

// SAFETY: every call goes to the system's allocator as it came; counting touches no memory that is handed out, and the
// counts are initialised without an allocation.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller keeps the rules of `alloc`, which are the same there.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: as above. Zeroed pages cost nothing until they are touched, and count here all the same.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: the pointer came from `alloc` above, and so from there.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The most bytes that a call had in use at once on this thread.
pub(super) fn most_bytes(call: impl FnOnce()) -> usize {
    let before = IN_USE.get();
    MOST.set(before);
    call();
    usize::try_from(MOST.get() - before).unwrap_or(0)
}
