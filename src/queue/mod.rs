//! Work queues: small items in device memory, first in, first out, for many producers and consumers.

mod host_copy;
mod measure;
mod submit;

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

pub use measure::QueueMeasurement;

use crate::backend::args::GMB_MOST_THREADS;
use crate::checks::check_capacity;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::lanes::{Lanes, Meetings};
use crate::layout::*;
use crate::profiler::Range;
use crate::status::*;
use host_copy::Staging;

/// What a work queue is made with.
#[derive(Clone, Copy, Debug, Default)]
pub struct QueueOptions {
    /// Items it holds; a power of two, 1 to `GMB_MAX_RECORDS`.
    pub capacity: u64,
    /// Bytes of an item: 4, 8 or 16.
    pub item_bytes: u32,
    /// Threads of the blocks of a launched push or pop, a multiple of 32, at most 1,024; 0 for the library's choice. The
    /// host backend has one thread for a block.
    pub block_threads: u32,
    /// Blocks of a launched push or pop, at most; 0 for as many as run at once.
    pub max_blocks: u32,
}

/// A work queue's shape, and its counts at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueInfo {
    /// Items it holds.
    pub capacity: u64,
    /// Bytes of an item.
    pub item_bytes: u32,
    /// Workers that use it.
    pub workers: u32,
    /// Items that nobody has taken.
    pub size: u64,
    /// Items that were pushed, or are being pushed, since it was made.
    pub pushed: u64,
    /// Items that were popped, or are being popped.
    pub popped: u64,
    /// Device address of the `gmb_queue_header`, for kernels.
    pub queue: u64,
    /// Bytes of header and slots.
    pub queue_bytes: u64,
    /// Threads of the blocks of a launch.
    pub block_threads: u32,
    /// Blocks of a launch, at most.
    pub max_blocks: u32,
}

/// A ring of items of 4, 8 or 16 bytes in device memory, for any number of producers and consumers at once: launches on any
/// streams, threads, warps and blocks of running kernels (`gpumailbox/queue.cuh`), workers ([`crate::Worker`]). Items come out
/// in the order in which they went in.
///
/// Clones are the same queue; its memory goes with the last of them and of the workers that use it, and waits for its own
/// launches.
///
/// ```
/// use gpumailbox::{Context, ContextOptions, Queue, QueueOptions};
///
/// let context = Context::new(&ContextOptions::default())?;
/// let queue = Queue::new(&context, &QueueOptions { capacity: 1024, item_bytes: 4, ..Default::default() })?;
/// let items: Vec<u8> = (0..100u32).flat_map(u32::to_ne_bytes).collect();
/// assert_eq!(queue.push_from_host_blocking(&items)?, 100);
/// let mut out = [0u8; 200 * 4];
/// assert_eq!(queue.pop_to_host_blocking(&mut out)?, 100);
/// assert_eq!(out[..400], items);
/// # Ok::<(), gpumailbox::Error>(())
/// ```
#[derive(Clone)]
pub struct Queue {
    core: Arc<Core>,
}

/// What a queue's users share.
pub(crate) struct Core {
    context: Context,
    address: u64,
    bytes: u64,
    capacity: u64,
    item_bytes: u32,
    block_threads: u32,
    max_blocks: u32,
    workers: AtomicU32,
    pushes: Lanes,
    pops: Lanes,
    meetings: Meetings,
    /// Of the blocking host calls: pushes, and pops.
    staging: [Mutex<Option<Staging>>; 2],
}

const WARP: u32 = 32;

/// A number of threads for a block, or zero for the library's choice.
pub(crate) fn check_threads(threads: u32) -> Result<()> {
    if threads > GMB_MOST_THREADS || threads % WARP != 0 {
        return Err(Error::argument(format!(
            "block_threads {threads}: blocks have a multiple of {WARP} threads, {GMB_MOST_THREADS} at most; 0 lets the library choose"
        )));
    }
    Ok(())
}

/// Threads of a block: what was asked for, or the library's choice; the host backend has one.
pub(crate) fn threads_of(context: &Context, asked: u32, choice: u32) -> u32 {
    match (context.backend().info().block_threads, asked) {
        (1, _) => 1,
        (_, 0) => choice,
        _ => asked,
    }
}

