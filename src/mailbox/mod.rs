//! Mailboxes: records in a device ring, pushed and popped in bulk.

mod attach;
mod borrow;
mod capture;
mod core;
mod grid;
mod host_copy;
mod policy;
mod readers;
mod readiness;
mod shared;
mod side;
mod submit;
mod waiting;

use std::mem::offset_of;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

pub use attach::Attach;
pub use borrow::Borrow;
pub use host_copy::HostRows;
pub use policy::FullPolicy;
pub use readers::{ReaderInfo, ReaderStart};
pub use readiness::Interest;

use self::core::Core;
use crate::checks::check_capacity;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::layout::*;
use crate::profiler::Range;
use crate::status::*;
use attach::Ring;
use host_copy::Staging;
use waiting::Line;

/// Who orders a push and a pop of different streams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Arbitration {
    /// The library, with events: a pop finds all that earlier pushes
    /// published, and a push all the room that earlier pops made, whatever
    /// their streams. Where that is certain anyway, the two overlap.
    #[default]
    Cpu,
    /// The ring's atomics alone: a pop takes what is published when it runs.
    /// Pushes stay ordered among each other, and so do pops.
    Device,
}

/// How operations of one side stand to each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// One push, and one pop of a reader, runs at a time: the library sees to that.
    #[default]
    Ordered,
    /// Any number at once: those of this mailbox on several streams, and those of threads, warps and blocks of running
    /// kernels (`gpumailbox/device.cuh`). For [`FullPolicy::Reject`] and [`FullPolicy::Wait`].
    Shared,
    /// For latency: one producer and one consumer of running kernels (`gpumailbox/express.cuh`), and payloads of
    /// `GMB_EXPRESS_BYTES` at most. Nothing is launched: pushes, pops and what waits for them are `NOT_SUPPORTED`. For
    /// [`FullPolicy::Reject`] and one reader.
    Express,
}

impl Mode {
    const ALL: [Self; 3] = [Self::Ordered, Self::Shared, Self::Express];

    /// As it stands in a header.
    pub(crate) const fn value(self) -> gmb_mode {
        match self {
            Self::Ordered => GMB_MODE_ORDERED,
            Self::Shared => GMB_MODE_SHARED,
            Self::Express => GMB_MODE_EXPRESS,
        }
    }

    fn from_value(value: gmb_mode) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.value() == value)
    }
}

/// What a mailbox is made with.
#[derive(Clone, Copy, Debug, Default)]
pub struct MailboxOptions {
    /// Records it holds; a power of two, 1 to `GMB_MAX_RECORDS`; 2 at least for [`FullPolicy::Latest`].
    pub capacity: u64,
    /// Largest payload of a record in bytes, at least 1.
    pub payload_bytes: u32,
    /// The creator's id for the producing module.
    pub producer_id: u32,
    /// The creator's id for the consuming module.
    pub consumer_id: u32,
    /// Who orders pushes against pops.
    pub arbitration: Arbitration,
    /// Whether operations of one side run one after the other, or beside each other.
    pub mode: Mode,
    /// What a push does when it is full.
    pub full_policy: FullPolicy,
    /// Readers to begin with, 1 to `GMB_MAX_READERS`; 0 means 1. Every record reaches each of them.
    pub readers: u32,
    /// Index of the first record.
    pub initial_index: u64,
    /// Promises that all operations come on one stream, that of the first:
    /// then no event is recorded, and another stream is an error.
    pub single_stream: bool,
}

/// Records to push. Addresses are device addresses.
#[derive(Clone, Copy, Debug, Default)]
pub struct Push {
    /// How many, 1 to `GMB_MAX_RECORDS`.
    pub count: u32,
    /// First record; 16-byte aligned. Whole 16-byte units are read.
    pub records: u64,
    /// Bytes from record to record, a multiple of 16; 0 for the payload size rounded up to 16.
    pub stride: u64,
    /// Address of a `u32` length per record, or 0 to use `length`. With lengths every row is
    /// read as far as the longest record could reach.
    pub lengths: u64,
    /// Address of a `u32` type per record, or 0 to use `msg_type`.
    pub types: u64,
    /// Length of every record.
    pub length: u32,
    /// Type of every record.
    pub msg_type: u32,
    /// How long the calling thread waits for room under [`FullPolicy::Wait`]; `None`: without limit.
    pub timeout: Option<Duration>,
}

