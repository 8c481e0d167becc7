//! Tensor mailboxes: tensors handed over by pointer, with their lifetimes.
//!
//! A push takes a tensor from its producer, a pop gives a [`Lease`] of it. The producer's memory ends, by the producer's
//! own deleter on a thread of the library, when the lease is gone and the work of its streams is done. See docs/tensors.md.

pub(crate) mod arrow;
mod books;
mod device;
pub(crate) mod dlpack;
mod lease;
mod queue;
pub(crate) mod release;
mod shape;

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

pub use lease::Lease;

use crate::backend::RawEvent;
use crate::checks::check_capacity;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::layout::{gmb_dtype, gmb_tensor, gmb_tensor_view};
use crate::mailbox::FullPolicy;
use crate::profiler::Range;
use crate::status::*;
use crate::stream::{Resolved, Stream};
use books::{Books, Item};
use device::Ring;
pub(crate) use dlpack::check_dtype;
use dlpack::{Owner, DL_CPU, DL_CUDA};
use lease::Held;
use queue::Queue;
pub(crate) use shape::{bytes_of, Shape};

/// Most tensors that a mailbox can hold.
const MOST: u64 = 1 << 20;

/// Who takes tensors out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Consumer {
    /// Threads of the host: no kernel is launched.
    #[default]
    Host,
    /// Kernels, with `gpumailbox/tensor.cuh`.
    Device,
}

/// What a tensor mailbox is made with.
#[derive(Clone, Copy, Debug, Default)]
pub struct TensorMailboxOptions {
    /// Tensors it holds: a power of two, 1 to 2^20.
    pub capacity: u64,
    /// Who takes them out.
    pub consumer: Consumer,
    /// What a push does when it is full; the overwriting ones only for consumers on the host.
    pub full_policy: FullPolicy,
}

/// A tensor mailbox's counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TensorMailboxInfo {
    /// Tensors it holds.
    pub capacity: u64,
    /// Who takes them out.
    pub consumer: Consumer,
    /// What a push does when it is full.
    pub full_policy: FullPolicy,
    /// Tensors pushed.
    pub pushed: u64,
    /// Tensors popped; of a device consumer, released.
    pub popped: u64,
    /// Pushes of good tensors that were not possible: no room, not in time, the mailbox had ended.
    pub refused: u64,
    /// Tensors that newer ones replaced, and those refused that were discarded.
    pub dropped: u64,
    /// Tensors in it; of a device consumer, also those that it has taken and not released.
    pub queued: u64,
    /// Leases that are out.
    pub leases: u64,
    /// Tensors that are given up and wait for the work of their streams.
    pub retiring: u64,
    /// Tensors whose memory went back to its producer.
    pub released: u64,
}

/// A tensor on its way: where its elements lie, and who ends their memory. Dropped, it ends it at once.
pub struct Tensor {
    content: Box<Content>,
}

struct Content {
    record: gmb_tensor,
    owner: Owner,
}

impl Tensor {
    /// A tensor whose memory is there as long as `owner`, which is dropped on a thread of the library when nobody uses it
    /// any more. Strides count elements; `None` means rows one behind the other.
    ///
    /// # Errors
    /// As of [`Tensor::from_dlpack`].
    pub fn new(
        owner: impl Any + Send,
        context: &Context,
        address: u64,
        dtype: gmb_dtype,
        shape: &[i64],
        strides: Option<&[i64]>,
    ) -> Result<Self> {
        let record =
            Shape { dtype, shape, strides, byte_offset: 0 }.record(address, device_of(context), 0)?;
        Ok(Self::of(record, Owner::Value(Some(Box::new(owner)))))
    }

    /// Where the elements lie, and how.
    pub fn record(&self) -> &gmb_tensor {
        &self.content.record
    }

    fn of(record: gmb_tensor, owner: Owner) -> Self {
        Self { content: Box::new(Content { record, owner }) }
    }

