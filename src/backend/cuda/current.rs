//! The thread's current context: made ours for a call, or for several, and put back.

use std::cell::Cell;
use std::ptr::null_mut;

use cudarc::driver::sys;

use super::errors::{check, lost};
use super::Cuda;
use crate::error::Result;

thread_local! {
    /// Whose scope this thread is in.
    static INSIDE: Cell<*const Cuda> = const { Cell::new(std::ptr::null()) };
}

/// Makes the context current for as long as it lives, then restores what was.
pub(super) struct Current {
    pushed: bool,
}

impl Drop for Current {
    fn drop(&mut self) {
        if self.pushed {
            let mut popped = null_mut();
            // SAFETY: this thread pushed a context when the guard was made.
            let _ = unsafe { sys::cuCtxPopCurrent_v2(&mut popped) };
        }
    }
}

/// Takes the thread's topmost context off; one was entered.
pub(in crate::backend) fn leave_context() {
    let mut popped = null_mut();
    // SAFETY: whoever entered a context has found the driver.
    let _ = unsafe { sys::cuCtxPopCurrent_v2(&mut popped) };
}

/// Several calls with the context current.
pub(in crate::backend) struct Scope {
    outer: *const Cuda,
    _current: Current,
}

impl Drop for Scope {
    fn drop(&mut self) {
        INSIDE.set(self.outer);
    }
}

impl Cuda {
    /// Makes the context current unless it is.
    pub(super) fn enter(&self) -> Result<Current> {
        if INSIDE.get() == std::ptr::from_ref(self) {
            return Ok(Current { pushed: false });
        }
        self.enter_again(false)
    }

    /// As `enter`; `again` pushes it also where it is current.
    pub(super) fn enter_again(&self, again: bool) -> Result<Current> {
        if let Some(cause) = self.lost.get() {
            return Err(lost(cause));
        }
        let mut current = null_mut();
        // SAFETY: the pointer is valid.
        self.check(unsafe { sys::cuCtxGetCurrent(&mut current) }, "cuCtxGetCurrent")?;
        let pushed = again || current != self.context;
        if pushed {
            // SAFETY: the primary context is retained.
            match unsafe { sys::cuCtxPushCurrent_v2(self.context) } {
                // Retained, and yet no context: somebody has reset the device.
                sys::CUresult::CUDA_ERROR_INVALID_CONTEXT => return self.gone(),
                result => self.check(result, "cuCtxPushCurrent")?,
            }
        }
        let entered = Current { pushed };
        if id_of(self.context).is_ok_and(|id| id == self.context_id) {
            return Ok(entered);
        }
        self.gone()
    }

    /// Makes the context current until the scope ends; what `enter` asks the driver is asked once.
    pub(super) fn scope(&self) -> Result<Option<Scope>> {
        if INSIDE.get() == std::ptr::from_ref(self) {
            return Ok(None);
        }
        let current = self.enter_again(false)?;
        let outer = INSIDE.replace(self);
        Ok(Some(Scope { outer, _current: current }))
    }

    /// The device was reset: all that was made in the context is gone, whatever its handle names now.
    fn gone<T>(&self) -> Result<T> {
        let destroyed = sys::CUresult::CUDA_ERROR_CONTEXT_IS_DESTROYED;
        self.check(destroyed, "the primary context was reset: a call")?;
        Err(lost("the primary context was reset"))
    }
}

/// What no context made later has.
pub(super) fn id_of(context: sys::CUcontext) -> Result<u64> {
    let mut id = 0;
    // SAFETY: a primary context, which stays a name that the driver knows; the pointer is valid.
    check(unsafe { sys::cuCtxGetId(context, &mut id) }, "cuCtxGetId")?;
    Ok(id)
}
