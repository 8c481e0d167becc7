//! One side of a mailbox as the submitting threads see it: what is under way,
//! how far it has come, and whether another stream must wait for it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use crate::backend::StreamId;
use crate::context::{Context, Event};
use crate::error::Result;
use crate::stream::Stream;

/// One side as the submitting threads see it.
pub(crate) struct Side {
    /// Held while an operation is submitted: wait, launch and record are one step.
    pub(crate) submission: Mutex<Submitted>,
    /// Recorded after every operation.
    pub(crate) event: Arc<Event>,
    /// Stream of the last operation; zero before the first.
    stream: AtomicU64,
    /// Operations submitted.
    pub(crate) operations: AtomicU64,
    /// Address of the word in which the kernel reports: index << 24 | operations.
    pub(crate) progress: u64,
}

#[derive(Default)]
pub(crate) struct Submitted {
    /// Operations that may still run: their number and the most they can move.
    pending: VecDeque<(u64, u64)>,
}

const OPERATION_MASK: u64 = (1 << 24) - 1;
const INDEX_BITS: u64 = 40;

impl Side {
    pub(crate) fn new(context: &Context, progress: u64, first: u64) -> Result<Self> {
        let side = Self {
            submission: Mutex::default(),
            event: Arc::new(Event::new(context)?),
            stream: AtomicU64::new(0),
            operations: AtomicU64::new(0),
            progress,
        };
        side.progress_word().store(first << 24, Ordering::Release);
        Ok(side)
    }

    fn progress_word(&self) -> &AtomicU64 {
        // SAFETY: the word lies in the mailbox's pinned memory, which outlives its sides, and is 8-byte aligned.
        unsafe { AtomicU64::from_ptr(self.progress as *mut u64) }
    }

    /// Index this side has reached at least, modulo 2^40.
    pub(crate) fn reached(&self) -> u64 {
        self.progress_word().load(Ordering::Acquire) >> 24
    }

    /// True when every operation submitted has reported.
    fn is_idle(&self) -> bool {
        let submitted = self.operations.load(Ordering::Acquire);
        self.progress_word().load(Ordering::Acquire) & OPERATION_MASK == submitted & OPERATION_MASK
    }

    /// True when the last operation came on another stream than this one.
    pub(crate) fn is_of_another(&self, id: StreamId) -> bool {
        let last = self.stream.load(Ordering::Acquire);
        last != 0 && last != id
    }

    /// Makes the stream wait for this side's last operation, unless it is of
    /// that stream anyway or known to be done.
    pub(crate) fn make_wait(&self, stream: Stream, id: StreamId) -> Result<()> {
        if !self.is_of_another(id) || self.is_idle() {
            return Ok(());
        }
        self.event.make_wait(stream)
    }

    /// The most this side's index can be, modulo 2^40, once all that was submitted is done.
    pub(crate) fn can_reach(&self, submitted: &mut MutexGuard<'_, Submitted>) -> u64 {
        let word = self.progress_word().load(Ordering::Acquire);
        let done = |operation: u64| {
            // Signed distance modulo 2^24: fewer than 2^23 operations are ever under way.
            (word & OPERATION_MASK).wrapping_sub(operation & OPERATION_MASK) & OPERATION_MASK < 1 << 23
        };
        while submitted.pending.front().is_some_and(|&(operation, _)| done(operation)) {
            submitted.pending.pop_front();
        }
        let coming: u64 = submitted.pending.iter().map(|&(_, most)| most).sum();
        (word >> 24).wrapping_add(coming)
    }

    /// Notes an operation that was launched, and marks its end for others.
    pub(crate) fn launched(
        &self,
        submitted: &mut MutexGuard<'_, Submitted>,
        stream: Stream,
        id: StreamId,
        most: u64,
        record: bool,
    ) -> Result<()> {
        let number = self.operations.load(Ordering::Relaxed) + 1;
        submitted.pending.push_back((number, most));
        // On a single stream nobody ever waits for it.
        let recorded = if record { self.event.record(stream) } else { Ok(()) };
        self.stream.store(id, Ordering::Release);
        self.operations.store(number, Ordering::Release);
        recorded
    }
}

/// A distance between two indices modulo 2^40.
pub(crate) fn ahead(a: u64, b: u64) -> u64 {
    a.wrapping_sub(b) & ((1 << INDEX_BITS) - 1)
}
