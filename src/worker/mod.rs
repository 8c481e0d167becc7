//! Persistent workers: kernels that stay on the device and drain a queue.

mod keeper;
pub(crate) mod residency;
pub(crate) mod slices;

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crate::backend::Entry;
use crate::context::Context;
use crate::doorbell::Doorbell;
use crate::error::{Error, Result};
use crate::profiler::Range;
use crate::queue::{check_threads, threads_of, Queue};
use crate::status::*;
use crate::sync::forked;
use keeper::Shared;

/// What a worker is made with.
#[derive(Clone, Copy, Debug, Default)]
pub struct WorkerOptions<'a> {
    /// Times that each block goes round before it ends; 0 for no limit.
    pub max_iterations: u64,
    /// Times in a row that a block finds nothing to do before it ends; 0 for no limit.
    pub idle_threshold: u64,
    /// Each so many-th item of the queue goes to `spawn` instead of `finished`; 0: none.
    pub spawn_interval: u64,
    /// What is added to each item.
    pub increment: u64,
    /// Threads of a block, a multiple of 32; 0 for 128. The host backend has one.
    pub block_threads: u32,
    /// Blocks; 0 for one.
    pub grid_blocks: u32,
    /// How long the kernel stays before it leaves and comes again; `None` for 100 ms, [`Duration::MAX`] for ever.
    pub slice: Option<Duration>,
    /// How long a block may stay out of its loop before it counts as stalled; `None` for a second, [`Duration::MAX`] never.
    pub watchdog: Option<Duration>,
    /// A kernel of the caller's made with `GMB_WORKER_KERNEL` (a `CUfunction`) or on the host backend with
    /// `GMB_WORKER_FUNCTION` (its address); 0 for the library's own, which counts up.
    pub function: usize,
    /// What the caller's functor gets: `hand.user()`.
    pub user: usize,
    /// What commands come through; one block more serves it.
    pub doorbell: Option<&'a Doorbell>,
}

/// Where a worker stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkerState {
    /// Made, and not started.
    Ready,
    /// It works, or is about to.
    Running,
    /// It was asked to pause, and has left the device.
    Paused,
    /// It has ended: it can be started again.
    Ended,
}

/// Why a worker has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkerReason {
    /// It was stopped.
    Stopped,
    /// All of its blocks found nothing to do for as long as they should look.
    Idle,
    /// A block went round as often as it should.
    Iterations,
}

/// What a run of a worker did, all blocks together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WorkerCounts {
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
    /// Items that the functor sent back to the end of `active`.
    pub returned: u64,
    /// Times that blocks went round.
    pub iterations: u64,
    /// Times that the kernel came.
    pub slices: u64,
}

/// A worker's state at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkerInfo {
    /// Where it stands.
    pub state: WorkerState,
    /// How the run has ended: `Some(None)` by an error, which [`Worker::wait`] gives.
    pub ended: Option<Option<WorkerReason>>,
    /// What it did in this run, as of when its kernel left last.
    pub counts: WorkerCounts,
    /// When one of its blocks last went round, in nanoseconds of the device's clock: it grows while the worker works. Zero
    /// while its kernel is away.
    pub heartbeat: u64,
    /// Blocks that the watchdog waits for.
    pub stalled_blocks: u32,
    /// Blocks.
    pub grid_blocks: u32,
    /// Threads of a block.
    pub block_threads: u32,
    /// Blocks that the device's budget allows such a worker.
    pub most_blocks: u32,
}

/// A kernel that stays on the device, takes items from the queue `active`, adds an increment, or does what the caller's functor
/// does, and routes them to `finished` or `spawn`. A thread of the library starts it, lets it leave every slice so that work
/// that needs an idle device goes on, and watches its heartbeat.
///
/// Room in the outputs is taken before an item is: whatever ends a worker, every item is in one of the queues. Dropped, it is
/// stopped and waited for.
///
/// ```
/// use gpumailbox::{Context, ContextOptions, Queue, QueueOptions, Worker, WorkerOptions, WorkerReason};
///
/// let context = Context::new(&ContextOptions::default())?;
/// let options = QueueOptions { capacity: 64, item_bytes: 4, ..Default::default() };
/// let (active, finished) = (Queue::new(&context, &options)?, Queue::new(&context, &options)?);
/// active.push_from_host_blocking(&7u32.to_ne_bytes())?;
/// let options = WorkerOptions { idle_threshold: 1000, increment: 1, ..Default::default() };
/// let worker = Worker::new(&active, Some(&finished), None, &options)?;
/// worker.start()?;
/// let (reason, counts) = worker.wait(None)?;
/// assert_eq!((reason, counts.processed), (WorkerReason::Idle, 1));
/// let mut item = [0u8; 4];
/// finished.pop_to_host_blocking(&mut item)?;
/// assert_eq!(u32::from_ne_bytes(item), 8);
/// # Ok::<(), gpumailbox::Error>(())
/// ```
pub struct Worker {
    shared: Arc<Shared>,
    keeper: Option<JoinHandle<()>>,
}

const DEFAULT_THREADS: u32 = 128;
const DEFAULT_SLICE: Duration = Duration::from_millis(100);
const DEFAULT_WATCHDOG: Duration = Duration::from_secs(1);

