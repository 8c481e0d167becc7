//! Doorbells: commands to kernels that run, and their answers.

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, RwLock, Weak};
use std::time::{Duration, Instant};

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use crate::context::ContextHandle;
use crate::error::{argument, check, closed, status};
use crate::info::{counts, info};
use crate::interpreter::{ended, without_lock};
use crate::waiting::{limit, nanoseconds, patiently_until, patiently_while};
use crate::watch::{Watch, Watched};
use crate::{ffi, lock};

/// Commands from the host to a kernel that runs, and its answers, with no launch between.
#[pyclass(frozen, weakref, module = "gpumailbox")]
pub struct Doorbell {
    pub core: Arc<Core>,
    capacity: u64,
    /// Of the header.
    address: u64,
}

/// The handle, which goes with the doorbell, its commands and the worker that serves it.
pub struct Core {
    pub context: Arc<ContextHandle>,
    id: AtomicU64,
    /// Commands that somebody has, and whose answers were not taken out of the library yet, in their order.
    under_way: Mutex<BTreeMap<u64, Weak<Submitted>>>,
}

/// A command, and its answer, which is taken out of the library once.
struct Submitted {
    core: Arc<Core>,
    id: ffi::gmb_command_id,
    answer: OnceLock<ffi::gmb_answer>,
    /// Held by those that may just now take it out.
    taking: RwLock<()>,
}

/// How long a full doorbell is not asked again while its oldest command is waited for: half of what has passed, within these.
const ROOM: Duration = Duration::from_millis(1);
const LONGEST_ROOM: Duration = Duration::from_millis(250);

/// No room.
fn is_full(told: i32) -> bool {
    told == ffi::GMB_ERROR_FULL
}

impl Core {
    pub fn handle(&self) -> PyResult<ffi::gmb_doorbell> {
        self.context.handle()?;
        match self.handle_at_end() {
            ffi::gmb_doorbell { id: 0 } => Err(closed("the doorbell is closed")),
            open => Ok(open),
        }
    }

    /// Zero once it is closed, which the library refuses.
    fn handle_at_end(&self) -> ffi::gmb_doorbell {
        ffi::gmb_doorbell { id: self.id.load(Ordering::Acquire) }
    }

    fn info(&self) -> PyResult<ffi::gmb_doorbell_info> {
        let handle = self.handle()?;
        // SAFETY: numbers and an address; it writes that many bytes.
        unsafe { info(|at, bytes| ffi::gmb_doorbell_get_info(handle, at, bytes)) }
    }

    /// Refused while a worker serves it: then it stays.
    fn end(&self) -> PyResult<()> {
        let handle = self.handle_at_end();
        if handle.id == 0 {
            return Ok(());
        }
        // SAFETY: checked by the library, also that nobody else has ended it.
        let told = without_lock(|| unsafe { ffi::gmb_doorbell_destroy(handle) });
        if told != ffi::GMB_ERROR_INVALID_HANDLE {
            check(told)?;
        }
        self.id.store(0, Ordering::Release);
        Ok(())
    }

    /// Submits a command, or none without room; its number, where somebody wants the answer.
    fn submit(&self, command: &ffi::gmb_command, left: u64, id: Option<&mut ffi::gmb_command_id>) -> i32 {
        let id = id.map_or(std::ptr::null_mut(), std::ptr::from_mut);
        // SAFETY: a command; it writes a number, if there is room for one.
        unsafe { ffi::gmb_doorbell_submit(self.handle_at_end(), command, left, id) }
    }

    /// The same, patiently: an answer that is there takes no room.
    fn submit_patiently(
        &self,
        py: Python<'_>,
        command: &ffi::gmb_command,
        timeout: Option<Duration>,
        mut id: Option<&mut ffi::gmb_command_id>,
    ) -> PyResult<()> {
        self.handle()?;
        let told = self.submit(command, 0, id.as_deref_mut());
        if !is_full(told) {
            return check(told).map(drop);
        }
        let began = Instant::now();
        let give = |left: u64| {
            // Whoever is first in the row makes room first, as a rule.
            let oldest = lock(&self.under_way).first_key_value().map(|(&id, known)| (id, known.clone()));
            let Some((number, known)) = oldest else { return self.submit(command, left, id.as_deref_mut()) };
            let left = left.min(nanoseconds((began.elapsed() / 2).clamp(ROOM, LONGEST_ROOM)));
            if self.take(&known, left) {
                lock(&self.under_way).remove(&number);
            }
            self.collect(false);
            self.submit(command, 0, id.as_deref_mut())
        };
        patiently_until(py, timeout, is_full, || self.handle().map(drop), give).map(drop)
    }

