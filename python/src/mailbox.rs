//! Mailboxes for records.

use std::ffi::c_void;
use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::{PyDict, PySlice, PyTuple};

use crate::array::{Array, Keeper};
use crate::context::ContextHandle;
use crate::destination::{Destination, Written};
use crate::dlpack::{self, Managed};
use crate::elements::Layout;
use crate::error::{argument, check};
use crate::info::{choice, counts, counts_and_policy, info, MODES};
use crate::interpreter::Carried;
use crate::keeping::{Keeping, Until, What};
use crate::records::{words, Kind};
use crate::ring::Ring;
use crate::streams::{self, is_capturing, raw};
use crate::token::{result, TokenHandle, NO_TOKEN};
use crate::view::View;
use crate::waiting::{limit, patiently_while, push_patiently};
use crate::watch::Watch;
use crate::{exchange, ffi};

/// A ring of records on the context's device.
#[pyclass(frozen, weakref, module = "gpumailbox")]
pub struct Mailbox {
    pub ring: Arc<Ring>,
    kind: Kind,
    /// Whether a push that waits asks the device for room, which may keep it waiting.
    asks: bool,
    keeping: Keeping,
}

impl Mailbox {
    pub fn new(
        py: Python<'_>,
        context: &Arc<ContextHandle>,
        kind: Kind,
        options: &ffi::gmb_mailbox_options,
    ) -> PyResult<Self> {
        let mut handle = ffi::gmb_mailbox { id: 0 };
        let of = context.handle()?;
        // SAFETY: options of their size; it writes a handle.
        check(py.detach(|| unsafe { ffi::gmb_mailbox_create(of, options, &mut handle) }))?;
        let asks = options.flags & ffi::GMB_MAILBOX_SHARED as u32 != 0;
        Ok(Self { ring: Arc::new(Ring::new(context, handle)), kind, asks, keeping: Keeping::default() })
    }

    /// What is to be pushed, and has to be kept until it was.
    pub fn push_of(&self, given: Pushed<'_, '_>, stream: usize) -> PyResult<(ffi::gmb_push, What)> {
        let context = &self.ring.context;
        let from = dlpack::import(given.records, context, stream)?;
        let (count, bytes, stride) = self.kind.rows(&from, context)?;
        let lengths = words(given.lengths, count, context, stream, "lengths")?;
        let types = words(given.types, count, context, stream, "types")?;
        let at = |words: &Option<Managed>| words.as_ref().map_or(0, Managed::address) as *const u32;
        let push = ffi::gmb_push {
            struct_size: size_of::<ffi::gmb_push>() as u32,
            count,
            records: from.address() as *const c_void,
            stride: if count > 1 { stride } else { 0 },
            lengths: at(&lengths),
            types: at(&types),
            length: bytes,
            msg_type: given.msg_type,
            timeout_ns: 0,
        };
        let bytes = u64::from(count) * stride;
        Ok((push, What { given: [Some(from), lengths, types], bytes, ..What::default() }))
    }

    /// What is to be popped, and where to.
    pub fn pop_of<'a, 'py>(
        &self,
        max: u32,
        out: Option<&'a Bound<'py, PyAny>>,
        headers: bool,
        reader: u32,
        stream: usize,
    ) -> PyResult<(ffi::gmb_pop, Destination<'a, 'py>)> {
        if out.is_some() && self.kind.bytes % 16 != 0 {
            return Err(argument(format!(
                "records of {} bytes are written in units of 16, beyond the rows of out: leave out away",
                self.kind.bytes
            )));
        }
        let to = Destination::new(&self.ring.context, &self.kind, max, out, headers, stream)?;
        let pop = ffi::gmb_pop {
            struct_size: size_of::<ffi::gmb_pop>() as u32,
            max,
            records: to.records() as *mut c_void,
            stride: to.stride,
            headers: to.headers() as *mut ffi::gmb_record_header,
            reader,
            reserved: 0,
        };
        Ok((pop, to))
    }
}

