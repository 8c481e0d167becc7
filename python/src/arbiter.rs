//! Arbiters: kernels that stay, and tell others which mailboxes have records.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, RwLock, Weak};

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use crate::context::ContextHandle;
use crate::error::{argument, check, closed};
use crate::info::{choice, counts};
use crate::interpreter::{ended, without_lock};
use crate::mailbox::Mailbox;
use crate::ring::Ring;
use crate::{ffi, lock};

/// Says in device memory which of its mailboxes have records that nobody has taken, for kernels that run.
#[pyclass(frozen, weakref, module = "gpumailbox")]
pub struct Arbiter {
    core: Arc<Core>,
    mailboxes: usize,
    /// Of the header.
    address: u64,
}

/// The handle, which goes with the arbiter or the interpreter.
struct Core {
    context: Arc<ContextHandle>,
    closed: AtomicBool,
    /// Zero once it has ended, which waits for calls that use it.
    id: RwLock<u64>,
    /// They stay as long as the arbiter.
    _mailboxes: Vec<Arc<Ring>>,
}

/// Those that there are.
static OPEN: Mutex<Vec<Weak<Core>>> = Mutex::new(Vec::new());

/// Ends all of them: the interpreter is about to end, and the device's memory with it.
pub fn end_all() {
    let open = std::mem::take(&mut *lock(&OPEN));
    open.iter().filter_map(Weak::upgrade).for_each(|arbiter| arbiter.end());
}

/// In the order of the library's numbers.
const CLASSES: [&str; 2] = ["focus", "peripheral"];

/// A mailbox, or (mailbox, reader, class), as it was given at a place of the list.
fn given(
    context: &Arc<ContextHandle>,
    number: usize,
    it: &Bound<'_, PyAny>,
) -> PyResult<(ffi::gmb_arbitrated, Arc<Ring>)> {
    let wrong = |what: String| argument(format!("mailboxes[{number}] {what}"));
    let parts = match it.cast::<PyTuple>() {
        Ok(parts) if parts.len() == 3 => (parts.get_item(0)?, Some((parts.get_item(1)?, parts.get_item(2)?))),
        Ok(parts) => {
            return Err(wrong(format!(
                "has {} parts, not the three of (mailbox, reader, class)",
                parts.len()
            )))
        }
        Err(_) => (it.clone(), None),
    };
    let (Ok(mailbox), more) = (parts.0.cast::<Mailbox>(), parts.1) else {
        let name = parts.0.get_type().name()?;
        return Err(wrong(format!("is {name}: give a mailbox for records, or (mailbox, reader, class)")));
    };
    let (mut reader, mut class) = (0, 0);
    if let Some((of, name)) = more {
        let what = format!("mailboxes[{number}]: class");
        let named: String = name.extract().map_err(|_| argument(format!("{what} {name} is no name")))?;
        class = choice(&what, &named, &CLASSES)?;
        reader = of.extract().map_err(|_| wrong(format!("has no reader {of}")))?;
    }
    let ring = Arc::clone(&mailbox.get().ring);
    if !Arc::ptr_eq(&ring.context, context) {
        return Err(wrong("is of another context than the arbiter".to_owned()));
    }
    let handle = ring.handle().map_err(|_| closed(&format!("mailboxes[{number}] is closed")))?;
    // SAFETY: numbers only.
    let mut known = unsafe { std::mem::zeroed::<ffi::gmb_reader_info>() };
    // SAFETY: it writes that many bytes.
    let told = unsafe { ffi::gmb_mailbox_get_reader_info(handle, reader, &mut known, size_of_val(&known)) };
    if told == ffi::GMB_ERROR_INVALID_ARGUMENT {
        return Err(wrong(format!("has no reader {reader}")));
    }
    Ok((ffi::gmb_arbitrated { mailbox: handle, reader, priority_class: class }, ring))
}

