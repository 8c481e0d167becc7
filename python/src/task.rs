//! What operations of a coordinator are to do.

use std::ffi::c_void;
use std::sync::Arc;

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;

use crate::calling::{enqueue, Call};
use crate::error::argument;
use crate::ffi::{self, gmb_dtype};
use crate::host::{check_same, dense, HostArray};
use crate::info::choice;
use crate::keeping::Kept;
use crate::launch::{launched, Arguments, Launch, Raised, Shape};
use crate::mailbox::{Mailbox, Pushed};
use crate::module::Kernel;
use crate::operations::Core;
use crate::records::check_place;
use crate::streams::Stream;
use crate::triple::{self, TripleBuffer, STEPS};
use crate::waiting::{limit, nanoseconds};
use crate::{dlpack, module};

/// An operation of a graph, and what it comes after: tasks of the graph by their places in its list, from 0, and operations
/// that were queued before. Made by `Task.upload`, `compute`, `download`, `push` and `pop`, as the coordinator's methods are
/// called.
#[pyclass(frozen, module = "gpumailbox")]
pub struct Task {
    pub work: Work,
    pub after: Vec<Py<PyAny>>,
}

/// What it does, as it was given.
pub enum Work {
    Upload { to: Py<PyAny>, from: Py<PyAny> },
    Download { to: Py<PyAny>, from: Py<PyAny> },
    Compute(Box<Compute>),
    Push { mailbox: Py<Mailbox>, records: Py<PyAny>, msg_type: u32, step: usize, room_ns: u64 },
    Pop { mailbox: Py<Mailbox>, out: Py<PyAny>, max: Option<u32>, reader: u32, step: usize },
}

pub struct Compute {
    pub what: Py<PyAny>,
    pub shape: Option<(Py<PyAny>, Py<PyAny>)>,
    pub args: Vec<Py<PyAny>>,
    pub shared_bytes: u32,
    pub triple: Option<Py<TripleBuffer>>,
}

pub fn step_of(step: &str) -> PyResult<usize> {
    Ok(choice("step", step, &STEPS)? as usize)
}

impl Compute {
    pub fn work(
        what: Bound<'_, PyAny>,
        grid: Option<Bound<'_, PyAny>>,
        block: Option<Bound<'_, PyAny>>,
        args: Vec<Bound<'_, PyAny>>,
        shared_bytes: u32,
        triple: Option<Bound<'_, TripleBuffer>>,
    ) -> PyResult<Work> {
        let is_kernel = what.is_instance_of::<Kernel>();
        if !is_kernel && !what.is_callable() {
            let name = what.get_type().name()?;
            return Err(PyTypeError::new_err(format!(
                "{name} is neither a kernel nor a function that enqueues work"
            )));
        }
        let shape = match (grid, block) {
            (Some(grid), Some(block)) if is_kernel => Some((grid.unbind(), block.unbind())),
            (None, None) if !is_kernel && args.is_empty() && shared_bytes == 0 => None,
            _ if is_kernel => return Err(argument("a kernel needs grid and block")),
            _ => {
                return Err(argument(
                    "grid, block, args and shared_bytes are for kernels: a function has its own",
                ))
            }
        };
        Ok(Work::Compute(Box::new(Self {
            what: what.unbind(),
            shape,
            args: args.into_iter().map(Bound::unbind).collect(),
            shared_bytes,
            triple: triple.map(Bound::unbind),
        })))
    }
}

#[pymethods]
impl Task {
    /// As `Coordinator.upload`.
    #[staticmethod]
    #[pyo3(signature = (to, from_, after = Vec::new()))]
    fn upload(to: Py<PyAny>, from_: Py<PyAny>, after: Vec<Py<PyAny>>) -> Self {
        Self { work: Work::Upload { to, from: from_ }, after }
    }

    /// As `Coordinator.download`.
    #[staticmethod]
    #[pyo3(signature = (to, from_, after = Vec::new()))]
    fn download(to: Py<PyAny>, from_: Py<PyAny>, after: Vec<Py<PyAny>>) -> Self {
        Self { work: Work::Download { to, from: from_ }, after }
    }

