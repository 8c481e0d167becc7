//! Contexts and events.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use crate::array::Kind;
use crate::error::{argument, check, choice, dictionary, status};
use crate::mailbox::Mailbox;
use crate::streams::{self, Stream, StreamGuard};
use crate::tensors::TensorMailbox;
use crate::token::TokenHandle;
use crate::{ffi, streams::raw};

/// What everything made of a context shares. The handle goes with the last of them.
pub struct Inner {
    handle: ffi::gmb_context,
    closed: AtomicBool,
    pub cuda: bool,
    pub device: u32,
    /// Results that nobody waits for any more.
    tokens: Mutex<Vec<Token>>,
}

/// A token, and the epoch of its last operation.
pub struct Token {
    pub handle: ffi::gmb_token,
    pub epoch: u64,
}

/// Not more of them are kept.
const KEPT_TOKENS: usize = 64;

impl Inner {
    pub fn handle(&self) -> PyResult<ffi::gmb_context> {
        if self.closed.load(Ordering::Acquire) {
            return Err(status(ffi::GMB_ERROR_INVALID_HANDLE, "the context is closed"));
        }
        Ok(self.handle)
    }

    /// Also when it is closed: to give back what is out.
    pub fn handle_at_end(&self) -> ffi::gmb_context {
        self.handle
    }

    /// One whose last operation is told.
    pub fn token(&self) -> PyResult<Token> {
        let kept = self.tokens.lock().unwrap_or_else(|p| p.into_inner()).pop();
        if let Some(token) = kept {
            return Ok(token);
        }
        let mut handle = ffi::gmb_token { id: 0 };
        // SAFETY: it writes a handle.
        check(unsafe { ffi::gmb_token_create(self.handle()?, &mut handle) })?;
        Ok(Token { handle, epoch: 0 })
    }

    /// One that is told, for the next who asks.
    pub fn keep(&self, token: Token) {
        let mut tokens = self.tokens.lock().unwrap_or_else(|p| p.into_inner());
        if tokens.len() < KEPT_TOKENS {
            tokens.push(token);
        }
    }

    pub fn device_type(&self) -> (i32, i32) {
        if self.cuda {
            (crate::dlpack::CUDA, self.device as i32)
        } else {
            (crate::dlpack::CPU, 0)
        }
    }
}

impl Token {
    /// Whether its last operation is done.
    pub fn is_told(&self) -> bool {
        let mut result = EMPTY;
        // SAFETY: it writes a result.
        let told = unsafe { ffi::gmb_token_poll(self.handle, &mut result) };
        told == 0 && u64::from(result.epoch) >= self.epoch || self.epoch == 0
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        // SAFETY: a token that is no longer needed; its operations go on.
        unsafe { ffi::gmb_token_destroy(self.handle) };
    }
}

pub const EMPTY: ffi::gmb_result = ffi::gmb_result { epoch: 0, count: 0, status: 0, flags: 0, lost: 0 };

impl Drop for Inner {
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

/// Runs what may wait for other threads without the interpreter's lock, if this thread has it.
pub fn without_lock<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    // SAFETY: a question; without an interpreter nobody holds its lock.
    if unsafe { pyo3::ffi::Py_IsInitialized() } == 0
        || unsafe { pyo3::ffi::PyGILState_GetThisThreadState() }.is_null()
    {
        return work();
    }
    Python::attach(|py| py.detach(work))
}

/// The interpreter is about to end: from here on nothing is given back, for whoever made it may not be called any more.
static ENDED: AtomicBool = AtomicBool::new(false);

pub fn end() {
    ENDED.store(true, Ordering::Release);
}

pub fn ended() -> bool {
    ENDED.load(Ordering::Acquire)
}

/// How long a wait goes on before signals are looked at.
const SLICE: Duration = Duration::from_millis(50);

/// Seconds as `None` for no limit.
pub fn limit(timeout: Option<f64>) -> PyResult<Option<Duration>> {
    match timeout {
        None => Ok(None),
        Some(seconds) => Duration::try_from_secs_f64(seconds).map(Some).map_err(|_| {
            argument(format!("timeout {seconds} is no time: give seconds, or None for no limit"))
        }),
    }
}

