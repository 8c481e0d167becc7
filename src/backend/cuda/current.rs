//! The thread's current context: made ours for a call, or for several, and put back.

use std::cell::Cell;
use std::ffi::c_void;
use std::ptr::null_mut;

use cudarc::driver::sys;

use super::errors::{check, lost};
use super::Cuda;
use crate::backend::Entered;
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
            leave();
        }
    }
}

/// Takes the context off that this thread entered last.
pub(super) fn leave() {
    let mut popped = null_mut();
    // SAFETY: whoever entered a context has found the driver.
    let _ = unsafe { sys::cuCtxPopCurrent_v2(&mut popped) };
}

/// Ends a scope within another one's.
fn end_scope(outer: *const c_void) {
    INSIDE.set(outer.cast());
}

/// The same of one that has pushed the context.
fn end_pushed_scope(outer: *const c_void) {
    end_scope(outer);
    leave();
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
    pub(super) fn scope(&self) -> Result<Entered> {
        if INSIDE.get() == std::ptr::from_ref(self) {
            return Ok(Entered::already());
        }
        let current = self.enter_again(false)?;
        let end = if current.pushed { end_pushed_scope } else { end_scope };
        std::mem::forget(current);
        Ok(Entered::undone_by(end, INSIDE.replace(self).cast()))
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
