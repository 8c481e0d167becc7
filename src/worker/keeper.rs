//! The thread that keeps a worker's kernel coming, and watches it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::residency::Share;
use super::{WorkerCounts, WorkerInfo, WorkerOptions, WorkerReason, WorkerState};
use crate::backend::{wait_until, Kernel, Resident};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::layout::*;
use crate::lines::Line;
use crate::log::{log, LogLevel};
use crate::queue::{Employed, Queue};
use crate::status::*;
use crate::stream::OwnedStream;
use crate::sync::{lock, wait};

/// In a block's beat: it has not begun.
const EXPECTED: u64 = 1;
/// Leave.
const LEAVE: u64 = 1;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Run,
    Pause,
    Stop,
}

struct State {
    is: WorkerState,
    wanted: Wanted,
    /// The worker is gone, or going.
    closed: bool,
    counts: WorkerCounts,
    /// How the last run ended.
    ended: Option<Result<WorkerReason>>,
    /// The first block that the watchdog waits for, and how many there are.
    stalled: (u32, u32),
    share: Option<Share>,
}

/// What a worker and its keeper share.
pub(super) struct Shared {
    context: Context,
    options: WorkerOptions,
    fitting: u32,
    active: Employed,
    finished: Option<Employed>,
    spawn: Option<Employed>,
    stream: OwnedStream,
    memory: Memory,
    state: Mutex<State>,
    changed: Condvar,
}

/// What a kernel that stays is told in, and tells in.
struct Memory {
    context: Context,
    /// A `gmb_worker_block` for each block, and behind them the command.
    device: u64,
    blocks: u32,
    /// A beat for each block, and behind them the command to be copied.
    host: Line,
}

impl Memory {
    fn new(context: &Context, blocks: u32) -> Result<Self> {
        let host = Line::of(context, blocks as usize + 1)?;
        let bytes = Self::bytes_for(blocks);
        let memory = Self { context: context.clone(), device: context.allocate_ring(bytes)?, blocks, host };
        memory.beat_all(0);
        Ok(memory)
    }

    fn bytes_for(blocks: u32) -> usize {
        blocks as usize * size_of::<gmb_worker_block>() + size_of::<u64>()
    }

    fn bytes(&self) -> usize {
        Self::bytes_for(self.blocks)
    }

    fn command(&self) -> u64 {
        self.device + u64::from(self.blocks) * size_of::<gmb_worker_block>() as u64
    }

    /// The word for the command.
    fn word(&self) -> &AtomicU64 {
        self.host.word(self.blocks as usize)
    }

    fn beats(&self) -> impl Iterator<Item = (u32, u64)> + '_ {
        (0..self.blocks).map(|n| (n, self.host.word(n as usize).load(Ordering::Acquire)))
    }

    fn beat_all(&self, beat: u64) {
        for n in 0..self.blocks as usize {
            self.host.word(n).store(beat, Ordering::Release);
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: no kernel of the worker is there any more.
        let _ = unsafe { self.context.free_ring(self.device) };
    }
}

impl Shared {
    pub(super) fn new(
        active: &Queue,
        finished: Option<&Queue>,
        spawn: Option<&Queue>,
        options: WorkerOptions,
        fitting: u32,
    ) -> Result<Self> {
        let context = active.context();
        Ok(Self {
            context: context.clone(),
            memory: Memory::new(context, options.grid_blocks)?,
            stream: context.stream()?,
            options,
            fitting,
            active: active.employ(),
            finished: finished.map(Queue::employ),
            spawn: spawn.map(Queue::employ),
            state: Mutex::new(State {
                is: WorkerState::Ready,
                wanted: Wanted::Run,
                closed: false,
                counts: WorkerCounts::default(),
                ended: None,
                stalled: (0, 0),
                share: None,
            }),
            changed: Condvar::new(),
        })
    }