    /// As `Coordinator.compute`.
    #[staticmethod]
    #[pyo3(signature = (what, grid = None, block = None, args = Vec::new(), *, shared_bytes = 0, triple = None,
                        after = Vec::new()))]
    fn compute(
        what: Bound<'_, PyAny>,
        grid: Option<Bound<'_, PyAny>>,
        block: Option<Bound<'_, PyAny>>,
        args: Vec<Bound<'_, PyAny>>,
        shared_bytes: u32,
        triple: Option<Bound<'_, TripleBuffer>>,
        after: Vec<Py<PyAny>>,
    ) -> PyResult<Self> {
        Ok(Self { work: Compute::work(what, grid, block, args, shared_bytes, triple)?, after })
    }

    /// As `Coordinator.push`, but that a `timeout` of None is none at all.
    #[staticmethod]
    #[pyo3(signature = (mailbox, records, *, msg_type = 0, step = "process", timeout = None, after = Vec::new()))]
    fn push(
        mailbox: Py<Mailbox>,
        records: Py<PyAny>,
        msg_type: u32,
        step: &str,
        timeout: Option<f64>,
        after: Vec<Py<PyAny>>,
    ) -> PyResult<Self> {
        let room_ns = limit(timeout)?.map_or(0, nanoseconds);
        Ok(Self { work: Work::Push { mailbox, records, msg_type, step: step_of(step)?, room_ns }, after })
    }

    /// As `Coordinator.pop`.
    #[staticmethod]
    #[pyo3(signature = (mailbox, out, max = None, *, reader = 0, step = "process", after = Vec::new()))]
    fn pop(
        mailbox: Py<Mailbox>,
        out: Py<PyAny>,
        max: Option<u32>,
        reader: u32,
        step: &str,
        after: Vec<Py<PyAny>>,
    ) -> PyResult<Self> {
        Ok(Self { work: Work::Pop { mailbox, out, max, reader, step: step_of(step)? }, after })
    }

    fn __repr__(&self) -> String {
        format!("<gpumailbox.Task {} after {}>", self.work.kind(), self.after.len())
    }
}

pub const KINDS: [&str; 5] = ["upload", "compute", "download", "push", "pop"];

impl Work {
    fn number(&self) -> i32 {
        match self {
            Self::Upload { .. } => ffi::GMB_OPERATION_UPLOAD,
            Self::Compute(_) => ffi::GMB_OPERATION_COMPUTE,
            Self::Download { .. } => ffi::GMB_OPERATION_DOWNLOAD,
            Self::Push { .. } => ffi::GMB_OPERATION_PUSH,
            Self::Pop { .. } => ffi::GMB_OPERATION_POP,
        }
    }

    pub fn kind(&self) -> &'static str {
        KINDS[self.number() as usize]
    }
}

/// The same as the library gets it. It stays where it is, and is alive during the library's call.
pub struct Ready {
    task: ffi::gmb_task,
    compute: Option<ffi::gmb_compute>,
    launch: Option<Launch>,
    call: Option<Box<Call>>,
    push: Option<ffi::gmb_push>,
    pop: Option<ffi::gmb_pop>,
    kept: Vec<Kept>,
    pub raised: Arc<Raised>,
}

const NO_TRIPLE: ffi::gmb_triple_buffer = ffi::gmb_triple_buffer { id: 0 };
const NO_DTYPE: gmb_dtype = gmb_dtype { code: 0, bits: 0, lanes: 0 };

/// An array on the device that bytes are copied to or from.
fn device_array(
    of: &Bound<'_, PyAny>,
    core: &Core,
    step: usize,
    what: &str,
    host: &HostArray,
) -> PyResult<dlpack::Managed> {
    let stream = core.streams[step];
    if let Ok(buffer) = of.cast::<triple::Buffer>() {
        buffer.get().used_by(stream);
    }
    let array = dlpack::import(of, &core.context, stream)?;
    check_place(array.tensor(), &core.context, what)?;
    check_same(host.dtype(), what, array.tensor().dtype)?;
    let elements = dense(&array, what)?;
    if elements != host.elements {
        return Err(argument(format!(
            "{what} has {elements} elements, and the array on the host {}",
            host.elements
        )));
    }
    Ok(array)
}

