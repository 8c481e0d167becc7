//! The thread that keeps a worker's kernel coming, and watches it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::residency::Share;
use super::slices::Slices;
use super::{WorkerCounts, WorkerInfo, WorkerOptions, WorkerReason, WorkerState};
use crate::backend::{wait_until_about, Kernel, Resident};
use crate::context::Context;
use crate::doorbell::{Doorbell, Served};
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
    /// Runs that were started.
    runs: u64,
    /// How the last run ended that has, and what it did.
    ended: Option<(Result<WorkerReason>, WorkerCounts)>,
    stalled: Stalled,
    share: Option<Share>,
}

impl State {
    fn new() -> Self {
        Self {
            is: WorkerState::Ready,
            wanted: Wanted::Run,
            closed: false,
            counts: WorkerCounts::default(),
            runs: 0,
            ended: None,
            stalled: Stalled::default(),
            share: None,
        }
    }

    fn is_on(&self) -> bool {
        matches!(self.is, WorkerState::Running | WorkerState::Paused)
    }

    /// What who waits for a run is told; nothing while it is on. Somebody may have started the next one since.
    fn outcome_of(&self, run: u64) -> Option<Result<(WorkerReason, WorkerCounts)>> {
        if self.is_on() && self.runs == run {
            return None;
        }
        Some(match &self.ended {
            Some((ended, counts)) => ended.clone().map(|reason| (reason, *counts)),
            None => Err(Error::argument("the worker was never started")),
        })
    }
}

/// Blocks that the watchdog waits for.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Stalled {
    blocks: u32,
    /// The first of them.
    first: u32,
    /// Whether that one has not even begun: the kernel waits for room on the device.
    outside: bool,
}

impl std::fmt::Display for Stalled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { blocks, first, outside } = self;
        match outside {
            true => write!(f, "{blocks} block(s) of it have not begun: other work fills the device"),
            false => write!(
                f,
                "{blocks} block(s) of it have not come back from their functor, block {first} first"
            ),
        }
    }
}

/// What a worker and its keeper share.
pub(super) struct Shared {
    context: Context,
    options: WorkerOptions<'static>,
    fitting: u32,
    active: Employed,
    finished: Option<Employed>,
    spawn: Option<Employed>,
    doorbell: Option<Served>,
    stream: OwnedStream,
    memory: Memory,
    slices: Slices,
    state: Mutex<State>,
    changed: Condvar,
}

/// What a kernel that stays keeps, is told in, and tells in.
struct Memory {
    context: Context,
    /// A `gmb_worker_block` for each block, and behind them the command as the blocks have seen it, and how many have left.
    device: u64,
    blocks: u32,
    /// A beat for each block, and behind them the command: nothing else need go on on the device for that to be seen.
    host: Line,
}

impl Memory {
    fn new(context: &Context, blocks: u32) -> Result<Self> {
        let host = Line::of(context, blocks as usize + 1)?;
        let bytes = Self::bytes_of(blocks) + 2 * size_of::<u64>();
        let memory = Self { context: context.clone(), device: context.allocate_ring(bytes)?, blocks, host };
        memory.beat_all(0);
        Ok(memory)
    }

    fn bytes_of(blocks: u32) -> usize {
        blocks as usize * size_of::<gmb_worker_block>()
    }

    /// Where blocks tell each other of the command.
    fn told(&self) -> u64 {
        self.device + Self::bytes_of(self.blocks) as u64
    }

    fn command(&self) -> &AtomicU64 {
        self.host.word(self.blocks as usize)
    }

    /// Where the kernel finds it.
    fn command_address(&self) -> u64 {
        self.host.address() + u64::from(self.blocks) * size_of::<u64>() as u64
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
        options: WorkerOptions<'_>,
        fitting: u32,
    ) -> Result<Self> {
        let context = active.context();
        let doorbell = options.doorbell.map(Doorbell::employ).transpose()?;
        let options = WorkerOptions { doorbell: None, ..options };
        Ok(Self {
            context: context.clone(),
            memory: Memory::new(context, options.grid_blocks + u32::from(doorbell.is_some()))?,
            stream: context.stream()?,
            slices: Slices::new(context, options.slice.unwrap_or(Duration::MAX)),
            options,
            fitting,
            active: active.employ(),
            finished: finished.map(Queue::employ),
            spawn: spawn.map(Queue::employ),
            doorbell,
            state: Mutex::new(State::new()),
            changed: Condvar::new(),
        })
    }

