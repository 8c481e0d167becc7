//! Leases: whoever holds one may read a tensor.

use std::sync::{Arc, Mutex};

use super::arrow::{self, ArrowDeviceArray, ArrowSchema};
use super::dlpack::{self, DLManagedTensor, DLManagedTensorVersioned};
use super::queue::{Books, Item, Queue};
use super::release::{Mark, Marks, Retired};
use super::Tensor;
use crate::backend::StreamId;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::events::Event;
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
        &self.0.context
    }

    /// Another stream uses the tensor, too: its later work comes after what the producer's stream held at the push, and
    /// what it holds when the lease ends is waited for. Does not block.
    ///
    /// # Errors
    /// `NOT_SUPPORTED` (the stream is being captured), `INVALID_STREAM`, `DEVICE_LOST`, `DRIVER`.
    pub fn use_on(&self, stream: Stream) -> Result<()> {
        let held = &self.0;
        let _entered = held.context.backend().enter_for_calls()?;
        let stream = held.context.resolve(stream)?;
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
    /// `NOT_SUPPORTED`: it is read-only, which such a tensor cannot say.
    pub fn to_dlpack_legacy(&self) -> Result<*mut DLManagedTensor> {
        dlpack::legacy(&self.0)
    }

    /// As an Arrow array with its type: numbers one behind the other, of more dimensions as lists of fixed size. It holds
    /// the lease until it is released. Its `sync_event` is what the lease's first stream holds now; on the host backend there
    /// is none, and this blocks until the producer's work is done.
    ///
    /// # Errors
    /// `NOT_SUPPORTED`: gaps between the elements, or no such type in Arrow; `DEVICE_LOST`, `DRIVER`.
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
    pub(super) context: Context,
    books: Arc<Books>,
    /// Until this ends.
    tensor: Option<(Tensor, Event)>,
    producer: StreamId,
    first: User,
    more: Mutex<Vec<User>>,
    record: gmb_tensor,
}

impl Held {
    /// On an error the item is still whole.
    #[allow(clippy::result_large_err)]
    pub(super) fn new(
        queue: &Arc<Queue>,
        item: Item,
        stream: Resolved,
    ) -> std::result::Result<Arc<Self>, (Error, Item)> {
        if item.stream.id() != stream.id() {
            if let Err(error) = item.produced.hold(stream.raw) {
                return Err((error, item));
            }
        }
        let books = Arc::clone(queue.books());
        books.lease();
        Ok(Arc::new(Self {
            context: item.produced.context().clone(),
            books,
            record: *item.tensor.record(),
            producer: item.stream.id(),
            tensor: Some((item.tensor, item.produced)),
            first: User::new(stream),
            more: Mutex::default(),
        }))
    }

    pub(super) fn record(&self) -> &gmb_tensor {
        &self.record
    }

    pub(super) fn first(&self) -> User {
        self.first
    }

    pub(super) fn produced(&self) -> Option<&Event> {
        self.tensor.as_ref().map(|(_, produced)| produced)
    }

    fn add(&self, stream: Resolved) -> Result<()> {
        let user = User::new(stream);
        let mut more = lock(&self.more);
        if user.id == self.first.id || more.iter().any(|known| known.id == user.id) {
            return Ok(());
        }
        if let Some(produced) = self.produced().filter(|_| user.id != self.producer) {
            produced.hold(stream.raw)?;
        }
        more.push(user);
        Ok(())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let Some((tensor, produced)) = self.tensor.take() else { return };
        // Neither the driver nor our threads are in a fork.
        if forked() {
            std::mem::forget((tensor, produced));
            return;
        }
        let _entered = self.context.backend().enter_for_calls();
        let more = std::mem::take(&mut *lock(&self.more));
        self.books.unlease();
        let books = Arc::clone(&self.books);
        // Marks of one stream are kept in the order in which they are made.
        let _order = self.books.order();
        let marks = match more.is_empty() {
            true => Marks::One(self.first.id, Mark::of(&self.context, self.first)),
            false => Marks::All(
                std::iter::once(self.first).chain(more).map(|user| Mark::of(&self.context, user)).collect(),
            ),
        };
        self.context.releaser().retire(Retired::new(tensor, produced, marks, books));
    }
}