impl Arbiter {
    pub fn new(
        py: Python<'_>,
        context: &Arc<ContextHandle>,
        mailboxes: &[Bound<'_, PyAny>],
        slice_ns: u64,
    ) -> PyResult<Self> {
        let of = context.handle()?;
        if mailboxes.is_empty() {
            let most = ffi::GMB_MOST_ARBITRATED;
            return Err(argument(format!("mailboxes is empty: an arbiter looks at 1 to {most}")));
        }
        let all = mailboxes.iter().enumerate().map(|(number, it)| given(context, number, it));
        let (wanted, rings): (Vec<_>, Vec<_>) = all.collect::<PyResult<Vec<_>>>()?.into_iter().unzip();
        let options = ffi::gmb_arbiter_options {
            struct_size: size_of::<ffi::gmb_arbiter_options>() as u32,
            count: u32::try_from(wanted.len()).unwrap_or(u32::MAX),
            mailboxes: wanted.as_ptr(),
            slice_ns,
        };
        let (at, mut handle) =
            (&options as *const ffi::gmb_arbiter_options as usize, ffi::gmb_arbiter { id: 0 });
        // SAFETY: options of their size, and so many mailboxes; it writes a handle.
        check(py.detach(|| unsafe { ffi::gmb_arbiter_create(of, at as *const _, &mut handle) }))?;
        let core = Arc::new(Core {
            context: Arc::clone(context),
            closed: AtomicBool::new(false),
            id: RwLock::new(handle.id),
            _mailboxes: rings,
        });
        let mut open = lock(&OPEN);
        open.retain(|known| known.strong_count() > 0);
        open.push(Arc::downgrade(&core));
        drop(open);
        let address = core.info(py)?.arbiter as u64;
        Ok(Self { core, mailboxes: wanted.len(), address })
    }
}

impl Core {
    fn check_open(&self) -> PyResult<()> {
        self.context.handle()?;
        if self.closed.load(Ordering::SeqCst) {
            return Err(closed("the arbiter is closed"));
        }
        Ok(())
    }

    /// A call of the library, if it is open. Not with the interpreter's lock: who closes it holds that up.
    fn call(&self, py: Python<'_>, call: impl FnOnce(ffi::gmb_arbiter) -> i32 + Send) -> PyResult<()> {
        self.check_open()?;
        let told = py.detach(|| {
            let id = self.id.read().unwrap_or_else(|p| p.into_inner());
            match self.closed.load(Ordering::SeqCst) {
                true => ffi::GMB_NOT_READY,
                false => call(ffi::gmb_arbiter { id: *id }),
            }
        });
        self.check_open()?;
        check(told).map(drop)
    }

    fn info(&self, py: Python<'_>) -> PyResult<ffi::gmb_arbiter_info> {
        // SAFETY: numbers and an address.
        let mut known = unsafe { std::mem::zeroed::<ffi::gmb_arbiter_info>() };
        let (at, bytes) = (&mut known as *mut ffi::gmb_arbiter_info as usize, size_of_val(&known));
        // SAFETY: it writes that many bytes.
        self.call(py, |arbiter| unsafe { ffi::gmb_arbiter_get_info(arbiter, at as *mut _, bytes) })?;
        Ok(known)
    }

    /// Waits until its kernel has left.
    fn end(&self) {
        self.closed.store(true, Ordering::SeqCst);
        let mut id = self.id.write().unwrap_or_else(|p| p.into_inner());
        if *id != 0 {
            // SAFETY: nobody uses it any more.
            unsafe { ffi::gmb_arbiter_destroy(ffi::gmb_arbiter { id: *id }) };
            *id = 0;
        }
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        if !ended() {
            without_lock(|| self.end());
        }
    }
}

#[pymethods]
impl Arbiter {
    /// What it looks at, and how it goes, at one moment.
    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let info = self.core.info(py)?;
        counts(
            py,
            &[
                ("mailboxes", info.mailboxes.into()),
                ("focus", info.focus.into()),
                ("slices", info.slices),
                ("heartbeat", info.heartbeat),
            ],
        )
    }

    /// The handle of the C API, for C++ in the same process.
    #[getter]
    fn handle(&self, py: Python<'_>) -> PyResult<u64> {
        let mut id = 0;
        self.core.call(py, |arbiter| {
            id = arbiter.id;
            0
        })?;
        Ok(id)
    }

    /// Where it tells it on the device, for kernels: a `gmb_arbiter_header`.
    #[getter]
    fn pointer(&self) -> PyResult<u64> {
        self.core.check_open()?;
        Ok(self.address)
    }

    fn __repr__(&self) -> String {
        let (count, state) = (self.mailboxes, if self.core.check_open().is_ok() { "" } else { ", closed" });
        format!("<gpumailbox.Arbiter of {count} mailbox{}{state}>", if count == 1 { "" } else { "es" })
    }

    /// Waits until its kernel has left; kernels of yours that ask it must have ended before. Later calls raise `Closed`. Twice
    /// is once.
    fn close(&self, py: Python<'_>) {
        py.detach(|| self.core.end());
    }

    fn __enter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    #[pyo3(signature = (*_ended))]
    fn __exit__(&self, py: Python<'_>, _ended: &Bound<'_, PyTuple>) {
        self.close(py);
    }
}
