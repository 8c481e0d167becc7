//! What a device must be able to do. [`cuda`] and [`host`] do it; of mailboxes
//! they know the arguments of the kernels, and nothing else.
//!
//! Memory addresses are `u64` device addresses; on the host backend they are
//! host addresses. Streams are raw `CUstream` values, also the caller's own.

pub(crate) mod args;
mod cuda;
mod host;
mod kernels;

use std::ffi::{c_void, CStr};
use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::events::EventKind;
use crate::graph::CaptureMode;
use crate::log::{log, LogLevel};
use crate::status::*;
use crate::stream::Priority;
pub(crate) use kernels::{ByEntry, Entry, Kernel};

/// Which device family runs the mailboxes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BackendKind {
    /// CUDA, or the host when there is no driver library or no device.
    /// `GMB_BACKEND=host|cuda` in the environment decides instead.
    #[default]
    Auto,
    /// An NVIDIA GPU through its driver.
    Cuda,
    /// Threads and memory of this machine.
    Host,
}

impl BackendKind {
    /// Those that there are, in the order in which `Auto` tries them, and the names that the environment has for them.
    const ALL: [(Self, &'static str); 2] = [(Self::Cuda, "cuda"), (Self::Host, "host")];

    /// Opens a device, and says of which kind it is.
    pub(crate) fn open(self, device: u32) -> Result<(Self, Box<dyn Backend>)> {
        let wanted = if self == Self::Auto { Self::from_environment()? } else { self };
        Ok(match wanted {
            Self::Cuda => (wanted, Box::new(cuda::Cuda::new(device)?)),
            Self::Host => (wanted, Box::new(host::Host::new(device)?)),
            Self::Auto => return Self::open_first(device),
        })
    }

    /// The first one that is there.
    fn open_first(device: u32) -> Result<(Self, Box<dyn Backend>)> {
        for (kind, name) in Self::ALL {
            match kind.open(device) {
                Err(e) if [GMB_ERROR_NO_DRIVER, GMB_ERROR_NO_DEVICE].contains(&e.status()) => {
                    log(LogLevel::Info, || format!("no {name} backend, trying the next: {}", e.message()));
                }
                opened => return opened,
            }
        }
        Err(Error::new(GMB_ERROR_NO_DEVICE, "no backend has a device"))
    }

    fn from_environment() -> Result<Self> {
        match std::env::var("GMB_BACKEND").as_deref() {
            Err(_) | Ok("" | "auto") => Ok(Self::Auto),
            Ok(asked) => {
                Self::ALL.iter().find(|(_, name)| *name == asked).map(|&(kind, _)| kind).ok_or_else(|| {
                    let names = Self::ALL.map(|(_, name)| name).join(" or ");
                    Error::argument(format!("GMB_BACKEND is {asked:?}: use auto, {names}"))
                })
            }
        }
    }
}

/// `DLDeviceType` of host memory, as DLPack has it.
pub(crate) const DL_CPU: i32 = 1;
/// `DLDeviceType` of CUDA's device memory.
pub(crate) const DL_CUDA: i32 = 2;

/// A stream as it crosses the API: a `CUstream`, or the host backend's own value.
pub(crate) type RawStream = *mut c_void;

/// Identity of a stream that no later stream takes over. Never zero.
pub(crate) type StreamId = u64;

/// Identity of a capture that no later capture takes over. Never zero.
pub(crate) type CaptureId = u64;

/// What is known of a stream that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StreamState {
    /// Its work runs.
    Running(StreamId),
    /// Its work is captured into a graph; nobody may ask for its name.
    Capturing(CaptureId),
}

/// A piece of work in a capture, for as long as that lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RawNode(pub(crate) usize);

/// A graph that can be launched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RawGraph(pub(crate) usize);

/// What a graph keeps alive as long as it, or a launch of it, is there.
pub(crate) type Kept = Box<dyn std::any::Any + Send + Sync>;

/// An event of a backend, opaque to everyone above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RawEvent(pub(crate) usize);

/// A module of a caller's kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RawModule(pub(crate) usize);

/// A kernel of such a module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RawFunction(pub(crate) usize);

/// A kernel of a module, and what a launch of it may have.
#[derive(Clone, Debug)]
pub(crate) struct FunctionInfo {
    pub(crate) function: RawFunction,
    /// Threads of a block, at most.
    pub(crate) most_threads: u32,
    /// Dynamic shared memory of a block, at most.
    pub(crate) most_shared: u32,
    /// Bytes of each argument, where the driver tells.
    pub(crate) arguments: Option<Vec<usize>>,
}

/// The shape of a launch of a caller's kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) grid: [u32; 3],
    pub(crate) block: [u32; 3],
    pub(crate) shared_bytes: u32,
}

