//! Triple buffers: three device buffers that go round.

use std::borrow::Cow;
use std::ffi::c_void;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use crate::array::{Array, Keeper};
use crate::context::ContextHandle;
use crate::dlpack::{self, Managed};
use crate::elements::{methods_of_elements, Elements, Layout};
use crate::error::{argument, check, closed, status};
use crate::events::Point;
use crate::ffi::{self, gmb_dtype};
use crate::host::{self, HostArray};
use crate::info::{choice, counts, info};
use crate::interpreter::{apart, ended, without_lock};
use crate::keeping::{Keeping, What};
use crate::lock;
use crate::streams::{self, raw};
use crate::token::EMPTY;
use crate::waiting::{limit, nanoseconds, patiently, patiently_while};

pub const STEPS: [&str; 3] = ["upload", "process", "download"];
const STATES: [&str; 4] = ["free", "uploading", "processing", "downloading"];

/// Three device buffers of one dtype, which go from free to uploading, processing, downloading and back to free.
#[pyclass(frozen, weakref, module = "gpumailbox")]
pub struct TripleBuffer {
    context: Arc<ContextHandle>,
    core: Mutex<Option<Arc<Core>>>,
    dtype: gmb_dtype,
    elements: u64,
}

/// The handle, which goes with the last of those that have memory of it.
pub struct Core {
    pub context: Arc<ContextHandle>,
    pub handle: ffi::gmb_triple_buffer,
    pub dtype: gmb_dtype,
    pub elements: u64,
    pub bytes: u64,
    closed: AtomicBool,
    keeping: Keeping,
}

impl Core {
    pub fn check_open(&self) -> PyResult<()> {
        self.context.handle()?;
        match self.closed.load(Ordering::SeqCst) {
            true => Err(closed("the triple buffer is closed")),
            false => Ok(()),
        }
    }

    fn info(&self) -> PyResult<ffi::gmb_triple_buffer_info> {
        // SAFETY: numbers and addresses; it writes that many bytes.
        unsafe { info(|at, bytes| ffi::gmb_triple_buffer_get_info(self.handle, at, bytes)) }
    }

    /// Raises unless an array on the host has elements of the buffers' type, and no more than one has; how many bytes.
    pub fn check_host(&self, array: &HostArray) -> PyResult<u64> {
        host::check_same(array.dtype(), "the buffers", self.dtype)?;
        if array.elements > self.elements {
            return Err(argument(format!(
                "the array has {} elements, and a buffer {}",
                array.elements, self.elements
            )));
        }
        Ok(array.bytes)
    }

    /// A buffer of it, for whoever is given one.
    pub fn array(self: &Arc<Self>, address: u64, stream: usize) -> Array {
        Array {
            context: Arc::clone(&self.context),
            stream,
            layout: self.layout(address),
            keeper: Keeper::Triple(Arc::clone(self)),
            result: EMPTY,
            headers: None,
        }
    }

    fn layout(&self, address: u64) -> Layout {
        Layout { address, dtype: self.dtype, shape: vec![self.elements as i64], strides: vec![1] }
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        if !ended() {
            let (handle, context) = (self.handle, Arc::clone(&self.context));
            apart(move || {
                // SAFETY: nobody has it any more.
                unsafe { ffi::gmb_triple_buffer_destroy(handle) };
                drop(context);
            });
        }
    }
}

impl TripleBuffer {
    pub fn new(
        py: Python<'_>,
        context: &Arc<ContextHandle>,
        dtype: gmb_dtype,
        elements: u64,
    ) -> PyResult<Self> {
        let (of, mut handle) = (context.handle()?, ffi::gmb_triple_buffer { id: 0 });
        let struct_size = size_of::<ffi::gmb_triple_buffer_options>() as u32;
        let options = ffi::gmb_triple_buffer_options { struct_size, dtype, elements };
        // SAFETY: options of their size; it writes a handle.
        check(py.detach(|| unsafe { ffi::gmb_triple_buffer_create(of, &options, &mut handle) }))?;
        let core = Arc::new(Core {
            context: Arc::clone(context),
            handle,
            dtype,
            elements,
            bytes: elements * dtype.bytes(),
            closed: AtomicBool::new(false),
            keeping: Keeping::default(),
        });
        Ok(Self { context: Arc::clone(context), core: Mutex::new(Some(core)), dtype, elements })
    }

