//! Result slots and the tokens that own them.
//!
//! A slot is four words in pinned memory that the kernel writes last, and a
//! `gmb_result` in device memory. Slots come in chunks that live as long as
//! the context; a slot released while its operation is under way waits until
//! it is written before anyone else gets it.

mod slot;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::backend::args::gmb_report_args;
use crate::backend::{wait_until, Backend, CaptureId};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::graph::Held;
use crate::layout::gmb_result;
use crate::profiler::Range;
use crate::status::*;
use crate::stream::Resolved;
use crate::sync::lock;
use slot::{Unused, Words};

/// Bytes from one slot to the next, in both memories: a line each.
const SLOT_BYTES: usize = 128;
const SLOTS_PER_CHUNK: usize = 64;

/// Where a slot has the spans of a borrow, in device memory.
const SPANS: u64 = 32;

/// Addresses of one slot.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slot {
    host: u64,
    device: u64,
}

impl Words for Slot {
    fn word(&self, index: usize) -> u64 {
        // SAFETY: the slot lies in a chunk that outlives the context's users; the kernel writes whole words.
        unsafe { AtomicU64::from_ptr((self.host as *mut u64).add(index)) }.load(Ordering::Acquire)
    }
}

struct Chunk {
    host: u64,
    device: u64,
}

#[derive(Default)]
struct Slots {
    chunks: Vec<Chunk>,
    unused: Unused<Slot>,
}

/// All result slots of a context.
#[derive(Default)]
pub(crate) struct ResultPool {
    slots: Mutex<Slots>,
}

impl ResultPool {
    /// A slot whose epoch is zero.
    fn take(&self, context: &Context) -> Result<Slot> {
        let used = lock(&self.slots).unused.take();
        // What follows is done without the lock: the driver may wait for the device.
        if let Some(slot) = used {
            // SAFETY: the slot lies in a living chunk and no operation reports to it.
            unsafe {
                context.backend().fill(slot.device, 0, SLOT_BYTES, context.service())?;
                std::ptr::write_bytes(slot.host as *mut u8, 0, SLOT_BYTES);
            }
            context.backend().stream_synchronize(context.service())?;
            return Ok(slot);
        }
        let chunk = Self::allocate_chunk(context)?;
        let mut slots = lock(&self.slots);
        let at = |i: usize| Slot {
            host: chunk.host + (i * SLOT_BYTES) as u64,
            device: chunk.device + (i * SLOT_BYTES) as u64,
        };
        slots.unused.add((1..SLOTS_PER_CHUNK).map(at));
        let first = at(0);
        slots.chunks.push(chunk);
        Ok(first)
    }

    fn allocate_chunk(context: &Context) -> Result<Chunk> {
        let backend = context.backend();
        let bytes = SLOTS_PER_CHUNK * SLOT_BYTES;
        let host = backend.allocate_pinned(bytes)?;
        let device = backend.allocate(bytes).and_then(|device| {
            // SAFETY: `device` has `bytes` bytes; the fill is waited for.
            let zeroed = unsafe { backend.fill(device, 0, bytes, context.service()) }
                .and_then(|()| backend.stream_synchronize(context.service()));
            if let Err(e) = zeroed {
                // SAFETY: nothing uses it.
                let _ = unsafe { backend.release(device) };
                return Err(e);
            }
            Ok(device)
        });
        match device {
            Ok(device) => Ok(Chunk { host, device }),
            Err(e) => {
                // SAFETY: nothing uses it.
                let _ = unsafe { backend.release_pinned(host, false) };
                Err(e)
            }
        }
    }

    fn give_back(&self, slot: Slot, under_way_since: Option<u32>) {
        lock(&self.slots).unused.give_back(slot, under_way_since);
    }

    /// Gives all memory back; only when no operation can be under way any more.
    pub(crate) fn release_all(&self, backend: &dyn Backend) {
        for chunk in lock(&self.slots).chunks.drain(..) {
            // SAFETY: the context has no user left, and all that reported here has ended before.
            unsafe {
                let _ = backend.release(chunk.device);
                let _ = backend.release_pinned(chunk.host, false);
            }
        }
    }
}

/// Which result a wait is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// That of the operation submitted last with the token.
    Submission,
    /// The first whose epoch is later than this one.
    Epoch(u32),
}

/// Holds the result of one operation at a time: reusable, small, poll it,
/// wait for it, or never ask. *Ready* means that the records are where they
/// should be; "ready, 0" is empty (pop) or full (push).
///
/// A token is of one context. Dropped while its operation is under way, it
/// leaks nothing: its slot is used again once written.
///
/// With an operation that is captured into a graph it gets a result from every launch, each with the
/// next epoch: [`Token::wait`] for [`After::Epoch`] tells one from the next, [`Token::poll`] gives the newest.
/// From then on it can be captured again, but takes no other operation.
pub struct Token {
    core: Arc<Reserved>,
}

/// A slot that a token has, and the graphs in which it reports.
struct Reserved {
    context: Context,
    slot: Slot,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Epoch of the slot when the last operation was submitted; none before the first.
    before: Option<u32>,
    /// The capture that was given the slot to hold last; none before the first.
    captured: Option<CaptureId>,
}

impl State {
    fn is_under_way(&self, slot: &Slot) -> bool {
        self.before.is_some_and(|before| slot.epoch().is_none_or(|epoch| epoch == before))
    }
}

/// A token's turn at being submitted: cancelled unless it is confirmed.
pub(crate) struct Submission<'a> {
    token: &'a Token,
    state: std::sync::MutexGuard<'a, State>,
    before: u32,
}

