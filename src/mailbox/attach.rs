//! Where a ring lies: memory of the library or of the caller, made new or found there.

use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex};

use super::borrow::Borrows;
use super::core::Core;
use super::readers::Readers;
use super::shared::Shared;
use super::side::Side;
use super::waiting::Line;
use super::{slot_stride, Arbitration, FullPolicy, Mailbox, MailboxOptions, Mode};
use crate::backend::args::gmb_geometry_args;
use crate::checks::check_address;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::extent::Extent;
use crate::layout::*;
use crate::status::*;

/// Rings begin on a line of their own.
const RING_ALIGNMENT: u64 = 128;

/// Header and slots in device memory.
#[derive(Debug)]
pub(super) struct Ring {
    pub(super) address: u64,
    pub(super) bytes: u64,
    /// Allocated by the library.
    pub(super) owned: bool,
}

/// How to go on with a mailbox that lies in memory already.
#[derive(Clone, Copy, Debug, Default)]
pub struct Attach {
    /// Who orders pushes against pops.
    pub arbitration: Arbitration,
    /// As in [`MailboxOptions`].
    pub single_stream: bool,
}

impl Mailbox {
    /// Bytes of device memory that such a mailbox takes.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT`, `OVERFLOW`, as for [`Mailbox::new`].
    pub fn required_bytes(options: &MailboxOptions) -> Result<u64> {
        let stride = slot_stride(options)?;
        // A shared mailbox has a word for each slot behind them.
        let state = if options.mode == Mode::Shared { size_of::<u64>() as u64 } else { 0 };
        let slots = options.capacity.checked_mul(u64::from(stride) + state);
        slots
            .and_then(|slots| slots.checked_add(size_of::<gmb_ring_header>() as u64))
            .filter(|&bytes| bytes <= isize::MAX as u64)
            .ok_or_else(|| {
                Error::new(
                    GMB_ERROR_OVERFLOW,
                    format!("{} slots of {stride} bytes exceed the address space", options.capacity),
                )
            })
    }

    /// Makes a mailbox in the caller's device memory, 128-byte aligned, of
    /// which it takes [`Mailbox::required_bytes`]. Overwrites what is there.
    /// Blocks until the memory is ready.
    ///
    /// # Errors
    /// `NULL_POINTER`, `MISALIGNED`, `TRUNCATED`, and those of [`Mailbox::new`].
    ///
    /// # Safety
    /// The memory must be device memory of this context's device, outlive the
    /// mailbox with its borrows, watches, graphs and arbiters, and be used by nothing else.
    pub unsafe fn new_in(
        context: &Context,
        options: &MailboxOptions,
        memory: u64,
        memory_bytes: u64,
    ) -> Result<Self> {
        let bytes = Self::required_bytes(options)?;
        check_region(context, memory, memory_bytes, bytes)?;
        Self::write(context, options, Ring { address: memory, bytes, owned: false })
    }

