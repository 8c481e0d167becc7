//! Records where they lie.

use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::array::{Array, Keeper};
use crate::elements::Layout;
use crate::error::check;
use crate::ffi;
use crate::interpreter::ended;
use crate::records::Kind;
use crate::ring::{Lent, Ring};
use crate::streams::{self, raw};
use crate::token::{result, EMPTY};
use crate::waiting::patiently;

/// Records where they lie.
#[pyclass(frozen, module = "gpumailbox")]
pub struct View {
    ring: Arc<Ring>,
    borrow: ffi::gmb_borrow,
    stream: usize,
    lent: Lent,
    kind: Kind,
    popped: ffi::gmb_result,
    spans: ffi::gmb_spans,
}

// SAFETY: handles, numbers and addresses.
unsafe impl Send for View {}
// SAFETY: as above.
unsafe impl Sync for View {}

impl View {
    /// Of the next records, at most `max`; blocks until it is known how many there are.
    pub fn new(
        py: Python<'_>,
        ring: &Arc<Ring>,
        kind: &Kind,
        max: u32,
        reader: u32,
        stream: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let handle = ring.handle()?;
        let stream = streams::resolve(py, &ring.context, stream)?;
        let lent = Lent::new(ring);
        let mut borrow = ffi::gmb_borrow { id: 0 };
        // SAFETY: it writes a handle.
        check(unsafe { ffi::gmb_mailbox_borrow(handle, reader, max, raw(stream), &mut borrow) })?;
        // SAFETY: numbers and addresses only.
        let (mut popped, mut spans): (_, ffi::gmb_spans) = (EMPTY, unsafe { std::mem::zeroed() });
        let (popped_at, spans_at) =
            (&mut popped as *mut ffi::gmb_result as usize, &mut spans as *mut _ as usize);
        let waited = patiently(py, None, move |left| {
            // SAFETY: both are this function's.
            unsafe { ffi::gmb_borrow_wait(borrow, left, popped_at as *mut _, spans_at as *mut _) }
        })
        .and_then(|_| result(popped));
        let view = Self { ring: Arc::clone(ring), borrow, stream, lent, kind: kind.clone(), popped, spans };
        // Dropped, it releases what it has.
        waited.map(|_| view)
    }

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
        self.lent.check()?;
        let spans = self.spans.records.iter().zip(self.spans.count).filter(|(_, count)| *count > 0);
        Ok(spans
            .map(|(at, count)| Array {
                context: Arc::clone(&self.ring.context),
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
            Some(_) => streams::resolve(py, &self.ring.context, stream)?,
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