    pub(super) fn start(&self) -> Result<()> {
        let mut state = lock(&self.state);
        if state.closed {
            return Err(Error::new(GMB_ERROR_INVALID_HANDLE, "the worker is being destroyed"));
        }
        if self.is_on(&state) {
            return Err(Error::new(GMB_ERROR_BUSY, "the worker runs already: wait for it, or stop it"));
        }
        state.share = Some(Share::take(&self.context, self.options.grid_blocks, self.fitting)?);
        state.is = WorkerState::Running;
        state.wanted = Wanted::Run;
        state.counts = WorkerCounts::default();
        state.ended = None;
        drop(state);
        self.changed.notify_all();
        Ok(())
    }

    fn is_on(&self, state: &State) -> bool {
        matches!(state.is, WorkerState::Running | WorkerState::Paused)
    }

    pub(super) fn stop(&self) -> Result<()> {
        let state = lock(&self.state);
        if !self.is_on(&state) {
            return Ok(());
        }
        self.want(state, Wanted::Stop)
    }

    pub(super) fn pause(&self) -> Result<()> {
        let state = self.while_on("pause")?;
        // Who stops wins.
        if state.wanted == Wanted::Stop {
            return Ok(());
        }
        self.want(state, Wanted::Pause)
    }

    pub(super) fn resume(&self) -> Result<()> {
        let mut state = self.while_on("resume")?;
        if state.wanted == Wanted::Pause {
            state.wanted = Wanted::Run;
        }
        drop(state);
        self.changed.notify_all();
        Ok(())
    }

