//! What the allocator does with freed memory.

/// Keeps it. The allocator of glibc gives large blocks back to the system at once, so that the tensors of every chunk would
/// be met as fresh memory, page by page: a tenth of the time of a prediction (`BENCHMARKS.md`). What is kept is used by the next chunk.
pub(crate) fn keep_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: sets two numbers of the allocator. A value that it refuses leaves it as it was.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 1 << 30);
        libc::mallopt(libc::M_TRIM_THRESHOLD, libc::c_int::MAX);
    }
}