impl Ready {
    pub fn new(py: Python<'_>, core: &Arc<Core>, work: &Work) -> PyResult<Box<Self>> {
        let mut ready = Box::new(Self {
            task: ffi::gmb_task {
                struct_size: size_of::<ffi::gmb_task>() as u32,
                kind: work.number(),
                to: std::ptr::null_mut(),
                from: std::ptr::null(),
                bytes: 0,
                triple: NO_TRIPLE,
                dtype: NO_DTYPE,
                step: ffi::GMB_STEP_PROCESS,
                compute: std::ptr::null(),
                mailbox: ffi::gmb_mailbox { id: 0 },
                push: std::ptr::null(),
                pop: std::ptr::null(),
                after: std::ptr::null(),
                after_count: 0,
                reserved: 0,
            },
            compute: None,
            launch: None,
            call: None,
            push: None,
            pop: None,
            kept: Vec::new(),
            raised: Arc::default(),
        });
        match work {
            Work::Upload { to, from } => ready.upload(core, to.bind(py), from.bind(py))?,
            Work::Download { to, from } => ready.download(core, to.bind(py), from.bind(py))?,
            Work::Compute(compute) => ready.compute(py, core, compute)?,
            Work::Push { mailbox, records, msg_type, step, room_ns } => {
                let (mailbox, records) = (mailbox.get(), records.bind(py));
                let given = Pushed { records, lengths: None, types: None, msg_type: *msg_type };
                let (push, what) = mailbox.push_of(given, core.streams[*step])?;
                ready.use_mailbox(mailbox, *step)?;
                ready.push = Some(ffi::gmb_push { timeout_ns: *room_ns, ..push });
                ready.kept.push(Box::new(what));
            }
            Work::Pop { mailbox, out, max, reader, step } => {
                let (mailbox, out) = (mailbox.get(), out.bind(py));
                let max = max.map_or_else(|| out.len().map(|rows| rows as u32), Ok)?;
                let (pop, to) = mailbox.pop_of(max, Some(out), false, *reader, core.streams[*step])?;
                ready.use_mailbox(mailbox, *step)?;
                ready.pop = Some(pop);
                ready.kept.push(Box::new(to.kept()));
            }
        }
        Ok(ready)
    }

    fn use_mailbox(&mut self, mailbox: &Mailbox, step: usize) -> PyResult<()> {
        self.task.mailbox = mailbox.ring.handle()?;
        self.task.step = step as i32;
        self.kept.push(Box::new(Arc::clone(&mailbox.ring)));
        Ok(())
    }

    fn use_triple(&mut self, triple: &TripleBuffer) -> PyResult<Arc<triple::Core>> {
        let triple = triple.core()?;
        self.kept.push(Box::new(Arc::clone(&triple)));
        Ok(triple)
    }

    fn upload(&mut self, core: &Core, to: &Bound<'_, PyAny>, from: &Bound<'_, PyAny>) -> PyResult<()> {
        let host = HostArray::new(from, "from_")?;
        self.task.from = host.address() as *const c_void;
        self.task.bytes = host.bytes;
        match to.cast::<TripleBuffer>() {
            Ok(triple) => {
                let triple = self.use_triple(triple.get())?;
                triple.check_host(&host)?;
                (self.task.triple, self.task.dtype) = (triple.handle, host.dtype());
            }
            Err(_) => {
                let device = device_array(to, core, 0, "to", &host)?;
                if device.is_read_only() {
                    return Err(argument("to is read-only"));
                }
                self.task.to = device.address() as *mut c_void;
                self.kept.push(Box::new(device));
            }
        }
        self.kept.push(Box::new(host));
        Ok(())
    }

    fn download(&mut self, core: &Core, to: &Bound<'_, PyAny>, from: &Bound<'_, PyAny>) -> PyResult<()> {
        let host = HostArray::new(to, "to")?;
        host.check_writable("to")?;
        self.task.to = host.address() as *mut c_void;
        self.task.bytes = host.bytes;
        match from.cast::<TripleBuffer>() {
            Ok(triple) => {
                let triple = self.use_triple(triple.get())?;
                triple.check_host(&host)?;
                (self.task.triple, self.task.dtype) = (triple.handle, host.dtype());
            }
            Err(_) => {
                let device = device_array(from, core, 2, "from_", &host)?;
                self.task.from = device.address() as *const c_void;
                self.kept.push(Box::new(device));
            }
        }
        self.kept.push(Box::new(host));
        Ok(())
    }

