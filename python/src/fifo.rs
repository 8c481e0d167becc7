//! FIFOs: records from the device to the host.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyDict, PyTuple};

use crate::context::ContextHandle;
use crate::dlpack;
use crate::error::{check, closed, status};
use crate::ffi;
use crate::info::{counts, info};
use crate::interpreter::{ended, without_lock};
use crate::keeping::{Keeping, Until, What};
use crate::records::Kind;
use crate::streams::{self, raw};
use crate::token::TokenHandle;
use crate::waiting::{limit, patiently_while};
use crate::watch::{Watch, Watched};

const RECORD: usize = size_of::<ffi::gmb_fifo_record>();

/// Records of two words from kernels to the host, in the order of their pushes.
#[pyclass(frozen, weakref, module = "gpumailbox")]
pub struct Fifo {
    core: Arc<Core>,
    keeping: Keeping,
    capacity: u64,
    /// Of the header.
    address: u64,
}

/// The handle, which goes with the FIFO and its watches.
struct Core {
    context: Arc<ContextHandle>,
    id: AtomicU64,
}

impl Core {
    fn handle(&self) -> PyResult<ffi::gmb_fifo> {
        self.context.handle()?;
        match self.id.load(Ordering::Acquire) {
            0 => Err(closed("the FIFO is closed")),
            id => Ok(ffi::gmb_fifo { id }),
        }
    }

    fn info(&self) -> PyResult<ffi::gmb_fifo_info> {
        let handle = self.handle()?;
        // SAFETY: numbers and an address; it writes that many bytes.
        unsafe { info(|at, bytes| ffi::gmb_fifo_get_info(handle, at, bytes)) }
    }

    fn end(&self) {
        let id = self.id.swap(0, Ordering::AcqRel);
        if id != 0 {
            without_lock(|| {
                // SAFETY: taken out, so this is the only one.
                unsafe { ffi::gmb_fifo_destroy(ffi::gmb_fifo { id }) };
            });
        }
    }
}

impl Watched for Core {
    fn check_open(&self) -> PyResult<()> {
        self.handle().map(drop)
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        if !ended() {
            self.end();
        }
    }
}

impl Fifo {
    pub fn new(py: Python<'_>, context: &Arc<ContextHandle>, capacity: u64) -> PyResult<Self> {
        let (of, mut handle) = (context.handle()?, ffi::gmb_fifo { id: 0 });
        let struct_size = size_of::<ffi::gmb_fifo_options>() as u32;
        let options = ffi::gmb_fifo_options { struct_size, reserved: 0, capacity };
        // SAFETY: options of their size; it writes a handle.
        check(py.detach(|| unsafe { ffi::gmb_fifo_create(of, &options, &mut handle) }))?;
        let core = Arc::new(Core { context: Arc::clone(context), id: AtomicU64::new(handle.id) });
        let info = core.info()?;
        let (capacity, address) = (info.capacity, info.fifo as u64);
        Ok(Self { core, keeping: Keeping::default(), capacity, address })
    }
}

#[pymethods]
impl Fifo {
    /// Pushes `records`, a dense array on the device whose items, or rows, have 16 bytes; where there is room for fewer the
    /// first so many. Waits for nothing: how many is told to the `token`. The array is kept until the kernel has read it.
    #[pyo3(signature = (records, *, stream = None, token = None))]
    fn push(
        &self,
        py: Python<'_>,
        records: &Bound<'_, PyAny>,
        stream: Option<&Bound<'_, PyAny>>,
        token: Option<&TokenHandle>,
    ) -> PyResult<()> {
        let (handle, context) = (self.core.handle()?, &self.core.context);
        let stream = streams::resolve(py, context, stream)?;
        let from = dlpack::import(records, context, stream)?;
        let count = Kind::bytes(RECORD as u32).items(&from, context, "FIFO")?;
        let at = from.address() as *const ffi::gmb_fifo_record;
        // SAFETY: memory of that size, which is kept.
        let push = |to| check(unsafe { ffi::gmb_fifo_push(handle, at, count, raw(stream), to) });
        let bytes = u64::from(count) * RECORD as u64;
        let what = What { given: [Some(from), None, None], bytes, ..What::default() };
        if let Some(token) = token {
            push(token.token.handle)?;
            return self.keeping.keep_until_reached(context, stream, what);
        }
        let mut token = context.token()?;
        if let Err(error) = push(token.handle) {
            context.keep(token);
            return Err(error);
        }
        token.epoch += 1;
        self.keeping.keep(context, Until::Told(token), what);
        Ok(())
    }

