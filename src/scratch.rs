//! Memory that a thread keeps from one piece of work to the next: fresh pages would cost a fault each.

use std::cell::RefCell;

/// One cache line, so that buffers start on a line and their vectors never straddle two.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(64))]
struct Line([f32; 16]);

/// A buffer of f32 that grows and is never cleared: its numbers are whatever was there before.
#[derive(Default)]
pub(crate) struct Buffer {
    lines: Vec<Line>,
}

/// A buffer larger than this is given back after use.
const KEEP_BYTES: usize = 64 << 20;

impl Buffer {
    /// The first `len` numbers.
    pub(crate) fn of(&mut self, len: usize) -> &mut [f32] {
        let lines = len.div_ceil(16);
        if self.lines.len() < lines {
            self.lines.resize(lines, Line([0.0; 16]));
        }
        &mut bytemuck::cast_slice_mut(&mut self.lines)[..len]
    }

    fn trim(&mut self) {
        if size_of_val(self.lines.as_slice()) > KEEP_BYTES {
            self.lines = Vec::new();
        }
    }
}

thread_local! {
    static ITEM: RefCell<Buffer> = const { RefCell::new(Buffer { lines: Vec::new() }) };
    static ROTATED: RefCell<Buffer> = const { RefCell::new(Buffer { lines: Vec::new() }) };
    static WEIGHT: RefCell<Buffer> = const { RefCell::new(Buffer { lines: Vec::new() }) };
    static NEXT_WEIGHT: RefCell<Buffer> = const { RefCell::new(Buffer { lines: Vec::new() }) };
    static ROWS: RefCell<Buffer> = const { RefCell::new(Buffer { lines: Vec::new() }) };
    static HIDDEN: RefCell<Buffer> = const { RefCell::new(Buffer { lines: Vec::new() }) };
}

/// What a buffer is for: the first two are in use at the same time on the thread that starts a launch of attention, the others
/// on one that starts linear layers.
#[derive(Clone, Copy)]
pub(crate) enum Purpose {
    /// The tiles of a work item.
    Item,
    /// The rotated keys of a launch.
    RotatedKeys,
    /// The weight of a linear layer.
    Weight,
    /// That of the layer behind it.
    NextWeight,
    /// A block of a linear layer's rows.
    Rows,
    /// A block of rows between two layers.
    Hidden,
}

/// Lends this thread's buffer. A nested loan for the same purpose gets a fresh one.
pub(crate) fn with<R>(purpose: Purpose, body: impl FnOnce(&mut Buffer) -> R) -> R {
    let slot = match purpose {
        Purpose::Item => &ITEM,
        Purpose::RotatedKeys => &ROTATED,
        Purpose::Weight => &WEIGHT,
        Purpose::NextWeight => &NEXT_WEIGHT,
        Purpose::Rows => &ROWS,
        Purpose::Hidden => &HIDDEN,
    };
    slot.with(|slot| match slot.try_borrow_mut() {
        Ok(mut buffer) => {
            let result = body(&mut buffer);
            buffer.trim();
            result
        }
        Err(_) => body(&mut Buffer::default()),
    })
}