    /// Waits for a command's answer and takes it out of the library; false if it has to be asked for again.
    fn take(&self, known: &Weak<Submitted>, left: u64) -> bool {
        // What nobody has any more is just being forgotten.
        known.upgrade().is_none_or(|command| command.told(left) != ffi::GMB_ERROR_TIMEOUT)
    }

    fn wait(&self, id: ffi::gmb_command_id, left: u64, answer: &mut ffi::gmb_answer) -> i32 {
        // SAFETY: it writes an answer.
        unsafe { ffi::gmb_doorbell_wait(self.handle_at_end(), id, left, answer) }
    }

    /// Takes out answers that are there, of all commands, or up to the first that has none: how many.
    fn collect(&self, all: bool) -> usize {
        let mut taken = 0;
        let known: Vec<_> = lock(&self.under_way).iter().map(|(&id, known)| (id, known.clone())).collect();
        for (number, known) in known {
            if self.take(&known, 0) {
                lock(&self.under_way).remove(&number);
                taken += 1;
            } else if !all {
                break;
            }
        }
        taken
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
            let _ = self.end();
        }
    }
}

impl Submitted {
    /// Blocks until the answer is here, or time is over; the status.
    fn told(&self, left: u64) -> i32 {
        let taking = self.taking.read().unwrap_or_else(|p| p.into_inner());
        if self.answer.get().is_some() {
            return 0;
        }
        let mut answer = ffi::gmb_answer { status: 0, flags: 0, value: [0; 3] };
        let told = self.core.wait(self.id, left, &mut answer);
        if told == 0 {
            let _ = self.answer.set(answer);
        }
        drop(taking);
        self.unless_answered(told)
    }

    /// What is said of a command that is not there any more may be no error: another thread has taken its answer out just now.
    fn unless_answered(&self, told: i32) -> i32 {
        if told != ffi::GMB_ERROR_INVALID_ARGUMENT {
            return told;
        }
        drop(self.taking.write());
        match self.answer.get() {
            Some(_) => 0,
            None => told,
        }
    }

    fn cancel(&self) -> i32 {
        if self.answer.get().is_some() {
            return 0;
        }
        // SAFETY: checked by the library.
        self.unless_answered(unsafe { ffi::gmb_doorbell_cancel(self.core.handle_at_end(), self.id) })
    }
}

impl Drop for Submitted {
    fn drop(&mut self) {
        if ended() {
            return;
        }
        lock(&self.core.under_way).remove(&self.id.id);
        if self.answer.get().is_none() {
            // SAFETY: checked by the library.
            unsafe { ffi::gmb_doorbell_forget(self.core.handle_at_end(), self.id) };
        }
    }
}

/// What a kernel has answered.
#[pyclass(frozen, get_all, module = "gpumailbox")]
pub struct Answer {
    /// Zero, or what the kernel says; what is below zero is raised.
    pub status: i32,
    /// Zero, or the kernel's own.
    pub flags: u32,
    /// What came of it: three numbers.
    pub value: (u64, u64, u64),
}

#[pymethods]
impl Answer {
    fn __repr__(&self) -> String {
        let Self { status, flags, value } = self;
        format!("<gpumailbox.Answer status={status} flags={flags} value={value:?}>")
    }
}

/// Raises what went wrong on the device.
fn answered(answer: &ffi::gmb_answer) -> PyResult<Answer> {
    let &ffi::gmb_answer { status: told, flags, value: [a, b, c] } = answer;
    if told < 0 {
        // SAFETY: a constant text.
        let said = unsafe { CStr::from_ptr(ffi::gmb_status_string(told)) }.to_string_lossy();
        return Err(status(
            told,
            match told {
                ffi::GMB_ERROR_NOT_SERVED | ffi::GMB_ERROR_CANCELLED => said.into_owned(),
                _ => format!("the kernel has not done the command: {said}; it answered ({a}, {b}, {c})"),
            },
        ));
    }
    Ok(Answer { status: told, flags, value: (a, b, c) })
}