    fn while_on(&self, what: &str) -> Result<MutexGuard<'_, State>> {
        let state = lock(&self.state);
        if !self.is_on(&state) {
            return Err(Error::argument(format!("the worker does not run: there is nothing to {what}")));
        }
        Ok(state)
    }

    /// Makes the kernel leave. The state's lock keeps the keeper from calling it back meanwhile.
    fn want(&self, mut state: MutexGuard<'_, State>, wanted: Wanted) -> Result<()> {
        state.wanted = wanted;
        self.changed.notify_all();
        self.tell(LEAVE)
    }

    /// Tells a running kernel, and waits until that is there.
    fn tell(&self, command: u64) -> Result<()> {
        let (backend, service) = (self.context.backend(), self.context.service());
        let word = self.memory.word();
        word.store(command, Ordering::Release);
        // SAFETY: both words live as long as the worker.
        unsafe { backend.copy(self.memory.command(), word.as_ptr() as u64, size_of::<u64>(), service)? };
        backend.stream_synchronize(service)
    }

    pub(super) fn close(&self) {
        let mut state = lock(&self.state);
        state.closed = true;
        // On a lost device nobody needs to be told.
        let _ = self.want(state, Wanted::Stop);
    }

    pub(super) fn wait(&self, timeout: Option<Duration>) -> Result<(WorkerReason, WorkerCounts)> {
        let limit = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let mut state = lock(&self.state);
        loop {
            match &state.ended {
                Some(Ok(reason)) => return Ok((*reason, state.counts)),
                Some(Err(error)) => return Err(error.clone()),
                None if state.is == WorkerState::Ready => {
                    return Err(Error::argument("the worker was never started"));
                }
                None => {}
            }
            let left = limit.map(|limit| limit.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                let stalled = match state.stalled {
                    (_, 0) => String::new(),
                    (first, n) => format!(
                        ": {n} block(s) of it have not come back from their functor, block {first} first"
                    ),
                };
                return Err(Error::new(
                    GMB_ERROR_TIMEOUT,
                    format!("the worker has not ended in time{stalled}"),
                ));
            }
            state = match left {
                None => wait(&self.changed, state),
                Some(left) => {
                    let waited = self.changed.wait_timeout(state, left);
                    waited.unwrap_or_else(std::sync::PoisonError::into_inner).0
                }
            };
        }
    }

    pub(super) fn info(&self) -> WorkerInfo {
        let state = lock(&self.state);
        let beat = self.memory.beats().map(|(_, beat)| beat).max().unwrap_or(0);
        WorkerInfo {
            state: state.is,
            ended: state.ended.as_ref().map(|ended| ended.as_ref().ok().copied()),
            counts: state.counts,
            heartbeat: if beat > EXPECTED { beat } else { 0 },
            stalled_blocks: state.stalled.1,
            grid_blocks: self.options.grid_blocks,
            block_threads: self.options.block_threads,
            most_blocks: super::residency::most(&self.context, self.fitting),
        }
    }

    /// The keeper's life.
    pub(super) fn keep(&self) {
        loop {
            let mut state = lock(&self.state);
            while state.is != WorkerState::Running {
                if state.closed {
                    return;
                }
                state = wait(&self.changed, state);
            }
            drop(state);
            let ended = self.run();
            if let Err(error) = &ended {
                log(LogLevel::Error, || format!("a worker has ended: {}", error.message()));
            }
            let mut state = lock(&self.state);
            state.is = WorkerState::Ended;
            state.ended = Some(ended);
            state.stalled = (0, 0);
            state.share = None;
            drop(state);
            self.changed.notify_all();
        }
    }

    /// From a start to its end.
    fn run(&self) -> Result<WorkerReason> {
        let (backend, service) = (self.context.backend(), self.context.service());
        // SAFETY: the memory is the worker's, and its kernel is away.
        unsafe { backend.fill(self.memory.device, 0, self.memory.bytes(), service)? };
        backend.stream_synchronize(service)?;
        let mut slices = 0;
        loop {
            if !self.may_come()? {
                return Ok(WorkerReason::Stopped);
            }
            self.slice()?;
            slices += 1;
            let blocks = self.blocks()?;
            lock(&self.state).counts = counts(&blocks, slices);
            if blocks.iter().any(|block| block.reason == GMB_WORKER_WRONG_ITEMS) {
                return Err(Error::new(
                    GMB_ERROR_WRONG_MODE,
                    format!(
                        "the worker's functor is for items of another size than {} bytes",
                        self.args().item_bytes
                    ),
                ));
            }
            if let Some(reason) = why(&blocks) {
                return Ok(reason);
            }
        }
    }

    /// Blocks while the worker is paused; false once it is stopped.
    fn may_come(&self) -> Result<bool> {
        let mut state = lock(&self.state);
        while state.wanted == Wanted::Pause {
            if state.is != WorkerState::Paused {
                state.is = WorkerState::Paused;
                self.changed.notify_all();
            }
            state = wait(&self.changed, state);
        }
        state.is = WorkerState::Running;
        if state.wanted == Wanted::Stop {
            return Ok(false);
        }
        // Under the lock: who asks it to leave from here on is not overruled.
        self.tell(0)?;
        Ok(true)
    }

    /// The kernel comes, and leaves.
    fn slice(&self) -> Result<()> {
        self.memory.beat_all(EXPECTED);
        let stream = self.context.unresolved(self.stream.get());
        let resident = Resident {
            function: self.options.function,
            kernel: Kernel::Worker(self.args()),
            blocks: self.options.grid_blocks,
            threads: self.options.block_threads,
        };
        // SAFETY: the queues and the memory outlive the kernel, which is waited for; the function is the caller's promise.
        unsafe { self.context.backend().launch_resident(&resident, stream)? };
        let mut watch = Watchdog::new(self);
        let done = || match self.context.backend().stream_query(stream) {
            Ok(true) => Some(Ok(())),
            Ok(false) => None,
            Err(error) => Some(Err(error)),
        };
        let ended = wait_until(None, done, || {
            watch.look();
            Ok(())
        });
        watch.end();
        ended?.unwrap_or(Ok(()))
    }

    fn args(&self) -> gmb_worker_args {
        let address = |queue: &Employed| queue.queue().address() as *mut gmb_queue_header;
        let optional = |queue: &Option<Employed>| queue.as_ref().map_or(std::ptr::null_mut(), address);
        // The library's own functor spawns nothing without an interval: a full queue must not keep it from working.
        let spawns = self.options.function != 0 || self.options.spawn_interval != 0;
        gmb_worker_args {
            active: address(&self.active),
            finished: optional(&self.finished),
            spawn: if spawns { optional(&self.spawn) } else { std::ptr::null_mut() },
            blocks: self.memory.device as *mut gmb_worker_block,
            command: self.memory.command() as *mut u64,
            beats: self.memory.host.address() as *mut u64,
            user: self.options.user as *mut std::ffi::c_void,
            max_iterations: self.options.max_iterations,
            idle_threshold: self.options.idle_threshold,
            slice_ns: self.options.slice.map_or(u64::MAX, nanoseconds),
            increment: self.options.increment,
            spawn_interval: self.options.spawn_interval,
            item_bytes: self.active.queue().item_bytes(),
            reserved: 0,
        }
    }

    /// What the blocks have kept.
    fn blocks(&self) -> Result<Vec<gmb_worker_block>> {
        let mut blocks = vec![gmb_worker_block::default(); self.memory.blocks as usize];
        let (backend, service) = (self.context.backend(), self.context.service());
        let bytes = size_of_val(blocks.as_slice());
        // SAFETY: as many as there are, and the copy is waited for.
        unsafe { backend.copy(blocks.as_mut_ptr() as u64, self.memory.device, bytes, service)? };
        backend.stream_synchronize(service)?;
        Ok(blocks)
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn counts(blocks: &[gmb_worker_block], slices: u64) -> WorkerCounts {
    let sum = |of: fn(&gmb_worker_block) -> u64| blocks.iter().map(of).fold(0u64, u64::wrapping_add);
    WorkerCounts {
        processed: sum(|b| b.processed),
        finished: sum(|b| b.finished),
        spawned: sum(|b| b.spawned),
        idle_polls: sum(|b| b.idle_polls),
        rejected: sum(|b| b.rejected),
        returned: sum(|b| b.returned),
        iterations: sum(|b| b.iterations),
        slices,
    }
}

/// Why all blocks have ended, if they have.
fn why(blocks: &[gmb_worker_block]) -> Option<WorkerReason> {
    if blocks.iter().any(|block| block.reason == GMB_WORKER_RUNNING) {
        return None;
    }
    let iterations = blocks.iter().any(|block| block.reason == GMB_WORKER_ITERATIONS);
    Some(if iterations { WorkerReason::Iterations } else { WorkerReason::Idle })
}

/// Sees when a block does not go round any more.
struct Watchdog<'a> {
    of: &'a Shared,
    limit: Duration,
    /// Of each block the last beat, and when that came.
    seen: Vec<(u64, Instant)>,
    told: bool,
}

