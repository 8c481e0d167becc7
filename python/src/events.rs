//! Points in streams.

use std::sync::Arc;

use pyo3::prelude::*;

use crate::context::ContextHandle;
use crate::error::check;
use crate::ffi;
use crate::streams::{self, raw};
use crate::waiting::{limit, patiently};

/// An event of the library; dropped, it returns to its pool.
pub struct Point(ffi::gmb_event);

impl Point {
    fn new(context: ffi::gmb_context, kind: i32) -> PyResult<Self> {
        let mut event = ffi::gmb_event { id: 0 };
        // SAFETY: it writes a handle.
        check(unsafe { ffi::gmb_event_create(context, kind, &mut event) })?;
        Ok(Self(event))
    }

    /// Where what the stream holds now is done.
    pub fn of(context: &ContextHandle, stream: usize) -> PyResult<Self> {
        let made = Self::new(context.handle_at_end(), ffi::GMB_EVENT_UNTIMED)?;
        made.record(stream)?;
        Ok(made)
    }

    fn record(&self, stream: usize) -> PyResult<()> {
        // SAFETY: checked by the library.
        check(unsafe { ffi::gmb_event_record(self.0, raw(stream)) }).map(drop)
    }

    /// Later work of the stream comes after it.
    pub fn precede(&self, context: ffi::gmb_context, stream: usize) -> PyResult<()> {
        // SAFETY: checked by the library.
        check(unsafe { ffi::gmb_stream_wait_event(context, raw(stream), self.0) }).map(drop)
    }

    fn query(&self) -> i32 {
        // SAFETY: checked by the library.
        unsafe { ffi::gmb_event_query(self.0) }
    }

    pub fn is_past(&self) -> bool {
        self.query() == 0
    }

    /// Blocks until it is, or time is over; the status.
    pub fn wait(&self, nanoseconds: u64) -> i32 {
        // SAFETY: checked by the library.
        unsafe { ffi::gmb_event_synchronize(self.0, nanoseconds) }
    }
}

impl Drop for Point {
    fn drop(&mut self) {
        // SAFETY: nobody has it any more.
        unsafe { ffi::gmb_event_destroy(self.0) };
    }
}

/// Later work of `then` comes after what `first` holds now.
pub fn order(context: &ContextHandle, first: usize, then: usize) -> PyResult<()> {
    Point::of(context, first)?.precede(context.handle_at_end(), then)
}

/// A point in a stream.
#[pyclass(frozen, module = "gpumailbox")]
pub struct Event {
    pub point: Point,
    // After the event, which is the context's.
    context: Arc<ContextHandle>,
}

impl Event {
    pub fn new(context: &Arc<ContextHandle>, timed: bool) -> PyResult<Self> {
        let kind = if timed { ffi::GMB_EVENT_TIMED } else { ffi::GMB_EVENT_UNTIMED };
        Ok(Self { point: Point::new(context.handle()?, kind)?, context: Arc::clone(context) })
    }
}

#[pymethods]
impl Event {
    /// It stands for what the stream holds now.
    #[pyo3(signature = (stream = None))]
    fn record(&self, py: Python<'_>, stream: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        self.point.record(streams::resolve(py, &self.context, stream)?)
    }

    /// Whether that is done. Does not block.
    fn query(&self) -> PyResult<bool> {
        Ok(check(self.point.query())? == 0)
    }

    /// Blocks until that is done, for at most `timeout` seconds.
    #[pyo3(signature = (timeout = None))]
    fn synchronize(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<()> {
        patiently(py, limit(timeout)?, |left| self.point.wait(left)).map(drop)
    }

    /// Milliseconds between two timed events that are done.
    fn elapsed_ms(&self, end: &Event) -> PyResult<f64> {
        let mut milliseconds = 0.0;
        // SAFETY: it writes a number.
        check(unsafe { ffi::gmb_event_elapsed_ms(self.point.0, end.point.0, &mut milliseconds) })?;
        Ok(milliseconds)
    }
}