    pub(super) fn start(&self) -> Result<()> {
        let mut state = lock(&self.state);
        if state.closed {
            return Err(Error::new(GMB_ERROR_INVALID_HANDLE, "the worker is being destroyed"));
        }
        if state.is_on() {
            return Err(Error::new(GMB_ERROR_BUSY, "the worker runs already: wait for it, or stop it"));
        }
        state.share = Some(Share::take(&self.context, self.memory.blocks, self.fitting)?);
        state.is = WorkerState::Running;
        state.wanted = Wanted::Run;
        state.counts = WorkerCounts::default();
        state.runs += 1;
        drop(state);
        self.changed.notify_all();
        Ok(())
    }

    pub(super) fn stop(&self) {
        let state = lock(&self.state);
        if state.is_on() {
            self.want(state, Wanted::Stop);
        }
    }

    pub(super) fn pause(&self) -> Result<()> {
        let state = self.while_on("pause")?;
        // Who stops wins.
        if state.wanted != Wanted::Stop {
            self.want(state, Wanted::Pause);
        }
        Ok(())
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
        if !state.is_on() {
            return Err(Error::argument(format!("the worker does not run: there is nothing to {what}")));
        }
        Ok(state)
    }

    /// Makes the kernel leave. The state's lock keeps the keeper from calling it back meanwhile.
    fn want(&self, mut state: MutexGuard<'_, State>, wanted: Wanted) {
        state.wanted = wanted;
        self.memory.command().store(LEAVE, Ordering::Release);
        drop(state);
        self.changed.notify_all();
    }

    pub(super) fn close(&self) {
        let mut state = lock(&self.state);
        state.closed = true;
        self.want(state, Wanted::Stop);
    }

