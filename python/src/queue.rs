//! Work queues.

use std::ffi::c_void;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyMemoryView, PySlice, PyTuple};

use crate::array::{Array, Keeper};
use crate::context::ContextHandle;
use crate::destination::{Destination, Written};
use crate::dlpack;
use crate::elements::Layout;
use crate::error::{argument, check, closed, status};
use crate::info::{counts, info};
use crate::interpreter::{ended, without_lock};
use crate::keeping::{Keeping, Until, What};
use crate::memory::Memory;
use crate::records::{narrow, Kind};
use crate::streams::{self, is_capturing, raw};
use crate::token::{result, TokenHandle, NO_TOKEN};
use crate::{dtype, exchange, ffi};

/// Small items on the context's device, first in, first out, for many producers and consumers at once.
#[pyclass(frozen, weakref, module = "gpumailbox")]
pub struct Queue {
    pub core: Arc<Core>,
    kind: Kind,
    keeping: Keeping,
    capacity: u64,
    /// Of the header.
    address: u64,
}

/// The handle, which goes with the queue and the workers that use it.
pub struct Core {
    pub context: Arc<ContextHandle>,
    id: AtomicU64,
}

impl Core {
    pub fn handle(&self) -> PyResult<ffi::gmb_queue> {
        self.context.handle()?;
        match self.id.load(Ordering::Acquire) {
            0 => Err(closed("the queue is closed")),
            id => Ok(ffi::gmb_queue { id }),
        }
    }

    fn info(&self) -> PyResult<ffi::gmb_queue_info> {
        let handle = self.handle()?;
        // SAFETY: numbers and an address; it writes that many bytes.
        unsafe { info(|at, bytes| ffi::gmb_queue_get_info(handle, at, bytes)) }
    }

    /// Refused while a worker uses it: then it stays.
    fn end(&self) -> PyResult<()> {
        let id = self.id.load(Ordering::Acquire);
        if id == 0 {
            return Ok(());
        }
        // SAFETY: checked by the library, also that nobody else has ended it.
        let told = without_lock(|| unsafe { ffi::gmb_queue_destroy(ffi::gmb_queue { id }) });
        if told != ffi::GMB_ERROR_INVALID_HANDLE {
            check(told)?;
        }
        self.id.store(0, Ordering::Release);
        Ok(())
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        if !ended() {
            let _ = self.end();
        }
    }
}

impl Queue {
    pub fn new(
        py: Python<'_>,
        context: &Arc<ContextHandle>,
        kind: Kind,
        options: &ffi::gmb_queue_options,
    ) -> PyResult<Self> {
        let (of, mut handle) = (context.handle()?, ffi::gmb_queue { id: 0 });
        // SAFETY: options of their size; it writes a handle.
        check(py.detach(|| unsafe { ffi::gmb_queue_create(of, options, &mut handle) }))?;
        let core = Arc::new(Core { context: Arc::clone(context), id: AtomicU64::new(handle.id) });
        let info = core.info()?;
        let (capacity, address) = (info.capacity, info.queue as u64);
        Ok(Self { core, kind, keeping: Keeping::default(), capacity, address })
    }

    /// What a pop to memory of the package's own asks for.
    fn at_most(&self, max: u32) -> u32 {
        u64::from(max).min(self.capacity) as u32
    }

    /// As many items as bytes of host memory are; of a buffer's format and size of an element.
    fn host_items(&self, bytes: usize, format: &str, size: usize) -> PyResult<u32> {
        let each = self.kind.bytes as usize;
        let letter = format.trim_start_matches(['@', '=', '<']);
        let code = match letter {
            "b" | "h" | "i" | "l" | "q" | "n" => Some(dtype::INT),
            "B" | "H" | "I" | "L" | "Q" | "N" => Some(dtype::UINT),
            "e" | "f" | "d" => Some(dtype::FLOAT),
            "Zf" | "Zd" => Some(dtype::COMPLEX),
            _ => None,
        };
        let same = size == each && code == Some(self.kind.dtype.code);
        if bytes % each != 0 || !(same || size == 1 || self.kind.is_bytes()) {
            return Err(argument(format!(
                "{bytes} bytes of format {format:?} are no items of the queue, which is for {}",
                self.kind.items_named()
            )));
        }
        narrow((bytes / each) as u64, "items")
    }
}

