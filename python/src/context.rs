//! Contexts: one device each, and all that is made of it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use crate::arbiter::Arbiter;
use crate::coordinator::Coordinator;
use crate::dlpack::{CPU, CUDA};
use crate::doorbell::Doorbell;
use crate::error::{argument, check, closed};
use crate::events::Event;
use crate::ffi::gmb_dtype;
use crate::fifo::Fifo;
use crate::info::{choice, counts, info, MODES, MODE_FLAGS, POLICIES};
use crate::interpreter::{ended, without_lock};
use crate::mailbox::Mailbox;
use crate::module::Module;
use crate::queue::Queue;
use crate::records::Kind;
use crate::streams::{Stream, StreamGuard};
use crate::tensor_mailbox::TensorMailbox;
use crate::token::{Token, TokenHandle};
use crate::triple::TripleBuffer;
use crate::worker::{span, Worker};
use crate::{ffi, lock};

/// What everything made of a context shares. The handle goes with the last of them.
pub struct ContextHandle {
    handle: ffi::gmb_context,
    closed: AtomicBool,
    pub cuda: bool,
    pub device: u32,
    /// Results that nobody waits for any more.
    tokens: Mutex<Vec<Token>>,
}

/// In the order of the library's numbers.
const PRIORITIES: [&str; 3] = ["normal", "focus", "peripheral"];

/// Not more of them are kept.
const KEPT_TOKENS: usize = 64;

impl ContextHandle {
    pub fn handle(&self) -> PyResult<ffi::gmb_context> {
        if self.closed.load(Ordering::Acquire) {
            return Err(closed("the context is closed"));
        }
        Ok(self.handle)
    }

    /// Also when it is closed: to give back what is out.
    pub fn handle_at_end(&self) -> ffi::gmb_context {
        self.handle
    }

    /// One whose last operation is told.
    pub fn token(&self) -> PyResult<Token> {
        let kept = lock(&self.tokens).pop();
        kept.map_or_else(|| Token::new(self), Ok)
    }

    /// One that is told, for the next who asks.
    pub fn keep(&self, token: Token) {
        let mut tokens = lock(&self.tokens);
        if tokens.len() < KEPT_TOKENS {
            tokens.push(token);
        }
    }

    pub fn device_type(&self) -> (i32, i32) {
        if self.cuda {
            (CUDA, self.device as i32)
        } else {
            (CPU, 0)
        }
    }
}

impl Drop for ContextHandle {
    fn drop(&mut self) {
        self.tokens.get_mut().unwrap_or_else(|p| p.into_inner()).clear();
        if !ended() {
            let handle = self.handle;
            // A thread of the library may wait for the interpreter's lock to end a tensor, and this for that thread.
            without_lock(|| {
                // SAFETY: the last user of the handle.
                unsafe { ffi::gmb_context_destroy(handle) };
            });
        }
    }
}

/// One device, with all that lives on it. `backend` is "auto", "cuda" or "host"; `memory_limit` in bytes, 0 for none;
/// `resident_percent` of the device may be held by workers, 0 for the default.
#[pyclass(frozen, weakref, module = "gpumailbox")]
pub struct Context {
    pub inner: Arc<ContextHandle>,
    name: String,
    multiprocessors: u32,
    driver: u32,
}