    fn owner(&self) -> &Owner {
        &self.content.owner
    }

    /// It is somebody else's again: nothing is ended here.
    pub(crate) fn forget(self) {
        std::mem::forget(self.content.owner);
    }
}

impl std::fmt::Debug for Tensor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tensor").field("record", self.record()).finish_non_exhaustive()
    }
}

/// A push that did not take its tensor.
#[derive(Debug)]
pub struct Refused {
    /// Why.
    pub error: Error,
    /// What was to be pushed. Work of the stream may still use its memory.
    pub tensor: Tensor,
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.error.fmt(f)
    }
}

impl std::error::Error for Refused {}

/// The tensor's memory ends at once: to keep the tensor, or to have the library wait for its stream
/// ([`TensorMailbox::discard`]), take the refusal apart.
impl From<Refused> for Error {
    fn from(refused: Refused) -> Self {
        refused.error
    }
}

/// A mailbox for tensors, of one device. Any threads may push and pop. Dropped, it gives back what nobody has popped; its
/// leases stay.
///
/// ```
/// use gpumailbox::{gmb_dtype, Context, ContextOptions, Tensor, TensorMailbox, TensorMailboxOptions};
///
/// let context = Context::new(&ContextOptions::default())?;
/// let mailbox = TensorMailbox::new(&context, &TensorMailboxOptions { capacity: 4, ..Default::default() })?;
/// let (producer, consumer) = (context.stream()?, context.stream()?);
///
/// let memory = context.device_buffer(4 * 100)?;
/// let (address, float) = (memory.address(), gmb_dtype { code: 2, bits: 32, lanes: 1 });
/// let tensor = Tensor::new(memory, &context, address, float, &[10, 10], None)?;
/// mailbox.push(tensor, 7, producer.get(), None)?;
///
/// // Later work of the consumer's stream comes after the producer's. The lease keeps the memory.
/// let lease = mailbox.pop(consumer.get())?.expect("it was just pushed");
/// assert_eq!((lease.record().address, lease.record().tag), (address, 7));
/// # Ok::<(), gpumailbox::Error>(())
/// ```
pub struct TensorMailbox {
    context: Context,
    options: TensorMailboxOptions,
    /// Type and ordinal of the context's device.
    device: (i32, i32),
    place: Place,
}

enum Place {
    Host(Arc<Queue>),
    Device(Arc<Ring>),
}

/// Type and ordinal of a context's device as DLPack has them.
pub(crate) fn device_of(context: &Context) -> (i32, i32) {
    context.backend().info().dlpack_device
}

impl TensorMailbox {
    /// Makes a tensor mailbox. For a consumer on the device it blocks until the ring is ready.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` (capacity no power of two), `OVERFLOW` (too many), `NOT_SUPPORTED` (a device consumer and a policy
    /// that overwrites), `OUT_OF_MEMORY`, `MEMORY_LIMIT`, `OUT_OF_HOST_MEMORY`, `DEVICE_LOST`.
    pub fn new(context: &Context, options: &TensorMailboxOptions) -> Result<Self> {
        let _range = Range::new(c"make a tensor mailbox");
        check_capacity("a tensor mailbox", options.capacity, MOST)?;
        let place = match options.consumer {
            Consumer::Host => Place::Host(Queue::new(context, options)),
            Consumer::Device if options.full_policy.rules().overwrites => {
                return Err(Error::new(
                    GMB_ERROR_NOT_SUPPORTED,
                    "a device consumer and a policy that overwrites: nobody could say what it still reads; use REJECT or WAIT",
                ))
            }
            Consumer::Device => Place::Device(Ring::new(context, options)?),
        };
        Ok(Self { context: context.clone(), options: *options, device: device_of(context), place })
    }