    /// Goes on with a mailbox that lies in memory already, made by this library in this or
    /// another process: its records, indices and readers are as they were left.
    /// Blocks for reading the header.
    ///
    /// The operations of one side must not come through two mailboxes over the
    /// same memory at once. The two sides may, with [`Arbitration::Device`] on
    /// both and any policy but [`FullPolicy::Wait`].
    ///
    /// # Errors
    /// `NULL_POINTER`, `MISALIGNED`, `TRUNCATED` (less memory than the header
    /// says), `BAD_MAGIC`, `BAD_VERSION` (another layout, a newer one, say),
    /// `CORRUPT` (a header that contradicts itself), `NOT_SUPPORTED` (the newest record was moved for a borrow, and the
    /// device should arbitrate), `BUSY` (an operation is under way, or records were borrowed and not released),
    /// `ORDER_VIOLATION` (it was stopped for good), `MEMORY_LIMIT`, `OUT_OF_MEMORY` (of a shared mailbox, whose streams
    /// meet in memory of the library).
    ///
    /// # Safety
    /// As for [`Mailbox::new_in`].
    pub unsafe fn attach(
        context: &Context,
        memory: u64,
        memory_bytes: u64,
        options: &Attach,
    ) -> Result<Self> {
        check_region(context, memory, memory_bytes, size_of::<gmb_ring_header>() as u64)?;
        let header = read_header(context, memory)?;
        let found = check_header(&header)?;
        let bytes = Self::required_bytes(&found)?;
        if memory_bytes < bytes {
            return Err(Error::new(
                GMB_ERROR_TRUNCATED,
                format!("{memory_bytes} bytes of memory: the mailbox there takes {bytes}"),
            ));
        }
        if found.mode == Mode::Shared {
            check_states(context, &header, memory)?;
        }
        if header.writer.newest != 0 && options.arbitration == Arbitration::Device {
            return Err(Error::new(
                GMB_ERROR_NOT_SUPPORTED,
                "records of the mailbox were borrowed, so its newest lies in another slot: let the CPU arbitrate",
            ));
        }
        let ring = Ring { address: memory, bytes, owned: false };
        Self::over(context, &header, &found, options, ring)
    }

    /// Writes the header of a new mailbox and zeroes its slots.
    pub(super) fn write(context: &Context, options: &MailboxOptions, ring: Ring) -> Result<Self> {
        let first = options.initial_index;
        let readers = options.readers.max(1);
        let stride = slot_stride(options)?;
        let mut header = gmb_ring_header {
            magic: GMB_MAGIC,
            version: GMB_LAYOUT_VERSION,
            header_bytes: size_of::<gmb_ring_header>() as u32,
            capacity: options.capacity,
            capacity_bytes: options.capacity * u64::from(stride),
            stride,
            payload_bytes: options.payload_bytes,
            producer_id: options.producer_id,
            consumer_id: options.consumer_id,
            reader_mask: (1u32 << readers) - 1,
            full_policy: options.full_policy.rules().value as u32,
            initial_index: first,
            fault: GMB_OK,
            mode: options.mode.value(),
            pad: [0; 7],
            writer: gmb_ring_side::at(first),
            reader: [gmb_ring_side::at(first); GMB_MAX_READERS as usize],
        };
        if options.mode == Mode::Shared {
            header.writer.credits = options.capacity;
        }
        let attach = Attach { arbitration: options.arbitration, single_stream: options.single_stream };
        let (address, bytes) = (ring.address, ring.bytes as usize);
        let mailbox = Self::over(context, &header, options, &attach, ring)?;
        let service = context.service();
        // SAFETY: the ring has room for the header and all slots; both are waited for.
        unsafe {
            context.backend().fill(address, 0, bytes, service)?;
            let from = std::ptr::from_ref(&header) as u64;
            let copied = context.backend().copy(address, from, size_of::<gmb_ring_header>(), service);
            context.backend().stream_synchronize(service).and(copied)?;
        }
        Ok(mailbox)
    }

    /// The mailbox of a header.
    fn over(
        context: &Context,
        header: &gmb_ring_header,
        made: &MailboxOptions,
        options: &Attach,
        ring: Ring,
    ) -> Result<Self> {
        // The operations of a shared mailbox are marked on their lanes.
        let records = !options.single_stream && made.mode == Mode::Ordered;
        // What is owned is freed by the mailbox's drop, and by nobody if there is none.
        let parts = || {
            let push = Side::new(context, header.writer.committed, header.writer.operations, records)?;
            let readers = Readers::new(context, header, records)?;
            let shared = (made.mode == Mode::Shared).then(|| Shared::new(context)).transpose()?;
            Ok((push, readers, shared))
        };
        let (push, readers, shared) = parts().inspect_err(|_: &Error| {
            if ring.owned {
                // SAFETY: nothing uses it yet.
                let _ = unsafe { context.free_ring(ring.address) };
            }
        })?;
        Ok(Self {
            context: context.clone(),
            arbitration: options.arbitration,
            payload_bytes: header.payload_bytes,
            stride: header.stride,
            core: Arc::new(Core {
                context: context.clone(),
                full_policy: made.full_policy,
                mode: made.mode,
                shared,
                single_stream: options.single_stream,
                capacity: header.capacity,
                geometry: gmb_geometry_args {
                    capacity: header.capacity,
                    header_bytes: header.header_bytes,
                    stride: header.stride,
                    payload_bytes: header.payload_bytes,
                    reserved: 0,
                },
                push,
                readers,
                ring,
                borrows: Borrows::new(header.writer.newest != 0),
                only: Mutex::new(0),
                closed: AtomicBool::new(false),
                captured: AtomicU64::new(0),
            }),
            line: Line::default(),
            staging: [const { Mutex::new(None) }; 2],
        })
    }
}