impl Submission<'_> {
    /// Where the kernel reports.
    pub(crate) fn report(&self) -> gmb_report_args {
        gmb_report_args { epoch: self.before.wrapping_add(1), ..self.token.core.report() }
    }

    /// The operation was launched: from now on the token waits for it.
    pub(crate) fn confirm(mut self) {
        self.state.before = Some(self.before);
    }
}

/// The same for an operation under capture.
pub(crate) struct Capturing<'a> {
    token: &'a Token,
    state: std::sync::MutexGuard<'a, State>,
    capture: CaptureId,
}

impl Capturing<'_> {
    /// Where the kernel reports; the epoch is the device's to know.
    pub(crate) fn report(&self) -> gmb_report_args {
        self.token.core.report()
    }

    /// The operation was captured: from now on the token is the graph's.
    pub(crate) fn confirm(mut self) {
        self.state.captured = Some(self.capture);
        self.state.before = Some(self.token.core.slot.word(0) as u32);
    }
}

impl Token {
    /// A token for operations of this context.
    pub fn new(context: &Context) -> Result<Self> {
        let slot = context.results().take(context)?;
        Ok(Self { core: Arc::new(Reserved { context: context.clone(), slot, state: Mutex::default() }) })
    }

    pub(crate) fn context(&self) -> &Context {
        &self.core.context
    }

    /// Reserves the token for an operation.
    pub(crate) fn submit(&self) -> Result<Submission<'_>> {
        let state = lock(&self.core.state);
        if state.captured.is_some() {
            return Err(Error::new(
                GMB_ERROR_BUSY,
                "the token reports for operations in a graph: use another token outside of it",
            ));
        }
        if state.is_under_way(&self.core.slot) {
            return Err(busy());
        }
        Ok(Submission { token: self, state, before: self.core.slot.word(0) as u32 })
    }

    /// Reserves the token for an operation of the stream's capture; the graph holds the slot.
    pub(crate) fn capture(&self, stream: Resolved, capture: CaptureId) -> Result<Capturing<'_>> {
        let state = lock(&self.core.state);
        if state.captured.is_none() && state.is_under_way(&self.core.slot) {
            return Err(busy());
        }
        if state.captured != Some(capture) {
            let held = Held::new(&self.core.context, &self.core);
            self.core.context.backend().capture_keep(stream.raw, Box::new(held))?;
        }
        Ok(Capturing { token: self, state, capture })
    }

    /// Where the kernel of a borrow tells its spans on the device.
    pub(crate) fn spans(&self) -> u64 {
        self.core.slot.device + SPANS
    }

    /// The result, or `None` while it is not ready. Never blocks, asks no driver.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` when nothing was ever submitted with the token.
    pub fn poll(&self) -> Result<Option<gmb_result>> {
        self.poll_for(Slot::read)
    }

    /// The same of a borrow, with the index of its first record and the slot that has it.
    pub(crate) fn poll_borrow(&self) -> Result<Option<(gmb_result, (u64, u64))>> {
        self.poll_for(Slot::read_borrow)
    }

    fn poll_for<T>(&self, read: impl Fn(&Slot) -> Option<T>) -> Result<Option<T>> {
        let state = lock(&self.core.state);
        if state.before.is_none() {
            return Err(self.unused());
        }
        Ok(if state.is_under_way(&self.core.slot) { None } else { read(&self.core.slot) })
    }

    /// Blocks the calling thread until the result is there: spins, then
    /// yields, then sleeps. `None` waits without limit.
    ///
    /// # Errors
    /// `TIMEOUT` (nothing is lost, wait again), `DEVICE_LOST`, `INVALID_ARGUMENT`.
    pub fn wait(&self, after: After, timeout: Option<Duration>) -> Result<gmb_result> {
        self.wait_for(after, timeout, Slot::read)
    }

    /// The same for the borrow with this epoch, or what has come after it.
    pub(crate) fn wait_borrow(
        &self,
        epoch: u32,
        timeout: Option<Duration>,
    ) -> Result<(gmb_result, (u64, u64))> {
        self.wait_for(After::Epoch(epoch.wrapping_sub(1)), timeout, Slot::read_borrow)
    }

    fn wait_for<T>(
        &self,
        after: After,
        timeout: Option<Duration>,
        read: impl Fn(&Slot) -> Option<T>,
    ) -> Result<T> {
        let _range = Range::new(c"wait for a result");
        let Some(before) = lock(&self.core.state).before else { return Err(self.unused()) };
        let slot = self.core.slot;
        let ready = || {
            let epoch = slot.epoch()?;
            let there = match after {
                After::Submission => epoch != before,
                After::Epoch(last) => (epoch.wrapping_sub(last) as i32) > 0,
            };
            if there {
                read(&slot)
            } else {
                None
            }
        };
        wait_until(timeout, ready, || self.core.context.pulse())?.ok_or_else(|| {
            Error::new(
                GMB_ERROR_TIMEOUT,
                "the operation has not reported in time: wait again, nothing is lost",
            )
        })
    }

    /// Address of this token's `gmb_result` in device memory, for kernels and
    /// graphs. Valid as long as the token; written in the order of the operation's stream.
    pub fn device_result(&self) -> u64 {
        self.core.slot.device
    }

    fn unused(&self) -> Error {
        Error::argument("no operation was submitted with this token yet")
    }
}

impl Reserved {
    fn report(&self) -> gmb_report_args {
        gmb_report_args { device_result: self.slot.device, host_slot: self.slot.host, ..Default::default() }
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        let before = {
            let state = lock(&self.state);
            // What was captured has no launch left.
            state.before.filter(|_| state.captured.is_none() && state.is_under_way(&self.slot))
        };
        self.context.results().give_back(self.slot, before);
    }
}

fn busy() -> Error {
    Error::new(
        GMB_ERROR_BUSY,
        "the token's last operation has not reported yet: wait for it, or use another token",
    )
}
