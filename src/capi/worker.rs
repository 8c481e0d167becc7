//! `gmb_worker`: kernels that stay on the device and drain a queue.

use std::ffi::c_void;
use std::time::Duration;

use super::boundary::boundary;
use super::doorbell::gmb_doorbell;
use super::queue::gmb_queue;
use super::token::GMB_WAIT_FOREVER;
use super::{output, sized, timeout, write_info, Sized32, DOORBELLS, QUEUES, WORKERS};
use crate::error::{Error, Result};
use crate::handle::Pinned;
use crate::layout::*;
use crate::status::*;
use crate::{Queue, Worker, WorkerCounts, WorkerOptions, WorkerReason, WorkerState};

/// Handle of a worker. Zero is null.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct gmb_worker {
    /// Opaque.
    pub id: u64,
}

/// What a worker is made with. Start from `GMB_WORKER_OPTIONS_INIT`.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct gmb_worker_options {
    /// `sizeof(gmb_worker_options)`.
    pub struct_size: u32,
    /// Threads of a block, a multiple of 32, at most 1,024; 0 for 128. The host backend has one.
    pub block_threads: u32,
    /// Where items come from.
    pub active: gmb_queue,
    /// Where finished ones go, or zero: they are gone.
    pub finished: gmb_queue,
    /// Where each `spawn_interval`-th item goes, and what a functor spawns; zero where there is no such thing.
    pub spawn: gmb_queue,
    /// Times that each block goes round before it ends; 0 for no limit.
    pub max_iterations: u64,
    /// Times in a row that a block finds nothing to do before it ends; 0 for no limit.
    pub idle_threshold: u64,
    /// Each so many-th item of the queue goes to `spawn` instead of `finished`; 0: none.
    pub spawn_interval: u64,
    /// What is added to each item; default 1.
    pub increment: u64,
    /// Blocks; 0 for one. Within the device's budget for workers (`gmb_context_options.resident_percent`).
    pub grid_blocks: u32,
    /// Must be zero.
    pub reserved: u32,
    /// Nanoseconds that the kernel stays before it leaves and comes again: meanwhile calls that need an idle device go on. 0
    /// for 100 ms, `GMB_WAIT_FOREVER` for ever.
    pub slice_ns: u64,
    /// Nanoseconds that a block may stay out of its loop before it counts as stalled; 0 for a second, `GMB_WAIT_FOREVER` never.
    pub watchdog_ns: u64,
    /// A kernel of the caller's: on CUDA a `CUfunction` made with `GMB_WORKER_KERNEL`, on the host backend the address of a
    /// function made with `GMB_WORKER_FUNCTION` (`gpumailbox/worker.cuh`); null for the library's own, which counts up.
    pub function: *const c_void,
    /// What the caller's functor gets.
    pub user: *mut c_void,
    /// What commands come through; zero: none. One block more serves it.
    pub doorbell: gmb_doorbell,
}

// SAFETY: repr(C), begins with struct_size, integers and pointers only.
unsafe impl Sized32 for gmb_worker_options {
    const NAME: &'static str = "gmb_worker_options";
    const FIRST_SIZE: usize = 104;
}

/// Where a worker stands: `GMB_WORKER_STATE_*`.
#[allow(non_camel_case_types)]
pub type gmb_worker_state = i32;

/// Made, and not started.
pub const GMB_WORKER_STATE_READY: gmb_worker_state = 0;
/// It works, or is about to.
pub const GMB_WORKER_STATE_RUNNING: gmb_worker_state = 1;
/// It was asked to pause, and has left the device.
pub const GMB_WORKER_STATE_PAUSED: gmb_worker_state = 2;
/// It has ended: it can be started again.
pub const GMB_WORKER_STATE_ENDED: gmb_worker_state = 3;

/// What a run of a worker did, all blocks together.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct gmb_worker_result {
    /// Why it has ended: `GMB_WORKER_STOPPED`, `_IDLE`, `_ITERATIONS`, `_FAILED`; `GMB_WORKER_RUNNING` while it has not.
    pub reason: gmb_worker_reason,
    /// Zero.
    pub reserved: u32,
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
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct gmb_worker_info {
    /// Where it stands.
    pub state: gmb_worker_state,
    /// Blocks that the watchdog waits for.
    pub stalled_blocks: u32,
    /// Blocks.
    pub grid_blocks: u32,
    /// Threads of a block.
    pub block_threads: u32,
    /// Blocks that the device's budget allows such a worker.
    pub most_blocks: u32,
    /// Zero.
    pub reserved: u32,
    /// When a block last went round, in nanoseconds of the device's clock; zero while the kernel is away.
    pub heartbeat: u64,
    /// What it did in this run, as of when its kernel left last.
    pub result: gmb_worker_result,
}