/// What a push is given.
#[derive(Clone, Copy)]
pub struct Pushed<'a, 'py> {
    pub records: &'a Bound<'py, PyAny>,
    pub lengths: Option<&'a Bound<'py, PyAny>>,
    pub types: Option<&'a Bound<'py, PyAny>>,
    pub msg_type: u32,
}

#[pymethods]
impl Mailbox {
    /// Pushes the rows of `records`, an array on the device, as so many records. Does not wait for the device, but under
    /// "wait" for room. The arrays are kept
    /// until the kernel has read them; not while the stream is being captured: then they must stay as long as the graph.
    #[pyo3(signature = (records, *, lengths = None, types = None, msg_type = 0, stream = None, timeout = None, token = None))]
    #[allow(clippy::too_many_arguments)]
    fn push(
        &self,
        py: Python<'_>,
        records: &Bound<'_, PyAny>,
        lengths: Option<&Bound<'_, PyAny>>,
        types: Option<&Bound<'_, PyAny>>,
        msg_type: u32,
        stream: Option<&Bound<'_, PyAny>>,
        timeout: Option<f64>,
        token: Option<&TokenHandle>,
    ) -> PyResult<()> {
        let (handle, context) = (self.ring.handle()?, &self.ring.context);
        let stream = streams::resolve(py, context, stream)?;
        let (mut push, what) = self.push_of(Pushed { records, lengths, types, msg_type }, stream)?;
        let captures = is_capturing(context, stream)?;
        let kept = if token.is_some() || captures { None } else { Some(context.token()?) };
        let to = token.map(|token| &token.token).or(kept.as_ref()).map_or(NO_TOKEN, |token| token.handle);
        let limit = limit(timeout)?;
        let mut carried = Carried::new(&mut push);
        let give = |left| {
            let push = carried.get();
            push.timeout_ns = left;
            // SAFETY: memory of that size, which is kept.
            unsafe { ffi::gmb_mailbox_push(handle, *push, raw(stream), to) }
        };
        let open = || self.ring.handle().map(drop);
        let pushed = if self.asks {
            patiently_while(py, limit, open, give)
        } else {
            push_patiently(py, limit, open, give)
        };
        if let Some(mut token) = kept {
            match pushed {
                Ok(_) => {
                    token.epoch += 1;
                    self.keeping.keep(context, Until::Told(token), what);
                }
                Err(error) => {
                    context.keep(token);
                    return Err(error);
                }
            }
            return Ok(());
        }
        pushed?;
        if !captures {
            self.keeping.keep_until_reached(context, stream, what)?;
        }
        Ok(())
    }

    /// Pops up to `max` records and gives them as an array that is as long as there were. Waits for the count alone, which the
    /// kernel writes; never for the stream. With `out` they are written there, and `out[:count]` is given. With a `token`
    /// and `out` nothing is waited for: None is given, and the count is told to the token.
    #[pyo3(signature = (max, *, out = None, reader = 0, headers = false, stream = None, like = None, token = None))]
    #[allow(clippy::too_many_arguments)]
    fn pop<'py>(
        &self,
        py: Python<'py>,
        max: u32,
        out: Option<&Bound<'py, PyAny>>,
        reader: u32,
        headers: bool,
        stream: Option<&Bound<'py, PyAny>>,
        like: Option<&Bound<'py, PyAny>>,
        token: Option<&TokenHandle>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (handle, context) = (self.ring.handle()?, &self.ring.context);
        let stream = streams::resolve(py, context, stream)?;
        let captures = is_capturing(context, stream)?;
        let maker = like.map(exchange::maker).transpose()?;
        if (captures || token.is_some()) && (out.is_none() || headers) {
            return Err(argument("what is captured, or told to a token, needs out, and gives no headers"));
        }
        if out.is_some() && (headers || like.is_some()) {
            return Err(argument("headers and like are for arrays of the package's own: leave out away"));
        }
        let (pop, to) = self.pop_of(max, out, headers, reader, stream)?;
        if captures || token.is_some() {
            let told_to = token.map_or(NO_TOKEN, |token| token.token.handle);
            // SAFETY: memory of that size, which is kept, or by whoever captures.
            check(unsafe { ffi::gmb_mailbox_pop(handle, &pop, raw(stream), told_to) })?;
            if !captures {
                self.keeping.keep_until_reached(context, stream, to.kept())?;
            }
            return Ok(py.None().into_bound(py));
        }
        let mut token = context.token()?;
        // SAFETY: memory of that size, kept until the count is told; then the records are there.
        if let Err(error) = check(unsafe { ffi::gmb_mailbox_pop(handle, &pop, raw(stream), token.handle) }) {
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
        let (records, headers) = match to.memory {
            Written::Given(out, _) if popped.count == to.rows => return Ok(out.clone()),
            Written::Given(out, _) => return out.get_item(PySlice::new(py, 0, popped.count as isize, 1)),
            Written::Made(records, headers) => (records, headers),
        };
        let array = Array {
            context: Arc::clone(context),
            stream,
            layout: Layout::records(records.address, &self.kind, popped.count, to.stride),
            keeper: Keeper::Memory(records),
            result: popped,
            headers: headers.map(|headers| (headers, popped.count)),
        };
        match maker {
            Some(maker) => exchange::made(py, maker, array.managed(true)),
            None => Ok(Bound::new(py, array)?.into_any()),
        }
    }

