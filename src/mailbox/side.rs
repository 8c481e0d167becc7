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
    /// Those before the last borrow or release.
    borrowed_at: AtomicU64,
    /// The most this side's index can be by those, modulo 2^40.
    bound: AtomicU64,
    /// Index that this side reaches at least once all that was submitted is done, modulo 2^40.
    sure: AtomicU64,
    /// While a reader's new life has not begun on the device: its first operation << 40 | the least
    /// index it can begin with. What is reported meanwhile is of the life before.
    life: AtomicU64,
    /// Operations submitted when one was captured for the first time: from then on nobody knows how many will have run.
    captured_at: AtomicU64,
    /// Of the last captures: the work that their later operations come after. Also held while one is captured.
    nodes: Mutex<Vec<(CaptureId, RawNode)>>,
    /// The words in which kernels report: index << 24 | operations, and of a borrow and its release the same with the
    /// index that is claimed.
    line: Line,
}

#[derive(Default)]
pub(super) struct Submitted {
    /// Operations that may still run: their number and the most they can move.
    pending: VecDeque<(u64, u64)>,
    /// The most that all of them can move.
    coming: u64,
}

const OPERATION_MASK: u64 = (1 << 24) - 1;
const INDEX_MASK: u64 = (1 << 40) - 1;

/// No new life is awaited.
const BEGUN: u64 = u64::MAX;

/// Nothing was captured.
const NEVER: u64 = u64::MAX;

