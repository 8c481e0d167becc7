//! What a tensor mailbox counts, and what it needs for as long as any of its tensors is out.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use super::release::{Marks, Retired};
use super::{Tensor, TensorMailboxInfo, TensorMailboxOptions};
use crate::backend::{RawEvent, RawStream};
use crate::context::Context;
use crate::error::Result;
use crate::events::EventKind;
use crate::stream::Resolved;
use crate::sync::lock;

/// A tensor that was pushed, on which stream, and what that held then: an event that is given back by hand.
pub(super) struct Item {
    pub(super) tensor: Tensor,
    pub(super) stream: Resolved,
    pub(super) produced: RawEvent,
}

// SAFETY: a stream is a name; the backend checks it at every use.
unsafe impl Send for Item {}
// SAFETY: as above.
unsafe impl Sync for Item {}

/// On a cache line of its own: threads that push, that pop and that give back do not wait for each other's counts.
#[derive(Default)]
#[repr(align(128))]
pub(super) struct Count(AtomicU64);

impl Count {
    pub(super) fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::AcqRel);
    }

    pub(super) fn take_back(&self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

pub(super) struct Books {
    pub(super) context: Context,
    pub(super) pushed: Count,
    pub(super) popped: Count,
    pub(super) refused: Count,
    dropped: Count,
    /// Leases that have begun, and those that have ended: then their tensors retire.
    leased: Count,
    unleased: Count,
    /// Tensors that retired without a lease.
    unread: Count,
    released: Count,
    order: Mutex<()>,
}

impl Books {
    pub(super) fn new(context: &Context) -> Arc<Self> {
        Arc::new(Self {
            context: context.clone(),
            pushed: Count::default(),
            popped: Count::default(),
            refused: Count::default(),
            dropped: Count::default(),
            leased: Count::default(),
            unleased: Count::default(),
            unread: Count::default(),
            released: Count::default(),
            order: Mutex::default(),
        })
    }

    pub(super) fn info(&self, options: &TensorMailboxOptions, queued: u64) -> TensorMailboxInfo {
        // What grows later is read first: no difference is ever negative.
        let released = self.released.get();
        let unleased = self.unleased.get();
        let retired = unleased + self.unread.get();
        TensorMailboxInfo {
            capacity: options.capacity,
            consumer: options.consumer,
            full_policy: options.full_policy,
            pushed: self.pushed.get(),
            popped: self.popped.get(),
            refused: self.refused.get(),
            dropped: self.dropped.get(),
            queued,
            leases: self.leased.get() - unleased,
            retiring: retired - released,
            released,
        }
    }

    pub(super) fn lease(&self) {
        self.leased.add(1);
    }

    pub(super) fn unlease(&self) {
        self.unleased.add(1);
    }

    /// A tensor is given up that had no lease.
    pub(super) fn retire(&self) {
        self.unread.add(1);
    }

    pub(super) fn release(&self, count: u64) {
        self.released.add(count);
    }

    /// Held while a mark is made and its tensor retired.
    pub(super) fn order(&self) -> MutexGuard<'_, ()> {
        lock(&self.order)
    }

    /// What the stream holds now.
    pub(super) fn record(&self, stream: RawStream) -> Result<RawEvent> {
        let event = self.take_event()?;
        match self.context.backend().event_record(event, stream) {
            Ok(()) => Ok(event),
            Err(error) => {
                self.give_event_back(event);
                Err(error)
            }
        }
    }

    pub(super) fn take_event(&self) -> Result<RawEvent> {
        self.context.events().take(EventKind::Untimed, self.context.backend())
    }

    /// It may not be reached yet.
    pub(super) fn give_event_back(&self, event: RawEvent) {
        self.context.events().give_back(EventKind::Untimed, event, true);
    }

    pub(super) fn is_reached(&self, event: RawEvent) -> bool {
        crate::events::is_past(self.context.backend().event_query(event))
    }

    /// The tensor is not to be handed over after all.
    pub(super) fn unpack(&self, item: Item) -> Tensor {
        self.give_event_back(item.produced);
        item.tensor
    }

    /// A tensor that nobody will pop goes back once its producer's work is done.
    pub(super) fn drop_unread(self: &Arc<Self>, item: Item) {
        self.dropped.add(1);
        self.give_back(item);
    }

    pub(super) fn give_back(self: &Arc<Self>, item: Item) {
        self.retire();
        let retired = Retired::new(item, Marks::All(Vec::new()), Arc::clone(self)).unread();
        self.context.releaser().retire(retired);
    }
}
