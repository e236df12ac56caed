//! Numbers that every rank can take and raise in one step, without the help of the rank that holds them.

use std::ffi::{c_int, c_void};
use std::ptr;

use anyhow::{Context, Result};
use mpi::ffi;
use mpi::raw::AsRaw;
use mpi::topology::{Communicator, SimpleCommunicator};
use mpi::traits::CommunicatorCollectives;

/// The rank that holds the numbers.
const HOLDER: c_int = 0;

/// Bytes of a number.
const WIDTH: usize = size_of::<u64>();

/// Numbers that begin at 0. Made and dropped by all ranks together.
pub(super) struct Counters {
    window: ffi::MPI_Win,
    count: usize,
}

impl Counters {
    /// So many numbers, the same on all ranks.
    ///
    /// # Errors
    /// More bytes than can be addressed.
    pub(super) fn new(world: &SimpleCommunicator, count: usize) -> Result<Self> {
        let held = if world.rank() == HOLDER { count } else { 0 };
        let bytes = held
            .checked_mul(WIDTH)
            .and_then(|bytes| ffi::MPI_Aint::try_from(bytes).ok())
            .context("too many counters")?;
        let (mut base, mut window) = (ptr::null_mut::<u64>(), unset());
        // SAFETY: the communicator is alive, and MPI writes one pointer and one handle to where these are. `base` is then
        // memory of `held` numbers, aligned for any type, that nobody else sees before the barrier; it is freed with the window.
        unsafe {
            let base = (&raw mut base).cast::<c_void>();
            ffi::MPI_Win_allocate(bytes, WIDTH as c_int, ffi::RSMPI_INFO_NULL, world.as_raw(), base, &raw mut window);
        }
        // SAFETY: as above; `held` is 0 where MPI gave no memory.
        unsafe {
            if held > 0 {
                ptr::write_bytes(base, 0, held);
            }
            ffi::MPI_Win_lock_all(0, window);
            ffi::MPI_Win_sync(window);
        }
        world.barrier();
        Ok(Self { window, count })
    }

    /// Adds one to a number, and returns what it was.
    pub(super) fn next(&self, at: usize) -> u64 {
        assert!(at < self.count, "counter {at} of {}", self.count);
        let (one, mut before) = (1_u64, 0_u64);
        // SAFETY: the window is open for all ranks and holds `count` numbers of 64 bits; both addresses are such numbers and
        // stay valid until the flush, which ends the operation.
        unsafe {
            let (one, before) = ((&raw const one).cast(), (&raw mut before).cast());
            ffi::MPI_Fetch_and_op(
                one,
                before,
                ffi::RSMPI_UINT64_T,
                HOLDER,
                at as ffi::MPI_Aint,
                ffi::RSMPI_SUM,
                self.window,
            );
            ffi::MPI_Win_flush(HOLDER, self.window);
        }
        before
    }
}

impl Drop for Counters {
    fn drop(&mut self) {
        // Other ranks do not come here while this one panics.
        if !std::thread::panicking() {
            // SAFETY: the window was made and locked by `new`, and is used by nobody afterwards.
            unsafe {
                ffi::MPI_Win_unlock_all(self.window);
                ffi::MPI_Win_free(&raw mut self.window);
            }
        }
    }
}

/// The handle of no window.
fn unset() -> ffi::MPI_Win {
    // SAFETY: a constant of the MPI library.
    unsafe { ffi::RSMPI_WIN_NULL }
}