    /// Blocks until `count` records can be read, for at most `timeout` seconds; how many there are then.
    #[pyo3(signature = (count = 1, *, reader = 0, timeout = None))]
    fn wait_readable(&self, py: Python<'_>, count: u32, reader: u32, timeout: Option<f64>) -> PyResult<u64> {
        let (handle, limit, mut ready) = (self.ring.handle()?, limit(timeout)?, 0u64);
        let open = || self.ring.handle().map(drop);
        // SAFETY: it writes a number.
        patiently_while(py, limit, open, |left| unsafe {
            ffi::gmb_mailbox_wait_readable(handle, reader, count, left, &mut ready)
        })?;
        Ok(ready)
    }

    /// Blocks until there is room for `count` records, for at most `timeout` seconds; how much there is then.
    #[pyo3(signature = (count = 1, *, timeout = None))]
    fn wait_writable(&self, py: Python<'_>, count: u32, timeout: Option<f64>) -> PyResult<u64> {
        let (handle, limit, mut ready) = (self.ring.handle()?, limit(timeout)?, 0u64);
        let open = || self.ring.handle().map(drop);
        // SAFETY: it writes a number.
        patiently_while(py, limit, open, |left| unsafe {
            ffi::gmb_mailbox_wait_writable(handle, count, left, &mut ready)
        })?;
        Ok(ready)
    }

    /// The next records where they lie: `with mailbox.view(max) as view:` and read `view.arrays`, of which there are at most
    /// two. Work that reads them must be in `stream` when it ends; then they are given back.
    #[pyo3(signature = (max, *, reader = 0, stream = None))]
    fn view(
        &self,
        py: Python<'_>,
        max: u32,
        reader: u32,
        stream: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<View> {
        View::new(py, &self.ring, &self.kind, max, reader, stream)
    }

    /// A reader more, which gets every record from here on, or from the oldest that is still there.
    #[pyo3(signature = (start = "next", *, stream = None))]
    fn add_reader(&self, py: Python<'_>, start: &str, stream: Option<&Bound<'_, PyAny>>) -> PyResult<u32> {
        let stream = streams::resolve(py, &self.ring.context, stream)?;
        let (start, mut reader) = (choice("start", start, &["next", "oldest"])?, 0);
        // SAFETY: it writes a number.
        check(unsafe { ffi::gmb_mailbox_add_reader(self.ring.handle()?, start, raw(stream), &mut reader) })?;
        Ok(reader)
    }

    /// The reader holds no space any more.
    #[pyo3(signature = (reader, *, stream = None))]
    fn remove_reader(&self, py: Python<'_>, reader: u32, stream: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        let stream = streams::resolve(py, &self.ring.context, stream)?;
        // SAFETY: checked by the library.
        check(unsafe { ffi::gmb_mailbox_remove_reader(self.ring.handle()?, reader, raw(stream)) })?;
        Ok(())
    }

    /// Counts of the mailbox, as of the operations that are done.
    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let handle = self.ring.handle()?;
        // SAFETY: numbers and an address; it writes that many bytes.
        let info: ffi::gmb_mailbox_info =
            unsafe { info(|at, bytes| ffi::gmb_mailbox_get_info(handle, at, bytes)) }?;
        let all = counts_and_policy(
            py,
            &[
                ("capacity", info.capacity),
                ("payload_bytes", info.payload_bytes.into()),
                ("slot_stride", info.slot_stride.into()),
                ("ring_bytes", info.ring_bytes),
                ("published", info.published),
                ("released", info.released),
                ("rejected", info.rejected),
                ("empty_pops", info.empty_pops),
                ("high_water", info.high_water),
                ("reader_mask", info.reader_mask.into()),
            ],
            info.full_policy,
        )?;
        all.set_item("mode", MODES.get(info.mode as usize).copied())?;
        all.set_item("fault", info.fault)?;
        Ok(all)
    }

