//! Functions of Python that enqueue an operation's work, called by a coordinator on the thread that queues it.

use std::cell::RefCell;
use std::ffi::c_void;
use std::sync::{Arc, Mutex};

use pyo3::prelude::*;
use pyo3::types::PyTuple;
use pyo3::IntoPyObjectExt;

use crate::context::ContextHandle;
use crate::error::CALLBACK;
use crate::keeping::Kept;
use crate::launch::Raised;
use crate::streams::{Stream, StreamGuard};
use crate::{ffi, lock, triple};

thread_local! {
    /// What this thread is in just now.
    static INSIDE: RefCell<Vec<Arc<Calling>>> = const { RefCell::new(Vec::new()) };
}

/// An operation whose function is being called.
pub struct Calling {
    context: usize,
    stream: usize,
    pub raised: Arc<Raised>,
    kept: Mutex<Vec<Kept>>,
}

impl Calling {
    /// Until the operation is done.
    pub fn keep(&self, more: Vec<Kept>) {
        lock(&self.kept).extend(more);
    }
}

fn which(context: &Arc<ContextHandle>) -> usize {
    Arc::as_ptr(context) as usize
}

/// The operation that work of this thread on a stream is part of, if there is one.
pub fn on(context: &Arc<ContextHandle>, stream: usize) -> Option<Arc<Calling>> {
    let mine = |it: &&Arc<Calling>| it.context == which(context) && it.stream == stream;
    INSIDE.with(|inside| inside.borrow().iter().rev().find(mine).cloned())
}

/// A call that is to come. It stays where it is: the library has its address.
pub struct Call {
    pub function: Py<PyAny>,
    pub context: Arc<ContextHandle>,
    pub stream: Py<Stream>,
    pub address: usize,
    pub triple: Option<Arc<triple::Core>>,
    pub calling: Arc<Calling>,
}

impl Call {
    pub fn calling(context: &Arc<ContextHandle>, stream: usize, raised: &Arc<Raised>) -> Arc<Calling> {
        let (context, raised) = (which(context), Arc::clone(raised));
        Arc::new(Calling { context, stream, raised, kept: Mutex::default() })
    }

    /// What has to be kept of it.
    pub fn kept(&self) -> Vec<Kept> {
        std::mem::take(&mut lock(&self.calling.kept))
    }

    fn run(&self, py: Python<'_>, address: u64) -> PyResult<Py<PyAny>> {
        let stream = self.stream.bind(py);
        let mut all = vec![stream.clone().into_any()];
        if let Some(triple) = &self.triple {
            all.push(triple.array(address, self.address).into_bound_py_any(py)?);
        }
        let device = self.context.cuda.then_some(self.context.device);
        let guard = StreamGuard::new(&self.context, stream)?;
        let given = (guard, self.address, device, &self.function, PyTuple::new(py, all)?);
        let call = py.import("gpumailbox._calls")?.getattr("call_on")?;
        Ok(call.call1(given)?.unbind())
    }
}

struct Inside;

impl Drop for Inside {
    fn drop(&mut self) {
        INSIDE.with(|inside| inside.borrow_mut().pop());
    }
}

/// What the library calls.
pub unsafe extern "C" fn enqueue(_: ffi::gmb_stream, address: *mut c_void, user: *mut c_void) -> i32 {
    // SAFETY: a call, which is there until the library's call returns.
    let call = unsafe { &*user.cast::<Call>() };
    INSIDE.with(|inside| inside.borrow_mut().push(Arc::clone(&call.calling)));
    let _inside = Inside;
    Python::attach(|py| match call.run(py, address as u64) {
        Ok(given) => {
            call.calling.keep(vec![Box::new(given)]);
            0
        }
        Err(error) => {
            let told = error.value(py).getattr("status").and_then(|status| status.extract::<i32>());
            call.calling.raised.set(error);
            // A late one would look as if the operation were not done.
            let status = told.ok().filter(|&status| status < 0 && status != ffi::GMB_ERROR_TIMEOUT);
            status.unwrap_or(CALLBACK)
        }
    })
}