fn check_region(context: &Context, memory: u64, bytes: u64, needed: u64) -> Result<()> {
    check_address("memory", memory, RING_ALIGNMENT)?;
    if memory.checked_add(bytes).is_none_or(|end| end > i64::MAX as u64) {
        return Err(Error::new(GMB_ERROR_OVERFLOW, format!("{bytes} bytes of memory at {memory:#x}")));
    }
    if bytes < needed {
        return Err(Error::new(
            GMB_ERROR_TRUNCATED,
            format!("{bytes} bytes of memory: at least {needed} are needed"),
        ));
    }
    context.check_reachable(&Extent::whole("memory", memory, bytes))
}

/// Holds a header found in memory against what this library would have written; with what it was made.
fn check_header(header: &gmb_ring_header) -> Result<MailboxOptions> {
    if header.magic != GMB_MAGIC {
        return Err(Error::new(
            GMB_ERROR_BAD_MAGIC,
            format!("the memory begins with {:#018x}: there is no mailbox", header.magic),
        ));
    }
    if header.version != GMB_LAYOUT_VERSION {
        let age = if header.version > GMB_LAYOUT_VERSION { "a newer" } else { "an older" };
        return Err(Error::new(
            GMB_ERROR_BAD_VERSION,
            format!(
                "the mailbox has layout version {}, of {age} library; this one has {GMB_LAYOUT_VERSION}",
                header.version
            ),
        ));
    }
    let corrupt =
        |what: &str| Error::new(GMB_ERROR_CORRUPT, format!("the mailbox's header is damaged: {what}"));
    let full_policy = FullPolicy::from_value(header.full_policy as i32)
        .ok_or_else(|| corrupt(&format!("full_policy {}", header.full_policy)))?;
    let mode = Mode::from_value(header.mode).ok_or_else(|| corrupt(&format!("mode {}", header.mode)))?;
    let options = MailboxOptions {
        mode,
        capacity: header.capacity,
        payload_bytes: header.payload_bytes,
        full_policy,
        ..Default::default()
    };
    Mailbox::required_bytes(&options).map_err(|e| corrupt(e.message()))?;
    let size = size_of::<gmb_ring_header>();
    if header.header_bytes as usize != size
        || header.stride != slot_stride(&options)?
        || (mode == Mode::Express && header.reader_mask != 1)
        || u64::from(header.stride) * header.capacity != header.capacity_bytes
        || header.reader_mask >> GMB_MAX_READERS != 0
        || header.writer.newest > header.capacity
    {
        return Err(corrupt("its sizes do not fit each other"));
    }
    if header.fault == GMB_ERROR_ORDER_VIOLATION {
        return Err(Error::new(header.fault, "the mailbox was stopped for good: make a new one"));
    }
    if header.fault != GMB_OK {
        return Err(corrupt(&format!("fault {}", header.fault)));
    }
    let busy = |side: &gmb_ring_side| {
        side.arrivals != 0 || side.grant != u64::MAX || side.agreed != 0 || side.drawn != 0
    };
    if mode == Mode::Shared {
        return check_shared(header, corrupt).map(|()| options);
    }
    let writing = header.writer.claimed != header.writer.committed;
    if writing || busy(&header.writer) || header.reader.iter().any(busy) {
        return Err(Error::new(GMB_ERROR_BUSY, "an operation on the mailbox is under way, or was cut off"));
    }
    // Readers of a mailbox that overwrites may be far behind, but nobody is ahead of the writer.
    let most = if full_policy.rules().overwrites { u64::MAX / 2 } else { header.capacity };
    let distance = |side: &gmb_ring_side| header.writer.committed.wrapping_sub(side.committed);
    let in_use = |r: usize| header.reader_mask >> r & 1 == 1;
    let readers = || header.reader.iter().enumerate().filter(|&(r, _)| in_use(r)).map(|(_, side)| side);
    if readers().any(|side| distance(side) > most) {
        return Err(corrupt("a reader is where no record is"));
    }
    if readers().any(|side| side.claimed != side.committed) {
        return Err(Error::new(
            GMB_ERROR_BUSY,
            "a reader of the mailbox has borrowed records, or was cut off",
        ));
    }
    Ok(options)
}

