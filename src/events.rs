//! Events and the pools that reuse them.
//!
//! An event belongs to one user at a time. Given back while the GPU has not
//! reached it, it is kept aside until it has: nobody gets an event that
//! another side still waits for.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Mutex;
use std::time::Duration;

use crate::backend::{wait_until, Backend, RawEvent};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::status::*;
use crate::stream::Stream;
use crate::sync::lock;

/// What an event is for; each kind has a pool of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EventKind {
    /// Order and completion: the cheapest.
    #[default]
    Untimed,
    /// Also the time between two of them.
    Timed,
    /// For streams under capture: orders work of a graph, cannot be asked or waited for by a thread.
    Capture,
}

impl EventKind {
    pub(crate) const ALL: [Self; 3] = [Self::Untimed, Self::Timed, Self::Capture];

    fn index(self) -> usize {
        self as usize
    }
}

/// An event pool's counts at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EventPoolInfo {
    /// Events made so far; none is destroyed before the context.
    pub size: u64,
    /// Events that somebody holds.
    pub in_use: u64,
    /// Most events that were held at once.
    pub high_water: u64,
    /// Events given back that the device has not reached yet, when last looked at.
    pub pending: u64,
}

#[derive(Default)]
struct Pool {
    free: Vec<RawEvent>,
    /// Given back before they were reached; the oldest first.
    pending: VecDeque<RawEvent>,
    size: u64,
    in_use: u64,
    high_water: u64,
}

/// Events given back unreached that are asked before a new one is made.
const LOOKED_AT: usize = 4;

/// Whether an event can hold nobody any more: on a lost device nothing goes on, and the
/// next call will say so. Other errors (somebody's capture, say) mean nothing.
pub(crate) fn is_past(answer: Result<bool>) -> bool {
    answer.unwrap_or_else(|error| error.status() == GMB_ERROR_DEVICE_LOST)
}

impl Pool {
    fn lend(&mut self) {
        self.in_use += 1;
        self.high_water = self.high_water.max(self.in_use);
    }
}

/// All events of a context.
#[derive(Default)]
pub(crate) struct EventPools {
    pools: [Mutex<Pool>; 3],
}

impl EventPools {
    fn pool(&self, kind: EventKind) -> &Mutex<Pool> {
        &self.pools[kind.index()]
    }

    pub(crate) fn take(&self, kind: EventKind, backend: &dyn Backend) -> Result<RawEvent> {
        // A few, in turn: one that is stuck must not hide those behind it.
        for _ in 0..LOOKED_AT {
            let event = {
                let mut pool = lock(self.pool(kind));
                if let Some(event) = pool.free.pop() {
                    pool.lend();
                    return Ok(event);
                }
                match pool.pending.pop_front() {
                    Some(event) => event,
                    None => break,
                }
            };
            // The driver is asked without the lock.
            let reached = is_past(backend.event_query(event));
            let mut pool = lock(self.pool(kind));
            if reached {
                pool.lend();
                return Ok(event);
            }
            pool.pending.push_back(event);
        }
        let event = backend.event_create(kind)?;
        let mut pool = lock(self.pool(kind));
        pool.size += 1;
        pool.lend();
        Ok(event)
    }

    pub(crate) fn give_back(&self, kind: EventKind, event: RawEvent, may_be_pending: bool) {
        let mut pool = lock(self.pool(kind));
        pool.in_use -= 1;
        if may_be_pending {
            pool.pending.push_back(event);
        } else {
            pool.free.push(event);
        }
    }

    /// Several that the device has reached.
    pub(crate) fn give_back_reached(&self, kind: EventKind, events: impl Iterator<Item = RawEvent>) {
        let mut pool = lock(self.pool(kind));
        let before = pool.free.len();
        pool.free.extend(events);
        pool.in_use -= (pool.free.len() - before) as u64;
    }

    fn info(&self, kind: EventKind) -> EventPoolInfo {
        let pool = lock(self.pool(kind));
        EventPoolInfo {
            size: pool.size,
            in_use: pool.in_use,
            high_water: pool.high_water,
            pending: pool.pending.len() as u64,
        }
    }