pub fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX - 1).min(u64::MAX - 1)
}

/// Calls `wait` with short limits, without the interpreter's lock, until it says something other than that time is over;
/// Ctrl-C ends it, and so does what
/// `open` says. The status of the last call.
pub fn patiently_while(
    py: Python<'_>,
    timeout: Option<Duration>,
    open: impl Fn() -> PyResult<()>,
    mut wait: impl FnMut(u64) -> i32 + Send,
) -> PyResult<i32> {
    let start = Instant::now();
    loop {
        let left = timeout.map(|limit| limit.saturating_sub(start.elapsed()));
        let slice = left.map_or(SLICE, |left| left.min(SLICE));
        let told = py.detach(|| wait(nanoseconds(slice)));
        if told != ffi::GMB_ERROR_TIMEOUT as i32 && told != ffi::GMB_NOT_READY as i32 {
            return check(told);
        }
        py.check_signals()?;
        open()?;
        if timeout.is_some_and(|limit| start.elapsed() >= limit) {
            return check(told);
        }
    }
}

/// The same of what cannot be closed meanwhile, or tells it by itself.
pub fn patiently(
    py: Python<'_>,
    timeout: Option<Duration>,
    wait: impl FnMut(u64) -> i32 + Send,
) -> PyResult<i32> {
    patiently_while(py, timeout, || Ok(()), wait)
}

pub const POLICIES: [&str; 4] = ["reject", "wait", "overwrite_oldest", "latest"];

/// One device, with all that lives on it. `backend` is "auto", "cuda" or "host"; `memory_limit` in bytes, 0 for none.
#[pyclass(frozen, weakref, module = "gpumailbox")]
pub struct Context {
    pub inner: Arc<Inner>,
    name: String,
    multiprocessors: u32,
    driver: u32,
}

