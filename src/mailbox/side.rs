//! One side of a mailbox as the submitting threads see it: what is under way,
//! how far it has come, and whether another stream must wait for it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use crate::backend::{wait_until, StreamId};
use crate::context::Context;
use crate::error::Result;
use crate::events::{Event, EventKind};
use crate::lines::Line;
use crate::stream::Resolved;

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
    /// Index that this side reaches at least once all that was submitted is done, modulo 2^40.
    sure: AtomicU64,
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
            sure: AtomicU64::new(index & INDEX_MASK),
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
        self.line.word().load(Ordering::Acquire) >> 24
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
    /// that stream anyway or known to be done.
    pub(super) fn make_wait(&self, stream: Resolved) -> Result<()> {
        if !self.is_of_another(stream.id) || self.is_idle() {
            return Ok(());
        }
        self.event.hold(stream.raw)
    }

    /// The most this side's index can be, modulo 2^40, once all that was submitted is done.
    pub(super) fn can_reach(&self, submitted: &mut MutexGuard<'_, Submitted>) -> u64 {
        let word = self.line.word().load(Ordering::Acquire);
        let done = |operation: u64| {
            // Signed distance modulo 2^24: fewer than 2^23 operations are ever under way.
            (word & OPERATION_MASK).wrapping_sub(operation & OPERATION_MASK) & OPERATION_MASK < 1 << 23
        };
        while submitted.pending.front().is_some_and(|&(operation, _)| done(operation)) {
            submitted.pending.pop_front();
        }
        let coming = submitted.pending.iter().map(|&(_, most)| most).sum::<u64>().min(UNBOUNDED);
        (word >> 24).wrapping_add(coming)
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
        // On a single stream nobody ever waits for it.
        let recorded = if self.records { self.event.mark(stream.raw) } else { Ok(()) };
        self.stream.store(stream.id, Ordering::Release);
        self.operations.store(number, Ordering::Release);
        recorded
    }

    /// Blocks until everything submitted is done; a lost device answers at once.
    pub(super) fn finish(&self) -> Result<()> {
        if self.records {
            return self.event.synchronize(None);
        }
        let context = self.event.context();
        let nudge = || context.backend().stream_query(context.service()).map(|_| ());
        wait_until(None, || self.is_idle().then_some(()), nudge).map(|_| ())
    }
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
