//! Records where they lie, and descriptors that say when there are some.

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::array::{Array, Keeper, Kind, Layout};
use crate::context::{ended, without_lock};
use crate::error::{check, status};
use crate::ffi;
use crate::shared::{Lent, Shared};
use crate::streams::{self, raw};

/// Records where they lie.
#[pyclass(frozen, module = "gpumailbox")]
pub struct View {
    pub inner: Arc<Shared>,
    pub borrow: ffi::gmb_borrow,
    pub stream: usize,
    pub lent: Lent,
    pub kind: Kind,
    pub popped: ffi::gmb_result,
    pub spans: ffi::gmb_spans,
}

// SAFETY: handles, numbers and addresses.
unsafe impl Send for View {}
// SAFETY: as above.
unsafe impl Sync for View {}

impl View {
    fn end(&self, stream: usize) -> PyResult<()> {
        if !self.lent.release() || ended() {
            return Ok(());
        }
        // SAFETY: checked by the library.
        check(unsafe { ffi::gmb_borrow_release(self.borrow, raw(stream)) })?;
        Ok(())
    }
}

#[pymethods]
impl View {
    /// One array of all records, or two where they lie around the ring's end; none for no records.
    #[getter]
    fn arrays(&self) -> PyResult<Vec<Array>> {
        if self.lent.is_released() {
            return Err(status(
                ffi::GMB_ERROR_INVALID_HANDLE,
                "the records were released: they are the mailbox's again",
            ));
        }
        let spans = self.spans.records.iter().zip(self.spans.count).filter(|(_, count)| *count > 0);
        Ok(spans
            .map(|(at, count)| Array {
                context: Arc::clone(&self.inner.context),
                stream: self.stream,
                layout: Layout::records(*at as u64, &self.kind, count, u64::from(self.spans.stride)),
                keeper: Keeper::Mailbox(self.lent.clone()),
                result: ffi::gmb_result { count, ..self.popped },
                headers: None,
            })
            .collect())
    }

    /// Records of all arrays.
    fn __len__(&self) -> usize {
        self.popped.count as usize
    }

    /// Gives the records back when the stream's work up to here is done. Twice is once.
    #[pyo3(signature = (stream = None))]
    fn release(&self, py: Python<'_>, stream: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        let stream = match stream {
            Some(_) => streams::resolve(py, &self.inner.context, stream)?,
            None => self.stream,
        };
        self.end(stream)
    }

    fn __enter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    #[pyo3(signature = (*_ended))]
    fn __exit__(&self, _ended: &Bound<'_, PyTuple>) -> PyResult<()> {
        self.end(self.stream)
    }
}

impl Drop for View {
    fn drop(&mut self) {
        let _ = self.end(self.stream);
    }
}

/// A descriptor for event loops: armed, it becomes readable once as many records are readable, or writable, as were asked for.
#[pyclass(frozen, module = "gpumailbox")]
pub struct Watch {
    pub inner: Arc<Shared>,
    pub watch: ffi::gmb_watch,
    pub descriptor: Option<Arc<OwnedFd>>,
}

#[pymethods]
impl Watch {
    /// Not readable again until that is so.
    #[pyo3(signature = (count = 1))]
    fn arm(&self, count: u32) -> PyResult<()> {
        self.inner.handle()?;
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