fn result_of(reason: gmb_worker_reason, counts: &WorkerCounts) -> gmb_worker_result {
    gmb_worker_result {
        reason,
        reserved: 0,
        processed: counts.processed,
        finished: counts.finished,
        spawned: counts.spawned,
        idle_polls: counts.idle_polls,
        rejected: counts.rejected,
        returned: counts.returned,
        iterations: counts.iterations,
        slices: counts.slices,
    }
}

fn reason_of(reason: WorkerReason) -> gmb_worker_reason {
    match reason {
        WorkerReason::Stopped => GMB_WORKER_STOPPED,
        WorkerReason::Idle => GMB_WORKER_IDLE,
        WorkerReason::Iterations => GMB_WORKER_ITERATIONS,
    }
}

fn optional_queue(queue: gmb_queue) -> Result<Option<Pinned<Queue>>> {
    if queue.id == 0 {
        return Ok(None);
    }
    QUEUES.get(queue.id).map(Some)
}

/// Zero for the default, `GMB_WAIT_FOREVER` for no end.
fn span(nanoseconds: u64) -> Option<Duration> {
    match nanoseconds {
        0 => None,
        GMB_WAIT_FOREVER => Some(Duration::MAX),
        some => Some(Duration::from_nanos(some)),
    }
}

/// Makes a worker over queues of one context, which have items of one size; it does nothing before it is started.
///
/// The caller owns it and ends it with `gmb_worker_destroy`; until then its queues cannot be destroyed. Does not wait for the
/// device; thread-safe.
///
/// Errors: `GMB_ERROR_INVALID_HANDLE`, `_NULL_POINTER`, `_STRUCT_SIZE`, `_INVALID_ARGUMENT` (queues that do not fit together,
/// threads of a block, more blocks than the device's budget allows), `_BUSY` (another worker serves the doorbell),
/// `_OUT_OF_MEMORY`, `_MEMORY_LIMIT`, `_OUT_OF_HOST_MEMORY`, `_SYSTEM` (no thread), `_DEVICE_LOST`.
#[no_mangle]
pub extern "C" fn gmb_worker_create(
    options: *const gmb_worker_options,
    worker: *mut gmb_worker,
) -> gmb_status {
    boundary(|| {
        let out = output(worker, "worker")?;
        let options = sized(options, "options")?;
        if options.reserved != 0 {
            return Err(Error::argument("options.reserved is not zero"));
        }
        let doorbell = match options.doorbell.id {
            0 => None,
            id => Some(DOORBELLS.get(id)?),
        };
        let wanted = WorkerOptions {
            max_iterations: options.max_iterations,
            idle_threshold: options.idle_threshold,
            spawn_interval: options.spawn_interval,
            increment: options.increment,
            block_threads: options.block_threads,
            grid_blocks: options.grid_blocks,
            slice: span(options.slice_ns),
            watchdog: span(options.watchdog_ns),
            function: options.function as usize,
            user: options.user as usize,
            doorbell: doorbell.as_deref(),
        };
        let active = QUEUES.get(options.active.id)?;
        let (finished, spawn) = (optional_queue(options.finished)?, optional_queue(options.spawn)?);
        // SAFETY: function and user are the caller's contract.
        let made = unsafe { Worker::with_function(&active, finished.as_deref(), spawn.as_deref(), &wanted)? };
        out.write(gmb_worker { id: WORKERS.insert(made)? });
        Ok(())
    })
}

/// Stops a worker and ends it. Blocks until its kernel has left, which a functor that never returns keeps it from; then every
/// item is in one of the queues. Safe while other threads are inside calls on it: those that wait for it get
/// `GMB_WORKER_STOPPED`; then the last thread to leave ends it, this call may be over before, and only afterwards its queues
/// can be destroyed. Errors: `GMB_ERROR_INVALID_HANDLE`.
#[no_mangle]
pub extern "C" fn gmb_worker_destroy(worker: gmb_worker) -> gmb_status {
    boundary(|| {
        let pinned = WORKERS.get(worker.id)?;
        WORKERS.remove(worker.id)?;
        pinned.close();
        Ok(())
    })
}

