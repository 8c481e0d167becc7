//! Coordinators: uploads, compute and downloads on three streams, each as soon as what it comes after is done.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use pyo3::exceptions::{PyException, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyInt, PyTuple};

use crate::context::ContextHandle;
use crate::error::{argument, check, closed};
use crate::ffi;
use crate::info::{counts, info};
use crate::interpreter::Carried;
use crate::launch::Raised;
use crate::mailbox::Mailbox;
use crate::operations::{number, Core, Told, UnderWay};
use crate::streams::Stream;
use crate::task::{queue, step_of, Compute, Ready, Task, Work, KINDS};
use crate::triple::TripleBuffer;
use crate::waiting::{is_late, limit, patiently_while};

/// Uploads, compute and downloads, on a stream each: any graph of operations that come after each other.
#[pyclass(frozen, weakref, module = "gpumailbox")]
pub struct Coordinator {
    core: Arc<Core>,
}

/// An operation that was queued. Wait for it, `await` it, or have others come after it.
#[pyclass(frozen, module = "gpumailbox")]
pub struct Operation {
    coordinator: Py<Coordinator>,
    id: u64,
    kind: i32,
}

/// An operation that is done, or failed.
#[pyclass(frozen, get_all, module = "gpumailbox")]
pub struct Completion {
    /// Which.
    pub operation: Py<Operation>,
    /// "upload", "compute", "download", "push" or "pop".
    pub kind: &'static str,
    /// Records pushed or popped.
    pub count: u32,
    /// Why it failed, or None.
    pub error: Option<Py<PyAny>>,
    /// The operation that failed first: itself, or one that it came after. None for success.
    pub cause: Option<Py<Operation>>,
}

#[pymethods]
impl Completion {
    fn __repr__(&self) -> String {
        let how = self.error.as_ref().map_or_else(|| "done".to_owned(), |error| format!("failed: {error}"));
        format!(
            "<gpumailbox.Completion of operation {} ({}), {how}>",
            self.operation.get().number(),
            self.kind
        )
    }
}

fn kind_of(kind: i32) -> &'static str {
    KINDS.get(kind as usize).copied().unwrap_or_default()
}

const NO_OPERATION: ffi::gmb_operation = ffi::gmb_operation { id: 0 };

#[pymethods]
impl Operation {
    /// Blocks until it is done, for at most `timeout` seconds, and raises why it failed. However often, it is the same.
    #[pyo3(signature = (timeout = None))]
    fn wait(slf: &Bound<'_, Self>, timeout: Option<f64>) -> PyResult<Completion> {
        Coordinator::wait_for(slf.get().coordinator.bind(slf.py()), slf, limit(timeout)?)?
    }

    /// The same without blocking: None while it is not done.
    fn poll(slf: &Bound<'_, Self>) -> PyResult<Option<Completion>> {
        let (py, it) = (slf.py(), slf.get());
        Ok(Coordinator::wait_for(it.coordinator.bind(py), slf, Some(Duration::ZERO))?.ok())
    }

    /// The event loop asks now and then, no thread waits.
    fn __await__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        let coroutine = slf.py().import("gpumailbox._aio")?.getattr("done")?.call1((slf,))?;
        coroutine.call_method0("__await__")
    }

    /// That it was queued by.
    #[getter]
    fn coordinator(&self, py: Python<'_>) -> Py<Coordinator> {
        self.coordinator.clone_ref(py)
    }

    /// Its number in the C API, a `gmb_operation.id`.
    #[getter]
    fn id(&self) -> u64 {
        self.id
    }

    /// Which one of its coordinator's, as messages have it.
    #[getter]
    fn number(&self) -> u64 {
        number(self.id)
    }

    /// "upload", "compute", "download", "push" or "pop".
    #[getter]
    fn kind(&self) -> &'static str {
        kind_of(self.kind)
    }

    fn __eq__(&self, other: &Bound<'_, PyAny>) -> bool {
        other.cast::<Self>().is_ok_and(|other| {
            let other = other.get();
            self.id == other.id && self.coordinator.is(&other.coordinator)
        })
    }

    fn __hash__(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (self.id, self.coordinator.as_ptr() as usize).hash(&mut hasher);
        hasher.finish()
    }

    fn __repr__(&self) -> String {
        format!("<gpumailbox.Operation {} ({})>", self.number(), self.kind())
    }
}