    /// Destroys all events; only when nobody holds one any more.
    pub(crate) fn release_all(&self, backend: &dyn Backend) {
        for kind in EventKind::ALL {
            let mut pool = lock(self.pool(kind));
            let pending = std::mem::take(&mut pool.pending);
            for event in pool.free.drain(..).chain(pending) {
                backend.event_destroy(event);
            }
        }
    }
}

/// A point in a stream's work, from its context's pool. Dropped, it goes back
/// there and is used again once the device has reached it.
///
/// ```
/// use gpumailbox::{Context, ContextOptions, EventKind};
///
/// let context = Context::new(&ContextOptions::default())?;
/// let (producer, consumer) = (context.stream()?, context.stream()?);
/// let event = context.event(EventKind::Untimed)?;
/// event.record(producer.get())?;       // after what the producer has enqueued
/// event.make_wait(consumer.get())?;    // later work of the consumer comes after it
/// event.synchronize(None)?;            // and this thread, too
/// # Ok::<(), gpumailbox::Error>(())
/// ```
pub struct Event {
    context: Context,
    kind: EventKind,
    raw: RawEvent,
    /// Records of this holder: what an earlier one recorded says nothing.
    records: AtomicU64,
    /// The one of them that is known to be reached.
    reached: AtomicU64,
}

impl Context {
    /// An event from the pool of its kind. Makes a new one only when none is free.
    ///
    /// # Errors
    /// `DEVICE_LOST`, `DRIVER`.
    pub fn event(&self, kind: EventKind) -> Result<Event> {
        let raw = self.events().take(kind, self.backend())?;
        Ok(Event { context: self.clone(), kind, raw, records: AtomicU64::new(0), reached: AtomicU64::new(0) })
    }

    /// Counts of one event pool.
    pub fn event_pool(&self, kind: EventKind) -> EventPoolInfo {
        self.events().info(kind)
    }
}

impl Event {
    /// The context it is of.
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// What it is for.
    pub fn kind(&self) -> EventKind {
        self.kind
    }

    /// Marks the stream's present end; replaces what was recorded before.
    ///
    /// # Errors
    /// `INVALID_STREAM`, `NOT_SUPPORTED` (the stream is under capture and the
    /// event is not of kind `Capture`; the capture goes on), `DEVICE_LOST`.
    pub fn record(&self, stream: Stream) -> Result<()> {
        let stream = self.context.resolve(stream)?;
        if self.kind != EventKind::Capture && stream.is_capturing() {
            return Err(Error::new(
                GMB_ERROR_NOT_SUPPORTED,
                "the stream is being captured: record an event of kind CAPTURE there",
            ));
        }
        self.mark(stream.raw)
    }

    /// As [`Event::record`], on a stream that was checked before.
    pub(crate) fn mark(&self, stream: crate::backend::RawStream) -> Result<()> {
        self.records.fetch_add(1, Ordering::AcqRel);
        self.context.backend().event_record(self.raw, stream)?;
        Ok(())
    }

    /// Each launch of the graph that is captured there marks its end: what is outside of it can wait for that.
    pub(crate) fn mark_captured(&self, stream: crate::backend::RawStream) -> Result<()> {
        // Nobody knows when: it may be pending from now on.
        self.records.fetch_add(1, Ordering::AcqRel);
        self.context.backend().capture_record(self.raw, stream)
    }

    /// Each launch of the graph that is captured there waits for what was recorded last then.
    pub(crate) fn hold_captured(&self, stream: crate::backend::RawStream) -> Result<()> {
        self.context.backend().capture_wait(stream, self.raw)
    }

    /// Makes later work of the stream wait for what was recorded last; for
    /// nothing if nothing was. Does not block.
    pub fn make_wait(&self, stream: Stream) -> Result<()> {
        let stream = self.context.resolve(stream)?;
        if self.kind != EventKind::Capture && stream.is_capturing() {
            return Err(Error::new(
                GMB_ERROR_NOT_SUPPORTED,
                "the stream is being captured: make it wait for an event of kind CAPTURE",
            ));
        }
        self.hold(stream.raw)
    }

