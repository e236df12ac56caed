//! Every reader of the library on its seeds and on changes of them: no panic, no hang, and no more memory than a multiple of
//! the input. `FUZZ_SECONDS=120 cargo test --release --test fuzz_seeds` gives each two minutes; `fuzz/README.md` says more.

#[path = "../fuzz/src/readers.rs"]
mod readers;
#[path = "../fuzz/src/seeds.rs"]
mod seeds;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// The system's allocator, with a count of the bytes in use.
struct Counting;

static IN_USE: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator as it came; counting touches no memory that is handed out.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let used = IN_USE.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        MOST.fetch_max(used, Ordering::Relaxed);
        // SAFETY: the caller keeps the rules of `alloc`, which are the same there.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        IN_USE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the pointer came from `alloc` above, and so from there.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Bytes that any small input may cost; a network that its own description asks for is made of them.
const MOST_BYTES: usize = 512 << 20;

/// Bytes that each byte of input may cost on top.
const MOST_PER_BYTE: usize = 256;

/// What a small input may take, on a busy machine.
const LONGEST: Duration = Duration::from_secs(20);

#[test]
fn no_input_stops_a_reader() {
    for (name, read) in readers::READERS {
        let count = seeds::run(name, |bytes| {
            let (before, start) = (IN_USE.load(Ordering::Relaxed), Instant::now());
            MOST.store(before, Ordering::Relaxed);
            read(bytes);
            let taken = MOST.load(Ordering::Relaxed) - before;
            let allowed = MOST_BYTES + MOST_PER_BYTE * bytes.len();
            let input = || bytes[..bytes.len().min(2000)].escape_ascii();
            assert!(taken <= allowed, "{name} took {taken} bytes for {} bytes: {}", bytes.len(), input());
            assert!(start.elapsed() < LONGEST, "{name} took {:?} for: {}", start.elapsed(), input());
        });
        println!("{name}: {count} inputs");
    }
}