impl<'a> Watchdog<'a> {
    fn new(of: &'a Shared) -> Self {
        let limit = of.options.watchdog.unwrap_or(Duration::MAX);
        Self { of, limit, seen: vec![(EXPECTED, Instant::now()); of.memory.blocks as usize], told: false }
    }

    fn look(&mut self) {
        let now = Instant::now();
        let mut stalled = (0, 0);
        for ((n, beat), seen) in self.of.memory.beats().zip(&mut self.seen) {
            if beat != seen.0 {
                *seen = (beat, now);
            }
            if beat != 0 && now.duration_since(seen.1) >= self.limit {
                stalled = if stalled.1 == 0 { (n, 1) } else { (stalled.0, stalled.1 + 1) };
            }
        }
        self.note(stalled);
        if stalled.1 != 0 && !self.told {
            self.told = true;
            let limit = self.limit;
            log(LogLevel::Warning, || {
                format!(
                    "block {} of a worker has not gone round for {limit:?}: {} in all",
                    stalled.0, stalled.1
                )
            });
        }
    }

    fn note(&self, stalled: (u32, u32)) {
        let mut state = lock(&self.of.state);
        if state.stalled != stalled {
            state.stalled = stalled;
            drop(state);
            self.of.changed.notify_all();
        }
    }

    fn end(&self) {
        self.note((0, 0));
    }
}