    pub fn core(&self) -> PyResult<Arc<Core>> {
        self.context.handle()?;
        lock(&self.core).clone().ok_or_else(|| closed("the triple buffer is closed"))
    }

    /// A buffer of a step, if `ask` writes one. Without a stream any may use it.
    fn ask(
        &self,
        core: Arc<Core>,
        stream: Option<usize>,
        ask: impl FnOnce(usize) -> PyResult<i32>,
    ) -> PyResult<Option<Buffer>> {
        let mut slot = NO_SLOT;
        if ask(&mut slot as *mut ffi::gmb_triple_slot as usize)? != 0 {
            return Ok(None);
        }
        let users = stream.into_iter().collect();
        Ok(Some(Buffer { core, slot: Slot(slot), stream, held: Mutex::new(Some(users)) }))
    }
}

fn step_of(step: &str) -> PyResult<i32> {
    choice("step", step, &STEPS)
}

const NO_SLOT: ffi::gmb_triple_slot =
    ffi::gmb_triple_slot { address: std::ptr::null_mut(), bytes: 0, turn: 0, index: 0, step: 0 };

#[pymethods]
impl TripleBuffer {
    /// The next buffer of a step ("upload", "process" or "download"), or None until the device has done the work of the step
    /// before. Any stream may use it then. Never blocks.
    fn acquire(&self, step: &str) -> PyResult<Option<Buffer>> {
        let (core, step) = (self.core()?, step_of(step)?);
        let handle = core.handle;
        // SAFETY: it writes a slot; so below.
        self.ask(core, None, |slot| {
            check(unsafe { ffi::gmb_triple_buffer_acquire(handle, step, slot as *mut _) })
        })
    }

    /// The same for work of one stream, which is made to wait for the step before: None only until that was submitted.
    #[pyo3(signature = (step, stream = None))]
    fn acquire_on(
        &self,
        py: Python<'_>,
        step: &str,
        stream: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Option<Buffer>> {
        let (core, step) = (self.core()?, step_of(step)?);
        let (handle, stream) = (core.handle, streams::resolve(py, &self.context, stream)?);
        self.ask(core, Some(stream), |slot| {
            check(unsafe { ffi::gmb_triple_buffer_acquire_on(handle, step, raw(stream), slot as *mut _) })
        })
    }

    /// As `acquire`, and blocks until there is one, for at most `timeout` seconds.
    #[pyo3(signature = (step, timeout = None))]
    fn wait(&self, py: Python<'_>, step: &str, timeout: Option<f64>) -> PyResult<Buffer> {
        let (core, step, limit) = (self.core()?, step_of(step)?, limit(timeout)?);
        let of = Arc::clone(&core);
        let taken = self.ask(core, None, |slot| {
            patiently_while(
                py,
                limit,
                || of.check_open(),
                |left| unsafe { ffi::gmb_triple_buffer_wait(of.handle, step, left, slot as *mut _) },
            )
        })?;
        taken.ok_or_else(|| status(ffi::GMB_ERROR_TIMEOUT, "no buffer came in time"))
    }

    /// Passes buffers on whose step is done, one of each step at most, to what comes next: how many were. Never blocks; asking
    /// for a buffer does the same as far as that takes.
    fn advance(&self) -> PyResult<u32> {
        let (core, mut passed) = (self.core()?, 0);
        // SAFETY: it writes a number.
        check(unsafe { ffi::gmb_triple_buffer_advance(core.handle, &mut passed) })?;
        Ok(passed)
    }

    /// Where the three buffers stand, at one moment.
    #[getter]
    fn states(&self) -> PyResult<(&'static str, &'static str, &'static str)> {
        let info = self.core()?.info()?;
        let [a, b, c] = info.states.map(|state| STATES.get(state as usize).copied().unwrap_or_default());
        Ok((a, b, c))
    }

    /// Shape, states, and how many times a buffer became free again.
    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let info = self.core()?.info()?;
        let all =
            counts(py, &[("elements", info.elements), ("bytes", info.bytes), ("completed", info.completed)])?;
        all.set_item("states", info.states.map(|state| STATES.get(state as usize).copied()))?;
        Ok(all)
    }

    /// Where the three buffers lie on the device, for kernels.
    #[getter]
    fn addresses(&self) -> PyResult<(u64, u64, u64)> {
        let [a, b, c] = self.core()?.info()?.addresses.map(|address| address as u64);
        Ok((a, b, c))
    }

