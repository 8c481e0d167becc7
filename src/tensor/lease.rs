//! Leases: whoever holds one may read a tensor.

use std::sync::{Arc, Mutex};

use super::arrow::{self, ArrowDeviceArray, ArrowSchema};
use super::books::{Books, Item};
use super::dlpack::{self, DLManagedTensor, DLManagedTensorVersioned};
use super::release::{Mark, Marks, Retired};
use crate::backend::{RawEvent, StreamId, StreamState};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::layout::gmb_tensor;
use crate::status::GMB_ERROR_NOT_SUPPORTED;
use crate::stream::{Resolved, Stream};
use crate::sync::{forked, lock};

/// A tensor that was popped, for as long as somebody needs it. Clones share it. When the last one is gone, and every managed
/// tensor and array made of it, the work that its streams hold then is waited for, by a thread of the library, which
/// then has the producer end the memory. Its streams must not be destroyed before.
#[derive(Clone)]
pub struct Lease(Arc<Held>);

impl Lease {
    pub(super) fn new(held: Arc<Held>) -> Self {
        Self(held)
    }

    /// Where the elements lie, and how.
    pub fn record(&self) -> &gmb_tensor {
        self.0.record()
    }

    /// The context it is of.
    pub fn context(&self) -> &Context {
        self.0.context()
    }

    /// Another stream uses the tensor, too: its later work comes after what the producer's stream held at the push, and
    /// what it holds when the lease ends is waited for. Does not block.
    ///
    /// # Errors
    /// `NOT_SUPPORTED` (the stream is being captured), `INVALID_STREAM`, `DEVICE_LOST`, `DRIVER`.
    pub fn use_on(&self, stream: Stream) -> Result<()> {
        let held = &self.0;
        let _entered = held.context().backend().enter_for_calls()?;
        let stream = held.context().resolve(stream)?;
        if stream.is_capturing() {
            return Err(Error::new(
                GMB_ERROR_NOT_SUPPORTED,
                "the stream is being captured: nobody knows when a graph will have used the tensor; the capture goes on",
            ));
        }
        held.add(stream)
    }

    /// As a DLPack tensor, which holds the lease until its deleter is called, on any thread. The caller owns it.
    pub fn to_dlpack(&self) -> *mut DLManagedTensorVersioned {
        dlpack::versioned(&self.0)
    }

    /// As a DLPack tensor without a version.
    ///
    /// # Errors
    /// `NOT_SUPPORTED`: it is read-only, or of padded elements, which such a tensor cannot say.
    pub fn to_dlpack_legacy(&self) -> Result<*mut DLManagedTensor> {
        dlpack::legacy(&self.0)
    }

    /// As an Arrow array with its type: numbers one behind the other, of more dimensions as lists of fixed size. It holds
    /// the lease until it is released. Its `sync_event` is what the lease's first stream holds now; on the host backend there
    /// is none, and this blocks until the producer's work is done.
    ///
    /// # Errors
    /// `NOT_SUPPORTED`: gaps between the elements, no such type in Arrow, the lease's first stream is being captured;
    /// `DEVICE_LOST`, `DRIVER`.
    pub fn to_arrow(&self) -> Result<(ArrowDeviceArray, ArrowSchema)> {
        arrow::export(&self.0)
    }
}

impl std::fmt::Debug for Lease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lease").field("record", self.record()).finish_non_exhaustive()
    }
}

/// A stream by its handle and what tells it from a later one with the same handle.
#[derive(Clone, Copy)]
pub(super) struct User {
    id: StreamId,
    raw: usize,
}

impl User {
    pub(super) fn new(stream: Resolved) -> Self {
        Self { id: stream.id(), raw: stream.raw as usize }
    }

    pub(super) fn id(self) -> StreamId {
        self.id
    }

    pub(super) fn raw(self) -> crate::backend::RawStream {
        self.raw as crate::backend::RawStream
    }
}

/// What leases share.
pub(super) struct Held {
    books: Arc<Books>,
    /// Until this ends.
    item: Option<Item>,
    first: User,
    more: Mutex<Vec<User>>,
}

impl Held {
    /// On an error the item is still whole.
    pub(super) fn new(
        books: &Arc<Books>,
        item: Item,
        stream: Resolved,
    ) -> std::result::Result<Arc<Self>, (Error, Item)> {
        if item.stream.id() != stream.id() {
            if let Err(error) = books.context.backend().stream_wait(stream.raw, item.produced) {
                return Err((error, item));
            }
        }
        books.lease();
        Ok(Arc::new(Self {
            books: Arc::clone(books),
            item: Some(item),
            first: User::new(stream),
            more: Mutex::default(),
        }))
    }

    pub(super) fn context(&self) -> &Context {
        &self.books.context
    }

    pub(super) fn record(&self) -> &gmb_tensor {
        const NONE: &gmb_tensor = &gmb_tensor::NONE;
        // It is there until the end.
        self.item.as_ref().map_or(NONE, |item| item.tensor.record())
    }

    /// The stream of the pop, after whatever it holds now.
    pub(super) fn mark_first(&self) -> Result<RawEvent> {
        let stream = self.first.raw();
        if let StreamState::Capturing(_) = self.context().backend().stream_state(stream)? {
            return Err(Error::new(
                GMB_ERROR_NOT_SUPPORTED,
                "the lease's first stream is being captured, and an array's event is not of a graph; the capture goes on",
            ));
        }
        self.books.record(stream)
    }

    pub(super) fn give_event_back(&self, event: RawEvent) {
        self.books.give_event_back(event);
    }

    /// What the producer's stream held.
    pub(super) fn produced(&self) -> Option<RawEvent> {
        self.item.as_ref().map(|item| item.produced)
    }

    fn add(&self, stream: Resolved) -> Result<()> {
        let user = User::new(stream);
        let mut more = lock(&self.more);
        if user.id == self.first.id || more.iter().any(|known| known.id == user.id) {
            return Ok(());
        }
        if let Some(item) = self.item.as_ref().filter(|item| item.stream.id() != user.id) {
            self.context().backend().stream_wait(stream.raw, item.produced)?;
        }
        more.push(user);
        Ok(())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let Some(item) = self.item.take() else { return };
        // Neither the driver nor our threads are in a fork.
        if forked() {
            std::mem::forget(item);
            return;
        }
        let books = &self.books;
        let _entered = books.context.backend().enter_for_calls();
        let more = std::mem::take(&mut *lock(&self.more));
        books.unlease();
        // Marks of one stream are kept in the order in which they are made.
        let _order = books.order();
        let marks = match more.is_empty() {
            true => Marks::One(self.first.id, Mark::of(books, self.first)),
            false => Marks::All(
                std::iter::once(self.first).chain(more).map(|user| Mark::of(books, user)).collect(),
            ),
        };
        books.context.releaser().retire(Retired::new(item, marks, Arc::clone(books)));
    }
}