/// Begins a run, with counts of zero. Does not block: the kernel comes soon. Thread-safe.
/// Errors: `GMB_ERROR_INVALID_HANDLE`, `_BUSY` (it runs already; other workers hold what the device's budget allows).
#[no_mangle]
pub extern "C" fn gmb_worker_start(worker: gmb_worker) -> gmb_status {
    boundary(|| WORKERS.get(worker.id)?.start())
}

/// Asks the kernel to leave, and ends the run: a worker that does not run stays as it is. Does not wait for the kernel
/// (`gmb_worker_wait` does), nor for anything else. Thread-safe. Errors: `GMB_ERROR_INVALID_HANDLE`.
#[no_mangle]
pub extern "C" fn gmb_worker_stop(worker: gmb_worker) -> gmb_status {
    boundary(|| {
        WORKERS.get(worker.id)?.stop();
        Ok(())
    })
}

/// Asks the kernel to leave until `gmb_worker_resume`. Its state is `GMB_WORKER_STATE_PAUSED` once it has. Otherwise as
/// `gmb_worker_stop`. Errors: also `GMB_ERROR_INVALID_ARGUMENT` (it does not run).
#[no_mangle]
pub extern "C" fn gmb_worker_pause(worker: gmb_worker) -> gmb_status {
    boundary(|| WORKERS.get(worker.id)?.pause())
}

/// Lets a paused worker go on. Does not block; thread-safe.
/// Errors: `GMB_ERROR_INVALID_HANDLE`, `_INVALID_ARGUMENT` (it does not run).
#[no_mangle]
pub extern "C" fn gmb_worker_resume(worker: gmb_worker) -> gmb_status {
    boundary(|| WORKERS.get(worker.id)?.resume())
}

/// Blocks the calling thread until the run that is on has ended, and tells why and what it did; of a worker that does not run,
/// what the last run did. `timeout_ns` is in nanoseconds; `GMB_WAIT_FOREVER` waits without limit, 0 asks once. Thread-safe.
/// Errors: `GMB_ERROR_INVALID_HANDLE`, `_NULL_POINTER`, `_INVALID_ARGUMENT` (never started), `_TIMEOUT` (wait again; the
/// message tells of blocks that do not come back from their functor, or have not begun because other work fills the device), and
/// what ended the run: `_WRONG_MODE` (the functor is for items of another size), `_INVALID_ARGUMENT` (it may spawn more of one
/// item than the queue `spawn` holds), `_CORRUPT` (something else wrote into its doorbell), `_DEVICE_LOST`, `_DRIVER`.
#[no_mangle]
pub extern "C" fn gmb_worker_wait(
    worker: gmb_worker,
    timeout_ns: u64,
    result: *mut gmb_worker_result,
) -> gmb_status {
    boundary(|| {
        let out = output(result, "result")?;
        let (reason, counts) = WORKERS.get(worker.id)?.wait(timeout(timeout_ns))?;
        out.write(result_of(reason_of(reason), &counts));
        Ok(())
    })
}

/// Where a worker stands. `info_size` is `sizeof(gmb_worker_info)`. Never blocks for the device; thread-safe.
/// Errors: `GMB_ERROR_INVALID_HANDLE`, `_NULL_POINTER`, `_STRUCT_SIZE`.
#[no_mangle]
pub extern "C" fn gmb_worker_get_info(
    worker: gmb_worker,
    info: *mut gmb_worker_info,
    info_size: usize,
) -> gmb_status {
    boundary(|| {
        let known = WORKERS.get(worker.id)?.info();
        let value = gmb_worker_info {
            state: match known.state {
                WorkerState::Ready => GMB_WORKER_STATE_READY,
                WorkerState::Running => GMB_WORKER_STATE_RUNNING,
                WorkerState::Paused => GMB_WORKER_STATE_PAUSED,
                WorkerState::Ended => GMB_WORKER_STATE_ENDED,
            },
            stalled_blocks: known.stalled_blocks,
            grid_blocks: known.grid_blocks,
            block_threads: known.block_threads,
            most_blocks: known.most_blocks,
            reserved: 0,
            heartbeat: known.heartbeat,
            result: result_of(
                known.ended.map_or(GMB_WORKER_RUNNING, |ended| ended.map_or(GMB_WORKER_FAILED, reason_of)),
                &known.counts,
            ),
        };
        write_info(info, info_size, value)
    })
}
