//! Descriptors that say when there are records, or room.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;

use pyo3::prelude::*;

use crate::error::check;
use crate::ffi;
use crate::info::choice;
use crate::interpreter::{ended, without_lock};
use crate::ring::Ring;

/// A descriptor for event loops: armed, it becomes readable once as many records are readable, or writable, as were asked for.
#[pyclass(frozen, module = "gpumailbox")]
pub struct Watch {
    ring: Arc<Ring>,
    watch: ffi::gmb_watch,
    descriptor: Option<Arc<OwnedFd>>,
}

impl Watch {
    pub fn new(ring: &Arc<Ring>, interest: &str, reader: u32) -> PyResult<Self> {
        let mut watch = ffi::gmb_watch { id: 0 };
        let interest = choice("interest", interest, &["readable", "writable"])?;
        // SAFETY: it writes a handle.
        check(unsafe { ffi::gmb_watch_create(ring.handle()?, interest, reader, &mut watch) })?;
        let mut made = Self { ring: Arc::clone(ring), watch, descriptor: None };
        let mut descriptor = -1;
        // SAFETY: it writes a number.
        check(unsafe { ffi::gmb_watch_get_fd(watch, &mut descriptor) })?;
        // SAFETY: the caller's own.
        let descriptor = Arc::new(unsafe { OwnedFd::from_raw_fd(descriptor) });
        ring.watch(&descriptor);
        made.descriptor = Some(descriptor);
        Ok(made)
    }
}

#[pymethods]
impl Watch {
    /// Not readable again until that is so.
    #[pyo3(signature = (count = 1))]
    fn arm(&self, count: u32) -> PyResult<()> {
        self.ring.handle()?;
        // SAFETY: checked by the library.
        check(unsafe { ffi::gmb_watch_arm(self.watch, count) })?;
        Ok(())
    }

    /// The descriptor, which stays the watch's.
    fn fileno(&self) -> i32 {
        self.descriptor.as_ref().map_or(-1, |descriptor| descriptor.as_raw_fd())
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if !ended() {
            let watch = self.watch;
            // SAFETY: nobody has it any more.
            without_lock(|| unsafe { ffi::gmb_watch_destroy(watch) });
        }
    }
}