/// A function of the host that takes a kernel's place: run once for each block, by several threads at once.
pub(crate) type BlockFunction = Arc<dyn Fn(u64) + Send + Sync>;

/// A function to run in stream order on a thread of the backend.
pub(crate) type HostFunction = Box<dyn FnOnce() + Send>;

/// What is behind a context.
#[derive(Clone, Debug)]
pub(crate) struct DeviceInfo {
    /// The device's marketing name, or the host's description.
    pub name: String,
    /// Type and ordinal as DLPack has them.
    pub dlpack_device: (i32, i32),
    /// Whether contexts of the same device can use each other's streams.
    pub shares_streams: bool,
    /// Multiprocessors, or block threads.
    pub units: u32,
    /// Threads in each block of a launch.
    pub block_threads: u32,
    /// The same of a launch whose blocks draw their tiles.
    pub drawing_threads: u32,
    /// Records worth giving to a thread group before there are more of them, if that is more than it moves in a step.
    pub group_records: u32,
    /// Records that are worth a draw.
    pub drawn_records: u32,
    /// Blocks that run at once.
    pub max_blocks: ByEntry<u32>,
    /// The same of blocks that draw.
    pub drawing_blocks: ByEntry<u32>,
    /// Driver version as CUDA counts it (13000 is 13.0); zero on the host.
    pub driver_version: u32,
    /// Blocks of a launch, at most, in each dimension.
    pub most_grid: [u32; 3],
    /// Threads of a block, at most, in each dimension.
    pub most_block: [u32; 3],
}

/// A device with streams, events, memory and kernels.
///
/// Every method may be called from any thread. None holds a lock of this
/// library while it is inside a driver call that can block.
pub(crate) trait Backend: Send + Sync {
    /// What this is.
    fn info(&self) -> &DeviceInfo;

    /// Device memory, at least 256-byte aligned.
    fn allocate(&self, bytes: usize) -> Result<u64>;
    /// Gives memory back once everything that was enqueued before is done.
    ///
    /// # Safety
    /// `address` came from `allocate` and nothing enqueued later uses it.
    unsafe fn release(&self, address: u64) -> Result<()>;
    /// Whether device memory can come from a pool, in stream order.
    fn has_pool(&self) -> bool;
    /// Device memory of the pool, for the stream's later work.
    fn allocate_ordered(&self, bytes: usize, stream: RawStream) -> Result<u64>;
    /// Gives memory back to the pool after what the stream holds now.
    ///
    /// # Safety
    /// `address` came from `allocate_ordered`, and only work before this point of the stream uses it.
    unsafe fn release_ordered(&self, address: u64, stream: RawStream) -> Result<()>;
    /// Bytes that the pool holds, used or not.
    fn pool_reserved(&self) -> Result<u64>;
    /// Gives unused bytes of the pool back to the device, but for so many.
    fn pool_trim(&self, keep: u64) -> Result<()>;
    /// Zeroed host memory that kernels reach at the same address, 256-byte aligned.
    fn allocate_pinned(&self, bytes: usize) -> Result<u64>;
    /// Gives pinned memory back. With `in_use` work enqueued before may still use it, and is waited for: all of the device's,
    /// which spoils captures under way.
    ///
    /// # Safety
    /// As for `release`.
    unsafe fn release_pinned(&self, address: u64, in_use: bool) -> Result<()>;