fn is_timeout(py: Python<'_>, error: &PyErr) -> bool {
    let status = error.value(py).getattr("status").and_then(|status| status.extract::<i32>());
    status.is_ok_and(|status| status == ffi::GMB_ERROR_TIMEOUT)
}

/// An exception that is none of the function's: Ctrl-C, say. It does not wait until somebody asks.
fn raise_at_once(py: Python<'_>, raised: &Raised) -> PyResult<()> {
    match raised.get() {
        Some(error) if !error.is_instance_of::<PyException>(py) => Err(error.clone_ref(py)),
        _ => Ok(()),
    }
}

impl Coordinator {
    pub fn new(
        py: Python<'_>,
        context: &Arc<ContextHandle>,
        max_operations: u32,
        priority: i32,
    ) -> PyResult<Self> {
        let (of, mut handle) = (context.handle()?, ffi::gmb_coordinator { id: 0 });
        let struct_size = size_of::<ffi::gmb_coordinator_options>() as u32;
        let options = ffi::gmb_coordinator_options { struct_size, max_operations, priority, flags: 0 };
        // SAFETY: options of their size; it writes a handle.
        check(py.detach(|| unsafe { ffi::gmb_coordinator_create(of, &options, &mut handle) }))?;
        let mut streams = [0; 3];
        for (step, stream) in streams.iter_mut().enumerate() {
            let mut made: ffi::gmb_stream = std::ptr::null_mut();
            // SAFETY: it writes a stream.
            check(unsafe { ffi::gmb_coordinator_get_stream(handle, step as i32, &mut made) })?;
            *stream = made as usize;
        }
        Ok(Self { core: Core::new(context, handle, streams, info_of(handle)?.max_operations) })
    }

    fn operation(slf: &Bound<'_, Self>, id: u64, kind: i32) -> PyResult<Py<Operation>> {
        Py::new(slf.py(), Operation { coordinator: slf.clone().unbind(), id, kind })
    }

    /// Queues one operation. A push waits for room under "wait", for so long.
    fn queue(
        slf: &Bound<'_, Self>,
        work: &Work,
        after: &[Bound<'_, Operation>],
        timeout: Option<Duration>,
    ) -> PyResult<Py<Operation>> {
        let (py, core) = (slf.py(), &slf.get().core);
        let (_entered, handle) = core.enter()?;
        let mut ready = Ready::new(py, core, work)?;
        let after: Vec<_> = after.iter().map(|one| ffi::gmb_operation { id: one.get().id }).collect();
        let (mut id, entering) = (NO_OPERATION, core.entering());
        let task = ready.task(&[]);
        let kind = task.kind;
        {
            let mut carried = Carried::new((&mut ready, &task, &after, &mut id));
            let call = |left| {
                let (ready, task, after, id) = carried.get();
                ready.wait_for_room(left);
                // SAFETY: the task's parts are alive.
                unsafe { queue(handle, task, after, id) }
            };
            // Others are late at once.
            patiently_while(py, timeout, || core.check_open(), call)?;
        }
        let raised = Arc::clone(&ready.raised);
        let after = if core.context.cuda { Vec::new() } else { after.iter().map(|one| one.id).collect() };
        let under_way = UnderWay { kept: ready.kept(), raised: Arc::clone(&raised), after };
        entering.enter(vec![(id.id, under_way)]);
        raise_at_once(py, &raised)?;
        core.look_sometimes(py, handle, 1)?;
        Self::operation(slf, id.id, kind)
    }

    fn queue_graph(slf: &Bound<'_, Self>, tasks: &[Bound<'_, Task>]) -> PyResult<Vec<Py<Operation>>> {
        let (py, core) = (slf.py(), &slf.get().core);
        let (_entered, handle) = core.enter()?;
        let mut all = Vec::with_capacity(tasks.len());
        for (n, task) in tasks.iter().enumerate() {
            let after = task.get().after.iter().map(|one| after_of(n, one.bind(py)));
            let after = after.collect::<PyResult<Vec<_>>>()?;
            let ready = Ready::new(py, core, &task.get().work).map_err(|error| with_task(py, n, error))?;
            all.push((ready, after));
        }
        let given: Vec<_> = all.iter_mut().map(|(ready, after)| ready.task(after)).collect();
        let (mut ids, entering) = (vec![NO_OPERATION; given.len()], core.entering());
        let (count, at, to) = (given.len() as u32, given.as_ptr() as usize, ids.as_mut_ptr() as usize);
        // SAFETY: so many tasks, whose parts are alive; room for as many ids.
        check(py.detach(|| unsafe {
            ffi::gmb_coordinator_queue_graph(handle, at as *const _, count, to as *mut _)
        }))?;
        let raised: Vec<_> = all.iter().map(|(ready, _)| Arc::clone(&ready.raised)).collect();
        let entered = all.into_iter().zip(&ids).map(|((ready, after), id)| {
            let of = |one: &ffi::gmb_task_after| match one.operation.id {
                0 => ids[one.task as usize].id,
                id => id,
            };
            let after = if core.context.cuda { Vec::new() } else { after.iter().map(of).collect() };
            let raised = Arc::clone(&ready.raised);
            (id.id, UnderWay { kept: ready.kept(), raised, after })
        });
        let entered = entered.collect();
        entering.enter(entered);
        raised.iter().try_for_each(|raised| raise_at_once(py, raised))?;
        core.look_sometimes(py, handle, count)?;
        ids.iter().zip(&given).map(|(id, task)| Self::operation(slf, id.id, task.kind)).collect()
    }

