//! Mailboxes for tensors, by pointer.

use std::ffi::c_void;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use pyo3::exceptions::PyTimeoutError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use crate::context::ContextHandle;
use crate::dlpack::{self, Managed};
use crate::error::{check, closed};
use crate::exchange;
use crate::info::{counts_and_policy, info};
use crate::interpreter::{ended, without_lock};
use crate::streams::{self, raw};
use crate::tensor::Tensor;
use crate::waiting::{is_late, limit, patiently, push_patiently};
use crate::{ffi, lock};

/// Hands tensors over without moving an element.
#[pyclass(frozen, weakref, module = "gpumailbox")]
pub struct TensorMailbox {
    queue: Arc<Queue>,
}

/// The handle, which goes with the mailbox or the interpreter.
struct Queue {
    context: Arc<ContextHandle>,
    id: AtomicU64,
}

/// Those that there are.
static OPEN: Mutex<Vec<Weak<Queue>>> = Mutex::new(Vec::new());

/// How long the end of the interpreter waits for tensors that are on their way back.
const PATIENCE: Duration = Duration::from_secs(2);

/// Gives back what nobody has popped, and waits for what is on its way back. The mailboxes stay: to end them would wake
/// threads that wait, which would only raise.
pub fn end_all() {
    let open = std::mem::take(&mut *lock(&OPEN));
    let start = Instant::now();
    for mailbox in open.iter().filter_map(Weak::upgrade) {
        let Ok(handle) = mailbox.handle() else { continue };
        let mut lease = ffi::gmb_lease { id: 0 };
        // SAFETY: numbers only.
        let mut record: ffi::gmb_tensor = unsafe { std::mem::zeroed() };
        // SAFETY: it writes a handle and a record; a lease is released once.
        while unsafe { ffi::gmb_tensor_mailbox_pop(handle, raw(0), 0, &mut lease, &mut record) } == 0 {
            // SAFETY: as above.
            unsafe { ffi::gmb_lease_release(lease) };
        }
        while start.elapsed() < PATIENCE && mailbox.info().is_ok_and(|info| info.retiring > 0) {
            std::thread::sleep(Duration::from_micros(200));
        }
    }
}

impl TensorMailbox {
    pub fn new(
        py: Python<'_>,
        context: &Arc<ContextHandle>,
        capacity: u64,
        full_policy: i32,
    ) -> PyResult<Self> {
        let options = ffi::gmb_tensor_mailbox_options {
            struct_size: size_of::<ffi::gmb_tensor_mailbox_options>() as u32,
            consumer: ffi::GMB_CONSUMER_HOST,
            capacity,
            full_policy,
            reserved: 0,
        };
        let (of, mut handle) = (context.handle()?, ffi::gmb_tensor_mailbox { id: 0 });
        // SAFETY: options of their size; it writes a handle.
        check(py.detach(|| unsafe { ffi::gmb_tensor_mailbox_create(of, &options, &mut handle) }))?;
        let queue = Arc::new(Queue { context: Arc::clone(context), id: AtomicU64::new(handle.id) });
        let mut open = lock(&OPEN);
        open.retain(|known| known.strong_count() > 0);
        open.push(Arc::downgrade(&queue));
        Ok(Self { queue })
    }
}

impl Queue {
    fn info(&self) -> PyResult<ffi::gmb_tensor_mailbox_info> {
        let handle = self.handle()?;
        // SAFETY: numbers only; it writes that many bytes.
        unsafe { info(|at, bytes| ffi::gmb_tensor_mailbox_get_info(handle, at, bytes)) }
    }

    fn handle(&self) -> PyResult<ffi::gmb_tensor_mailbox> {
        let id = self.id.load(Ordering::Acquire);
        if id == 0 {
            return Err(closed("the mailbox is closed"));
        }
        self.context.handle()?;
        Ok(ffi::gmb_tensor_mailbox { id })
    }

    fn end(&self) {
        let id = self.id.swap(0, Ordering::AcqRel);
        if id != 0 && !ended() {
            without_lock(|| {
                // SAFETY: taken out, so this is the only one.
                unsafe { ffi::gmb_tensor_mailbox_destroy(ffi::gmb_tensor_mailbox { id }) };
            });
        }
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.end();
    }
}