    /// True when kernels can reach the whole range. Costs calls of the driver.
    fn can_reach(&self, address: u64, bytes: u64) -> Result<bool>;

    /// True for host memory that the device cannot copy by itself. Costs calls of the driver.
    fn is_pageable(&self, address: u64, bytes: u64) -> Result<bool> {
        self.can_reach(address, bytes).map(|reached| !reached)
    }

    /// Pushes the device's context onto this thread's stack, and says how to pop it again.
    fn push_context(&self) -> Result<Option<fn()>>;
    /// Makes the context current for the calls that this thread makes until the answer is
    /// dropped: each would otherwise do so by itself.
    fn enter_for_calls(&self) -> Result<Entered>;
    /// Blocks until everything enqueued on the device is done.
    fn synchronize(&self) -> Result<()>;

    /// A stream that does not synchronize with the legacy default stream.
    fn stream_create(&self, priority: Priority) -> Result<RawStream>;
    /// A stream's priority in the device's numbers: less is more urgent.
    fn stream_priority(&self, stream: RawStream) -> Result<i32>;
    /// Destroys a stream this backend made; its work still completes.
    fn stream_destroy(&self, stream: RawStream) -> Result<()>;
    /// Checks that the stream is of this device and context, and names it or its capture.
    fn stream_state(&self, stream: RawStream) -> Result<StreamState>;
    /// True when everything enqueued is done.
    fn stream_query(&self, stream: RawStream) -> Result<bool>;
    /// Blocks until everything enqueued is done.
    fn stream_synchronize(&self, stream: RawStream) -> Result<()>;
    /// Runs a function on another thread after what the stream holds now.
    fn host_function(&self, stream: RawStream, function: HostFunction) -> Result<()>;

    /// An event of a kind.
    fn event_create(&self, kind: EventKind) -> Result<RawEvent>;
    /// Destroys an event; waits that were enqueued on it still hold.
    fn event_destroy(&self, event: RawEvent);
    /// Marks the stream's present end.
    fn event_record(&self, event: RawEvent, stream: RawStream) -> Result<()>;
    /// True when the last record is reached, or there was none.
    fn event_query(&self, event: RawEvent) -> Result<bool>;
    /// Blocks until the last record is reached.
    fn event_synchronize(&self, event: RawEvent) -> Result<()>;
    /// Milliseconds from one event to another, both timed; `None` unless both are reached.
    fn event_elapsed(&self, start: RawEvent, end: RawEvent) -> Result<Option<f64>>;
    /// Makes later work of the stream wait for the event's last record.
    fn stream_wait(&self, stream: RawStream, event: RawEvent) -> Result<()>;

    /// From now on this thread's calls spoil nobody's capture.
    fn relax(&self);
    /// Begins to capture a stream's work.
    fn capture_begin(&self, stream: RawStream, mode: CaptureMode) -> Result<()>;
    /// Ends the capture that began on this stream. On an error it is ended, too, and nothing is left of it.
    fn capture_end(&self, stream: RawStream) -> Result<RawGraph>;
    /// The graph under capture keeps something alive.
    fn capture_keep(&self, stream: RawStream, kept: Kept) -> Result<()>;
    /// What the stream under capture was given last.
    fn capture_last(&self, stream: RawStream) -> Result<RawNode>;
    /// Later work of the stream comes after this node of the same capture.
    fn capture_after(&self, stream: RawStream, node: RawNode) -> Result<()>;
    /// Each launch of the graph under capture records the event here for those outside of it.
    fn capture_record(&self, event: RawEvent, stream: RawStream) -> Result<()>;
    /// Each launch of the graph under capture waits here for what the event stands for then.
    fn capture_wait(&self, stream: RawStream, event: RawEvent) -> Result<()>;
    /// Launches a graph.
    fn graph_launch(&self, graph: RawGraph, stream: RawStream) -> Result<()>;
    /// Ends a graph; launches of it still complete.
    fn graph_destroy(&self, graph: RawGraph);

