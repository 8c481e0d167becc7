//! Descriptors that say when there are records, room, or answers.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;

use pyo3::prelude::*;

use crate::error::check;
use crate::ffi;
use crate::interpreter::{ended, without_lock};

/// What a watch looks at, and keeps.
pub trait Watched: Send + Sync {
    /// Raises once it is closed.
    fn check_open(&self) -> PyResult<()>;

    /// A watch's descriptor, for what does not end at once when it is closed.
    fn watched_by(&self, _descriptor: &Arc<OwnedFd>) {}
}

/// A descriptor for event loops: armed, it becomes readable once as many records are readable, or writable, or as many answers
/// there, as were asked for.
#[pyclass(frozen, module = "gpumailbox")]
pub struct Watch {
    of: Arc<dyn Watched>,
    watch: ffi::gmb_watch,
    descriptor: Option<Arc<OwnedFd>>,
}

impl Watch {
    /// `make` writes the handle.
    pub fn new(of: Arc<dyn Watched>, make: impl FnOnce(*mut ffi::gmb_watch) -> i32) -> PyResult<Self> {
        of.check_open()?;
        let mut watch = ffi::gmb_watch { id: 0 };
        check(make(&mut watch))?;
        let mut made = Self { of, watch, descriptor: None };
        let mut descriptor = -1;
        // SAFETY: it writes a number.
        check(unsafe { ffi::gmb_watch_get_fd(watch, &mut descriptor) })?;
        // SAFETY: the caller's own.
        let descriptor = Arc::new(unsafe { OwnedFd::from_raw_fd(descriptor) });
        made.of.watched_by(&descriptor);
        made.descriptor = Some(descriptor);
        Ok(made)
    }
}

#[pymethods]
impl Watch {
    /// Not readable again until that is so.
    #[pyo3(signature = (count = 1))]
    fn arm(&self, count: u32) -> PyResult<()> {
        self.of.check_open()?;
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
