//! How a kernel is launched.

/// Grid, block and the order in which threads and blocks take turns.
#[derive(Clone, Copy, Debug)]
pub struct Launch {
    pub grid: [u32; 3],
    pub block: [u32; 3],
    /// Dynamic shared memory.
    pub shared_bytes: usize,
    /// 0: ascending; 1: descending; otherwise the seed of a random order, in which TMA loads arrive at random too.
    pub order: u64,
}