#[pymethods]
impl Queue {
    /// Pushes `items`, a dense array on the device, as they follow each other; where there is room for fewer the first so many.
    /// Waits for nothing: how many is told to the `token`. The array is kept until the kernel has read it; not while the stream
    /// is being captured: then it must stay as long as the graph.
    #[pyo3(signature = (items, *, stream = None, token = None))]
    fn push(
        &self,
        py: Python<'_>,
        items: &Bound<'_, PyAny>,
        stream: Option<&Bound<'_, PyAny>>,
        token: Option<&TokenHandle>,
    ) -> PyResult<()> {
        let (handle, context) = (self.core.handle()?, &self.core.context);
        let stream = streams::resolve(py, context, stream)?;
        let from = dlpack::import(items, context, stream)?;
        let (count, at) = (self.kind.items(&from, context, "queue")?, from.address() as *const c_void);
        // SAFETY: memory of that size, which is kept.
        let push = |to| check(unsafe { ffi::gmb_queue_push(handle, at, count, raw(stream), to) });
        let bytes = u64::from(count) * u64::from(self.kind.bytes);
        let what = What { given: [Some(from), None, None], bytes, ..What::default() };
        let captures = is_capturing(context, stream)?;
        if captures || token.is_some() {
            push(token.map_or(NO_TOKEN, |token| token.token.handle))?;
            if !captures {
                self.keeping.keep_until_reached(context, stream, what)?;
            }
            return Ok(());
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

    /// Pops up to `max` items and gives them as an array that is as long as there were. Waits for the count alone, which the
    /// kernel writes; never for the stream. With `out` they are written there, and `out[:count]` is given. With a `token` and
    /// `out` nothing is waited for: None is given, and the count is told to the token.
    #[pyo3(signature = (max, *, out = None, stream = None, like = None, token = None))]
    fn pop<'py>(
        &self,
        py: Python<'py>,
        max: u32,
        out: Option<&Bound<'py, PyAny>>,
        stream: Option<&Bound<'py, PyAny>>,
        like: Option<&Bound<'py, PyAny>>,
        token: Option<&TokenHandle>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (handle, context) = (self.core.handle()?, &self.core.context);
        let stream = streams::resolve(py, context, stream)?;
        let captures = is_capturing(context, stream)?;
        let maker = like.map(exchange::maker).transpose()?;
        if (captures || token.is_some()) && out.is_none() {
            return Err(argument("what is captured, or told to a token, needs out"));
        }
        if out.is_some() && like.is_some() {
            return Err(argument("like is for arrays of the package's own: leave out away"));
        }
        let stride = u64::from(self.kind.bytes);
        let (memory, rows) = match out {
            Some(out) => {
                let into = dlpack::import(out, context, stream)?;
                let rows = self.kind.items(&into, context, "queue")?;
                if into.is_read_only() || rows < max {
                    return Err(argument(format!("out is read-only, or has no room for {max} items")));
                }
                (Written::Given(out, into), rows)
            }
            None => {
                let rows = self.at_most(max);
                (Written::Made(Memory::new(context, u64::from(rows) * stride, stream)?, None), rows)
            }
        };
        let max = max.min(rows);
        let to = Destination { memory, rows, stride };
        let items = to.records() as *mut c_void;
        // SAFETY: memory of that size, which is kept, or by whoever captures.
        let pop = |told_to| check(unsafe { ffi::gmb_queue_pop(handle, items, max, raw(stream), told_to) });
        if captures || token.is_some() {
            pop(token.map_or(NO_TOKEN, |token| token.token.handle))?;
            if !captures {
                self.keeping.keep_until_reached(context, stream, to.kept())?;
            }
            return Ok(py.None().into_bound(py));
        }
        let mut token = context.token()?;
        if let Err(error) = pop(token.handle) {
            context.keep(token);
            return Err(error);
        }
        token.epoch += 1;
        // Beside the kernel.
        self.keeping.look(context);
        let popped = match token.told(py) {
            Ok(popped) => popped,
            Err(error) => {
                // Interrupted: what it writes to must outlive it.
                self.keeping.keep(context, Until::Told(token), to.kept());
                return Err(error);
            }
        };
        context.keep(token);
        result(popped)?;
        let items = match to.memory {
            Written::Given(out, _) if popped.count == to.rows => return Ok(out.clone()),
            Written::Given(out, _) => return out.get_item(PySlice::new(py, 0, popped.count as isize, 1)),
            Written::Made(items, _) => items,
        };
        let array = Array {
            context: Arc::clone(context),
            stream,
            layout: Layout::records(items.address, &self.kind, popped.count, stride),
            keeper: Keeper::Memory(items),
            result: popped,
            headers: None,
        };
        match maker {
            Some(maker) => exchange::made(py, maker, array.managed(true)),
            None => Ok(Bound::new(py, array)?.into_any()),
        }
    }

    /// Pushes items of host memory (bytes, an array of NumPy or of the module array), and waits for that: how many there was
    /// room for. For set-up and tools.
    fn push_from_host(&self, py: Python<'_>, items: &Bound<'_, PyAny>) -> PyResult<u64> {
        let handle = self.core.handle()?;
        let view = PyMemoryView::from(items)?;
        let (format, size) = (view.getattr("format")?, view.getattr("itemsize")?.extract()?);
        let items = view.call_method0("tobytes")?.cast_into::<PyBytes>()?;
        let items = items.as_bytes();
        let count = self.host_items(items.len(), &format.extract::<String>()?, size)?;
        let mut pushed = 0;
        let from = items.as_ptr() as usize;
        // SAFETY: so many items are there, as long as the bytes, which nobody writes; it writes a number.
        check(py.detach(|| unsafe {
            ffi::gmb_queue_push_from_host_blocking(handle, from as *const c_void, count, &mut pushed)
        }))?;
        Ok(pushed)
    }

    /// Pops up to `max` items to host memory, and waits for that: their bytes. For checks and tools.
    fn pop_to_host<'py>(&self, py: Python<'py>, max: u32) -> PyResult<Bound<'py, PyBytes>> {
        let handle = self.core.handle()?;
        let max = self.at_most(max);
        let (each, mut popped) = (self.kind.bytes as usize, 0u64);
        let mut items: Vec<u8> = Vec::new();
        items.try_reserve_exact(max as usize * each).map_err(|_| {
            status(ffi::GMB_ERROR_OUT_OF_HOST_MEMORY, format!("{max} items do not fit in the host's memory"))
        })?;
        let to = items.as_mut_ptr() as usize;
        check(py.detach(|| unsafe {
            // SAFETY: room for so many; it writes a number.
            ffi::gmb_queue_pop_to_host_blocking(handle, to as *mut c_void, max, &mut popped)
        }))?;
        // SAFETY: so many were written.
        unsafe { items.set_len(popped as usize * each) };
        Ok(PyBytes::new(py, &items))
    }

    /// How fast items go through it: pushes `batch` of them and pops them again, `iterations` times, and measures the time on the
    /// device. It must be empty, and nobody else may use it meanwhile.
    fn measure<'py>(&self, py: Python<'py>, batch: u32, iterations: u32) -> PyResult<Bound<'py, PyDict>> {
        let handle = self.core.handle()?;
        let mut found = ffi::gmb_queue_measurement { items: 0, seconds: 0.0, items_per_second: 0.0 };
        // SAFETY: it writes numbers.
        check(py.detach(|| unsafe { ffi::gmb_queue_measure(handle, batch, iterations, &mut found) }))?;
        let all = counts(py, &[("items", found.items)])?;
        all.set_item("seconds", found.seconds)?;
        all.set_item("items_per_second", found.items_per_second)?;
        Ok(all)
    }

    /// Counts of the queue at one moment.
    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let info = self.core.info()?;
        counts(
            py,
            &[
                ("capacity", info.capacity),
                ("item_bytes", info.item_bytes.into()),
                ("workers", info.workers.into()),
                ("size", info.size),
                ("pushed", info.pushed),
                ("popped", info.popped),
                ("queue_bytes", info.queue_bytes),
                ("block_threads", info.block_threads.into()),
                ("max_blocks", info.max_blocks.into()),
            ],
        )
    }

    /// The handle of the C API, for C++ in the same process.
    #[getter]
    fn handle(&self) -> PyResult<u64> {
        Ok(self.core.handle()?.id)
    }

    /// Where it lies on the device, for kernels: a `gmb_queue_header`.
    #[getter]
    fn address(&self) -> PyResult<u64> {
        self.core.handle()?;
        Ok(self.address)
    }

    #[getter]
    fn capacity(&self) -> u64 {
        self.capacity
    }

    #[getter]
    fn item_bytes(&self) -> u32 {
        self.kind.bytes
    }

    /// Of what pops give.
    #[getter]
    fn dtype(&self) -> String {
        self.kind.dtype.name()
    }

    fn __repr__(&self) -> String {
        let state = if self.core.handle().is_ok() { "" } else { ", closed" };
        format!("<gpumailbox.Queue of {}, capacity {}{state}>", self.kind.items_named(), self.capacity)
    }

    /// Later calls raise `Closed`, and items in it are dropped. A queue that a worker uses is [BUSY], and stays. Twice is once.
    fn close(&self) -> PyResult<()> {
        self.core.end()
    }

    fn __enter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    #[pyo3(signature = (*_ended))]
    fn __exit__(&self, _ended: &Bound<'_, PyTuple>) -> PyResult<()> {
        self.close()
    }
}