    fn compute(&mut self, py: Python<'_>, core: &Arc<Core>, compute: &Compute) -> PyResult<()> {
        let triple = compute.triple.as_ref().map(|triple| self.use_triple(triple.get())).transpose()?;
        let mut wanted = ffi::gmb_compute {
            struct_size: size_of::<ffi::gmb_compute>() as u32,
            reserved: 0,
            kernel: ffi::gmb_kernel { id: 0 },
            launch: std::ptr::null(),
            callback: None,
            user: std::ptr::null_mut(),
            triple: triple.as_ref().map_or(NO_TRIPLE, |triple| triple.handle),
        };
        let stream = core.streams[1];
        match (&compute.shape, compute.what.bind(py).cast::<Kernel>()) {
            (Some((grid, block)), Ok(kernel)) => {
                let kernel = kernel.get();
                let shape = Shape::new(grid.bind(py), block.bind(py), compute.shared_bytes)?;
                let given: Vec<_> = compute.args.iter().map(|value| value.bind(py).clone()).collect();
                let function = kernel.function.as_ref();
                let mut given = Arguments::new(&given, &core.context, stream, function.is_some())?;
                let of_triple = kernel.core.of_triple.filter(|_| triple.is_some());
                wanted.kernel = of_triple.unwrap_or(kernel.core.handle);
                let raised = Arc::clone(&self.raised);
                let function = function.map(|it| launched(py, it, &mut given, triple.clone(), raised, false));
                self.launch = Some(Launch::new(shape, &mut given, function.as_ref()));
                self.kept.append(&mut given.kept);
                self.kept.push(Box::new(Arc::<module::KernelCore>::clone(&kernel.core)));
            }
            _ => {
                wanted.callback = Some(enqueue);
                self.call = Some(Box::new(Call {
                    function: compute.what.clone_ref(py),
                    context: Arc::clone(&core.context),
                    stream: Py::new(py, Stream::of(core, 1))?,
                    address: stream,
                    triple,
                    calling: Call::calling(&core.context, stream, &self.raised),
                }));
            }
        }
        self.compute = Some(wanted);
        Ok(())
    }

    /// For the library's call, with what it comes after, in a graph.
    pub fn task(&mut self, after: &[ffi::gmb_task_after]) -> ffi::gmb_task {
        if let Some(compute) = &mut self.compute {
            compute.launch = self.launch.as_mut().map_or(std::ptr::null(), Launch::get);
            let call =
                self.call.as_mut().map_or(std::ptr::null_mut(), |call| std::ptr::from_mut(call.as_mut()));
            compute.user = call.cast::<c_void>();
        }
        let at = |it: Option<*const ffi::gmb_compute>| it.unwrap_or(std::ptr::null());
        ffi::gmb_task {
            compute: at(self.compute.as_ref().map(std::ptr::from_ref)),
            push: self.push.as_ref().map_or(std::ptr::null(), std::ptr::from_ref),
            pop: self.pop.as_ref().map_or(std::ptr::null(), std::ptr::from_ref),
            after: after.as_ptr(),
            after_count: after.len() as u32,
            ..self.task
        }
    }

    /// A push waits for room for so long, under "wait".
    pub fn wait_for_room(&mut self, nanoseconds: u64) {
        if let Some(push) = &mut self.push {
            push.timeout_ns = nanoseconds;
        }
    }

    /// What is kept until the operation is done.
    pub fn kept(mut self: Box<Self>) -> Vec<Kept> {
        let mut kept = std::mem::take(&mut self.kept);
        kept.extend(self.call.iter().flat_map(|call| call.kept()));
        kept
    }
}

/// Queues one operation, as the function of its kind does.
///
/// # Safety
/// The task is of a `Ready` that is alive.
pub unsafe fn queue(
    coordinator: ffi::gmb_coordinator,
    task: &ffi::gmb_task,
    after: &[ffi::gmb_operation],
    id: &mut ffi::gmb_operation,
) -> i32 {
    let (count, after) = (after.len() as u32, after.as_ptr());
    // SAFETY: as promised by the caller; it writes an id.
    unsafe {
        match task.kind {
            ffi::GMB_OPERATION_UPLOAD if task.triple.id != 0 => ffi::gmb_coordinator_queue_triple_upload(
                coordinator,
                task.triple,
                task.dtype,
                task.from,
                task.bytes,
                after,
                count,
                id,
            ),
            ffi::GMB_OPERATION_UPLOAD => ffi::gmb_coordinator_queue_upload(
                coordinator,
                task.to,
                task.from,
                task.bytes,
                after,
                count,
                id,
            ),
            ffi::GMB_OPERATION_DOWNLOAD if task.triple.id != 0 => ffi::gmb_coordinator_queue_triple_download(
                coordinator,
                task.triple,
                task.dtype,
                task.to,
                task.bytes,
                after,
                count,
                id,
            ),
            ffi::GMB_OPERATION_DOWNLOAD => ffi::gmb_coordinator_queue_download(
                coordinator,
                task.to,
                task.from,
                task.bytes,
                after,
                count,
                id,
            ),
            ffi::GMB_OPERATION_PUSH => ffi::gmb_coordinator_queue_push(
                coordinator,
                task.mailbox,
                task.push,
                task.step,
                after,
                count,
                id,
            ),
            ffi::GMB_OPERATION_POP => ffi::gmb_coordinator_queue_pop(
                coordinator,
                task.mailbox,
                task.pop,
                task.step,
                after,
                count,
                id,
            ),
            _ => ffi::gmb_coordinator_queue_compute(coordinator, task.compute, after, count, id),
        }
    }
}
