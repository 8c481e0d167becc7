//! Mailboxes for records.

use std::ffi::c_void;
use std::os::fd::{FromRawFd, OwnedFd};
use std::ptr;
use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::{PyDict, PySlice, PyTuple};

use crate::array::{Array, Keeper, Kind, Layout, Memory};
use crate::context::{limit, patiently, patiently_while, Inner, EMPTY, POLICIES};
use crate::dlpack::{self, Managed};
use crate::error::{argument, check, choice, dictionary, status};
use crate::ffi;
use crate::keeping::{Keeping, Until, What};
use crate::shared::{Lent, Shared};
use crate::streams::{self, is_capturing, raw};
use crate::token::{result, told, TokenHandle, NO_TOKEN};
use crate::view::{View, Watch};

/// A ring of records on the context's device.
#[pyclass(frozen, weakref, module = "gpumailbox")]
pub struct Mailbox {
    context: Arc<Inner>,
    inner: Arc<Shared>,
    kind: Kind,
    keeping: Keeping,
}

impl Mailbox {
    pub fn new(
        py: Python<'_>,
        context: &Arc<Inner>,
        kind: Kind,
        options: &ffi::gmb_mailbox_options,
    ) -> PyResult<Self> {
        let mut handle = ffi::gmb_mailbox { id: 0 };
        let of = context.handle()?;
        // SAFETY: options of their size; it writes a handle.
        check(py.detach(|| unsafe { ffi::gmb_mailbox_create(of, options, &mut handle) }))?;
        Ok(Self {
            context: Arc::clone(context),
            inner: Arc::new(Shared::new(context, handle)),
            kind,
            keeping: Keeping::default(),
        })
    }

    /// Rows as records: their number, the bytes of one and from one to the next.
    fn rows(&self, from: &Managed) -> PyResult<(u32, u32, u64)> {
        let tensor = from.tensor();
        self.check_place(tensor, "the records")?;
        let (shape, item) = (from.shape(), u64::from(tensor.dtype.bits) * u64::from(tensor.dtype.lanes) / 8);
        let Some((&count, row)) = shape.split_first() else {
            return Err(argument(
                "a single number is no list of records: give an array whose rows are records",
            ));
        };
        let elements = row.iter().product::<i64>();
        let mut apart = elements;
        if let Some(strides) = from.strides() {
            let mut step = 1;
            for (&size, &stride) in row.iter().zip(&strides[1..]).rev() {
                if size > 1 && stride != step {
                    return Err(argument(format!(
                        "rows of shape {row:?} with strides {:?} have gaps: make them contiguous",
                        &strides[1..]
                    )));
                }
                step *= size;
            }
            if count > 1 {
                apart = strides[0];
            }
        }
        if apart < elements {
            return Err(argument("the rows overlap, or go backwards: make them contiguous"));
        }
        let bytes = elements as u64 * item;
        let same = tensor.dtype.code == self.kind.dtype.code && tensor.dtype.bits == self.kind.dtype.bits;
        let any = self.kind.dtype.code == 1 && self.kind.dtype.bits == 8;
        if !any && (!same || row != self.kind.shape.as_slice()) {
            return Err(argument(format!(
                "records are {} of shape {row:?}, the mailbox is for {} of shape {:?}",
                dlpack::dtype_name(tensor.dtype),
                dlpack::dtype_name(self.kind.dtype),
                self.kind.shape
            )));
        }
        let narrow = |value: u64, what: &str| {
            u32::try_from(value)
                .map_err(|_| status(ffi::GMB_ERROR_OVERFLOW, format!("{value} {what} are too many")))
        };
        let apart = apart as u64 * item;
        if count > 1 && apart % 16 != 0 {
            return Err(status(
                ffi::GMB_ERROR_MISALIGNED,
                format!(
                    "rows are {apart} bytes apart, which is no multiple of 16: give a slice of a wider array"
                ),
            ));
        }
        Ok((narrow(count as u64, "records")?, narrow(bytes, "bytes of a record")?, apart))
    }

    fn check_place(&self, tensor: &dlpack::DLTensor, what: &str) -> PyResult<()> {
        let (kind, device) = self.context.device_type();
        if (tensor.device_type, tensor.device_id) == (kind, device) {
            return Ok(());
        }
        let name = |kind, device| match kind {
            dlpack::CPU => "the CPU".to_owned(),
            dlpack::CUDA => format!("CUDA device {device}"),
            _ => format!("a device of DLPack type {kind}"),
        };
        Err(status(
            ffi::GMB_ERROR_INVALID_DEVICE,
            format!(
                "{what} are on {}, the mailbox is on {}: copy them there first",
                name(tensor.device_type, tensor.device_id),
                name(kind, device)
            ),
        ))
    }