#[pymethods]
impl Context {
    #[new]
    #[pyo3(signature = (backend = "auto", device = 0, *, memory_limit = 0, resident_percent = 0))]
    fn new(
        py: Python<'_>,
        backend: &str,
        device: u32,
        memory_limit: u64,
        resident_percent: u32,
    ) -> PyResult<Self> {
        let options = ffi::gmb_context_options {
            struct_size: size_of::<ffi::gmb_context_options>() as u32,
            backend: choice("backend", backend, &["auto", "cuda", "host"])?,
            device,
            resident_percent,
            memory_limit,
        };
        let mut handle = ffi::gmb_context { id: 0 };
        // SAFETY: options of that size; it writes a handle.
        check(py.detach(|| unsafe { ffi::gmb_context_create(&options, &mut handle) }))?;
        // SAFETY: numbers only; it writes that many bytes.
        let info: ffi::gmb_context_info =
            unsafe { info(|at, bytes| ffi::gmb_context_get_info(handle, at, bytes)) }?;
        let name = info.name.iter().take_while(|&&c| c != 0).map(|&c| c as u8).collect::<Vec<_>>();
        Ok(Self {
            inner: Arc::new(ContextHandle {
                handle,
                closed: AtomicBool::new(false),
                cuda: info.backend == ffi::GMB_BACKEND_CUDA,
                device: info.device,
                tokens: Mutex::default(),
            }),
            name: String::from_utf8_lossy(&name).into_owned(),
            multiprocessors: info.multiprocessors,
            driver: info.driver_version,
        })
    }