/// Where popped records go. Addresses are device addresses.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pop {
    /// Most records wanted, 1 to `GMB_MAX_RECORDS`.
    pub max: u32,
    /// First output record; 16-byte aligned. Whole 16-byte units are written.
    pub records: u64,
    /// Bytes from record to record, a multiple of 16; 0 for the payload size rounded up to 16.
    pub stride: u64,
    /// Address of a `gmb_record_header` per record, 16-byte aligned, or 0 for none.
    pub headers: u64,
    /// Which reader pops; pops of one reader share its records.
    pub reader: u32,
}

/// A mailbox's shape, and its counts at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MailboxInfo {
    /// Records it holds.
    pub capacity: u64,
    /// Largest payload in bytes.
    pub payload_bytes: u32,
    /// Bytes from slot to slot.
    pub slot_stride: u32,
    /// Device address of the `gmb_ring_header`.
    pub ring: u64,
    /// Bytes of header and slots.
    pub ring_bytes: u64,
    /// Index after the last record published.
    pub published: u64,
    /// Index after the last record released by every reader.
    pub released: u64,
    /// Records that pushes had to refuse.
    pub rejected: u64,
    /// Pops that found nothing, of all readers.
    pub empty_pops: u64,
    /// Most slots that a push had in use when it ended; what pops released while it ran is among them.
    pub high_water: u64,
    /// A bit for each reader in use.
    pub readers: u32,
    /// What a push does when it is full.
    pub full_policy: FullPolicy,
    /// Whether operations of one side run one after the other.
    pub mode: Mode,
    /// `GMB_OK`, or what stopped the mailbox for good: `GMB_ERROR_ORDER_VIOLATION`. No record moves then.
    pub fault: gmb_status,
}

/// A ring of fixed-stride records in device memory, with one pushing side and
/// up to sixteen readers.
///
/// Pushes and pops may come from any threads and streams: the library orders
/// those of one side among each other, and pushes against pops as
/// [`Arbitration`] says, with events and without blocking a thread. What a push
/// does when the mailbox is full is its [`FullPolicy`]. Dropping it waits for
/// its own operations; a graph in which some were captured keeps what they use.
pub struct Mailbox {
    context: Context,
    arbitration: Arbitration,
    payload_bytes: u32,
    stride: u32,
    core: Arc<Core>,
    line: Line,
    /// Of the blocking host calls: a push that waits for room must not keep a pop from making it.
    staging: [Mutex<Option<Staging>>; 2],
}

impl Mailbox {
    /// Makes a mailbox. Blocks until its memory is ready.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` (capacity no power of two, no payload, too many readers), `OVERFLOW`,
    /// `OUT_OF_MEMORY`, `MEMORY_LIMIT`, `OUT_OF_HOST_MEMORY`.
    pub fn new(context: &Context, options: &MailboxOptions) -> Result<Self> {
        let _range = Range::new(c"make a mailbox");
        let bytes = Self::required_bytes(options)?;
        let address = context.allocate_ring(bytes as usize)?;
        Self::write(context, options, Ring { address, bytes, owned: true })
    }

    /// The context it lives in.
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// Bytes that a dense array needs for each record: the payload size rounded up to 16.
    pub fn row_bytes(&self) -> u64 {
        u64::from(self.stride - HEADER_BYTES)
    }

    /// Shape and counts. Copies the header to the host and blocks for that;
    /// it does not wait for operations under way.
    pub fn info(&self) -> Result<MailboxInfo> {
        let header = attach::read_header(&self.context, self.core.ring.address)?;
        let published = header.writer.committed;
        let in_use = || self.core.readers.in_use().map(|(r, _)| &header.reader[r as usize]);
        let most_behind = match self.core.shared {
            Some(_) => published.wrapping_sub(header.writer.floor),
            None => in_use().map(|reader| unread(&header, reader)).max().unwrap_or(0),
        };
        Ok(MailboxInfo {
            capacity: self.core.capacity,
            payload_bytes: self.payload_bytes,
            slot_stride: self.stride,
            ring: self.core.ring.address,
            ring_bytes: self.core.ring.bytes,
            published,
            released: published.wrapping_sub(most_behind),
            rejected: header.writer.refused,
            empty_pops: header.reader.iter().map(|reader| reader.empty).sum(),
            high_water: header.writer.high_water,
            readers: self.core.readers.mask(),
            full_policy: self.core.full_policy,
            mode: self.core.mode,
            fault: header.fault,
        })
    }