    /// Copies between any two of device, pinned and pageable memory, in stream order.
    ///
    /// # Safety
    /// Both ranges stay valid until the copy is done.
    unsafe fn copy(&self, to: u64, from: u64, bytes: usize, stream: RawStream) -> Result<()>;
    /// Reads words that kernels may be writing, none of them torn; waits for nothing but the reading.
    ///
    /// # Safety
    /// `from` is aligned, and that many words there are readable.
    unsafe fn read_words(&self, words: &mut [u64], from: u64, service: RawStream) -> Result<()> {
        // SAFETY: the destination is waited for.
        unsafe { self.copy(words.as_mut_ptr() as u64, from, size_of_val(words), service)? };
        self.stream_synchronize(service)
    }
    /// Fills device memory with a byte, in stream order.
    ///
    /// # Safety
    /// The range stays valid until the fill is done.
    unsafe fn fill(&self, to: u64, value: u8, bytes: usize, stream: RawStream) -> Result<()>;
    /// Launches a kernel with so many blocks.
    ///
    /// # Safety
    /// Every address in the arguments stays valid until the kernel is done.
    unsafe fn launch(&self, kernel: &Kernel, blocks: u32, stream: RawStream) -> Result<()>;
    /// The same into a capture. Where the device can, a node that follows a kernel is launched while that one still runs.
    ///
    /// # Safety
    /// As of `launch`, for as long as the graph lasts.
    unsafe fn launch_captured(&self, kernel: &Kernel, blocks: u32, stream: RawStream) -> Result<()> {
        // SAFETY: vouched for by the caller.
        unsafe { self.launch(kernel, blocks, stream) }
    }

    /// Loads a module of kernels; `None` where functions of the host take their place.
    fn module_load(&self, image: &[u8]) -> Result<Option<RawModule>>;
    /// Unloads it, once nothing of it can run any more.
    fn module_unload(&self, module: RawModule);
    /// Finds a kernel of it, and loads that one.
    fn module_function(&self, module: RawModule, name: &CStr) -> Result<FunctionInfo>;
    /// Launches a kernel of a module.
    ///
    /// # Safety
    /// As of `launch`; the arguments are the kernel's own.
    unsafe fn launch_function(
        &self,
        function: RawFunction,
        shape: &Shape,
        arguments: &mut [*mut c_void],
        stream: RawStream,
    ) -> Result<()>;
    /// Runs so many blocks of a function of the host in stream order, where such functions take the place of kernels.
    fn launch_blocks(&self, function: BlockFunction, blocks: u32, stream: RawStream) -> Result<()>;

    /// Blocks of a kernel that stays which the device can hold at once, when it runs nothing else. `function` is a caller's
    /// kernel, or zero for the library's own.
    ///
    /// # Safety
    /// `function` is a kernel of this backend.
    unsafe fn resident_blocks(&self, function: usize, own: Entry, threads: u32) -> Result<u32>;
    /// Launches a kernel that stays, all of whose blocks run at once.
    ///
    /// # Safety
    /// As of `launch`, and of `resident_blocks`.
    unsafe fn launch_resident(&self, resident: &Resident, stream: RawStream) -> Result<()>;
}

/// A launch of a kernel that stays.
#[derive(Clone, Copy)]
pub(crate) struct Resident {
    /// A caller's kernel, or zero for the library's own.
    pub(crate) function: usize,
    /// The library's own, with the arguments of either.
    pub(crate) kernel: Kernel,
    pub(crate) blocks: u32,
    pub(crate) threads: u32,
}