    /// One 32-bit number for each record.
    fn words(
        &self,
        of: Option<&Bound<'_, PyAny>>,
        count: u32,
        stream: usize,
        what: &str,
    ) -> PyResult<Option<Managed>> {
        let Some(of) = of else { return Ok(None) };
        let managed = dlpack::import(of, &self.context, stream)?;
        let tensor = managed.tensor();
        self.check_place(tensor, what)?;
        let fits = tensor.dtype.bits == 32 && tensor.dtype.code <= 1 && tensor.dtype.lanes == 1;
        let dense = managed.strides().is_none_or(|strides| strides.first() == Some(&1) || count <= 1);
        if !fits || !dense || managed.shape() != [i64::from(count)] {
            return Err(argument(format!(
                "{what} are not {count} integers of 32 bits, one behind the other"
            )));
        }
        Ok(Some(managed))
    }
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
        let handle = self.inner.handle()?;
        let stream = streams::resolve(py, &self.context, stream)?;
        let from = dlpack::import(records, &self.context, stream)?;
        let (count, bytes, stride) = self.rows(&from)?;
        let lengths = self.words(lengths, count, stream, "lengths")?;
        let types = self.words(types, count, stream, "types")?;
        let at = |words: &Option<Managed>| words.as_ref().map_or(0, Managed::address);
        let (from_at, lengths_at, types_at) = (from.address(), at(&lengths), at(&types));
        let captures = is_capturing(&self.context, stream)?;
        let kept = if token.is_some() || captures { None } else { Some(self.context.token()?) };
        let to = token.map(|token| token.token).or(kept.as_ref().map(|kept| kept.handle)).unwrap_or(NO_TOKEN);
        let limit = limit(timeout)?;
        let give = move |left| {
            let push = ffi::gmb_push {
                struct_size: size_of::<ffi::gmb_push>() as u32,
                count,
                records: from_at as *const c_void,
                stride: if count > 1 { stride } else { 0 },
                lengths: lengths_at as *const u32,
                types: types_at as *const u32,
                length: bytes,
                msg_type,
                timeout_ns: left,
            };
            // SAFETY: memory of that size, which is kept.
            unsafe { ffi::gmb_mailbox_push(handle, &push, raw(stream), to) }
        };
        let pushed = match give(0) {
            // Only under "wait": then with patience, and without the interpreter's lock.
            told if told == ffi::GMB_ERROR_TIMEOUT as i32 => {
                patiently_while(py, limit, || self.inner.handle().map(drop), give)
            }
            told => check(told),
        };
        let what = What {
            given: [Some(from), lengths, types],
            made: [None, None],
            bytes: u64::from(count) * stride,
        };
        if let Some(mut token) = kept {
            match pushed {
                Ok(_) => {
                    token.epoch += 1;
                    self.keeping.keep(&self.context, Until::Told(token), what);
                }
                Err(error) => {
                    self.context.keep(token);
                    return Err(error);
                }
            }
            return Ok(());
        }
        pushed?;
        if !captures {
            self.keeping.keep_until_reached(&self.context, stream, what)?;
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
        let handle = self.inner.handle()?;
        let stream = streams::resolve(py, &self.context, stream)?;
        let captures = is_capturing(&self.context, stream)?;
        let maker = like.map(dlpack::maker).transpose()?;
        if (captures || token.is_some()) && (out.is_none() || headers) {
            return Err(argument("what is captured, or told to a token, needs out, and gives no headers"));
        }
        if out.is_some() && (headers || like.is_some()) {
            return Err(argument("headers and like are for arrays of the package's own: leave out away"));
        }
        if out.is_some() && self.kind.bytes % 16 != 0 {
            return Err(argument(format!(
                "records of {} bytes are written in units of 16, beyond the rows of out: leave out away",
                self.kind.bytes
            )));
        }
        // Rows that the library writes to begin at multiples of 16 bytes.
        let mut stride = u64::from(self.kind.bytes).next_multiple_of(16);
        let mut whole = 0;
        let given = match out {
            Some(out) => {
                let into = dlpack::import(out, &self.context, stream)?;
                let (count, bytes, apart) = self.rows(&into)?;
                if into.is_read_only() || count < max || bytes < self.kind.bytes {
                    return Err(argument(format!(
                        "out is read-only, or has no room for {max} records of {} bytes",
                        self.kind.bytes
                    )));
                }
                stride = if count > 1 { apart } else { 0 };
                whole = u64::from(count);
                Some(into)
            }
            None => None,
        };
        let made = match given {
            Some(_) => None,
            None => Some(Memory::new(&self.context, u64::from(max) * stride, stream)?),
        };
        let heads = match headers {
            true => Some(Memory::new(&self.context, u64::from(max) * 16, stream)?),
            false => None,
        };
        let address = match (&given, &made) {
            (Some(given), _) => given.address(),
            (None, Some(made)) => made.address,
            (None, None) => 0,
        };
        let pop = ffi::gmb_pop {
            struct_size: size_of::<ffi::gmb_pop>() as u32,
            max,
            records: address as *mut c_void,
            stride,
            headers: heads
                .as_ref()
                .map_or(ptr::null_mut(), |heads| heads.address as *mut ffi::gmb_record_header),
            reader,
            reserved: 0,
        };
        if captures || token.is_some() {
            let to = token.map_or(NO_TOKEN, |token| token.token);
            // SAFETY: memory of that size, which is kept, or by whoever captures.
            check(unsafe { ffi::gmb_mailbox_pop(handle, &pop, raw(stream), to) })?;
            if !captures {
                let what = What { given: [given, None, None], made: [None, None], bytes: whole * stride };
                self.keeping.keep_until_reached(&self.context, stream, what)?;
            }
            return Ok(py.None().into_bound(py));
        }
        let mut token = self.context.token()?;
        // SAFETY: memory of that size, kept until the count is told; then the records are there.
        if let Err(error) = check(unsafe { ffi::gmb_mailbox_pop(handle, &pop, raw(stream), token.handle) }) {
            self.context.keep(token);
            return Err(error);
        }
        token.epoch += 1;
        // Beside the kernel.
        self.keeping.look(&self.context);
        let popped = match told(py, &token, None) {
            Ok(popped) => popped,
            Err(error) => {
                // Interrupted: what it writes to must outlive it.
                let what =
                    What { given: [given, None, None], made: [made, heads], bytes: u64::from(max) * stride };
                self.keeping.keep(&self.context, Until::Told(token), what);
                return Err(error);
            }
        };
        self.context.keep(token);
        result(popped)?;
        if let (Some(out), Some(_)) = (out, &given) {
            if u64::from(popped.count) == whole {
                return Ok(out.clone());
            }
            let slice = PySlice::new(py, 0, popped.count as isize, 1);
            return out.get_item(slice);
        }
        let Some(made) = made else { return Ok(py.None().into_bound(py)) };
        let array = Array {
            context: Arc::clone(&self.context),
            stream,
            layout: Layout::records(address, &self.kind, popped.count, stride),
            keeper: Keeper::Memory(made),
            result: popped,
            headers: heads.map(|heads| (heads, popped.count)),
        };
        match maker {
            Some(maker) => dlpack::made(py, maker, array.managed(true)),
            None => Ok(Bound::new(py, array)?.into_any()),
        }
    }

