//! Which stream a call is for.

use std::cell::RefCell;
use std::ffi::c_void;
use std::sync::{Arc, Mutex};

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyInt, PyTuple};

use crate::context::ContextHandle;
use crate::error::{argument, check, closed};
use crate::events::Event;
use crate::exchange::{self, Exchange};
use crate::{ffi, lock, operations};

thread_local! {
    /// This thread's guards that are in force.
    static GUARDS: RefCell<Vec<InForce>> = const { RefCell::new(Vec::new()) };
}

struct InForce {
    guard: u64,
    context: usize,
    stream: usize,
}

/// What tells contexts apart.
fn which(context: &ContextHandle) -> usize {
    std::ptr::from_ref(context) as usize
}

static TORCH_CURRENT: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
static TORCH_EXCHANGE: PyOnceLock<Option<&'static Exchange>> = PyOnceLock::new();
static MODULES: PyOnceLock<Py<PyDict>> = PyOnceLock::new();

/// PyTorch's own function for its current stream, if PyTorch is there and has CUDA.
fn torch_function(py: Python<'_>) -> PyResult<Option<&Py<PyAny>>> {
    if let Some(known) = TORCH_CURRENT.get(py) {
        return Ok(Some(known));
    }
    let modules = MODULES.get_or_try_init(py, || -> PyResult<_> {
        Ok(py.import("sys")?.getattr("modules")?.cast_into::<PyDict>()?.unbind())
    })?;
    // Half imported, it has not all of its parts yet.
    let Some(torch) = modules.bind(py).get_item("torch")? else { return Ok(None) };
    let Ok(found) = torch.getattr("_C").and_then(|c| c.getattr("_cuda_getCurrentRawStream")) else {
        return Ok(None);
    };
    Ok(Some(TORCH_CURRENT.get_or_init(py, || found.unbind())))
}

/// PyTorch's current stream of the device.
fn torch_current(py: Python<'_>, context: &ContextHandle) -> PyResult<Option<usize>> {
    let Some(current) = torch_function(py)? else { return Ok(None) };
    // The same without a call of Python, where PyTorch's tensors have an exchange.
    let exchange = TORCH_EXCHANGE.get_or_init(py, || {
        let torch = py.import("torch").and_then(|torch| torch.getattr("Tensor")).ok()?;
        exchange::look_up(&torch)
    });
    if let Some(told) = exchange.and_then(|api| api.current_stream(context)) {
        return Ok(Some(told));
    }
    current.call1(py, (context.device,))?.extract(py).map(Some)
}

/// Whether the stream's work is being captured, by PyTorch or by whomever.
pub fn is_capturing(context: &ContextHandle, stream: usize) -> PyResult<bool> {
    let (of, mut told) = (context.handle()?, 0);
    // SAFETY: it writes a number.
    check(unsafe { ffi::gmb_stream_is_capturing(of, raw(stream), &mut told) })?;
    Ok(told != 0)
}

/// The address of a stream: a number, or an object of PyTorch, CuPy, CUDA Python or this package.
pub fn address(stream: &Bound<'_, PyAny>) -> PyResult<usize> {
    if stream.is_instance_of::<PyInt>() {
        return stream.extract().map_err(|_| argument(format!("{stream} is no address of a stream")));
    }
    if let Ok(protocol) = stream.getattr("__cuda_stream__") {
        let told = if protocol.is_callable() { protocol.call0()? } else { protocol };
        let (version, stream): (i32, usize) = told.extract()?;
        if version != 0 {
            return Err(argument(format!(
                "the stream is of version {version} of its protocol, and 0 is known"
            )));
        }
        return Ok(stream);
    }
    for name in ["cuda_stream", "ptr"] {
        if let Ok(found) = stream.getattr(name).and_then(|found| found.extract::<usize>()) {
            return Ok(found);
        }
    }
    Err(argument(format!(
        "stream is of type {}: give an address, or a stream of PyTorch, CuPy, CUDA Python or this package",
        stream.get_type().name()?
    )))
}

/// The one that is asked for; else the guard's, PyTorch's current one, or the default stream.
pub fn resolve(
    py: Python<'_>,
    context: &ContextHandle,
    stream: Option<&Bound<'_, PyAny>>,
) -> PyResult<usize> {
    if let Some(stream) = stream {
        return address(stream);
    }
    let mine = |guard: &&InForce| guard.context == which(context);
    if let Some(current) =
        GUARDS.with(|guards| guards.borrow().iter().rev().find(mine).map(|guard| guard.stream))
    {
        return Ok(current);
    }
    if context.cuda {
        if let Some(current) = torch_current(py, context)? {
            return Ok(current);
        }
    }
    Ok(0)
}

pub fn raw(stream: usize) -> ffi::gmb_stream {
    stream as *mut c_void
}

/// A stream of the library's, of a priority class. It ends with the context, or by `close`.
#[pyclass(frozen, module = "gpumailbox")]
pub struct Stream {
    context: Arc<ContextHandle>,
    handle: Mutex<Option<usize>>,
    /// Whose it is, if it is a coordinator's.
    of: Option<Arc<operations::Core>>,
}