/// A command that was submitted. Wait for its answer, or `await` it.
#[pyclass(frozen, weakref, module = "gpumailbox")]
pub struct Command {
    submitted: Arc<Submitted>,
    doorbell: Py<Doorbell>,
}

impl Command {
    fn wait_within(&self, py: Python<'_>, timeout: Option<Duration>) -> PyResult<Answer> {
        let it = &self.submitted;
        if it.answer.get().is_none() {
            it.core.handle()?;
            patiently_while(py, timeout, || it.core.handle().map(drop), |left| it.told(left))?;
        }
        it.answer.get().map_or_else(|| Err(closed("the doorbell is closed")), answered)
    }
}

#[pymethods]
impl Command {
    /// Blocks until it is answered, for at most `timeout` seconds. However often, the answer is the same.
    #[pyo3(signature = (timeout = None))]
    fn wait(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Answer> {
        let limit = limit(timeout)?;
        self.wait_within(py, limit)
    }

    /// The answer, or None while there is none. Does not block.
    fn poll(&self, py: Python<'_>) -> PyResult<Option<Answer>> {
        let it = &self.submitted;
        if it.answer.get().is_none() {
            it.core.handle()?;
            match py.detach(|| it.told(0)) {
                ffi::GMB_ERROR_TIMEOUT => return Ok(None),
                told => check(told)?,
            };
        }
        it.answer.get().map(answered).transpose()
    }

    /// Asks for it not to be done: if it was not taken yet, its answer raises `Cancelled`. One that was answered stays so.
    fn cancel(&self, py: Python<'_>) -> PyResult<()> {
        let it = &self.submitted;
        if it.answer.get().is_none() {
            it.core.handle()?;
        }
        check(py.detach(|| it.cancel())).map(drop)
    }

    /// The event loop sleeps on a descriptor, no thread waits.
    fn __await__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        let coroutine = slf.py().import("gpumailbox._aio")?.getattr("answer_to")?.call1((slf,))?;
        coroutine.call_method0("__await__")
    }

    /// That it was submitted to.
    #[getter]
    fn doorbell(&self, py: Python<'_>) -> Py<Doorbell> {
        self.doorbell.clone_ref(py)
    }

    fn __repr__(&self) -> String {
        let state = match self.submitted.answer.get() {
            None => "not answered yet".to_owned(),
            Some(answer) => format!("status {}", answer.status),
        };
        format!("<gpumailbox.Command {}, {state}>", self.submitted.id.id)
    }
}

fn command(code: u32, arguments: &Bound<'_, PyTuple>) -> PyResult<ffi::gmb_command> {
    let mut command = ffi::gmb_command { code, flags: 0, argument: [0; 3] };
    if arguments.len() > command.argument.len() {
        return Err(argument(format!("{} arguments: a command has three at most", arguments.len())));
    }
    for (to, from) in command.argument.iter_mut().zip(arguments) {
        *to = from.extract()?;
    }
    Ok(command)
}

impl Doorbell {
    pub fn new(py: Python<'_>, context: &Arc<ContextHandle>, capacity: u64) -> PyResult<Self> {
        let (of, mut handle) = (context.handle()?, ffi::gmb_doorbell { id: 0 });
        let struct_size = size_of::<ffi::gmb_doorbell_options>() as u32;
        let options = ffi::gmb_doorbell_options { struct_size, reserved: 0, capacity };
        // SAFETY: options of their size; it writes a handle.
        check(py.detach(|| unsafe { ffi::gmb_doorbell_create(of, &options, &mut handle) }))?;
        let id = AtomicU64::new(handle.id);
        let core = Arc::new(Core { context: Arc::clone(context), id, under_way: Mutex::default() });
        let info = core.info()?;
        Ok(Self { core, capacity: info.capacity, address: info.doorbell as u64 })
    }
}

#[pymethods]
impl Doorbell {
    /// To be answered with its arguments.
    #[classattr]
    const PING: u32 = ffi::GMB_COMMAND_PING as u32;
    /// What a worker has done in this run: processed, finished, spawned.
    #[classattr]
    const COUNTS: u32 = ffi::GMB_COMMAND_COUNTS as u32;
    /// The first code of your own.
    #[classattr]
    const USER: u32 = ffi::GMB_COMMAND_USER as u32;

