//! The interpreter's lock, and its end.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{RwLock, RwLockReadGuard};

use pyo3::prelude::*;

/// Runs what may wait for other threads without the interpreter's lock, if this thread has it.
pub fn without_lock<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    // SAFETY: a question; without an interpreter nobody holds its lock.
    if unsafe { pyo3::ffi::Py_IsInitialized() } == 0
        || unsafe { pyo3::ffi::PyGILState_GetThisThreadState() }.is_null()
    {
        return work();
    }
    Python::attach(|py| py.detach(work))
}

static ENDED: AtomicBool = AtomicBool::new(false);

/// Held by whoever ends a tensor on a thread of the library, and by the end of the interpreter.
static ENDING: RwLock<()> = RwLock::new(());

/// The interpreter is about to end: from here on nothing is given back, for whoever made it may not be called any more.
/// What is being ended is waited for. Not with the interpreter's lock.
pub fn end() {
    let _last = ENDING.write().unwrap_or_else(|p| p.into_inner());
    ENDED.store(true, Ordering::Release);
}

/// For as long as this is held, the end does not begin.
pub fn hold_up_end() -> RwLockReadGuard<'static, ()> {
    ENDING.read().unwrap_or_else(|p| p.into_inner())
}

pub fn ended() -> bool {
    ENDED.load(Ordering::Acquire)
}
