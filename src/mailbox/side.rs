//! One side of a mailbox as the submitting threads see it: what is under way,
//! how far it has come, and whether another stream must wait for it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use crate::backend::{wait_until, CaptureId, RawNode, StreamId};
use crate::context::Context;
use crate::error::Result;
use crate::events::{Event, EventKind};
use crate::lines::Line;
use crate::stream::Resolved;
use crate::sync::lock;

/// One side as the submitting threads see it.
pub(super) struct Side {
    /// Held while an operation is submitted: wait, launch and record are one step.
    pub(super) submission: Mutex<Submitted>,
    /// Recorded after every operation, unless all come on a single stream.
    pub(super) event: Arc<Event>,
    records: bool,
    /// Stream of the last operation; zero before the first.
    stream: AtomicU64,
    /// Operations submitted.
    operations: AtomicU64,
    /// The most this side's index can be by those, modulo 2^40.
    bound: AtomicU64,
    /// Index that this side reaches at least once all that was submitted is done, modulo 2^40.
    sure: AtomicU64,
    /// While a reader's new life has not begun on the device: its first operation << 40 | the least
    /// index it can begin with. What is reported meanwhile is of the life before.
    life: AtomicU64,
    /// Of the last capture: the work that its later operations come after.
    node: Mutex<Option<(CaptureId, RawNode)>>,
    /// The word in which the kernel reports: index << 24 | operations.
    line: Line,
}

#[derive(Default)]
pub(super) struct Submitted {
    /// Operations that may still run: their number and the most they can move.
    pending: VecDeque<(u64, u64)>,
}

const OPERATION_MASK: u64 = (1 << 24) - 1;
const INDEX_MASK: u64 = (1 << 40) - 1;

/// No new life is awaited.
const BEGUN: u64 = u64::MAX;

/// As the most that an operation can move: nobody knows.
pub(super) const UNBOUNDED: u64 = 1 << 39;

impl Side {
    /// A side that has come to the given index with the given number of operations.
    pub(super) fn new(context: &Context, index: u64, operations: u64, records: bool) -> Result<Self> {
        let side = Self {
            submission: Mutex::default(),
            event: Arc::new(context.event(EventKind::Untimed)?),
            records,
            stream: AtomicU64::new(0),
            operations: AtomicU64::new(operations),
            bound: AtomicU64::new(index & INDEX_MASK),
            sure: AtomicU64::new(index & INDEX_MASK),
            life: AtomicU64::new(BEGUN),
            node: Mutex::new(None),
            line: Line::new(context)?,
        };
        side.line.word().store((index << 24) | (operations & OPERATION_MASK), Ordering::Release);
        Ok(side)
    }

    /// Where the kernel reports.
    pub(super) fn progress(&self) -> u64 {
        self.line.address()
    }

    /// Number of the next operation.
    pub(super) fn next_operation(&self) -> u64 {
        self.operations.load(Ordering::Relaxed) + 1
    }

    /// Index this side has reached at least, modulo 2^40.
    pub(super) fn reached(&self) -> u64 {
        let life = self.life.load(Ordering::Acquire);
        let word = self.line.word().load(Ordering::Acquire);
        if life == BEGUN {
            return word >> 24;
        }
        if !has_reported(word, life >> 40) {
            return life & INDEX_MASK;
        }
        let _ = self.life.compare_exchange(life, BEGUN, Ordering::AcqRel, Ordering::Relaxed);
        word >> 24
    }

    /// Under the submission lock, before the operation that lets the reader in again: it will
    /// begin at `floor` or later, and what it has come to before says nothing.
    pub(super) fn begin_life(&self, floor: u64) {
        let first = self.next_operation() & OPERATION_MASK;
        self.life.store((first << 40) | (floor & INDEX_MASK), Ordering::Release);
        self.sure.store(floor & INDEX_MASK, Ordering::Release);
    }

    /// Index this side reaches at least by what is submitted, modulo 2^40.
    pub(super) fn sure(&self) -> u64 {
        later(self.sure.load(Ordering::Acquire), self.reached())
    }

    /// Under the submission lock: notes what the operation just launched makes certain.
    pub(super) fn make_sure(&self, index: u64) {
        self.sure.store(later(self.sure(), index), Ordering::Release);
    }

    /// True when every operation submitted has reported.
    fn is_idle(&self) -> bool {
        let submitted = self.operations.load(Ordering::Acquire);
        self.line.word().load(Ordering::Acquire) & OPERATION_MASK == submitted & OPERATION_MASK
    }

