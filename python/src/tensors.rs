//! Mailboxes for tensors, by pointer.

use std::ffi::c_void;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use crate::array::{as_numpy, cuda_array_interface, Layout};
use crate::context::{ended, limit, patiently, without_lock, Inner, POLICIES};
use crate::dlpack::{self, Managed};
use crate::error::{check, dictionary, status};
use crate::ffi;
use crate::streams::{self, raw};

/// Hands tensors over without moving an element.
#[pyclass(frozen, weakref, module = "gpumailbox")]
pub struct TensorMailbox {
    inner: Arc<TensorBox>,
}

/// The handle, which goes with the mailbox or the interpreter.
struct TensorBox {
    context: Arc<Inner>,
    handle: AtomicU64,
}

/// Those that there are.
static OPEN: Mutex<Vec<Weak<TensorBox>>> = Mutex::new(Vec::new());

/// How long the end of the interpreter waits for tensors that are on their way back.
const PATIENCE: Duration = Duration::from_secs(2);

/// Gives back what nobody has popped, and waits for what is on its way back. The mailboxes stay: to end them would wake
/// threads that wait, which would only raise.
pub fn end_all() {
    let open = std::mem::take(&mut *OPEN.lock().unwrap_or_else(|p| p.into_inner()));
    let start = Instant::now();
    for mailbox in open.iter().filter_map(Weak::upgrade) {
        let Ok(handle) = mailbox.get() else { continue };
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
    pub fn new(py: Python<'_>, context: &Arc<Inner>, capacity: u64, full_policy: i32) -> PyResult<Self> {
        let options = ffi::gmb_tensor_mailbox_options {
            struct_size: size_of::<ffi::gmb_tensor_mailbox_options>() as u32,
            consumer: ffi::GMB_CONSUMER_HOST as i32,
            capacity,
            full_policy,
            reserved: 0,
        };
        let (of, mut handle) = (context.handle()?, ffi::gmb_tensor_mailbox { id: 0 });
        // SAFETY: options of their size; it writes a handle.
        check(py.detach(|| unsafe { ffi::gmb_tensor_mailbox_create(of, &options, &mut handle) }))?;
        let inner = Arc::new(TensorBox { context: Arc::clone(context), handle: AtomicU64::new(handle.id) });
        let mut open = OPEN.lock().unwrap_or_else(|p| p.into_inner());
        open.retain(|known| known.strong_count() > 0);
        open.push(Arc::downgrade(&inner));
        Ok(Self { inner })
    }
}

impl TensorBox {
    fn info(&self) -> PyResult<ffi::gmb_tensor_mailbox_info> {
        // SAFETY: numbers only.
        let mut info: ffi::gmb_tensor_mailbox_info = unsafe { std::mem::zeroed() };
        // SAFETY: it writes that many bytes.
        check(unsafe { ffi::gmb_tensor_mailbox_get_info(self.get()?, &mut info, size_of_val(&info)) })?;
        Ok(info)
    }

    fn get(&self) -> PyResult<ffi::gmb_tensor_mailbox> {
        match self.handle.load(Ordering::Acquire) {
            0 => Err(status(ffi::GMB_ERROR_INVALID_HANDLE, "the mailbox is closed")),
            _ if self.context.handle().is_err() => {
                Err(status(ffi::GMB_ERROR_INVALID_HANDLE, "the context is closed"))
            }
            id => Ok(ffi::gmb_tensor_mailbox { id }),
        }
    }

    fn end(&self) {
        let id = self.handle.swap(0, Ordering::AcqRel);
        if id != 0 && !ended() {
            without_lock(|| {
                // SAFETY: taken out, so this is the only one.
                unsafe { ffi::gmb_tensor_mailbox_destroy(ffi::gmb_tensor_mailbox { id }) };
            });
        }
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
        let handle = self.inner.get()?;
        let limit = limit(timeout)?;
        let stream = streams::resolve(py, &self.inner.context, stream)?;
        let managed = dlpack::import(tensor, &self.inner.context, stream)?;
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
        let pushed = match give(0) {
            told if told == ffi::GMB_ERROR_TIMEOUT as i32 => patiently(py, limit, give),
            told => check(told),
        };
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
        let handle = self.inner.get()?;
        let stream = streams::resolve(py, &self.inner.context, stream)?;
        let none = || Ok(py.None().into_bound(py));
        if let Some(like) = like {
            let maker = dlpack::maker(like)?;
            let mut managed: *mut c_void = std::ptr::null_mut();
            let at = &mut managed as *mut *mut c_void as usize;
            // SAFETY: it writes a managed tensor that is ours then.
            let take = move |left| unsafe {
                ffi::gmb_tensor_mailbox_pop_dlpack(handle, raw(stream), left, at as *mut _)
            };
            return match popped(py, timeout, take)? {
                false => none(),
                true => dlpack::made(py, maker, Managed::Versioned(managed.cast())),
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
        let tensor = Tensor {
            context: Arc::clone(&self.inner.context),
            stream,
            record,
            lease: Mutex::new(Some(lease)),
        };
        Ok(Bound::new(py, tensor)?.into_any())
    }

    /// Counts: tensors pushed, popped, queued, leases that are out, tensors given back.
    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let info = self.inner.info()?;
        let all = dictionary(
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
        )?;
        all.set_item("full_policy", POLICIES.get(info.full_policy as usize).copied())?;
        Ok(all)
    }

    /// The handle of the C API, for C++ in the same process.
    #[getter]
    fn handle(&self) -> PyResult<u64> {
        Ok(self.inner.get()?.id)
    }

    fn __repr__(&self) -> String {
        format!("<gpumailbox.TensorMailbox{}>", if self.inner.get().is_ok() { "" } else { ", closed" })
    }

    /// Tensors that nobody has popped go back to their producers; those that are out stay. Twice is once.
    fn close(&self) {
        self.inner.end();
    }

    fn __enter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    #[pyo3(signature = (*_ended))]
    fn __exit__(&self, _ended: &Bound<'_, PyTuple>) {
        self.close();
    }
}

impl Drop for TensorBox {
    fn drop(&mut self) {
        self.end();
    }
}

/// Whether there was one in time.
fn popped(py: Python<'_>, timeout: Option<f64>, mut take: impl FnMut(u64) -> i32 + Send) -> PyResult<bool> {
    let limit = limit(timeout)?;
    let (late, not_ready) = (ffi::GMB_ERROR_TIMEOUT as i32, ffi::GMB_NOT_READY as i32);
    let mut last = take(0);
    if (last == late || last == not_ready) && limit.is_none_or(|limit| !limit.is_zero()) {
        last = match patiently(py, limit, take) {
            Ok(told) => told,
            Err(error) if is_timeout(py, &error) => return Ok(false),
            Err(error) => return Err(error),
        };
    }
    if last == late || last == not_ready {
        return Ok(false);
    }
    check(last).map(|_| true)
}

fn is_timeout(py: Python<'_>, error: &PyErr) -> bool {
    error.is_instance_of::<pyo3::exceptions::PyTimeoutError>(py)
}

/// A tensor that was popped: its producer's memory, for as long as this, or anything made of it, is there.
#[pyclass(frozen, module = "gpumailbox")]
pub struct Tensor {
    context: Arc<Inner>,
    stream: usize,
    record: ffi::gmb_tensor,
    lease: Mutex<Option<ffi::gmb_lease>>,
}

impl Tensor {
    fn get(&self) -> PyResult<ffi::gmb_lease> {
        let lease = *self.lease.lock().unwrap_or_else(|p| p.into_inner());
        lease.ok_or_else(|| {
            status(ffi::GMB_ERROR_INVALID_HANDLE, "the tensor was released: it is its producer's again")
        })
    }

    fn end(&self) {
        let lease = self.lease.lock().unwrap_or_else(|p| p.into_inner()).take();
        if let Some(lease) = lease.filter(|_| !ended()) {
            // SAFETY: taken out, so this is the only one.
            without_lock(|| unsafe { ffi::gmb_lease_release(lease) });
        }
    }

    fn layout(&self) -> Layout {
        let ndim = self.record.ndim.clamp(0, 8) as usize;
        Layout {
            address: self.record.address + self.record.byte_offset,
            dtype: self.record.dtype,
            shape: self.record.shape[..ndim].to_vec(),
            strides: self.record.strides[..ndim].to_vec(),
        }
    }
}

#[pymethods]
impl Tensor {
    #[getter]
    fn shape<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, self.layout().shape)
    }

    /// Elements from one index to the next.
    #[getter]
    fn strides<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, self.layout().strides)
    }

    #[getter]
    fn dtype(&self) -> String {
        dlpack::dtype_name(self.record.dtype)
    }

    /// The first element's address: the one that was pushed.
    #[getter]
    fn data_ptr(&self) -> u64 {
        self.layout().address
    }

    /// The number that came with it.
    #[getter]
    fn tag(&self) -> u64 {
        self.record.tag
    }

    /// Another stream uses the tensor, too: it is waited for before the producer gets its memory back.
    fn use_on(&self, stream: &Bound<'_, PyAny>) -> PyResult<()> {
        // SAFETY: checked by the library.
        check(unsafe { ffi::gmb_lease_use(self.get()?, raw(streams::address(stream)?)) })?;
        Ok(())
    }

    /// Lets go of it; what was made of it by from_dlpack keeps the memory. Twice is once.
    fn release(&self) {
        self.end();
    }

    #[pyo3(signature = (*, stream = None, max_version = None, dl_device = None, copy = None))]
    fn __dlpack__<'py>(
        &self,
        py: Python<'py>,
        stream: Option<&Bound<'py, PyAny>>,
        max_version: Option<(u32, u32)>,
        dl_device: Option<(i32, i32)>,
        copy: Option<bool>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let lease = self.get()?;
        if copy == Some(true) || dl_device.is_some_and(|device| device != self.context.device_type()) {
            return Err(pyo3::exceptions::PyBufferError::new_err(
                "no copy is made here: take it as it is, and copy it then",
            ));
        }
        if let Some(theirs) =
            stream.and_then(|stream| stream.extract::<i64>().ok()).filter(|_| self.context.cuda)
        {
            // The consumer's stream waits for the producer's, and is waited for before the memory goes back.
            if theirs > 0 {
                let theirs = if theirs == 1 { 0 } else { theirs as usize };
                // SAFETY: checked by the library.
                check(unsafe { ffi::gmb_lease_use(lease, raw(theirs)) })?;
                dlpack::order(&self.context, self.stream, stream)?;
            }
        }
        let mut at: *mut c_void = std::ptr::null_mut();
        // SAFETY: it writes a managed tensor that is ours then.
        let managed = unsafe {
            if dlpack::wants_version(max_version) {
                check(ffi::gmb_lease_to_dlpack(lease, &mut at))?;
                Managed::Versioned(at.cast())
            } else {
                check(ffi::gmb_lease_to_dlpack_legacy(lease, &mut at))?;
                Managed::Legacy(at.cast())
            }
        };
        dlpack::capsule(py, managed)
    }

    fn __dlpack_device__(&self) -> (i32, i32) {
        (self.record.device_type, self.record.device_id)
    }

    #[pyo3(signature = (dtype = None, copy = None))]
    fn __array__<'py>(
        slf: &Bound<'py, Self>,
        dtype: Option<&Bound<'py, PyAny>>,
        copy: Option<bool>,
    ) -> PyResult<Bound<'py, PyAny>> {
        as_numpy(slf.as_any(), slf.get().context.cuda, dtype, copy)
    }

    #[getter]
    fn __cuda_array_interface__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        self.get()?;
        cuda_array_interface(py, &self.context, &self.layout(), Some(self.stream))
    }

    fn __repr__(&self) -> String {
        format!("<gpumailbox.Tensor {}{:?} tag={}>", self.dtype(), self.layout().shape, self.record.tag)
    }
}

impl Drop for Tensor {
    fn drop(&mut self) {
        self.end();
    }
}