impl Stream {
    pub fn new(context: Arc<ContextHandle>, priority: i32) -> PyResult<Self> {
        let mut made: ffi::gmb_stream = std::ptr::null_mut();
        // SAFETY: it writes a stream.
        check(unsafe { ffi::gmb_stream_create(context.handle()?, priority, &mut made) })?;
        Ok(Self { context, handle: Mutex::new(Some(made as usize)), of: None })
    }

    /// A coordinator's, of a step.
    pub fn of(coordinator: &Arc<operations::Core>, step: usize) -> Self {
        Self {
            context: Arc::clone(&coordinator.context),
            handle: Mutex::new(Some(coordinator.streams[step])),
            of: Some(Arc::clone(coordinator)),
        }
    }

    fn get(&self) -> PyResult<usize> {
        self.of.as_ref().map_or(Ok(()), |of| of.check_open())?;
        let handle = *lock(&self.handle);
        handle.ok_or_else(|| closed("the stream is closed"))
    }
}

#[pymethods]
impl Stream {
    /// The stream's address: `torch.cuda.ExternalStream(stream.handle)`.
    #[getter]
    fn handle(&self) -> PyResult<usize> {
        self.get()
    }

    fn __cuda_stream__(&self) -> PyResult<(i32, usize)> {
        Ok((0, self.get()?))
    }

    /// The priority that the device gave it: smaller goes first.
    #[getter]
    fn priority(&self) -> PyResult<i32> {
        let mut priority = 0;
        // SAFETY: it writes a number.
        check(unsafe {
            ffi::gmb_stream_get_priority(self.context.handle()?, raw(self.get()?), &mut priority)
        })?;
        Ok(priority)
    }

    /// Whether all of its work is done. Does not block.
    fn query(&self) -> PyResult<bool> {
        // SAFETY: checked by the library.
        Ok(check(unsafe { ffi::gmb_stream_query(self.context.handle()?, raw(self.get()?)) })? == 0)
    }

    /// Blocks until all of its work is done.
    fn synchronize(&self, py: Python<'_>) -> PyResult<()> {
        let (context, stream) = (self.context.handle()?, self.get()?);
        // SAFETY: checked by the library.
        check(py.detach(|| unsafe { ffi::gmb_stream_synchronize(context, raw(stream)) }))?;
        Ok(())
    }

    /// Its later work comes after what `event` stands for.
    fn wait_event(&self, event: &Event) -> PyResult<()> {
        event.point.precede(self.context.handle()?, self.get()?)
    }

    /// Destroys it when its work is done; a coordinator's stays the coordinator's. Twice is once.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        let Some(stream) = lock(&self.handle).take() else {
            return Ok(());
        };
        if self.of.is_some() {
            return Ok(());
        }
        let context = self.context.handle()?;
        // SAFETY: checked by the library.
        check(py.detach(|| unsafe { ffi::gmb_stream_destroy(context, raw(stream)) }))?;
        Ok(())
    }

    fn __repr__(&self) -> String {
        match self.get() {
            Ok(handle) => format!("<gpumailbox.Stream {handle:#x}>"),
            Err(_) => "<gpumailbox.Stream closed>".to_owned(),
        }
    }
}

/// `with` it, a stream is this thread's current one, of the library and of the driver's context.
#[pyclass(module = "gpumailbox")]
pub struct StreamGuard {
    context: Arc<ContextHandle>,
    stream: usize,
    guards: Vec<u64>,
}

impl StreamGuard {
    pub fn new(context: &Arc<ContextHandle>, stream: &Bound<'_, PyAny>) -> PyResult<Self> {
        Ok(Self { context: Arc::clone(context), stream: address(stream)?, guards: Vec::new() })
    }
}

#[pymethods]
impl StreamGuard {
    fn __enter__(&mut self) -> PyResult<()> {
        let mut guard = ffi::gmb_stream_guard { id: 0 };
        // SAFETY: it writes a handle.
        check(unsafe { ffi::gmb_stream_guard_create(self.context.handle()?, raw(self.stream), &mut guard) })?;
        self.guards.push(guard.id);
        let in_force = InForce { guard: guard.id, context: which(&self.context), stream: self.stream };
        GUARDS.with(|guards| guards.borrow_mut().push(in_force));
        Ok(())
    }

    #[pyo3(signature = (*_ended))]
    fn __exit__(&mut self, _ended: &Bound<'_, PyTuple>) -> PyResult<bool> {
        let Some(id) = self.guards.pop() else { return Ok(false) };
        // SAFETY: checked by the library.
        check(unsafe { ffi::gmb_stream_guard_destroy(ffi::gmb_stream_guard { id }) })?;
        GUARDS.with(|guards| guards.borrow_mut().retain(|in_force| in_force.guard != id));
        Ok(false)
    }
}