    /// As [`Event::make_wait`], on a stream that was checked before.
    pub(crate) fn hold(&self, stream: crate::backend::RawStream) -> Result<()> {
        if !self.is_recorded() {
            return Ok(());
        }
        self.context.backend().stream_wait(stream, self.raw)
    }

    /// True when the device has reached what was recorded last, or nothing
    /// was. Never blocks.
    pub fn is_reached(&self) -> Result<bool> {
        self.check_askable()?;
        if !self.is_recorded() {
            return Ok(true);
        }
        let record = self.records.load(Ordering::Acquire);
        let reached = self.context.backend().event_query(self.raw)?;
        if reached {
            self.reached.fetch_max(record, Ordering::AcqRel);
        }
        Ok(reached)
    }

    /// Blocks the calling thread until the device has reached what was
    /// recorded last. `None` waits without limit, zero asks once.
    ///
    /// # Errors
    /// `TIMEOUT` (wait again), `NOT_SUPPORTED` (kind `Capture`), `DEVICE_LOST`.
    pub fn synchronize(&self, timeout: Option<Duration>) -> Result<()> {
        self.check_askable()?;
        if !self.is_recorded() {
            return Ok(());
        }
        let record = self.records.load(Ordering::Acquire);
        let backend = self.context.backend();
        if timeout.is_none() {
            backend.event_synchronize(self.raw)?;
            self.reached.fetch_max(record, Ordering::AcqRel);
            return Ok(());
        }
        let mut failed = None;
        let ready = || match backend.event_query(self.raw) {
            Ok(reached) => reached.then_some(()),
            Err(error) => {
                failed = Some(error);
                Some(())
            }
        };
        let reached = wait_until(timeout, ready, || Ok(()))?;
        match (failed, reached) {
            (Some(error), _) => Err(error),
            (None, Some(())) => {
                self.reached.fetch_max(record, Ordering::AcqRel);
                Ok(())
            }
            (None, None) => {
                Err(Error::new(GMB_ERROR_TIMEOUT, "the device has not reached the event in time: wait again"))
            }
        }
    }

    /// Milliseconds on the device from this event to `end`, or `None` while
    /// one of them is not reached. Resolution is about half a microsecond.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` (not of kind `Timed`, never recorded, of different contexts).
    pub fn elapsed_ms(&self, end: &Event) -> Result<Option<f64>> {
        if !self.context.is(&end.context) {
            return Err(Error::argument("the two events are of different contexts"));
        }
        for (name, event) in [("the start", self), ("the end", end)] {
            if event.kind != EventKind::Timed {
                return Err(Error::argument(format!("{name} event is not of kind TIMED")));
            }
            if !event.is_recorded() {
                return Err(Error::argument(format!("{name} event was never recorded")));
            }
        }
        if !self.is_reached()? || !end.is_reached()? {
            return Ok(None);
        }
        // Recorded again meanwhile, they may not be.
        self.context.backend().event_elapsed(self.raw, end.raw)
    }

    fn is_recorded(&self) -> bool {
        self.records.load(Ordering::Acquire) != 0
    }

    fn check_askable(&self) -> Result<()> {
        if self.kind == EventKind::Capture {
            return Err(Error::new(
                GMB_ERROR_NOT_SUPPORTED,
                "an event of kind CAPTURE orders the work of a graph: it cannot be asked or waited for by a thread",
            ));
        }
        Ok(())
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // A captured event must not be asked: the question would end the capture.
        let records = self.records.load(Ordering::Acquire);
        let known = self.kind == EventKind::Capture || self.reached.load(Ordering::Acquire) == records;
        let may_be_pending = records != 0 && !known;
        self.context.events().give_back(self.kind, self.raw, may_be_pending);
    }
}

impl std::fmt::Debug for Event {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Event").field("kind", &self.kind).finish_non_exhaustive()
    }
}