    /// Wakes every thread that waits for room, now and later, with `INVALID_HANDLE`.
    pub(crate) fn close(&self) {
        self.core.closed.store(true, Ordering::Release);
    }

    /// Device addresses of what tells whether a reader has records: the index after the last record published, and after the last
    /// one that the reader has taken.
    pub(crate) fn cursors(&self, reader: u32) -> Result<(u64, u64)> {
        let core = &self.core;
        core.check_launches()?;
        core.readers.get(reader)?;
        let side = |at: usize| core.ring.address + at as u64;
        let published = side(offset_of!(gmb_ring_header, writer) + offset_of!(gmb_ring_side, committed));
        let readers = offset_of!(gmb_ring_header, reader) + reader as usize * size_of::<gmb_ring_side>();
        Ok((published, side(readers + offset_of!(gmb_ring_side, claimed))))
    }

    /// Keeps its memory.
    pub(crate) fn keep(&self) -> Arc<dyn std::any::Any + Send + Sync> {
        Arc::clone(&self.core) as Arc<_>
    }

    pub(crate) fn payload_bytes(&self) -> u32 {
        self.payload_bytes
    }

    pub(crate) fn capacity(&self) -> u64 {
        self.core.capacity
    }
}

impl Drop for Mailbox {
    fn drop(&mut self) {
        self.close();
        // A watching thread may hold the rest for a moment: what this promises must not depend on that.
        self.core.finish();
    }
}

impl std::fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mailbox")
            .field("capacity", &self.core.capacity)
            .field("payload_bytes", &self.payload_bytes)
            .field("full_policy", &self.core.full_policy)
            .finish_non_exhaustive()
    }
}

/// Records that a reader has not released. The header was copied while it changed: a reader may
/// seem to be ahead of the writer.
fn unread(header: &gmb_ring_header, reader: &gmb_ring_side) -> u64 {
    let distance = header.writer.committed.wrapping_sub(reader.committed);
    if distance > u64::MAX / 2 {
        0
    } else {
        distance
    }
}

/// Bytes from slot to slot; refuses impossible shapes.
fn slot_stride(options: &MailboxOptions) -> Result<u32> {
    let capacity = options.capacity;
    check_capacity("a mailbox", capacity, GMB_MAX_RECORDS.into())?;
    if options.full_policy.rules().keeps_newest && capacity < 2 {
        return Err(Error::argument(
            "capacity 1: under LATEST the newest record and the one that replaces it need a slot each",
        ));
    }
    if options.mode == Mode::Shared && options.full_policy.rules().overwrites {
        return Err(Error::new(
            GMB_ERROR_NOT_SUPPORTED,
            "a mailbox that overwrites has one producer at a time: it cannot be shared",
        ));
    }
    if options.readers > GMB_MAX_READERS {
        return Err(Error::argument(format!(
            "{} readers: a mailbox has 1 to {GMB_MAX_READERS}",
            options.readers
        )));
    }
    if options.payload_bytes == 0 {
        return Err(Error::argument("payload_bytes is 0: a record needs at least 1"));
    }
    if options.mode == Mode::Express {
        return express_stride(options);
    }
    options
        .payload_bytes
        .checked_next_multiple_of(GMB_ALIGNMENT)
        .and_then(|p| p.checked_add(HEADER_BYTES))
        .ok_or_else(|| {
            Error::new(
                GMB_ERROR_OVERFLOW,
                format!("payload_bytes {} leaves no slot stride", options.payload_bytes),
            )
        })
}

/// The same in express mode: of 16 bytes four are a flag, and length and type take eight, as in express.cuh.
fn express_stride(options: &MailboxOptions) -> Result<u32> {
    let payload = options.payload_bytes;
    if payload > GMB_EXPRESS_BYTES {
        return Err(Error::argument(format!(
            "payload_bytes {payload}: in express mode a record has at most {GMB_EXPRESS_BYTES} bytes"
        )));
    }
    if options.full_policy != FullPolicy::Reject || options.readers > 1 {
        return Err(Error::new(
            GMB_ERROR_NOT_SUPPORTED,
            "in express mode a mailbox has one reader, and rejects what it has no room for",
        ));
    }
    Ok((payload.next_multiple_of(4) + 8).div_ceil(12) * GMB_ALIGNMENT)
}
