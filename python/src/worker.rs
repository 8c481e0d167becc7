//! Workers: kernels that stay on the device and drain a queue.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, RwLock, Weak};
use std::time::Duration;

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use crate::context::ContextHandle;
use crate::doorbell::{self, Doorbell};
use crate::error::{argument, check, closed};
use crate::info::counts;
use crate::interpreter::{ended, without_lock};
use crate::queue::{self, Queue};
use crate::waiting::{limit, nanoseconds, patiently_while};
use crate::{ffi, lock};

/// Takes items from one queue and routes them to two others, in a kernel that stays.
#[pyclass(frozen, weakref, module = "gpumailbox")]
pub struct Worker {
    core: Arc<Core>,
}

/// The handle, which goes with the worker or the interpreter.
struct Core {
    context: Arc<ContextHandle>,
    closed: AtomicBool,
    /// Zero once it has ended, which waits for calls that use it.
    id: RwLock<u64>,
    grid_blocks: u32,
    /// They stay as long as the worker.
    _queues: [Option<Arc<queue::Core>>; 3],
    _doorbell: Option<Arc<doorbell::Core>>,
}

/// Those that there are.
static OPEN: Mutex<Vec<Weak<Core>>> = Mutex::new(Vec::new());

/// Stops all of them: the interpreter is about to end, and the device's memory with it.
pub fn end_all() {
    let open = std::mem::take(&mut *lock(&OPEN));
    open.iter().filter_map(Weak::upgrade).for_each(|worker| worker.end());
}

const STATES: [&str; 4] = ["ready", "running", "paused", "ended"];
const REASONS: [&str; 4] = ["running", "stopped", "idle", "iterations"];

/// Seconds for the library: None for its default, inf for ever.
pub fn span(what: &str, seconds: Option<f64>) -> PyResult<u64> {
    match seconds {
        None => Ok(0),
        Some(f64::INFINITY) => Ok(ffi::GMB_WAIT_FOREVER),
        Some(seconds) => match Duration::try_from_secs_f64(seconds).map(nanoseconds) {
            Ok(some) if some > 0 => Ok(some),
            _ => Err(argument(format!(
                "{what} {seconds} is no time: give seconds, float(\"inf\") for no end, or None for the default"
            ))),
        },
    }
}

impl Worker {
    pub fn new(
        py: Python<'_>,
        context: &Arc<ContextHandle>,
        queues: [Option<&Queue>; 3],
        bell: Option<&Doorbell>,
        options: ffi::gmb_worker_options,
    ) -> PyResult<Self> {
        context.handle()?;
        let mut handles = [ffi::gmb_queue { id: 0 }; 3];
        for (handle, queue) in handles.iter_mut().zip(queues) {
            let Some(queue) = queue else { continue };
            if !Arc::ptr_eq(&queue.core.context, context) {
                return Err(argument("a queue is of another context than the worker"));
            }
            *handle = queue.core.handle()?;
        }
        let [active, finished, spawn] = handles;
        if bell.is_some_and(|bell| !Arc::ptr_eq(&bell.core.context, context)) {
            return Err(argument("the doorbell is of another context than the worker"));
        }
        let doorbell = bell.map_or(Ok(ffi::gmb_doorbell { id: 0 }), |bell| bell.core.handle())?;
        let options = ffi::gmb_worker_options { active, finished, spawn, doorbell, ..options };
        let (at, mut handle) =
            (&options as *const ffi::gmb_worker_options as usize, ffi::gmb_worker { id: 0 });
        // SAFETY: options of their size; it writes a handle.
        check(py.detach(|| unsafe { ffi::gmb_worker_create(at as *const _, &mut handle) }))?;
        let core = Arc::new(Core {
            context: Arc::clone(context),
            closed: AtomicBool::new(false),
            id: RwLock::new(handle.id),
            grid_blocks: options.grid_blocks.max(1),
            _queues: queues.map(|queue| queue.map(|queue| Arc::clone(&queue.core))),
            _doorbell: bell.map(|bell| Arc::clone(&bell.core)),
        });
        let mut open = lock(&OPEN);
        open.retain(|known| known.strong_count() > 0);
        open.push(Arc::downgrade(&core));
        drop(open);
        Ok(Self { core })
    }
}

impl Core {
    fn check_open(&self) -> PyResult<()> {
        self.context.handle()?;
        if self.closed.load(Ordering::SeqCst) {
            return Err(closed("the worker is closed"));
        }
        Ok(())
    }

    /// A call of the library, if it is open. Not with the interpreter's lock: who closes it holds that up.
    fn told(&self, call: impl FnOnce(ffi::gmb_worker) -> i32) -> i32 {
        let id = self.id.read().unwrap_or_else(|p| p.into_inner());
        match self.closed.load(Ordering::SeqCst) {
            true => ffi::GMB_NOT_READY,
            false => call(ffi::gmb_worker { id: *id }),
        }
    }

    fn call(&self, py: Python<'_>, call: impl FnOnce(ffi::gmb_worker) -> i32 + Send) -> PyResult<()> {
        self.check_open()?;
        let told = py.detach(|| self.told(call));
        self.check_open()?;
        check(told).map(drop)
    }