    /// Takes up to `max` records, as many as there are, once there is one: an array of NumPy with a row of two numbers
    /// (uint64) for each. None of them when none has come within `timeout` seconds.
    #[pyo3(signature = (max, timeout = None))]
    fn pop<'py>(&self, py: Python<'py>, max: u32, timeout: Option<f64>) -> PyResult<Bound<'py, PyAny>> {
        let (handle, limit, mut popped) = (self.core.handle()?, limit(timeout)?, 0u64);
        let max = u64::from(max).min(self.capacity) as u32;
        let mut records: Vec<u8> = Vec::new();
        // Eight bytes more, to begin at a multiple of eight.
        records.try_reserve_exact(max as usize * RECORD + 8).map_err(|_| {
            status(
                ffi::GMB_ERROR_OUT_OF_HOST_MEMORY,
                format!("{max} records do not fit in the host's memory"),
            )
        })?;
        let skipped = records.as_ptr().align_offset(8);
        records.resize(skipped, 0);
        let to = records.as_mut_ptr() as usize + skipped;
        let open = || self.core.handle().map(drop);
        patiently_while(py, limit, open, |left| {
            let to = to as *mut ffi::gmb_fifo_record;
            // SAFETY: room for so many; it writes a number.
            match unsafe { ffi::gmb_fifo_pop_to_host(handle, to, max, left, &mut popped) } {
                0 if popped == 0 => ffi::GMB_NOT_READY,
                told => told,
            }
        })?;
        // SAFETY: so many were written.
        unsafe { records.set_len(skipped + popped as usize * RECORD) };
        let bytes = PyByteArray::new(py, &records[skipped..]);
        let rows = py.import("numpy")?.call_method1("frombuffer", (bytes, "uint64"))?;
        rows.call_method1("reshape", (popped, 2))
    }

    /// As `pop`, once there is something: `await` it. The event loop sleeps on a descriptor, no thread waits.
    #[pyo3(signature = (max, timeout = None))]
    fn pop_async<'py>(slf: &Bound<'py, Self>, max: u32, timeout: Option<f64>) -> PyResult<Bound<'py, PyAny>> {
        slf.py().import("gpumailbox._aio")?.getattr("pop_fifo_async")?.call1((slf, max, timeout))
    }

    /// `async for records in fifo:` until it is closed.
    fn __aiter__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        slf.py().import("gpumailbox._aio")?.getattr("records_of_fifo")?.call1((slf,))
    }

    /// Counts of the FIFO at one moment.
    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let info = self.core.info()?;
        counts(py, &[("capacity", info.capacity), ("drained", info.drained)])
    }

    /// A descriptor that is readable when records are there; see `Watch`.
    fn watch(&self) -> PyResult<Watch> {
        let handle = self.core.handle()?;
        // SAFETY: it writes a handle.
        Watch::new(Arc::clone(&self.core) as _, |watch| unsafe { ffi::gmb_fifo_create_watch(handle, watch) })
    }

    /// The handle of the C API, for C++ in the same process.
    #[getter]
    fn handle(&self) -> PyResult<u64> {
        Ok(self.core.handle()?.id)
    }

    /// Where it lies on the device, for kernels: a `gmb_fifo_header`.
    #[getter]
    fn address(&self) -> PyResult<u64> {
        self.core.handle()?;
        Ok(self.address)
    }

    #[getter]
    fn capacity(&self) -> u64 {
        self.capacity
    }

    fn __repr__(&self) -> String {
        let state = if self.core.handle().is_ok() { "" } else { ", closed" };
        format!("<gpumailbox.Fifo, capacity {}{state}>", self.capacity)
    }

    /// Later calls raise `Closed`, and so do those that wait; records in it are dropped. Twice is once.
    fn close(&self) {
        self.core.end();
    }

    fn __enter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    #[pyo3(signature = (*_ended))]
    fn __exit__(&self, _ended: &Bound<'_, PyTuple>) {
        self.close();
    }
}