    /// Submits a command with up to three arguments (64 bits, not negative). Where too many wait for their answers it waits
    /// for room, at most `timeout` seconds, then raises `Full`.
    #[pyo3(signature = (code, *arguments, timeout = None))]
    fn submit(
        slf: &Bound<'_, Self>,
        py: Python<'_>,
        code: u32,
        arguments: &Bound<'_, PyTuple>,
        timeout: Option<f64>,
    ) -> PyResult<Command> {
        Self::submit_within(slf, py, &command(code, arguments)?, limit(timeout)?)
    }

    /// The same of a command whose answer nobody wants.
    #[pyo3(signature = (code, *arguments, timeout = None))]
    fn post(
        &self,
        py: Python<'_>,
        code: u32,
        arguments: &Bound<'_, PyTuple>,
        timeout: Option<f64>,
    ) -> PyResult<()> {
        self.core.submit_patiently(py, &command(code, arguments)?, limit(timeout)?, None)
    }

    /// `submit`, and `wait`, within `timeout` seconds together: one that is not answered in time is cancelled.
    #[pyo3(signature = (code, *arguments, timeout = None))]
    fn call(
        slf: &Bound<'_, Self>,
        py: Python<'_>,
        code: u32,
        arguments: &Bound<'_, PyTuple>,
        timeout: Option<f64>,
    ) -> PyResult<Answer> {
        let (begin, limit) = (Instant::now(), limit(timeout)?);
        let made = Self::submit_within(slf, py, &command(code, arguments)?, limit)?;
        made.wait_within(py, limit.map(|limit| limit.saturating_sub(begin.elapsed()))).map_err(|error| {
            if made.submitted.answer.get().is_some() {
                return error;
            }
            // Also by Ctrl-C.
            py.detach(|| made.submitted.cancel());
            let told = error.value(py).getattr("status").and_then(|status| status.extract::<i32>());
            match told {
                Ok(ffi::GMB_ERROR_TIMEOUT) => {
                    status(ffi::GMB_ERROR_TIMEOUT, "no answer in time: the command was cancelled")
                }
                _ => error,
            }
        })
    }

    /// Takes the answers that are there to their commands: for event loops, which then hear of the next one. How many.
    fn _collect(&self, py: Python<'_>) -> PyResult<usize> {
        self.core.handle()?;
        Ok(py.detach(|| self.core.collect(true)))
    }

    /// Counts of the doorbell at one moment.
    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        self.core.handle()?;
        py.detach(|| self.core.collect(true));
        let info = self.core.info()?;
        let all = counts(
            py,
            &[("capacity", info.capacity), ("submitted", info.submitted), ("outstanding", info.outstanding)],
        )?;
        all.set_item("served", info.served != 0)?;
        Ok(all)
    }

    /// A descriptor that is readable when answers are there which no command has got yet; see `Watch`.
    fn watch(&self) -> PyResult<Watch> {
        let handle = self.core.handle()?;
        // SAFETY: it writes a handle.
        Watch::new(Arc::clone(&self.core) as _, |watch| unsafe {
            ffi::gmb_doorbell_create_watch(handle, watch)
        })
    }

    /// The handle of the C API, for C++ in the same process.
    #[getter]
    fn handle(&self) -> PyResult<u64> {
        Ok(self.core.handle()?.id)
    }

    /// Where it lies on the device, for kernels: a `gmb_doorbell_header`.
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
        format!("<gpumailbox.Doorbell, capacity {}{state}>", self.capacity)
    }

    /// Later calls raise `Closed`, and so do those that wait. One that a worker serves is [BUSY], and stays. Twice is once.
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

impl Doorbell {
    fn submit_within(
        slf: &Bound<'_, Self>,
        py: Python<'_>,
        command: &ffi::gmb_command,
        timeout: Option<Duration>,
    ) -> PyResult<Command> {
        let (core, mut id) = (&slf.get().core, ffi::gmb_command_id { id: 0 });
        core.submit_patiently(py, command, timeout, Some(&mut id))?;
        let submitted = Arc::new(Submitted {
            core: Arc::clone(core),
            id,
            answer: OnceLock::new(),
            taking: RwLock::new(()),
        });
        lock(&core.under_way).insert(id.id, Arc::downgrade(&submitted));
        Ok(Command { submitted, doorbell: slf.clone().unbind() })
    }
}