    /// Blocks until `count` records can be read, for at most `timeout` seconds; how many there are then.
    #[pyo3(signature = (count = 1, *, reader = 0, timeout = None))]
    fn wait_readable(&self, py: Python<'_>, count: u32, reader: u32, timeout: Option<f64>) -> PyResult<u64> {
        let (handle, limit, mut ready) = (self.inner.handle()?, limit(timeout)?, 0u64);
        // SAFETY: it writes a number.
        let open = || self.inner.handle().map(drop);
        patiently_while(py, limit, open, |left| unsafe {
            ffi::gmb_mailbox_wait_readable(handle, reader, count, left, &mut ready)
        })?;
        Ok(ready)
    }

    /// Blocks until there is room for `count` records, for at most `timeout` seconds; how much there is then.
    #[pyo3(signature = (count = 1, *, timeout = None))]
    fn wait_writable(&self, py: Python<'_>, count: u32, timeout: Option<f64>) -> PyResult<u64> {
        let (handle, limit, mut ready) = (self.inner.handle()?, limit(timeout)?, 0u64);
        // SAFETY: it writes a number.
        let open = || self.inner.handle().map(drop);
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
        let handle = self.inner.handle()?;
        let stream = streams::resolve(py, &self.context, stream)?;
        let lent = Lent::new(&self.inner);
        let mut borrow = ffi::gmb_borrow { id: 0 };
        // SAFETY: it writes a handle.
        check(unsafe { ffi::gmb_mailbox_borrow(handle, reader, max, raw(stream), &mut borrow) })?;
        // SAFETY: numbers and addresses only.
        let (mut popped, mut spans): (_, ffi::gmb_spans) = (EMPTY, unsafe { std::mem::zeroed() });
        let (popped_at, spans_at) =
            (&mut popped as *mut ffi::gmb_result as usize, &mut spans as *mut _ as usize);
        let waited = patiently(py, None, move |left| {
            // SAFETY: both are this function's.
            unsafe { ffi::gmb_borrow_wait(borrow, left, popped_at as *mut _, spans_at as *mut _) }
        })
        .and_then(|_| result(popped));
        let view = View {
            inner: Arc::clone(&self.inner),
            borrow,
            stream,
            lent,
            kind: self.kind.clone(),
            popped,
            spans,
        };
        // Dropped, it releases what it has.
        waited.map(|_| view)
    }