    /// Counts of a reader, as of the operations that are done.
    #[pyo3(signature = (reader = 0))]
    fn reader_stats<'py>(&self, py: Python<'py>, reader: u32) -> PyResult<Bound<'py, PyDict>> {
        let handle = self.ring.handle()?;
        // SAFETY: numbers only; it writes that many bytes.
        let info: ffi::gmb_reader_info =
            unsafe { info(|at, bytes| ffi::gmb_mailbox_get_reader_info(handle, reader, at, bytes)) }?;
        counts(
            py,
            &[
                ("released", info.released),
                ("unread", info.unread),
                ("lost", info.lost),
                ("empty_pops", info.empty_pops),
            ],
        )
    }

    /// A descriptor that is readable when `count` records are, for event loops; see `Watch`.
    #[pyo3(signature = (interest = "readable", *, reader = 0))]
    fn watch(&self, interest: &str, reader: u32) -> PyResult<Watch> {
        let (handle, interest) =
            (self.ring.handle()?, choice("interest", interest, &["readable", "writable"])?);
        // SAFETY: it writes a handle.
        Watch::new(Arc::clone(&self.ring) as _, |watch| unsafe {
            ffi::gmb_watch_create(handle, interest, reader, watch)
        })
    }

    /// As `pop`, once there is something: `await` it. The event loop sleeps on a descriptor, no thread waits.
    #[pyo3(signature = (max, **options))]
    fn pop_async<'py>(
        slf: &Bound<'py, Self>,
        max: u32,
        options: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        slf.py().import("gpumailbox._aio")?.getattr("pop_async")?.call((slf, max), options)
    }

    /// `async for records in mailbox:` until it is closed.
    fn __aiter__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        slf.py().import("gpumailbox._aio")?.getattr("records_of")?.call1((slf,))
    }

    /// The handle of the C API, for C++ in the same process.
    #[getter]
    fn handle(&self) -> PyResult<u64> {
        Ok(self.ring.handle()?.id)
    }

    #[getter]
    fn payload_bytes(&self) -> u32 {
        self.kind.bytes
    }

    #[getter]
    fn dtype(&self) -> String {
        self.kind.dtype.name()
    }

    /// Of a record.
    #[getter]
    fn shape<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, &self.kind.shape)
    }

    fn __repr__(&self) -> String {
        let state = if self.ring.handle().is_ok() { "" } else { ", closed" };
        format!("<gpumailbox.Mailbox of {}{:?}{state}>", self.kind.dtype.name(), self.kind.shape)
    }

    /// Later calls raise `Closed`; whoever waits is woken. Views that are out stay. Twice is once.
    fn close(&self) {
        self.ring.close();
    }

    fn __enter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    #[pyo3(signature = (*_ended))]
    fn __exit__(&self, _ended: &Bound<'_, PyTuple>) {
        self.close();
    }
}