    /// The context it lives in.
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// Hands a tensor over with a word for its consumer: what the stream holds now is what the consumer's later work comes
    /// after. No element moves. Does not block, but under [`FullPolicy::Wait`], for at most `timeout` (`None`: without limit).
    ///
    /// # Errors
    /// With the tensor: `INVALID_DEVICE` (it lies elsewhere), `FULL`, `TIMEOUT`, `INVALID_STREAM`, `NOT_SUPPORTED` (the
    /// stream is being captured), `INVALID_HANDLE` (the mailbox ended meanwhile), `INVALID_ARGUMENT` (with
    /// `GMB_CHECK_POINTERS=1`: kernels cannot reach it), `DEVICE_LOST`, `DRIVER`.
    pub fn push(
        &self,
        mut tensor: Tensor,
        tag: u64,
        stream: Stream,
        timeout: Option<Duration>,
    ) -> std::result::Result<(), Refused> {
        let _range = Range::new(c"push a tensor");
        tensor.content.record.tag = tag;
        match self.prepare(&tensor, stream) {
            Err(error) => Err(Refused { error, tensor }),
            Ok((stream, produced)) => self.give(Item { tensor, stream, produced }, timeout),
        }
    }

    /// What a push needs of its stream; with an event of the tensor's own the stream waits for that first.
    fn prepare(&self, tensor: &Tensor, stream: Stream) -> Result<(Resolved, RawEvent)> {
        self.check_place(tensor.record())?;
        let backend = self.context.backend();
        let _entered = backend.enter_for_calls()?;
        let stream = self.running(stream)?;
        if let Owner::Arrow(array) = tensor.owner() {
            if let Some(event) = array.sync_event() {
                backend.stream_wait(stream.raw, RawEvent(event))?;
            }
        }
        let produced = match &self.place {
            Place::Host(queue) => queue.books().record(stream.raw)?,
            // A device consumer learns of it by the ring; the event comes behind that.
            Place::Device(ring) => ring.books().take_event()?,
        };
        Ok((stream, produced))
    }

    fn give(&self, item: Item, timeout: Option<Duration>) -> std::result::Result<(), Refused> {
        let refused = |(error, tensor)| Refused { error, tensor };
        match &self.place {
            Place::Host(queue) => queue.push(item, timeout).map_err(refused),
            Place::Device(ring) => ring.push(item, timeout).map_err(refused),
        }
    }

    /// Gives a tensor that was refused back to its producer once what the stream holds now is done.
    ///
    /// # Errors
    /// With the tensor: `INVALID_STREAM`, `DEVICE_LOST`, `DRIVER`.
    pub fn discard(&self, refused: Refused, stream: Stream) -> std::result::Result<(), (Error, Tensor)> {
        let tensor = refused.tensor;
        let prepared = self.prepare(&tensor, stream).and_then(|(stream, produced)| {
            if self.options.consumer == Consumer::Device {
                self.context
                    .backend()
                    .event_record(produced, stream.raw)
                    .inspect_err(|_: &Error| self.books().give_event_back(produced))?;
            }
            Ok((stream, produced))
        });
        match prepared {
            Ok((stream, produced)) => {
                self.books().drop_unread(Item { tensor, stream, produced });
                Ok(())
            }
            Err(error) => Err((error, tensor)),
        }
    }

    fn books(&self) -> &Arc<Books> {
        match &self.place {
            Place::Host(queue) => queue.books(),
            Place::Device(ring) => ring.books(),
        }
    }

    /// Takes the next tensor out: later work of the stream comes after what the producer's stream held at the push. `None`
    /// when there is nothing. Does not block.
    ///
    /// # Errors
    /// `NOT_SUPPORTED` (a device consumer; the stream is being captured), `INVALID_STREAM`, `DEVICE_LOST`, `DRIVER`.
    pub fn pop(&self, stream: Stream) -> Result<Option<Lease>> {
        self.pop_within(stream, Some(Duration::ZERO))
    }

