//! Locks.

use std::sync::{Mutex, MutexGuard};

/// Waits for a lock, poisoned or not. What a mutex of this crate holds is complete whenever code that may panic runs, so
/// that a thread that panicked has left nothing half done.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