#[pymethods]
impl TensorMailbox {
    /// Hands `tensor` over, of any library that speaks DLPack, with a number for its consumer. Its memory stays until the
    /// consumer has let go of it and the work of the consumer's streams is done. Waits only under "wait", for room.
    #[pyo3(signature = (tensor, tag = 0, *, stream = None, timeout = None))]
    fn push(
        &self,
        py: Python<'_>,
        tensor: &Bound<'_, PyAny>,
        tag: u64,
        stream: Option<&Bound<'_, PyAny>>,
        timeout: Option<f64>,
    ) -> PyResult<()> {
        let handle = self.queue.handle()?;
        let limit = limit(timeout)?;
        let stream = streams::resolve(py, &self.queue.context, stream)?;
        let managed = dlpack::import(tensor, &self.queue.context, stream)?;
        let managed = managed.guarded() as usize;
        let give = |left: u64| {
            let push = ffi::gmb_tensor_push {
                struct_size: size_of::<ffi::gmb_tensor_push>() as u32,
                flags: 0,
                tag,
                timeout_ns: left,
            };
            // SAFETY: a managed tensor that is given away if this succeeds.
            unsafe { ffi::gmb_tensor_mailbox_push(handle, managed as *mut c_void, &push, raw(stream)) }
        };
        let pushed = push_patiently(py, limit, || Ok(()), give);
        if pushed.is_err() {
            // SAFETY: it was not given away.
            drop(unsafe { Managed::unguarded(managed as *mut _) });
        }
        pushed.map(drop)
    }

    /// Takes the next tensor out, or None when none came within `timeout` seconds. Later work of the stream comes after
    /// what the producer had under way. With `like=torch.Tensor`, say, it is given as such.
    #[pyo3(signature = (*, stream = None, timeout = Some(0.0), like = None))]
    fn pop<'py>(
        &self,
        py: Python<'py>,
        stream: Option<&Bound<'py, PyAny>>,
        timeout: Option<f64>,
        like: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let handle = self.queue.handle()?;
        let stream = streams::resolve(py, &self.queue.context, stream)?;
        let none = || Ok(py.None().into_bound(py));
        if let Some(like) = like {
            let maker = exchange::maker(like)?;
            let mut managed: *mut c_void = std::ptr::null_mut();
            let at = &mut managed as *mut *mut c_void as usize;
            // SAFETY: it writes a managed tensor that is ours then.
            let take = move |left| unsafe {
                ffi::gmb_tensor_mailbox_pop_dlpack(handle, raw(stream), left, at as *mut _)
            };
            return match popped(py, timeout, take)? {
                false => none(),
                true => exchange::made(py, maker, Managed::Versioned(managed.cast())),
            };
        }
        let mut lease = ffi::gmb_lease { id: 0 };
        // SAFETY: numbers only.
        let mut record: ffi::gmb_tensor = unsafe { std::mem::zeroed() };
        let (lease_at, record_at) =
            (&mut lease as *mut ffi::gmb_lease as usize, &mut record as *mut _ as usize);
        // SAFETY: both are this function's.
        let take = move |left| unsafe {
            ffi::gmb_tensor_mailbox_pop(handle, raw(stream), left, lease_at as *mut _, record_at as *mut _)
        };
        if !popped(py, timeout, take)? {
            return none();
        }
        let tensor = Tensor::new(&self.queue.context, stream, record, lease);
        Ok(Bound::new(py, tensor)?.into_any())
    }

    /// Counts: tensors pushed, popped, queued, leases that are out, tensors given back.
    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let info = self.queue.info()?;
        counts_and_policy(
            py,
            &[
                ("capacity", info.capacity),
                ("pushed", info.pushed),
                ("popped", info.popped),
                ("refused", info.refused),
                ("dropped", info.dropped),
                ("queued", info.queued),
                ("leases", info.leases),
                ("retiring", info.retiring),
                ("released", info.released),
            ],
            info.full_policy,
        )
    }

    /// The handle of the C API, for C++ in the same process.
    #[getter]
    fn handle(&self) -> PyResult<u64> {
        Ok(self.queue.handle()?.id)
    }

    fn __repr__(&self) -> String {
        format!("<gpumailbox.TensorMailbox{}>", if self.queue.handle().is_ok() { "" } else { ", closed" })
    }

    /// Tensors that nobody has popped go back to their producers; those that are out stay. Twice is once.
    fn close(&self) {
        self.queue.end();
    }

    fn __enter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    #[pyo3(signature = (*_ended))]
    fn __exit__(&self, _ended: &Bound<'_, PyTuple>) {
        self.close();
    }
}

/// Whether there was one in time.
fn popped(py: Python<'_>, timeout: Option<f64>, mut take: impl FnMut(u64) -> i32 + Send) -> PyResult<bool> {
    let limit = limit(timeout)?;
    let told = take(0);
    if !is_late(told) {
        return check(told).map(|_| true);
    }
    if limit.is_some_and(|limit| limit.is_zero()) {
        return Ok(false);
    }
    match patiently(py, limit, take) {
        Ok(told) => Ok(!is_late(told)),
        Err(error) if error.is_instance_of::<PyTimeoutError>(py) => Ok(false),
        Err(error) => Err(error),
    }
}