#[pymethods]
impl Context {
    #[new]
    #[pyo3(signature = (backend = "auto", device = 0, *, memory_limit = 0))]
    fn new(py: Python<'_>, backend: &str, device: u32, memory_limit: u64) -> PyResult<Self> {
        let options = ffi::gmb_context_options {
            struct_size: size_of::<ffi::gmb_context_options>() as u32,
            backend: choice("backend", backend, &["auto", "cuda", "host"])?,
            device,
            reserved: 0,
            memory_limit,
        };
        let mut handle = ffi::gmb_context { id: 0 };
        // SAFETY: options of that size; it writes a handle.
        check(py.detach(|| unsafe { ffi::gmb_context_create(&options, &mut handle) }))?;
        let mut info = ffi::gmb_context_info {
            backend: 0,
            device: 0,
            multiprocessors: 0,
            driver_version: 0,
            name: [0; 128],
        };
        // SAFETY: it writes that many bytes.
        check(unsafe { ffi::gmb_context_get_info(handle, &mut info, size_of_val(&info)) })?;
        let name = info.name.iter().take_while(|&&c| c != 0).map(|&c| c as u8).collect::<Vec<_>>();
        Ok(Self {
            inner: Arc::new(Inner {
                handle,
                closed: AtomicBool::new(false),
                cuda: i64::from(info.backend) == ffi::GMB_BACKEND_CUDA,
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
                        arbitration = "cpu", readers = 1, single_stream = false))]
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
        let options = ffi::gmb_mailbox_options {
            struct_size: size_of::<ffi::gmb_mailbox_options>() as u32,
            payload_bytes: kind.bytes,
            capacity,
            arbitration: choice("arbitration", arbitration, &["cpu", "device"])?,
            full_policy: choice("full_policy", full_policy, &POLICIES)?,
            producer_id: 0,
            consumer_id: 0,
            initial_index: 0,
            flags: if single_stream { ffi::GMB_MAILBOX_SINGLE_STREAM as u32 } else { 0 },
            readers,
        };
        Mailbox::new(py, &self.inner, kind, &options)
    }

    /// A mailbox for tensors, by pointer, for consumers on the host.
    #[pyo3(signature = (capacity, *, full_policy = "reject"))]
    fn tensor_mailbox(&self, py: Python<'_>, capacity: u64, full_policy: &str) -> PyResult<TensorMailbox> {
        TensorMailbox::new(py, &self.inner, capacity, choice("full_policy", full_policy, &POLICIES)?)
    }

    /// A stream of a priority class: "normal", "focus" or "peripheral".
    #[pyo3(signature = (priority = "normal"))]
    fn stream(&self, priority: &str) -> PyResult<Stream> {
        Stream::new(
            Arc::clone(&self.inner),
            choice("priority", priority, &["normal", "focus", "peripheral"])?,
        )
    }

    /// `with context.use_stream(stream):` makes it the one that calls of this thread are for.
    fn use_stream(&self, stream: &Bound<'_, PyAny>) -> PyResult<StreamGuard> {
        Ok(StreamGuard {
            context: Arc::clone(&self.inner),
            stream: streams::address(stream)?,
            guards: Vec::new(),
        })
    }

    /// An event of the context's pool; `timed` ones can tell what time is between two.
    #[pyo3(signature = (*, timed = false))]
    fn event(&self, timed: bool) -> PyResult<Event> {
        let mut handle = ffi::gmb_event { id: 0 };
        let kind = if timed { ffi::GMB_EVENT_TIMED } else { ffi::GMB_EVENT_UNTIMED } as i32;
        // SAFETY: it writes a handle.
        check(unsafe { ffi::gmb_event_create(self.inner.handle()?, kind, &mut handle) })?;
        Ok(Event { context: Arc::clone(&self.inner), handle })
    }

    /// Where results of operations are told that nobody waits for at once.
    fn token(&self) -> PyResult<TokenHandle> {
        TokenHandle::new(&self.inner)
    }

    /// Device memory held and allowed, in bytes.
    fn memory<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        // SAFETY: numbers only.
        let mut info: ffi::gmb_memory_info = unsafe { std::mem::zeroed() };
        // SAFETY: it writes that many bytes.
        check(unsafe { ffi::gmb_memory_get_info(self.inner.handle()?, &mut info, size_of_val(&info)) })?;
        dictionary(
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

/// A point in a stream.
#[pyclass(frozen, module = "gpumailbox")]
pub struct Event {
    context: Arc<Inner>,
    pub handle: ffi::gmb_event,
}

#[pymethods]
impl Event {
    /// It stands for what the stream holds now.
    #[pyo3(signature = (stream = None))]
    fn record(&self, py: Python<'_>, stream: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        let stream = streams::resolve(py, &self.context, stream)?;
        // SAFETY: checked by the library.
        check(unsafe { ffi::gmb_event_record(self.handle, raw(stream)) })?;
        Ok(())
    }

    /// Whether that is done. Does not block.
    fn query(&self) -> PyResult<bool> {
        // SAFETY: checked by the library.
        Ok(check(unsafe { ffi::gmb_event_query(self.handle) })? == 0)
    }

    /// Blocks until that is done, for at most `timeout` seconds.
    #[pyo3(signature = (timeout = None))]
    fn synchronize(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<()> {
        let handle = self.handle;
        // SAFETY: checked by the library.
        patiently(py, limit(timeout)?, |left| unsafe { ffi::gmb_event_synchronize(handle, left) })?;
        Ok(())
    }

    /// Milliseconds between two timed events that are done.
    fn elapsed_ms(&self, end: &Event) -> PyResult<f64> {
        let mut milliseconds = 0.0;
        // SAFETY: it writes a number.
        check(unsafe { ffi::gmb_event_elapsed_ms(self.handle, end.handle, &mut milliseconds) })?;
        Ok(milliseconds)
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: nobody has it any more; it returns to its pool.
        unsafe { ffi::gmb_event_destroy(self.handle) };
    }
}
