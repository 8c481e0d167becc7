//! A mailbox's handle, and who needs it.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::Arc;

use pyo3::prelude::*;

use crate::context::{ended, without_lock, Inner};
use crate::error::status;
use crate::ffi;

/// The handle, which goes with the last of those that need it.
pub struct Shared {
    pub context: Arc<Inner>,
    handle: AtomicU64,
    closed: AtomicBool,
    /// Arrays that lie in the ring.
    lent: AtomicUsize,
}

impl Shared {
    pub fn new(context: &Arc<Inner>, handle: ffi::gmb_mailbox) -> Self {
        Self {
            context: Arc::clone(context),
            handle: AtomicU64::new(handle.id),
            closed: AtomicBool::new(false),
            lent: AtomicUsize::new(0),
        }
    }

    pub fn handle(&self) -> PyResult<ffi::gmb_mailbox> {
        if self.closed.load(Ordering::Acquire) {
            return Err(status(ffi::GMB_ERROR_INVALID_HANDLE, "the mailbox is closed"));
        }
        self.context.handle()?;
        Ok(ffi::gmb_mailbox { id: self.handle.load(Ordering::Acquire) })
    }

    /// Later calls are refused; the ring ends when no array lies in it.
    pub fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        if self.lent.load(Ordering::SeqCst) == 0 {
            self.destroy();
        }
    }

    fn destroy(&self) {
        let id = self.handle.swap(0, Ordering::AcqRel);
        if id != 0 && !ended() {
            without_lock(|| {
                // SAFETY: taken out, so this is the only one.
                unsafe { ffi::gmb_mailbox_destroy(ffi::gmb_mailbox { id }) };
            });
        }
    }
}

/// For an array that lies in the ring: the ring stays as long as there is one, even when the records are given back.
pub struct Lent {
    of: Arc<Shared>,
    released: Arc<AtomicBool>,
}

impl Lent {
    pub fn new(of: &Arc<Shared>, released: &Arc<AtomicBool>) -> Self {
        of.lent.fetch_add(1, Ordering::SeqCst);
        Self { of: Arc::clone(of), released: Arc::clone(released) }
    }

    pub fn is_released(&self) -> bool {
        self.released.load(Ordering::Acquire)
    }
}

impl Clone for Lent {
    fn clone(&self) -> Self {
        Self::new(&self.of, &self.released)
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if self.of.lent.fetch_sub(1, Ordering::SeqCst) == 1 && self.of.closed.load(Ordering::SeqCst) {
            self.of.destroy();
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.destroy();
    }
}