    /// The inner error is that it is not done in time.
    fn wait_for(
        slf: &Bound<'_, Self>,
        operation: &Bound<'_, Operation>,
        timeout: Option<Duration>,
    ) -> PyResult<PyResult<Completion>> {
        let (py, core, of) = (slf.py(), &slf.get().core, operation.get());
        core.check_failed(py, of.id)?;
        let mut done = ffi::gmb_completion {
            operation: NO_OPERATION,
            cause: NO_OPERATION,
            kind: 0,
            status: 0,
            count: 0,
            timed: 0,
            begin_us: 0.0,
            end_us: 0.0,
        };
        let mut last = 0;
        let waited = {
            let mut carried = Carried::new((&mut done, &mut last));
            let id = ffi::gmb_operation { id: of.id };
            core.check_open()?;
            patiently_while(
                py,
                timeout,
                || core.check_open(),
                |left| {
                    let (done, last) = carried.get();
                    **last = match core.enter_if_open() {
                        // SAFETY: it writes a completion.
                        Some((_entered, handle)) => unsafe {
                            ffi::gmb_coordinator_wait(handle, id, left, *done)
                        },
                        None => ffi::GMB_NOT_READY,
                    };
                    **last
                },
            )
        };
        // No function's own answer: those are never so.
        if is_late(last) {
            let error = waited.err().unwrap_or_else(|| closed("the coordinator is closed"));
            return if is_timeout(py, &error) { Ok(Err(error)) } else { Err(error) };
        }
        let (_entered, handle) = core.enter()?;
        core.look(py, handle)?;
        core.check_failed(py, of.id)?;
        waited?;
        Ok(Ok(Completion {
            operation: operation.clone().unbind(),
            kind: kind_of(done.kind),
            count: done.count,
            error: None,
            cause: None,
        }))
    }

    fn completion(slf: &Bound<'_, Self>, told: &Told) -> PyResult<Completion> {
        let py = slf.py();
        let failure = told.failure.as_ref().map(|it| it.error(py, told.operation).into_value(py).into_any());
        let cause = (told.cause != 0).then(|| Self::operation(slf, told.cause, told.cause_kind));
        Ok(Completion {
            operation: Self::operation(slf, told.operation, told.kind)?,
            kind: kind_of(told.kind),
            count: told.count,
            error: failure,
            cause: cause.transpose()?,
        })
    }
}

fn info_of(handle: ffi::gmb_coordinator) -> PyResult<ffi::gmb_coordinator_info> {
    // SAFETY: numbers only; it writes that many bytes.
    unsafe { info(|at, bytes| ffi::gmb_coordinator_get_info(handle, at, bytes)) }
}