impl Queue {
    /// Makes an empty queue. Blocks until its memory is ready.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` (capacity no power of two, items of another size, threads of a block), `OVERFLOW`,
    /// `OUT_OF_MEMORY`, `MEMORY_LIMIT`, `DEVICE_LOST`.
    pub fn new(context: &Context, options: &QueueOptions) -> Result<Self> {
        let _range = Range::new(c"make a queue");
        check_capacity("a queue", options.capacity, GMB_MAX_RECORDS.into())?;
        if ![4, 8, 16].contains(&options.item_bytes) {
            return Err(Error::argument(format!(
                "item_bytes {}: items have 4, 8 or 16 bytes; larger ones go into memory of their own, or into a mailbox",
                options.item_bytes
            )));
        }
        check_threads(options.block_threads)?;
        let bytes =
            size_of::<gmb_queue_header>() as u64 + options.capacity * 2 * u64::from(options.item_bytes);
        let meetings = Meetings::new(context)?;
        let address = context.allocate_ring(bytes as usize).inspect_err(|_| meetings.free(context))?;
        let core = Core {
            context: context.clone(),
            address,
            bytes,
            capacity: options.capacity,
            item_bytes: options.item_bytes,
            block_threads: threads_of(context, options.block_threads, context.backend().info().block_threads),
            max_blocks: options.max_blocks,
            workers: AtomicU32::new(0),
            pushes: Lanes::default(),
            pops: Lanes::default(),
            meetings,
            staging: Default::default(),
        };
        core.clear()?;
        Ok(Self { core: Arc::new(core) })
    }

    /// The context it lives in.
    pub fn context(&self) -> &Context {
        &self.core.context
    }

    /// Shape and counts. Copies the header to the host and blocks for that; it does not wait for operations under way.
    ///
    /// # Errors
    /// `DEVICE_LOST`.
    pub fn info(&self) -> Result<QueueInfo> {
        let core = &self.core;
        let mut words = [0u64; size_of::<gmb_queue_header>() / size_of::<u64>()];
        let (backend, service) = (core.context.backend(), core.context.service());
        // SAFETY: the header lies there as long as the queue does.
        unsafe { backend.read_words(&mut words, core.address, service)? };
        let word = |offset: usize| words.get(offset / size_of::<u64>()).copied().unwrap_or(0);
        Ok(QueueInfo {
            capacity: core.capacity,
            item_bytes: core.item_bytes,
            workers: core.workers.load(Ordering::Acquire),
            size: (word(std::mem::offset_of!(gmb_queue_header, items)) as i64).max(0) as u64,
            pushed: word(std::mem::offset_of!(gmb_queue_header, tail)),
            popped: word(std::mem::offset_of!(gmb_queue_header, head)),
            queue: core.address,
            queue_bytes: core.bytes,
            block_threads: core.block_threads,
            max_blocks: core.most_blocks(),
        })
    }

    /// Fails while a worker uses the queue.
    pub(crate) fn check_unused(&self) -> Result<()> {
        match self.core.workers.load(Ordering::Acquire) {
            0 => Ok(()),
            workers => Err(Error::new(
                GMB_ERROR_BUSY,
                format!("the queue is used by {workers} worker(s): destroy them first"),
            )),
        }
    }

    pub(crate) fn address(&self) -> u64 {
        self.core.address
    }

    pub(crate) fn item_bytes(&self) -> u32 {
        self.core.item_bytes
    }

    /// True when both are the same queue.
    pub(crate) fn is(&self, other: &Queue) -> bool {
        Arc::ptr_eq(&self.core, &other.core)
    }

    /// Notes a worker that uses the queue, until what this gives is dropped.
    pub(crate) fn employ(&self) -> Employed {
        self.core.workers.fetch_add(1, Ordering::AcqRel);
        Employed(self.clone())
    }
}

/// A queue that a worker uses.
pub(crate) struct Employed(Queue);

impl Employed {
    pub(crate) fn queue(&self) -> &Queue {
        &self.0
    }
}

impl Drop for Employed {
    fn drop(&mut self) {
        self.0.core.workers.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Core {
    /// Writes an empty queue. Slots are all zero: free for the first round.
    fn clear(&self) -> Result<()> {
        let header = gmb_queue_header::new(self.capacity, self.item_bytes);
        let (backend, service) = (self.context.backend(), self.context.service());
        let slots = self.address + size_of::<gmb_queue_header>() as u64;
        let slot_bytes = self.bytes as usize - size_of::<gmb_queue_header>();
        // SAFETY: the memory was allocated for this just now, and the header is copied before it goes.
        unsafe {
            backend.fill(slots, 0, slot_bytes, service)?;
            backend.copy(
                self.address,
                std::ptr::from_ref(&header) as u64,
                size_of::<gmb_queue_header>(),
                service,
            )?;
        }
        backend.stream_synchronize(service)
    }

    /// Waits for all that was launched; false when it may go on after all. A lost device answers at once.
    fn finish(&self) -> bool {
        match self.pushes.finish().and(self.pops.finish()) {
            Ok(()) => true,
            Err(error) => error.status() == GMB_ERROR_DEVICE_LOST,
        }
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        // The queue must outlive its kernels: if they may still run, it stays.
        if !self.finish() {
            return;
        }
        self.meetings.free(&self.context);
        // SAFETY: every launch is done, and no other work may use the queue.
        let _ = unsafe { self.context.free_ring(self.address) };
    }
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queue")
            .field("capacity", &self.core.capacity)
            .field("item_bytes", &self.core.item_bytes)
            .finish_non_exhaustive()
    }
}
