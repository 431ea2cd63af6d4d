//! [`lock`]: locks a mutex, also where an earlier holder has panicked.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks a mutex, and ignores that it may be poisoned. No code of this crate panics halfway through a change under a
/// lock, so the value is whole.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