/// What the n-th task of a graph comes after: an operation, or the place of a task.
fn after_of(n: usize, one: &Bound<'_, PyAny>) -> PyResult<ffi::gmb_task_after> {
    if let Ok(operation) = one.cast::<Operation>() {
        let operation = ffi::gmb_operation { id: operation.get().id };
        return Ok(ffi::gmb_task_after { operation, task: 0, reserved: 0 });
    }
    if !one.is_instance_of::<PyInt>() {
        return Err(PyTypeError::new_err(format!(
            "task {n} comes after {}: give an operation, or a task's place in the list",
            one.get_type().name()?
        )));
    }
    let task = one
        .extract::<u32>()
        .map_err(|_| argument(format!("task {n} comes after task {one}, which is no place in the list")))?;
    Ok(ffi::gmb_task_after { operation: NO_OPERATION, task, reserved: 0 })
}

/// Says which task of a graph it was.
fn with_task(py: Python<'_>, n: usize, error: PyErr) -> PyErr {
    let _ = error.value(py).call_method1("add_note", (format!("task {n} of the graph"),));
    error
}

#[pymethods]
impl Coordinator {
    /// Queues a copy of `from_`, an array on the host, to `to`: an array on the device, of the same dtype and as many elements,
    /// or a triple buffer, whose next free buffer is taken. After the operations of `after`. Does not wait for the device; both
    /// arrays are kept until it is done, and `from_` must not be written to.
    #[pyo3(signature = (to, from_, after = Vec::new()))]
    fn upload(
        slf: &Bound<'_, Self>,
        to: Py<PyAny>,
        from_: Py<PyAny>,
        after: Vec<Bound<'_, Operation>>,
    ) -> PyResult<Py<Operation>> {
        Self::queue(slf, &Work::Upload { to, from: from_ }, &after, Some(Duration::ZERO))
    }

    /// Queues a copy of `from_`, an array on the device, or the next buffer of a triple buffer that was processed, to `to`, an
    /// array on the host.
    #[pyo3(signature = (to, from_, after = Vec::new()))]
    fn download(
        slf: &Bound<'_, Self>,
        to: Py<PyAny>,
        from_: Py<PyAny>,
        after: Vec<Bound<'_, Operation>>,
    ) -> PyResult<Py<Operation>> {
        Self::queue(slf, &Work::Download { to, from: from_ }, &after, Some(Duration::ZERO))
    }