/// Captures of which a side knows its node: more are hardly ever under way at once.
const MOST_CAPTURES: usize = 16;

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
            borrowed_at: AtomicU64::new(operations),
            bound: AtomicU64::new(index & INDEX_MASK),
            sure: AtomicU64::new(index & INDEX_MASK),
            life: AtomicU64::new(BEGUN),
            captured_at: AtomicU64::new(NEVER),
            nodes: Mutex::default(),
            line: Line::new(context)?,
        };
        for word in 0..2 {
            side.line.word(word).store((index << 24) | (operations & OPERATION_MASK), Ordering::Release);
        }
        Ok(side)
    }

    /// Where the kernel reports.
    pub(super) fn progress(&self) -> u64 {
        self.line.address()
    }

    /// Records that a reader has not taken, of those before `published()`: never too many.
    pub(super) fn unread(&self, published: impl FnOnce() -> u64) -> u64 {
        let unread = ahead(published(), self.claimed());
        // A pop may report before the push of which it took records.
        if unread > UNBOUNDED {
            return 0;
        }
        unread
    }

    /// Index of the first record that this side has not taken: before it are those that it has borrowed.
    fn claimed(&self) -> u64 {
        let borrowed_at = self.borrowed_at.load(Ordering::Acquire);
        let since = self.operations.load(Ordering::Acquire) - borrowed_at;
        loop {
            let (word, claimed) =
                (self.line.word(0).load(Ordering::Acquire), self.line.word(1).load(Ordering::Acquire));
            let reached = self.reached();
            if self.line.word(0).load(Ordering::Acquire) != word {
                continue;
            }
            // Behind a pop nothing is borrowed. Of one that is long ago the numbers come again.
            let newer = claimed.wrapping_sub(word) & OPERATION_MASK <= OPERATION_MASK / 2;
            let borrows = newer && since < OPERATION_MASK / 4;
            return if borrows && ahead(claimed >> 24, reached) <= UNBOUNDED {
                claimed >> 24
            } else {
                reached
            };
        }
    }

    /// Under the submission lock, before a borrow or its release is launched.
    pub(super) fn begin_borrow(&self) {
        self.borrowed_at.store(self.operations.load(Ordering::Relaxed), Ordering::Release);
    }

    /// Number of the next operation.
    pub(super) fn next_operation(&self) -> u64 {
        self.operations.load(Ordering::Relaxed) + 1
    }

    /// Index this side has reached at least, modulo 2^40.
    pub(super) fn reached(&self) -> u64 {
        let life = self.life.load(Ordering::Acquire);
        let word = self.line.word(0).load(Ordering::Acquire);
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

    /// False while a reader's new life has not begun on the device.
    pub(super) fn has_begun(&self) -> bool {
        self.reached();
        self.life.load(Ordering::Acquire) == BEGUN
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
        self.line.word(0).load(Ordering::Acquire) & OPERATION_MASK == submitted & OPERATION_MASK
    }

    /// True when the last operation came on another stream than this one.
    pub(super) fn is_of_another(&self, id: StreamId) -> bool {
        let last = self.stream.load(Ordering::Acquire);
        last != 0 && last != id
    }

    /// Notes that operations are captured, before the first.
    pub(super) fn begin_captures(&self) {
        let submitted = self.operations.load(Ordering::Acquire);
        let _ = self.captured_at.compare_exchange(NEVER, submitted, Ordering::AcqRel, Ordering::Relaxed);
    }

    fn is_captured(&self) -> bool {
        self.captured_at.load(Ordering::Acquire) != NEVER
    }

    /// Makes the stream wait for this side's last operation, unless it is of
    /// that stream anyway or known to be done. Of a side with operations in graphs nobody knows that.
    pub(super) fn make_wait(&self, stream: Resolved) -> Result<()> {
        if !self.is_captured() && (!self.is_of_another(stream.id()) || self.is_idle()) {
            return Ok(());
        }
        self.event.hold(stream.raw)
    }

    /// As `make_wait` under capture: after what this capture has of the side, else after all that is outside of it.
    pub(super) fn come_after(&self, stream: Resolved, capture: CaptureId) -> Result<()> {
        let backend = self.event.context().backend();
        let mut nodes = lock(&self.nodes);
        if let Some(&(_, node)) = nodes.iter().find(|(id, _)| *id == capture) {
            return backend.capture_after(stream.raw, node);
        }
        // On a single stream there is nothing to wait for outside.
        if self.records {
            self.event.hold_captured(stream.raw)?;
            note(&mut nodes, capture, backend.capture_last(stream.raw)?);
        }
        Ok(())
    }

    /// Notes an operation that was captured, and marks its end for those outside.
    pub(super) fn captured(&self, stream: Resolved, capture: CaptureId) -> Result<()> {
        if self.records {
            self.event.mark_captured(stream.raw)?;
        }
        let node = self.event.context().backend().capture_last(stream.raw)?;
        note(&mut lock(&self.nodes), capture, node);
        Ok(())
    }

    /// The most this side's index can be by what was submitted, modulo 2^40; too much, maybe, until all of that is
    /// done. Of a side with operations in graphs, where it is. Takes no lock.
    pub(super) fn bound(&self) -> u64 {
        let bound = self.bound.load(Ordering::Acquire);
        if self.is_captured() || self.is_idle() {
            return self.reached();
        }
        later(bound, self.reached())
    }

    /// The most this side's index can be, modulo 2^40, once all that was submitted is done.
    pub(super) fn can_reach(&self, submitted: &mut MutexGuard<'_, Submitted>) -> u64 {
        let (reached, word) = (self.reached(), self.line.word(0).load(Ordering::Acquire));
        while let Some(&(operation, most)) = submitted.pending.front() {
            if !has_reported(word, operation) {
                break;
            }
            submitted.pending.pop_front();
            submitted.coming -= most;
        }
        let coming = submitted.coming.min(UNBOUNDED);
        // An operation that reported in between counts twice at most: this is an upper bound.
        later(reached, word >> 24).wrapping_add(coming)
    }

    /// Under the submission lock, before an operation that can move so much is launched.
    pub(super) fn launches(&self, most: u64) {
        self.bound.store(self.bound().wrapping_add(most) & INDEX_MASK, Ordering::Release);
    }

    /// Notes an operation that was launched, and marks its end for others.
    pub(super) fn launched(
        &self,
        submitted: &mut MutexGuard<'_, Submitted>,
        stream: Resolved,
        most: u64,
    ) -> Result<()> {
        let (number, captured) = (self.next_operation(), self.is_captured());
        if captured {
            // What is counted no longer says which operations have run.
            submitted.pending.clear();
            submitted.coming = 0;
        } else {
            submitted.pending.push_back((number, most));
            submitted.coming += most;
        }
        // On a single stream nobody ever waits for it, but for the mailbox's end.
        let recorded = if self.records || captured { self.event.mark(stream.raw) } else { Ok(()) };
        self.stream.store(stream.id(), Ordering::Release);
        self.operations.store(number, Ordering::Release);
        recorded
    }

    /// Blocks until everything submitted is done; a lost device answers at once. `stopped` asks
    /// whether the mailbox was stopped for good.
    pub(super) fn finish(&self, stopped: impl Fn() -> bool) -> Result<()> {
        if self.records {
            return self.event.synchronize(None);
        }
        // Those before the first capture came on the stream in order, so their number tells; those after have the event.
        let counted = self.captured_at.load(Ordering::Acquire);
        let done = || match counted {
            NEVER => self.is_idle(),
            counted => has_reported(self.line.word(0).load(Ordering::Acquire), counted),
        };
        // A mailbox that was stopped for good may have lost count: then wait for everything.
        let limit = Some(Duration::from_millis(200));
        let context = self.event.context();
        while wait_until(limit, || done().then_some(()), || context.pulse())?.is_none() {
            if stopped() {
                return context.backend().synchronize();
            }
        }
        self.event.synchronize(None)
    }
}

/// The newest first; the oldest goes.
fn note(nodes: &mut Vec<(CaptureId, RawNode)>, capture: CaptureId, node: RawNode) {
    nodes.retain(|&(id, _)| id != capture);
    nodes.insert(0, (capture, node));
    nodes.truncate(MOST_CAPTURES);
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