    /// As [`TensorMailbox::pop`], and blocks the calling thread until there is something, for at most `timeout` (`None`:
    /// without limit).
    ///
    /// # Errors
    /// Also `INVALID_HANDLE`: the mailbox ended meanwhile.
    pub fn pop_within(&self, stream: Stream, timeout: Option<Duration>) -> Result<Option<Lease>> {
        let _range = Range::new(c"pop a tensor");
        let Place::Host(queue) = &self.place else {
            return Err(Error::new(
                GMB_ERROR_NOT_SUPPORTED,
                "the mailbox is for a device consumer: take tensors with gpumailbox/tensor.cuh",
            ));
        };
        let _entered = self.context.backend().enter_for_calls()?;
        let stream = self.running(stream)?;
        let Some(item) = queue.pop(timeout)? else { return Ok(None) };
        match Held::new(queue.books(), item, stream) {
            Ok(held) => Ok(Some(Lease::new(held))),
            Err((error, item)) => {
                queue.put_back(item);
                Err(error)
            }
        }
    }

    /// What kernels of a stream take tensors with. Its memory, and that of the tensors, stays at least until the work that
    /// the stream holds when the mailbox ends is done.
    ///
    /// # Errors
    /// `NOT_SUPPORTED` (a consumer on the host; the stream is being captured), `INVALID_STREAM`.
    pub fn view(&self, stream: Stream) -> Result<gmb_tensor_view> {
        let Place::Device(ring) = &self.place else {
            return Err(Error::new(
                GMB_ERROR_NOT_SUPPORTED,
                "the mailbox is for a consumer on the host: pop its tensors, or make it with a device consumer",
            ));
        };
        ring.view(self.running(stream)?)
    }

    /// Counts, read one after the other while threads go on. Does not block.
    pub fn info(&self) -> TensorMailboxInfo {
        let queued = match &self.place {
            Place::Host(queue) => queue.queued(),
            Place::Device(ring) => ring.queued(),
        };
        self.books().info(&self.options, queued)
    }

    /// Wakes every thread that waits, now and later, with `INVALID_HANDLE`.
    pub(crate) fn close(&self) {
        match &self.place {
            Place::Host(queue) => queue.close(),
            Place::Device(ring) => ring.close(),
        }
    }

    fn running(&self, stream: Stream) -> Result<Resolved> {
        let stream = self.context.resolve(stream)?;
        if stream.is_capturing() {
            return Err(Error::new(
                GMB_ERROR_NOT_SUPPORTED,
                "the stream is being captured, and its work runs when the graph does; the capture goes on",
            ));
        }
        Ok(stream)
    }

    fn check_place(&self, record: &gmb_tensor) -> Result<()> {
        let (device_type, device_id) = self.device;
        if (record.device_type, record.device_id) != (device_type, device_id) {
            return Err(Error::new(
                GMB_ERROR_INVALID_DEVICE,
                format!(
                    "the tensor is on {}, the mailbox is for {}: copy it there first",
                    place_name(record.device_type, record.device_id),
                    place_name(device_type, device_id)
                ),
            ));
        }
        // Whether it is a range of addresses was asked when it was taken over.
        if !self.context.checks_pointers() {
            return Ok(());
        }
        match shape::extent(record)? {
            Some(range) => self.context.check_reachable(&range),
            None => Ok(()),
        }
    }
}

fn place_name(device_type: i32, device_id: i32) -> String {
    match device_type {
        DL_CPU => "the CPU".to_owned(),
        DL_CUDA => format!("CUDA device {device_id}"),
        3 => "pinned host memory".to_owned(),
        13 => "CUDA managed memory".to_owned(),
        other => format!("a device of DLPack type {other}, number {device_id}"),
    }
}

impl Drop for TensorMailbox {
    fn drop(&mut self) {
        self.close();
        match &self.place {
            Place::Host(queue) => queue.end(),
            Place::Device(ring) => ring.end(),
        }
    }
}

impl std::fmt::Debug for TensorMailbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TensorMailbox").field("options", &self.options).finish_non_exhaustive()
    }
}