    /// Queues a kernel, with its launch as of `Kernel.launch`, or whatever a function enqueues. The function is called at once,
    /// as `what(stream)`, with the stream as the current one; what it gives is kept until the operation is done, and an exception
    /// ends that. With a triple buffer the address of its next buffer to process comes before a kernel's arguments, and
    /// `what(stream, buffer)` gets it as an array.
    #[pyo3(signature = (what, grid = None, block = None, args = Vec::new(), *, shared_bytes = 0, triple = None,
                        after = Vec::new()))]
    #[allow(clippy::too_many_arguments)]
    fn compute(
        slf: &Bound<'_, Self>,
        what: Bound<'_, PyAny>,
        grid: Option<Bound<'_, PyAny>>,
        block: Option<Bound<'_, PyAny>>,
        args: Vec<Bound<'_, PyAny>>,
        shared_bytes: u32,
        triple: Option<Bound<'_, TripleBuffer>>,
        after: Vec<Bound<'_, Operation>>,
    ) -> PyResult<Py<Operation>> {
        let work = Compute::work(what, grid, block, args, shared_bytes, triple)?;
        Self::queue(slf, &work, &after, Some(Duration::ZERO))
    }

    /// Queues a push of the rows of `records`, an array on the device, on the stream of a step. How many were accepted is the
    /// operation's count. Waits for room under "wait" alone, for at most `timeout` seconds.
    #[pyo3(signature = (mailbox, records, *, msg_type = 0, step = "process", timeout = None, after = Vec::new()))]
    fn push(
        slf: &Bound<'_, Self>,
        mailbox: Py<Mailbox>,
        records: Py<PyAny>,
        msg_type: u32,
        step: &str,
        timeout: Option<f64>,
        after: Vec<Bound<'_, Operation>>,
    ) -> PyResult<Py<Operation>> {
        let work = Work::Push { mailbox, records, msg_type, step: step_of(step)?, room_ns: 0 };
        Self::queue(slf, &work, &after, limit(timeout)?)
    }

    /// Queues a pop of up to `max` records to `out`, an array on the device, on the stream of a step. How many came is the
    /// operation's count.
    #[pyo3(signature = (mailbox, out, max = None, *, reader = 0, step = "process", after = Vec::new()))]
    fn pop(
        slf: &Bound<'_, Self>,
        mailbox: Py<Mailbox>,
        out: Py<PyAny>,
        max: Option<u32>,
        reader: u32,
        step: &str,
        after: Vec<Bound<'_, Operation>>,
    ) -> PyResult<Py<Operation>> {
        let work = Work::Pop { mailbox, out, max, reader, step: step_of(step)? };
        Self::queue(slf, &work, &after, Some(Duration::ZERO))
    }

    /// Queues tasks, in any order in which they do not come after each other in a circle: their operations, in the order of the
    /// list. One that cannot be enqueued fails, and those after it; the others go on.
    fn graph(slf: &Bound<'_, Self>, tasks: Vec<Bound<'_, Task>>) -> PyResult<Vec<Py<Operation>>> {
        Self::queue_graph(slf, &tasks)
    }

    /// What is done and was not told yet, each once, at most `max`: an operation never before those that it came after. Never
    /// blocks.
    #[pyo3(signature = (max = None))]
    fn poll(slf: &Bound<'_, Self>, max: Option<usize>) -> PyResult<Vec<Completion>> {
        let core = &slf.get().core;
        if max == Some(0) {
            return Err(argument("max is 0: give None for all"));
        }
        let (_entered, handle) = core.enter()?;
        core.look(slf.py(), handle)?;
        core.take_told(max.unwrap_or(usize::MAX)).iter().map(|told| Self::completion(slf, told)).collect()
    }

    /// Blocks until an operation is done, for at most `timeout` seconds, and raises why it failed.
    #[pyo3(signature = (operation, timeout = None))]
    fn wait(
        slf: &Bound<'_, Self>,
        operation: &Bound<'_, Operation>,
        timeout: Option<f64>,
    ) -> PyResult<Completion> {
        Self::wait_for(slf, operation, limit(timeout)?)?
    }

    /// Blocks until all operations are done that were queued before the call, for at most `timeout` seconds. How they ended is
    /// for `poll` to tell.
    #[pyo3(signature = (timeout = None))]
    fn synchronize(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<()> {
        let (core, limit) = (&self.core, limit(timeout)?);
        core.check_open()?;
        patiently_while(
            py,
            limit,
            || core.check_open(),
            |left| match core.enter_if_open() {
                // SAFETY: checked by the library.
                Some((_entered, handle)) => unsafe { ffi::gmb_coordinator_synchronize(handle, left) },
                None => ffi::GMB_NOT_READY,
            },
        )?;
        let (_entered, handle) = core.enter()?;
        core.look(py, handle)
    }

    /// The stream of a step ("upload", "process" or "download"), for work of your own and for events.
    fn stream(&self, step: &str) -> PyResult<Stream> {
        let step = step_of(step)?;
        self.core.check_open()?;
        Ok(Stream::of(&self.core, step))
    }

    /// Asks what is done, for event loops: how many operations are so far.
    fn _settled(&self, py: Python<'_>) -> PyResult<u64> {
        let (_entered, handle) = self.core.enter()?;
        self.core.look(py, handle)?;
        Ok(self.core.settled())
    }

    /// Counts of the coordinator at one moment.
    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let (_entered, handle) = self.core.enter()?;
        let info = info_of(handle)?;
        counts(
            py,
            &[
                ("queued", info.queued),
                ("in_flight", info.in_flight),
                ("high_water", info.high_water),
                ("events", info.events),
                ("max_operations", info.max_operations.into()),
            ],
        )
    }

    /// The handle of the C API, for C++ in the same process.
    #[getter]
    fn handle(&self) -> PyResult<u64> {
        Ok(self.core.enter()?.1.id)
    }

    fn __repr__(&self) -> String {
        format!("<gpumailbox.Coordinator{}>", if self.core.check_open().is_ok() { "" } else { ", closed" })
    }

    /// Waits until all operations are done; later calls raise `Closed`, and so do those that wait. Twice is once.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        self.core.close(py)
    }

    fn __enter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    #[pyo3(signature = (*_ended))]
    fn __exit__(&self, py: Python<'_>, _ended: &Bound<'_, PyTuple>) -> PyResult<()> {
        self.close(py)
    }
}
