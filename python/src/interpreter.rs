//! The interpreter's lock, and its end.

use std::cell::Cell;
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

thread_local! {
    /// Whether this thread of the library is in a function that takes a kernel's place.
    static IN_BLOCK: Cell<bool> = const { Cell::new(false) };
}

/// Calls a function that takes a kernel's place.
pub fn in_block<T>(work: impl FnOnce() -> T) -> T {
    let before = IN_BLOCK.replace(true);
    let done = work();
    IN_BLOCK.set(before);
    done
}

/// Runs what waits for the device without the interpreter's lock, and not where the device waits for this thread: whatever is
/// collected as garbage may end there.
pub fn apart(work: impl FnOnce() + Send + 'static) {
    if IN_BLOCK.get() {
        std::thread::spawn(work);
    } else {
        without_lock(work);
    }
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

thread_local! {
    /// How many times this thread holds the end up.
    static HOLDS: Cell<u32> = const { Cell::new(0) };
}

pub struct HeldUp {
    _guard: Option<RwLockReadGuard<'static, ()>>,
}

/// For as long as this is held, the end does not begin. A thread may hold it up several times: what one ends may end more.
pub fn hold_up_end() -> HeldUp {
    let before = HOLDS.get();
    let guard = (before == 0).then(|| ENDING.read().unwrap_or_else(|p| p.into_inner()));
    HOLDS.set(before + 1);
    HeldUp { _guard: guard }
}

impl Drop for HeldUp {
    fn drop(&mut self) {
        HOLDS.set(HOLDS.get() - 1);
    }
}

/// Goes to where there is no interpreter's lock: addresses of what this thread has.
pub struct Carried<T>(T);

// SAFETY: the thread stays the same one.
unsafe impl<T> Send for Carried<T> {}

impl<T> Carried<T> {
    pub fn new(what: T) -> Self {
        Self(what)
    }

    pub fn get(&mut self) -> &mut T {
        &mut self.0
    }
}

pub fn ended() -> bool {
    ENDED.load(Ordering::Acquire)
}