    pub(super) fn wait(&self, timeout: Option<Duration>) -> Result<(WorkerReason, WorkerCounts)> {
        let limit = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let mut state = lock(&self.state);
        let run = state.runs;
        loop {
            if let Some(outcome) = state.outcome_of(run) {
                return outcome;
            }
            let left = limit.map(|limit| limit.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                let stalled = match state.stalled.blocks {
                    0 => String::new(),
                    _ => format!(": {}", state.stalled),
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
            ended: state
                .ended
                .as_ref()
                .filter(|_| !state.is_on())
                .map(|(ended, _)| ended.as_ref().ok().copied()),
            counts: state.counts,
            heartbeat: if beat > EXPECTED { beat } else { 0 },
            stalled_blocks: state.stalled.blocks,
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
            if let Some(doorbell) = &self.doorbell {
                // On a lost device nobody waits in vain either.
                let _ = doorbell.end();
            }
            let mut state = lock(&self.state);
            state.is = WorkerState::Ended;
            state.ended = Some((ended, state.counts));
            state.stalled = Stalled::default();
            state.share = None;
            drop(state);
            self.changed.notify_all();
        }
    }

    /// From a start to its end.
    fn run(&self) -> Result<WorkerReason> {
        let (backend, service) = (self.context.backend(), self.context.service());
        // SAFETY: the memory is the worker's, and its kernel is away.
        unsafe { backend.fill(self.memory.device, 0, Memory::bytes_of(self.memory.blocks), service)? };
        backend.stream_synchronize(service)?;
        let mut slices = 0;
        loop {
            if !self.may_come() {
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
                        self.active.queue().item_bytes()
                    ),
                ));
            }
            if blocks.iter().any(|block| block.reason == GMB_WORKER_SMALL_SPAWN) {
                return Err(Error::argument(
                    "the queue spawn has less room than the worker's functor may spawn of one item: give a larger one",
                ));
            }
            if blocks.iter().any(|block| block.reason == GMB_WORKER_SPOILT_DOORBELL) {
                return Err(Error::new(
                    GMB_ERROR_CORRUPT,
                    "something else wrote into the worker's doorbell: destroy both, and make new ones",
                ));
            }
            if let Some(reason) = why(blocks.get(..self.options.grid_blocks as usize).unwrap_or_default()) {
                return Ok(reason);
            }
        }
    }

    /// Blocks while the worker is paused; false once it is stopped.
    fn may_come(&self) -> bool {
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
            return false;
        }
        // Under the lock: who asks it to leave from here on is not overruled.
        self.memory.command().store(0, Ordering::Release);
        true
    }

    /// The kernel comes, and leaves.
    fn slice(&self) -> Result<()> {
        let slice = self.slices.begin();
        self.memory.beat_all(EXPECTED);
        let stream = self.context.unresolved(self.stream.get());
        let resident = Resident {
            function: self.options.function,
            kernel: Kernel::Worker(self.args(slice.length)),
            blocks: self.memory.blocks,
            threads: self.options.block_threads,
        };
        let backend = self.context.backend();
        // It is asked often whether it has left.
        let _entered = backend.enter_for_calls()?;
        // SAFETY: the queues and the memory outlive the kernel, which is waited for; the function is the caller's promise.
        unsafe {
            backend.fill(self.memory.told(), 0, 2 * size_of::<u64>(), stream)?;
            backend.launch_resident(&resident, stream)?;
        }
        let mut watch = Watchdog::new(self);
        let done = || match backend.stream_query(stream) {
            Ok(true) => Some(Ok(())),
            Ok(false) => None,
            Err(error) => Some(Err(error)),
        };
        let ended = wait_until_about(Some(slice.length), None, done, || {
            watch.look();
            Ok(())
        });
        watch.end();
        ended?.unwrap_or(Ok(()))
    }

    fn args(&self, slice: Duration) -> gmb_worker_args {
        let address = |queue: &Employed| queue.queue().address() as *mut gmb_queue_header;
        let optional = |queue: &Option<Employed>| queue.as_ref().map_or(std::ptr::null_mut(), address);
        // The library's own functor spawns nothing without an interval: a full queue must not keep it from working.
        let spawns = self.options.function != 0 || self.options.spawn_interval != 0;
        gmb_worker_args {
            active: address(&self.active),
            finished: optional(&self.finished),
            spawn: if spawns { optional(&self.spawn) } else { std::ptr::null_mut() },
            blocks: self.memory.device as *mut gmb_worker_block,
            command: self.memory.command_address() as *const u64,
            told: self.memory.told() as *mut u64,
            left: (self.memory.told() + size_of::<u64>() as u64) as *mut u64,
            doorbell: self.doorbell.as_ref().map_or(0, Served::header) as *mut gmb_doorbell_header,
            beats: self.memory.host.address() as *mut u64,
            user: self.options.user as *mut std::ffi::c_void,
            max_iterations: self.options.max_iterations,
            idle_threshold: self.options.idle_threshold,
            slice_ns: nanoseconds(slice),
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
        let mut stalled = Stalled::default();
        for ((n, beat), seen) in self.of.memory.beats().zip(&mut self.seen) {
            if beat != seen.0 {
                *seen = (beat, now);
            }
            if beat != 0 && now.duration_since(seen.1) >= self.limit {
                if stalled.blocks == 0 {
                    (stalled.first, stalled.outside) = (n, beat == EXPECTED);
                }
                stalled.blocks += 1;
            }
        }
        self.note(stalled);
        if stalled.blocks != 0 && !self.told {
            self.told = true;
            let limit = self.limit;
            log(LogLevel::Warning, || format!("a worker has stood still for {limit:?}: {stalled}"));
        }
    }

    fn note(&self, stalled: Stalled) {
        let mut state = lock(&self.of.state);
        if state.stalled != stalled {
            state.stalled = stalled;
            drop(state);
            self.of.changed.notify_all();
        }
    }

    fn end(&self) {
        self.note(Stalled::default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_for_one_run() {
        let mut state = State::new();
        assert!(state.outcome_of(0).is_some_and(|outcome| outcome.is_err()));
        (state.is, state.runs) = (WorkerState::Running, 1);
        assert!(state.outcome_of(1).is_none());
        let counts = WorkerCounts { processed: 7, ..Default::default() };
        (state.is, state.ended) = (WorkerState::Ended, Some((Ok(WorkerReason::Idle), counts)));
        let ended = Some(Ok((WorkerReason::Idle, counts)));
        assert_eq!(state.outcome_of(1).map(Result::ok), ended.clone().map(Result::<_>::ok));
        // The next one is on, and who waits for it has not waited for this.
        (state.is, state.runs) = (WorkerState::Paused, 2);
        assert_eq!(state.outcome_of(1).map(Result::ok), ended.map(Result::<_>::ok));
        assert!(state.outcome_of(2).is_none());
    }
}
