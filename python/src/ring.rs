//! A mailbox's ring, and who needs it.

use std::io::Write;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};

use pyo3::prelude::*;

use crate::context::ContextHandle;
use crate::error::closed;
use crate::interpreter::{ended, without_lock};
use crate::watch::Watched;
use crate::{ffi, lock};

/// It goes with the last of those that need it.
pub struct Ring {
    pub context: Arc<ContextHandle>,
    handle: AtomicU64,
    closed: AtomicBool,
    /// Views and arrays that lie in the ring.
    lent: AtomicUsize,
    /// Descriptors of its watches.
    watched: Mutex<Vec<Weak<OwnedFd>>>,
}

impl Ring {
    pub fn new(context: &Arc<ContextHandle>, handle: ffi::gmb_mailbox) -> Self {
        Self {
            context: Arc::clone(context),
            handle: AtomicU64::new(handle.id),
            closed: AtomicBool::new(false),
            lent: AtomicUsize::new(0),
            watched: Mutex::default(),
        }
    }

    pub fn handle(&self) -> PyResult<ffi::gmb_mailbox> {
        self.context.handle()?;
        if self.closed.load(Ordering::SeqCst) {
            return Err(closed("the mailbox is closed"));
        }
        Ok(ffi::gmb_mailbox { id: self.handle.load(Ordering::Acquire) })
    }

    /// Later calls are refused, and whoever waits is woken; the ring ends when nothing of it is out.
    pub fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        if self.lent.load(Ordering::SeqCst) == 0 {
            return self.destroy();
        }
        // The library wakes who watches when the handle ends, which may take a while.
        let watched = std::mem::take(&mut *lock(&self.watched));
        for descriptor in watched.iter().filter_map(Weak::upgrade) {
            if let Ok(own) = descriptor.try_clone() {
                let _ = std::fs::File::from(own).write(&1u64.to_ne_bytes());
            }
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

impl Watched for Ring {
    fn check_open(&self) -> PyResult<()> {
        self.handle().map(drop)
    }

    fn watched_by(&self, descriptor: &Arc<OwnedFd>) {
        let mut watched = lock(&self.watched);
        watched.retain(|known| known.strong_count() > 0);
        watched.push(Arc::downgrade(descriptor));
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        self.destroy();
    }
}

/// For a view and its arrays: the ring stays as long as there is one, also when the records are given back.
pub struct Lent {
    of: Arc<Ring>,
    released: Arc<AtomicBool>,
}

impl Lent {
    pub fn new(of: &Arc<Ring>) -> Self {
        Self::of(of, Arc::default())
    }

    fn of(of: &Arc<Ring>, released: Arc<AtomicBool>) -> Self {
        of.lent.fetch_add(1, Ordering::SeqCst);
        Self { of: Arc::clone(of), released }
    }

    /// Raises if the records were given back.
    pub fn check(&self) -> PyResult<()> {
        if self.released.load(Ordering::Acquire) {
            return Err(closed("the records were released: they are the mailbox's again"));
        }
        Ok(())
    }

    /// Whether this is the first time.
    pub fn release(&self) -> bool {
        !self.released.swap(true, Ordering::AcqRel)
    }
}

impl Clone for Lent {
    fn clone(&self) -> Self {
        Self::of(&self.of, Arc::clone(&self.released))
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if self.of.lent.fetch_sub(1, Ordering::SeqCst) == 1 && self.of.closed.load(Ordering::SeqCst) {
            self.of.destroy();
        }
    }
}