    /// The handle of the C API, for C++ in the same process.
    #[getter]
    fn handle(&self) -> PyResult<u64> {
        Ok(self.core()?.handle.id)
    }

    #[getter]
    fn dtype(&self) -> String {
        self.dtype.name()
    }

    fn __len__(&self) -> usize {
        self.elements as usize
    }

    fn __repr__(&self) -> String {
        let state = if self.core().is_ok() { "" } else { ", closed" };
        format!("<gpumailbox.TripleBuffer of {} {}{state}>", self.elements, self.dtype.name())
    }

    /// Later calls raise `Closed`. Waits for the work that was submitted; the memory goes when no buffer, and nothing made of
    /// one, is out. Twice is once.
    fn close(&self) {
        let core = lock(&self.core).take();
        if let Some(core) = core {
            core.closed.store(true, Ordering::SeqCst);
        }
    }

    fn __enter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    #[pyo3(signature = (*_ended))]
    fn __exit__(&self, _ended: &Bound<'_, PyTuple>) {
        self.close();
    }
}

/// A buffer of a triple buffer that somebody has to himself, for one step. Give it to `from_dlpack` of any library, enqueue the
/// step's work, and `submit` it. `with` it, or without a reference, it is given up unless it was submitted.
#[pyclass(frozen, weakref, module = "gpumailbox")]
pub struct Buffer {
    core: Arc<Core>,
    slot: Slot,
    stream: Option<usize>,
    /// The streams that are known to use it, until it is handed on.
    held: Mutex<Option<Vec<usize>>>,
}

struct Slot(ffi::gmb_triple_slot);

// SAFETY: numbers and an address.
unsafe impl Send for Slot {}
// SAFETY: as above; nobody writes to it.
unsafe impl Sync for Slot {}

/// How long a buffer without a reference is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

impl Buffer {
    /// A stream uses it from here on.
    pub fn used_by(&self, stream: usize) {
        if let Some(users) = lock(&self.held).as_mut() {
            if !users.contains(&stream) {
                users.push(stream);
            }
        }
    }

    /// What was given up must not be used any more: where what streams hold now is done.
    fn last_uses(&self) -> Vec<Point> {
        let users = lock(&self.held).clone().unwrap_or_default();
        users.into_iter().filter_map(|stream| Point::of(&self.core.context, stream).ok()).collect()
    }

    /// It becomes free again, unless it was handed on before. Nothing uses it.
    fn hand_back(&self) -> PyResult<()> {
        let mut held = lock(&self.held);
        if held.is_some() && !self.core.closed.load(Ordering::SeqCst) {
            // SAFETY: a slot; nothing uses it.
            check(unsafe { ffi::gmb_triple_buffer_give_up(self.core.handle, &self.slot.0) })?;
        }
        *held = None;
        Ok(())
    }

    /// A copy between an array on the host and the buffer.
    fn copy(
        &self,
        py: Python<'_>,
        array: &Bound<'_, PyAny>,
        to_buffer: bool,
        stream: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        self.hold()?;
        let context = &self.core.context;
        let array = HostArray::new(array, if to_buffer { "the source" } else { "the destination" })?;
        if !to_buffer {
            array.check_writable("the destination")?;
        }
        let bytes = self.core.check_host(&array)?;
        let stream = match (stream, self.stream) {
            (None, Some(own)) => own,
            _ => streams::resolve(py, context, stream)?,
        };
        let (buffer, host, of) = (self.slot.0.address as usize, array.address() as usize, context.handle()?);
        let (to, from) = if to_buffer { (buffer, host) } else { (host, buffer) };
        self.used_by(stream);
        // SAFETY: so many bytes are in both, which are kept.
        check(py.detach(|| unsafe {
            ffi::gmb_memory_copy(of, to as *mut c_void, from as *const c_void, bytes, raw(stream))
        }))?;
        let what = What { bytes, more: vec![Box::new(array)], ..What::default() };
        self.core.keeping.keep_until_reached(context, stream, what)
    }
}

impl Elements for Buffer {
    type Hold = ();

    fn hold(&self) -> PyResult<()> {
        self.core.check_open()?;
        match lock(&self.held).is_some() {
            true => Ok(()),
            false => Err(status(
                ffi::GMB_ERROR_WRONG_STATE,
                "the buffer was submitted or given up: ask the triple buffer for another one",
            )),
        }
    }