    /// A reader more, which gets every record from here on, or from the oldest that is still there.
    #[pyo3(signature = (start = "next", *, stream = None))]
    fn add_reader(&self, py: Python<'_>, start: &str, stream: Option<&Bound<'_, PyAny>>) -> PyResult<u32> {
        let stream = streams::resolve(py, &self.context, stream)?;
        let (start, mut reader) = (choice("start", start, &["next", "oldest"])?, 0);
        // SAFETY: it writes a number.
        check(unsafe { ffi::gmb_mailbox_add_reader(self.inner.handle()?, start, raw(stream), &mut reader) })?;
        Ok(reader)
    }

    /// The reader holds no space any more.
    #[pyo3(signature = (reader, *, stream = None))]
    fn remove_reader(&self, py: Python<'_>, reader: u32, stream: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        let stream = streams::resolve(py, &self.context, stream)?;
        // SAFETY: checked by the library.
        check(unsafe { ffi::gmb_mailbox_remove_reader(self.inner.handle()?, reader, raw(stream)) })?;
        Ok(())
    }

    /// Counts of the mailbox, as of the operations that are done.
    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        // SAFETY: numbers and an address.
        let mut info: ffi::gmb_mailbox_info = unsafe { std::mem::zeroed() };
        // SAFETY: it writes that many bytes.
        check(unsafe { ffi::gmb_mailbox_get_info(self.inner.handle()?, &mut info, size_of_val(&info)) })?;
        let all = dictionary(
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
        )?;
        all.set_item("full_policy", POLICIES.get(info.full_policy as usize).copied())?;
        Ok(all)
    }

    /// Counts of a reader, as of the operations that are done.
    #[pyo3(signature = (reader = 0))]
    fn reader_stats<'py>(&self, py: Python<'py>, reader: u32) -> PyResult<Bound<'py, PyDict>> {
        // SAFETY: numbers only.
        let mut info: ffi::gmb_reader_info = unsafe { std::mem::zeroed() };
        // SAFETY: it writes that many bytes.
        check(unsafe {
            ffi::gmb_mailbox_get_reader_info(self.inner.handle()?, reader, &mut info, size_of_val(&info))
        })?;
        let pairs = [
            ("released", info.released),
            ("unread", info.unread),
            ("lost", info.lost),
            ("empty_pops", info.empty_pops),
        ];
        dictionary(py, &pairs)
    }

    /// A descriptor that is readable when `count` records are, for event loops; see `Watch`.
    #[pyo3(signature = (interest = "readable", *, reader = 0))]
    fn watch(&self, interest: &str, reader: u32) -> PyResult<Watch> {
        let mut watch = ffi::gmb_watch { id: 0 };
        let interest = choice("interest", interest, &["readable", "writable"])?;
        // SAFETY: it writes a handle.
        check(unsafe { ffi::gmb_watch_create(self.inner.handle()?, interest, reader, &mut watch) })?;
        let mut made = Watch { inner: Arc::clone(&self.inner), watch, descriptor: None };
        let mut descriptor = -1;
        // SAFETY: it writes a number.
        check(unsafe { ffi::gmb_watch_get_fd(watch, &mut descriptor) })?;
        // SAFETY: the caller's own.
        let descriptor = Arc::new(unsafe { OwnedFd::from_raw_fd(descriptor) });
        self.inner.watch(&descriptor);
        made.descriptor = Some(descriptor);
        Ok(made)
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
        Ok(self.inner.handle()?.id)
    }

    #[getter]
    fn payload_bytes(&self) -> u32 {
        self.kind.bytes
    }

    #[getter]
    fn dtype(&self) -> String {
        dlpack::dtype_name(self.kind.dtype)
    }

    /// Of a record.
    #[getter]
    fn shape<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, &self.kind.shape)
    }

    fn __repr__(&self) -> String {
        let state = if self.inner.handle().is_ok() { "" } else { ", closed" };
        format!("<gpumailbox.Mailbox of {}{:?}{state}>", dlpack::dtype_name(self.kind.dtype), self.kind.shape)
    }

    /// Later calls raise `Closed`; whoever waits is woken. Views that are out stay. Twice is once.
    fn close(&self) {
        self.inner.close();
    }

    fn __enter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    #[pyo3(signature = (*_ended))]
    fn __exit__(&self, _ended: &Bound<'_, PyTuple>) {
        self.close();
    }
}