/// A thread's calls with the context current. Drop undoes that, on the same thread.
pub(crate) struct Entered {
    undo: Option<fn(before: *const c_void)>,
    before: *const c_void,
}

impl Entered {
    /// Nothing to undo.
    fn already() -> Self {
        Self { undo: None, before: std::ptr::null() }
    }

    /// Undone by a function of what was before.
    fn undone_by(undo: fn(before: *const c_void), before: *const c_void) -> Self {
        Self { undo: Some(undo), before }
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        if let Some(undo) = self.undo {
            undo(self.before);
        }
    }
}

/// Calls `ready` until it gives a value or time is up: spins, then yields,
/// then sleeps. `nudge` runs now and then; its error ends the wait.
pub(crate) fn wait_until<T>(
    timeout: Option<Duration>,
    ready: impl FnMut() -> Option<T>,
    nudge: impl FnMut() -> Result<()>,
) -> Result<Option<T>> {
    wait_until_about(None, timeout, ready, nudge)
}

/// The same for something that is to come when so much time has passed: then it looks more often, and before that it is in no
/// hurry.
pub(crate) fn wait_until_about<T>(
    due: Option<Duration>,
    timeout: Option<Duration>,
    mut ready: impl FnMut() -> Option<T>,
    mut nudge: impl FnMut() -> Result<()>,
) -> Result<Option<T>> {
    const SPINS: u32 = 2048;
    const YIELDS: u32 = 4096;
    let yields = if due.is_some_and(is_far) { 64 } else { YIELDS };
    let start = std::time::Instant::now();
    let mut round: u32 = 0;
    loop {
        if let Some(value) = ready() {
            return Ok(Some(value));
        }
        round = round.saturating_add(1);
        if timeout == Some(Duration::ZERO) && round % 64 != 0 {
            return Ok(None);
        }
        // The clock and the driver are asked rarely: both cost more than a poll, though less than a nap.
        if round % 64 == 0 || round > yields {
            let passed = start.elapsed();
            if timeout.is_some_and(|limit| passed >= limit) {
                return Ok(None);
            }
            if round % 64 == 0 || nap(passed, due) > LEAST_NAP {
                nudge()?;
            }
            if round > yields {
                let left = timeout.map_or(Duration::MAX, |limit| limit.saturating_sub(passed));
                std::thread::sleep(nap(passed, due).min(left));
                continue;
            }
        }
        if round < SPINS {
            std::hint::spin_loop();
        } else {
            std::thread::yield_now();
        }
    }
}

const LEAST_NAP: Duration = Duration::from_micros(50);
const LONG_NAP: Duration = Duration::from_micros(1000);

fn is_far(due: Duration) -> bool {
    due > 4 * LONG_NAP
}

/// What comes soon is told soon; who has waited for long costs little.
fn nap(passed: Duration, due: Option<Duration>) -> Duration {
    let near = due.is_some_and(|due| {
        passed.saturating_add(2 * LONG_NAP) > due && passed < due.saturating_add(100 * LONG_NAP)
    });
    match passed.as_millis() {
        _ if near => LEAST_NAP,
        0..2 => LEAST_NAP,
        2..50 if !due.is_some_and(is_far) => Duration::from_micros(200),
        _ => LONG_NAP,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Who waits for what comes in a while does not ask for it all the time: each question is a call of the driver.
    #[test]
    fn what_is_far_is_asked_for_seldom() {
        let (mut asked, limit) = (0, Duration::from_millis(100));
        let never = || {
            asked += 1;
            None::<()>
        };
        assert!(wait_until_about(Some(limit), Some(limit), never, || Ok(())).is_ok_and(|came| came.is_none()));
        // A machine that does something else meanwhile makes it less.
        assert!((64..400).contains(&asked), "{asked} times in {limit:?}");
    }
}