impl Worker {
    /// Makes a worker; it does nothing before it is started. The queues have items of one size and are three different ones;
    /// without `finished`, what is finished is gone; without `spawn` nothing can be spawned.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` (queues that do not fit together, threads of a block, more blocks than the device's budget for
    /// workers allows), `BUSY` (another worker serves the doorbell), `OUT_OF_MEMORY`, `MEMORY_LIMIT`, `OUT_OF_HOST_MEMORY`, `SYSTEM` (no thread), `DEVICE_LOST`.
    ///
    /// # Safety
    /// `function` and `user` are what [`WorkerOptions`] says, as long as the worker.
    pub unsafe fn with_function(
        active: &Queue,
        finished: Option<&Queue>,
        spawn: Option<&Queue>,
        options: &WorkerOptions<'_>,
    ) -> Result<Self> {
        let _range = Range::new(c"make a worker");
        let context = active.context().clone();
        let options = checked(&context, active, finished, spawn, options)?;
        // SAFETY: the function is the caller's promise.
        let fitting = unsafe {
            context.backend().resident_blocks(options.function, Entry::Worker, options.block_threads)?
        };
        let blocks = options.grid_blocks.saturating_add(options.doorbell.is_some().into());
        let serving = if options.doorbell.is_some() { ", and one more for the doorbell" } else { "" };
        let what = format!("grid_blocks {}{serving}", options.grid_blocks);
        residency::check(&context, &what, blocks, fitting)?;
        let shared = Arc::new(Shared::new(active, finished, spawn, options, fitting)?);
        let kept = Arc::clone(&shared);
        let keeper = std::thread::Builder::new()
            .name("gmb-worker".to_owned())
            .spawn(move || kept.keep())
            .map_err(|e| Error::new(GMB_ERROR_SYSTEM, format!("no thread for a worker: {e}")))?;
        Ok(Self { shared, keeper: Some(keeper) })
    }

    /// The same with the library's own functor.
    ///
    /// # Errors
    /// As of [`Worker::with_function`]; `INVALID_ARGUMENT` for options with a function.
    pub fn new(
        active: &Queue,
        finished: Option<&Queue>,
        spawn: Option<&Queue>,
        options: &WorkerOptions<'_>,
    ) -> Result<Self> {
        if options.function != 0 {
            return Err(Error::argument("a worker with a function is made by Worker::with_function"));
        }
        // SAFETY: no function.
        unsafe { Self::with_function(active, finished, spawn, options) }
    }

    /// Begins a run. Does not block: the kernel comes soon.
    ///
    /// # Errors
    /// `BUSY` (it runs already; other workers hold what the device's budget allows).
    pub fn start(&self) -> Result<()> {
        self.shared.start()
    }

    /// Asks the kernel to leave, and ends the run. Does not wait for that; a worker that does not run stays as it is.
    pub fn stop(&self) {
        self.shared.stop();
    }

    /// Asks the kernel to leave until [`Worker::resume`]. Does not wait for that.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` (it does not run).
    pub fn pause(&self) -> Result<()> {
        self.shared.pause()
    }

    /// Lets a paused worker go on.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` (it does not run).
    pub fn resume(&self) -> Result<()> {
        self.shared.resume()
    }

    /// Blocks until the run that is on has ended, or takes the last one: why, and what it did. `None` waits without limit.
    ///
    /// # Errors
    /// `TIMEOUT` (which tells of blocks that do not come back from their functor, or have not begun), `INVALID_ARGUMENT` (never
    /// started), and what ended the run: `WRONG_MODE` (the functor is for items of another size), `INVALID_ARGUMENT` (it may
    /// spawn more of one item than the queue `spawn` holds), `CORRUPT` (something else wrote into its doorbell), `DEVICE_LOST`,
    /// `DRIVER`.
    pub fn wait(&self, timeout: Option<Duration>) -> Result<(WorkerReason, WorkerCounts)> {
        self.shared.wait(timeout)
    }

    /// Where it stands. Never blocks.
    pub fn info(&self) -> WorkerInfo {
        self.shared.info()
    }

    /// Stops it for good, and wakes who waits.
    pub(crate) fn close(&self) {
        self.shared.close();
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.close();
        if let Some(keeper) = self.keeper.take().filter(|_| !forked()) {
            let _ = keeper.join();
        }
    }
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker").field("state", &self.info().state).finish_non_exhaustive()
    }
}

/// The options with defaults in place, of queues that fit together.
fn checked<'a>(
    context: &Context,
    active: &Queue,
    finished: Option<&Queue>,
    spawn: Option<&Queue>,
    options: &WorkerOptions<'a>,
) -> Result<WorkerOptions<'a>> {
    let named = [("finished", finished), ("spawn", spawn)];
    for (name, queue) in named.into_iter().filter_map(|(name, queue)| queue.map(|queue| (name, queue))) {
        if !queue.context().is(context) {
            return Err(Error::argument(format!("the queue {name} is of another context than active")));
        }
        if queue.item_bytes() != active.item_bytes() {
            return Err(Error::argument(format!(
                "the queue {name} has items of {} bytes, active of {}",
                queue.item_bytes(),
                active.item_bytes()
            )));
        }
        if queue.is(active) {
            return Err(Error::argument(format!("the queue {name} is active itself: give another one")));
        }
    }
    if let (Some(finished), Some(spawn)) = (finished, spawn) {
        if finished.is(spawn) {
            return Err(Error::argument("the queues finished and spawn are the same: give another one"));
        }
    }
    if options.spawn_interval != 0 && spawn.is_none() {
        return Err(Error::argument(format!(
            "spawn_interval {}: there is no queue spawn",
            options.spawn_interval
        )));
    }
    if options.doorbell.is_some_and(|doorbell| !doorbell.context().is(context)) {
        return Err(Error::argument("the doorbell is of another context than active"));
    }
    check_threads(options.block_threads)?;
    Ok(WorkerOptions {
        block_threads: threads_of(context, options.block_threads, DEFAULT_THREADS),
        grid_blocks: options.grid_blocks.max(1),
        slice: Some(options.slice.unwrap_or(DEFAULT_SLICE)),
        watchdog: Some(options.watchdog.unwrap_or(DEFAULT_WATCHDOG)),
        ..*options
    })
}