    /// Stops it, and waits until its kernel has left.
    fn end(&self) {
        self.closed.store(true, Ordering::SeqCst);
        let mut id = self.id.write().unwrap_or_else(|p| p.into_inner());
        if *id != 0 {
            // SAFETY: nobody uses it any more.
            unsafe { ffi::gmb_worker_destroy(ffi::gmb_worker { id: *id }) };
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

/// What a run of a worker did, all blocks together.
#[pyclass(frozen, get_all, module = "gpumailbox")]
pub struct WorkerResult {
    /// Why it has ended: "stopped", "idle" or "iterations".
    pub reason: &'static str,
    /// Items that were taken, and did not go back.
    pub processed: u64,
    /// Items that went to `finished`.
    pub finished: u64,
    /// Items that went to `spawn`.
    pub spawned: u64,
    /// Times that a block found nothing to do.
    pub idle_polls: u64,
    /// Times that a block took nothing because an output was full.
    pub rejected: u64,
    /// Items that went back to the end of `active`.
    pub returned: u64,
    /// Times that blocks went round.
    pub iterations: u64,
    /// Times that the kernel came.
    pub slices: u64,
}

#[pymethods]
impl WorkerResult {
    fn __repr__(&self) -> String {
        format!("<gpumailbox.WorkerResult {}, processed={}>", self.reason, self.processed)
    }
}

#[pymethods]
impl Worker {
    /// Begins a run, with counts of zero. Does not wait: the kernel comes soon.
    fn start(&self, py: Python<'_>) -> PyResult<()> {
        // SAFETY: checked by the library; so below.
        self.core.call(py, |worker| unsafe { ffi::gmb_worker_start(worker) })
    }

    /// Ends the run; does not wait for that. One that does not run stays as it is.
    fn stop(&self, py: Python<'_>) -> PyResult<()> {
        self.core.call(py, |worker| unsafe { ffi::gmb_worker_stop(worker) })
    }

    /// The kernel leaves until `resume`; does not wait for that.
    fn pause(&self, py: Python<'_>) -> PyResult<()> {
        self.core.call(py, |worker| unsafe { ffi::gmb_worker_pause(worker) })
    }

    /// Lets a paused one go on.
    fn resume(&self, py: Python<'_>) -> PyResult<()> {
        self.core.call(py, |worker| unsafe { ffi::gmb_worker_resume(worker) })
    }

    /// Blocks until the run has ended, for at most `timeout` seconds: why, and what it did.
    #[pyo3(signature = (timeout = None))]
    fn wait(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<WorkerResult> {
        self.core.check_open()?;
        // SAFETY: numbers only.
        let (limit, mut did) = (limit(timeout)?, unsafe { std::mem::zeroed::<ffi::gmb_worker_result>() });
        patiently_while(
            py,
            limit,
            || self.core.check_open(),
            // SAFETY: it writes a result.
            |left| self.core.told(|worker| unsafe { ffi::gmb_worker_wait(worker, left, &mut did) }),
        )?;
        Ok(WorkerResult {
            reason: REASONS.get(did.reason as usize).copied().unwrap_or_default(),
            processed: did.processed,
            finished: did.finished,
            spawned: did.spawned,
            idle_polls: did.idle_polls,
            rejected: did.rejected,
            returned: did.returned,
            iterations: did.iterations,
            slices: did.slices,
        })
    }

    /// A run from its start to its end.
    #[pyo3(signature = (timeout = None))]
    fn run(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<WorkerResult> {
        limit(timeout)?;
        self.start(py)?;
        self.wait(py, timeout)
    }

    /// Where it stands, and what it did in this run, as of when its kernel left last.
    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        // SAFETY: numbers only.
        let mut known = unsafe { std::mem::zeroed::<ffi::gmb_worker_info>() };
        let bytes = size_of::<ffi::gmb_worker_info>();
        // SAFETY: it writes that many bytes.
        self.core.call(py, |worker| unsafe { ffi::gmb_worker_get_info(worker, &mut known, bytes) })?;
        let did = known.result;
        let all = counts(
            py,
            &[
                ("processed", did.processed),
                ("finished", did.finished),
                ("spawned", did.spawned),
                ("idle_polls", did.idle_polls),
                ("rejected", did.rejected),
                ("returned", did.returned),
                ("iterations", did.iterations),
                ("slices", did.slices),
                ("grid_blocks", known.grid_blocks.into()),
                ("block_threads", known.block_threads.into()),
                ("most_blocks", known.most_blocks.into()),
                ("stalled_blocks", known.stalled_blocks.into()),
                ("heartbeat", known.heartbeat),
            ],
        )?;
        all.set_item("state", STATES.get(known.state as usize).copied())?;
        Ok(all)
    }

    /// The handle of the C API, for C++ in the same process.
    #[getter]
    fn handle(&self, py: Python<'_>) -> PyResult<u64> {
        let mut id = 0;
        self.core.call(py, |worker| {
            id = worker.id;
            0
        })?;
        Ok(id)
    }

    fn __repr__(&self) -> String {
        let state = if self.core.check_open().is_ok() { "" } else { ", closed" };
        let blocks = self.core.grid_blocks;
        format!("<gpumailbox.Worker of {blocks} block{}{state}>", if blocks == 1 { "" } else { "s" })
    }

    /// Stops it, and waits until its kernel has left; later calls raise `Closed`, and so do those that wait. Every item is in
    /// one of the queues then. Twice is once.
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