    /// True when the last operation came on another stream than this one.
    pub(super) fn is_of_another(&self, id: StreamId) -> bool {
        let last = self.stream.load(Ordering::Acquire);
        last != 0 && last != id
    }

    /// Makes the stream wait for this side's last operation, unless it is of
    /// that stream anyway or known to be done. Of a side with operations in graphs nobody knows that.
    pub(super) fn make_wait(&self, stream: Resolved, captured: bool) -> Result<()> {
        if !captured && (!self.is_of_another(stream.id()) || self.is_idle()) {
            return Ok(());
        }
        self.event.hold(stream.raw)
    }

    /// As `make_wait` under capture: after what this capture has of the side, or after all that is outside of it.
    pub(super) fn come_after(&self, stream: Resolved, capture: CaptureId) -> Result<()> {
        let backend = self.event.context().backend();
        let mut last = lock(&self.node);
        if let Some((_, node)) = last.filter(|&(id, _)| id == capture) {
            return backend.capture_after(stream.raw, node);
        }
        self.event.hold_captured(stream.raw)?;
        *last = Some((capture, backend.capture_last(stream.raw)?));
        Ok(())
    }

    /// Notes an operation that was captured, and marks its end for those outside.
    pub(super) fn captured(&self, stream: Resolved, capture: CaptureId) -> Result<()> {
        self.event.mark_captured(stream.raw)?;
        *lock(&self.node) = Some((capture, self.event.context().backend().capture_last(stream.raw)?));
        Ok(())
    }

    /// The most this side's index can be by what was submitted, modulo 2^40; too much, maybe, until all of that is
    /// done. Takes no lock.
    pub(super) fn bound(&self) -> u64 {
        let bound = self.bound.load(Ordering::Acquire);
        if self.is_idle() {
            return self.reached();
        }
        later(bound, self.reached())
    }

    /// The most this side's index can be, modulo 2^40, once all that was submitted is done.
    pub(super) fn can_reach(&self, submitted: &mut MutexGuard<'_, Submitted>) -> u64 {
        let (reached, word) = (self.reached(), self.line.word().load(Ordering::Acquire));
        while submitted.pending.front().is_some_and(|&(operation, _)| has_reported(word, operation)) {
            submitted.pending.pop_front();
        }
        let coming = submitted.pending.iter().map(|&(_, most)| most).sum::<u64>().min(UNBOUNDED);
        // An operation that reported in between counts twice at most: this is an upper bound.
        later(reached, word >> 24).wrapping_add(coming)
    }

    /// Notes an operation that was launched, and marks its end for others.
    pub(super) fn launched(
        &self,
        submitted: &mut MutexGuard<'_, Submitted>,
        stream: Resolved,
        most: u64,
    ) -> Result<()> {
        let number = self.next_operation();
        submitted.pending.push_back((number, most));
        self.bound.store(self.bound().wrapping_add(most) & INDEX_MASK, Ordering::Release);
        // On a single stream nobody ever waits for it.
        let recorded = if self.records { self.event.mark(stream.raw) } else { Ok(()) };
        self.stream.store(stream.id(), Ordering::Release);
        self.operations.store(number, Ordering::Release);
        recorded
    }

    /// Blocks until everything submitted is done; a lost device answers at once. `stopped` asks
    /// whether the mailbox was stopped for good.
    pub(super) fn finish(&self, captured: bool, stopped: impl Fn() -> bool) -> Result<()> {
        if self.records {
            return self.event.synchronize(None);
        }
        if captured {
            return self.event.context().backend().synchronize();
        }
        // A mailbox that was stopped for good may have lost count: then wait for everything.
        let limit = Some(Duration::from_millis(200));
        let context = self.event.context();
        while wait_until(limit, || self.is_idle().then_some(()), || context.pulse())?.is_none() {
            if stopped() {
                return context.backend().synchronize();
            }
        }
        Ok(())
    }
}

/// True when the word is of this operation or a later one. Signed distance modulo
/// 2^24: fewer than 2^23 operations are ever under way.
fn has_reported(word: u64, operation: u64) -> bool {
    (word & OPERATION_MASK).wrapping_sub(operation & OPERATION_MASK) & OPERATION_MASK < 1 << 23
}

/// A distance between two indices modulo 2^40.
pub(super) fn ahead(a: u64, b: u64) -> u64 {
    a.wrapping_sub(b) & INDEX_MASK
}

/// The later of two indices modulo 2^40 that are less than half of that apart.
fn later(a: u64, b: u64) -> u64 {
    if ahead(a, b) <= INDEX_MASK / 2 {
        a & INDEX_MASK
    } else {
        b & INDEX_MASK
    }
}