    /// "cuda" or "host".
    #[getter]
    fn backend(&self) -> &'static str {
        if self.inner.cuda {
            "cuda"
        } else {
            "host"
        }
    }

    /// Ordinal of the device.
    #[getter]
    fn device(&self) -> u32 {
        self.inner.device
    }

    /// The device's name.
    #[getter]
    fn name(&self) -> &str {
        &self.name
    }

    /// Multiprocessors, or block threads of the host backend.
    #[getter]
    fn multiprocessors(&self) -> u32 {
        self.multiprocessors
    }

    /// The driver's version as CUDA counts it (13000 is 13.0); 0 on the host.
    #[getter]
    fn driver_version(&self) -> u32 {
        self.driver
    }

    /// The handle of the C API, for C++ in the same process.
    #[getter]
    fn handle(&self) -> PyResult<u64> {
        Ok(self.inner.handle()?.id)
    }

    /// A mailbox for records. Rows of what is pushed are records: of up to `payload_bytes`, or of this `dtype` and `shape`.
    #[pyo3(signature = (capacity, payload_bytes = None, *, dtype = None, shape = None, full_policy = "reject",
                        arbitration = "cpu", readers = 1, mode = "ordered", single_stream = false))]
    #[allow(clippy::too_many_arguments)]
    fn mailbox(
        &self,
        py: Python<'_>,
        capacity: u64,
        payload_bytes: Option<u32>,
        dtype: Option<&Bound<'_, PyAny>>,
        shape: Option<Vec<i64>>,
        full_policy: &str,
        arbitration: &str,
        readers: u32,
        mode: &str,
        single_stream: bool,
    ) -> PyResult<Mailbox> {
        let kind = match (payload_bytes, dtype) {
            (Some(bytes), None) if shape.is_none() => Kind::bytes(bytes),
            (None, Some(dtype)) => Kind::of(dtype, shape.unwrap_or_default())?,
            (Some(_), _) => {
                return Err(argument("give payload_bytes, or the dtype and shape of a record, not both"))
            }
            _ => return Err(argument("a mailbox needs payload_bytes, or the dtype and shape of a record")),
        };
        if readers == 0 {
            return Err(argument("readers is 0: a mailbox has 1 to 16, and remove_reader takes them out"));
        }
        let mode = choice("mode", mode, &MODES)?;
        let alone = if single_stream { ffi::GMB_MAILBOX_SINGLE_STREAM } else { 0 };
        let options = ffi::gmb_mailbox_options {
            struct_size: size_of::<ffi::gmb_mailbox_options>() as u32,
            payload_bytes: kind.bytes,
            capacity,
            arbitration: choice("arbitration", arbitration, &["cpu", "device"])?,
            full_policy: choice("full_policy", full_policy, &POLICIES)?,
            producer_id: 0,
            consumer_id: 0,
            initial_index: 0,
            flags: (MODE_FLAGS[mode as usize] | alone) as u32,
            readers,
        };
        Mailbox::new(py, &self.inner, kind, &options)
    }

    /// A mailbox for tensors, by pointer, for consumers on the host.
    #[pyo3(signature = (capacity, *, full_policy = "reject"))]
    fn tensor_mailbox(&self, py: Python<'_>, capacity: u64, full_policy: &str) -> PyResult<TensorMailbox> {
        TensorMailbox::new(py, &self.inner, capacity, choice("full_policy", full_policy, &POLICIES)?)
    }

    /// A work queue for `capacity` items, a power of two: of this `dtype`, or any of `item_bytes`; 4, 8 or 16 bytes.
    #[pyo3(signature = (capacity, *, dtype = None, item_bytes = None, block_threads = 0, max_blocks = 0))]
    fn queue(
        &self,
        py: Python<'_>,
        capacity: u64,
        dtype: Option<&Bound<'_, PyAny>>,
        item_bytes: Option<u32>,
        block_threads: u32,
        max_blocks: u32,
    ) -> PyResult<Queue> {
        let kind = match (item_bytes, dtype) {
            (Some(bytes), None) => Kind::bytes(bytes),
            (None, Some(dtype)) => Kind::of(dtype, Vec::new())?,
            _ => return Err(argument("a queue needs item_bytes, or the dtype of an item, and not both")),
        };
        let options = ffi::gmb_queue_options {
            struct_size: size_of::<ffi::gmb_queue_options>() as u32,
            item_bytes: kind.bytes,
            capacity,
            block_threads,
            max_blocks,
            reserved: 0,
        };
        Queue::new(py, &self.inner, kind, &options)
    }

    /// A kernel that stays on the device: takes items from `active`, adds `increment`, and pushes them to `finished`, each
    /// `spawn_interval`-th to `spawn` instead. `slice` and `watchdog` in seconds, None for the default, inf for no end. It does
    /// the commands of `doorbell`, by a block more.
    #[pyo3(signature = (active, finished = None, spawn = None, *, max_iterations = 0, idle_threshold = 0,
                        spawn_interval = 0, increment = 1, block_threads = 0, grid_blocks = 1, slice = None,
                        watchdog = None, doorbell = None))]
    #[allow(clippy::too_many_arguments)]
    fn worker(
        &self,
        py: Python<'_>,
        active: &Queue,
        finished: Option<&Queue>,
        spawn: Option<&Queue>,
        max_iterations: u64,
        idle_threshold: u64,
        spawn_interval: u64,
        increment: u64,
        block_threads: u32,
        grid_blocks: u32,
        slice: Option<f64>,
        watchdog: Option<f64>,
        doorbell: Option<&Doorbell>,
    ) -> PyResult<Worker> {
        let none = ffi::gmb_queue { id: 0 };
        let options = ffi::gmb_worker_options {
            struct_size: size_of::<ffi::gmb_worker_options>() as u32,
            block_threads,
            active: none,
            finished: none,
            spawn: none,
            max_iterations,
            idle_threshold,
            spawn_interval,
            increment,
            grid_blocks,
            reserved: 0,
            slice_ns: span("slice", slice)?,
            watchdog_ns: span("watchdog", watchdog)?,
            function: std::ptr::null(),
            user: std::ptr::null_mut(),
            doorbell: ffi::gmb_doorbell { id: 0 },
        };
        Worker::new(py, &self.inner, [Some(active), finished, spawn], doorbell, options)
    }

    /// Commands from the host to a kernel that runs, and its answers: as many at once as `capacity`, a power of two.
    #[pyo3(signature = (capacity = 64))]
    fn doorbell(&self, py: Python<'_>, capacity: u64) -> PyResult<Doorbell> {
        Doorbell::new(py, &self.inner, capacity)
    }

    /// Records of 16 bytes from the device to the host: room for `capacity` of them, a power of two.
    #[pyo3(signature = (capacity = 4096))]
    fn fifo(&self, py: Python<'_>, capacity: u64) -> PyResult<Fifo> {
        Fifo::new(py, &self.inner, capacity)
    }

    /// A kernel that stays on the device, and says there which mailboxes have records: for each a mailbox, or (mailbox, reader,
    /// "focus" or "peripheral"). `slice` in seconds, None for the default, inf for no end.
    #[pyo3(signature = (mailboxes, slice = None))]
    fn arbiter(
        &self,
        py: Python<'_>,
        mailboxes: Vec<Bound<'_, PyAny>>,
        slice: Option<f64>,
    ) -> PyResult<Arbiter> {
        Arbiter::new(py, &self.inner, &mailboxes, span("slice", slice)?)
    }

    /// Three device buffers of `elements` of a `dtype`, that go round.
    fn triple_buffer(
        &self,
        py: Python<'_>,
        dtype: &Bound<'_, PyAny>,
        elements: u64,
    ) -> PyResult<TripleBuffer> {
        TripleBuffer::new(py, &self.inner, gmb_dtype::of(dtype)?, elements)
    }

    /// Kernels of yours: bytes of a cubin, a fatbin or PTX, or the path of such a file; on the host backend it is not looked at.
    #[pyo3(signature = (image = None))]
    fn module(&self, py: Python<'_>, image: Option<&Bound<'_, PyAny>>) -> PyResult<Module> {
        Module::new(py, &self.inner, image)
    }

    /// Uploads, compute and downloads, on a stream each of a priority class. `max_operations` from the oldest that is not done to
    /// the newest, 0 for 4,096.
    #[pyo3(signature = (max_operations = 0, priority = "normal"))]
    fn coordinator(&self, py: Python<'_>, max_operations: u32, priority: &str) -> PyResult<Coordinator> {
        Coordinator::new(py, &self.inner, max_operations, choice("priority", priority, &PRIORITIES)?)
    }

    /// A stream of a priority class: "normal", "focus" or "peripheral".
    #[pyo3(signature = (priority = "normal"))]
    fn stream(&self, priority: &str) -> PyResult<Stream> {
        Stream::new(Arc::clone(&self.inner), choice("priority", priority, &PRIORITIES)?)
    }

    /// `with context.use_stream(stream):` makes it the one that calls of this thread are for.
    fn use_stream(&self, stream: &Bound<'_, PyAny>) -> PyResult<StreamGuard> {
        StreamGuard::new(&self.inner, stream)
    }

    /// An event of the context's pool; `timed` ones can tell what time is between two.
    #[pyo3(signature = (*, timed = false))]
    fn event(&self, timed: bool) -> PyResult<Event> {
        Event::new(&self.inner, timed)
    }

    /// Where results of operations are told that nobody waits for at once.
    fn token(&self) -> PyResult<TokenHandle> {
        Ok(TokenHandle { token: Token::new(&self.inner)? })
    }

    /// Device memory held and allowed, in bytes.
    fn memory<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let handle = self.inner.handle()?;
        // SAFETY: numbers only; it writes that many bytes.
        let info: ffi::gmb_memory_info =
            unsafe { info(|at, bytes| ffi::gmb_memory_get_info(handle, at, bytes)) }?;
        counts(
            py,
            &[
                ("limit", info.limit),
                ("used", info.used),
                ("high_water", info.high_water),
                ("reserved", info.reserved),
                ("allocations", info.allocations),
            ],
        )
    }

    /// Later calls of it, and of what was made of it, raise `Closed`. Tensors and arrays that are out stay, and it ends with the
    /// last of them. Twice is once.
    fn close(&self) {
        self.inner.closed.store(true, Ordering::Release);
    }

    fn __enter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    #[pyo3(signature = (*_ended))]
    fn __exit__(&self, _ended: &Bound<'_, PyTuple>) {
        self.close();
    }

    fn __repr__(&self) -> String {
        format!("<gpumailbox.Context {} {} ({})>", self.backend(), self.inner.device, self.name)
    }
}