/// The same of indices and credits in shared mode.
fn check_shared(header: &gmb_ring_header, corrupt: impl Fn(&str) -> Error) -> Result<()> {
    let writer = &header.writer;
    let held = writer.claimed.wrapping_sub(writer.floor);
    let readers =
        || (0..).zip(&header.reader).filter(|(r, _)| header.reader_mask >> r & 1 == 1).map(|(_, s)| s);
    let unread = |side: &gmb_ring_side| writer.committed.wrapping_sub(side.claimed);
    if held > header.capacity || readers().any(|side| unread(side) > header.capacity) {
        return Err(corrupt("its indices do not fit each other"));
    }
    let counted =
        writer.credits == header.capacity - held && readers().all(|side| side.credits == unread(side));
    if writer.claimed != writer.committed || !counted {
        return Err(busy());
    }
    Ok(())
}

fn busy() -> Error {
    Error::new(
        GMB_ERROR_BUSY,
        "an operation on the mailbox is under way or was cut off, or records are borrowed",
    )
}

/// Of a slot's state, the readers that have not released its record, as in shared.cuh.
const UNRELEASED_READERS: u64 = 31;

/// Whether each record is held by the readers that have not come to it, and by no other: one that was borrowed is.
fn check_states(context: &Context, header: &gmb_ring_header, ring: u64) -> Result<()> {
    let states = ring + u64::from(header.header_bytes) + header.capacity_bytes;
    let first = header.writer.floor;
    let held = header.writer.committed.wrapping_sub(first);
    let sides = || (0..).zip(&header.reader).filter(|(r, _)| header.reader_mask >> r & 1 == 1);
    let waiting = |place: u64| sides().filter(|(_, side)| side.claimed.wrapping_sub(first) <= place).count();
    let mut words = [0; 1024];
    let mut done = 0;
    while done < held {
        let slot = first.wrapping_add(done) & (header.capacity - 1);
        let count = (held - done).min(header.capacity - slot).min(words.len() as u64);
        let some = &mut words[..count as usize];
        // SAFETY: the states lie behind the slots, one for each.
        unsafe { context.backend().read_words(some, states + slot * 8, context.service())? };
        if (done..).zip(&*some).any(|(place, state)| state & UNRELEASED_READERS != waiting(place) as u64) {
            return Err(busy());
        }
        done += count;
    }
    Ok(())
}

/// Reads a header, also while kernels write it; waits for nothing but the reading.
pub(super) fn read_header(context: &Context, ring: u64) -> Result<gmb_ring_header> {
    const WORDS: usize = size_of::<gmb_ring_header>() / size_of::<u64>();
    const { assert!(WORDS * size_of::<u64>() == size_of::<gmb_ring_header>()) };
    let mut words = [0; WORDS];
    // SAFETY: the ring begins with a header, and is aligned like one.
    unsafe { context.backend().read_words(&mut words, ring, context.service())? };
    // SAFETY: as long as a header, of which all bit patterns are valid.
    Ok(unsafe { std::ptr::read_unaligned(words.as_ptr().cast()) })
}