    fn context(&self) -> &ContextHandle {
        &self.core.context
    }

    fn stream(&self) -> usize {
        self.stream.unwrap_or(0)
    }

    fn device(&self) -> (i32, i32) {
        self.core.context.device_type()
    }

    fn layout(&self) -> Cow<'_, Layout> {
        Cow::Owned(self.core.layout(self.slot.0.address as u64))
    }

    fn lend(&self, (): &(), stream: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        if let Some(own) = self.stream {
            dlpack::order(&self.core.context, own, stream)?;
        }
        if self.core.context.cuda {
            let named = stream.and_then(|stream| stream.extract::<i64>().ok()).unwrap_or(1);
            self.used_by(if named <= 1 { 0 } else { named as usize });
        }
        Ok(())
    }

    fn give(&self, (): &(), versioned: bool) -> PyResult<Managed> {
        Ok(self.core.array(self.slot.0.address as u64, self.stream()).managed(versioned))
    }
}

methods_of_elements! {
impl Buffer {
    /// The step's work on it is enqueued: what the stream holds now, by default the one that it was acquired on, or else the
    /// current one. The next step gets it once that is done. It must not be used any more.
    #[pyo3(signature = (stream = None))]
    fn submit(&self, py: Python<'_>, stream: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        self.core.check_open()?;
        let stream = match (stream, self.stream) {
            (None, Some(own)) => own,
            _ => streams::resolve(py, &self.core.context, stream)?,
        };
        let mut held = lock(&self.held);
        // SAFETY: a slot; whose it is, the library knows.
        check(unsafe { ffi::gmb_triple_buffer_submit(self.core.handle, &self.slot.0, raw(stream)) })?;
        *held = None;
        Ok(())
    }

    /// Hands it back without the step's work: it becomes free again. Waits for what the streams hold that are known to use it.
    /// Twice is once.
    fn give_up(&self, py: Python<'_>) -> PyResult<()> {
        for point in self.last_uses() {
            patiently(py, None, |left| point.wait(left))?;
        }
        self.hand_back()
    }

    /// Copies an array on the host, of the buffer's dtype and no longer, to its begin, in stream order. The array is kept until
    /// then; it must not be written to.
    #[pyo3(signature = (array, *, stream = None))]
    fn copy_from(
        &self,
        py: Python<'_>,
        array: &Bound<'_, PyAny>,
        stream: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        self.copy(py, array, true, stream)
    }

    /// Copies its begin to an array on the host, in stream order. The array is kept until then.
    #[pyo3(signature = (array, *, stream = None))]
    fn copy_to(
        &self,
        py: Python<'_>,
        array: &Bound<'_, PyAny>,
        stream: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        self.copy(py, array, false, stream)
    }

    /// What it was asked for: "upload", "process" or "download".
    #[getter]
    fn step(&self) -> &'static str {
        STEPS.get(self.slot.0.step as usize).copied().unwrap_or_default()
    }

    /// Which turn this is: what was uploaded in a turn is processed and downloaded in it.
    #[getter]
    fn turn(&self) -> u64 {
        self.slot.0.turn
    }

    /// Which of the three: 0, 1 or 2.
    #[getter]
    fn index(&self) -> u32 {
        self.slot.0.index
    }

    #[getter]
    fn data_ptr(&self) -> PyResult<u64> {
        self.hold()?;
        Ok(self.slot.0.address as u64)
    }

    fn __len__(&self) -> usize {
        self.core.elements as usize
    }

    fn __repr__(&self) -> String {
        let state = if self.hold().is_ok() { "" } else { ", handed on" };
        let (elements, dtype) = (self.core.elements, self.core.dtype.name());
        format!("<gpumailbox.Buffer {} of {elements} {dtype}, to {}{state}>", self.index(), self.step())
    }

    fn __enter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    #[pyo3(signature = (*_ended))]
    fn __exit__(&self, py: Python<'_>, _ended: &Bound<'_, PyTuple>) -> PyResult<()> {
        self.give_up(py)
    }
}
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if ended() || lock(&self.held).is_none() {
            return;
        }
        let (points, left) = (self.last_uses(), nanoseconds(PATIENCE));
        // One that is still used is never handed out again.
        if points.is_empty() || without_lock(|| points.iter().all(|point| point.wait(left) == 0)) {
            let _ = self.hand_back();
        }
    }
}
