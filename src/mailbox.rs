//! Mailboxes: records in a device ring, pushed and popped in bulk.

use std::sync::atomic::Ordering;
use std::sync::{Mutex, MutexGuard};

use crate::backend::args::{gmb_pop_args, gmb_push_args, gmb_report_args};
use crate::backend::{Kernel, StreamId};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::extent::{check_disjoint, Extent};
use crate::host_copy::Staging;
use crate::layout::*;
use crate::memory::{DeviceBuffer, PinnedBuffer};
use crate::results::Token;
use crate::side::{ahead, Side, Submitted};
use crate::status::*;
use crate::stream::Stream;
use crate::sync::lock;

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

/// What a mailbox is made with.
#[derive(Clone, Copy, Debug, Default)]
pub struct MailboxOptions {
    /// Records it holds; a power of two, 1 to `GMB_MAX_RECORDS`.
    pub capacity: u64,
    /// Largest payload of a record in bytes, at least 1.
    pub payload_bytes: u32,
    /// The creator's id for the producing module.
    pub producer_id: u32,
    /// The creator's id for the consuming module.
    pub consumer_id: u32,
    /// Who orders pushes against pops.
    pub arbitration: Arbitration,
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
    /// Address of a `u32` length per record, or 0 to use `length`.
    pub lengths: u64,
    /// Address of a `u32` type per record, or 0 to use `msg_type`.
    pub types: u64,
    /// Length of every record.
    pub length: u32,
    /// Type of every record.
    pub msg_type: u32,
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
    /// Index after the last record released by the reader.
    pub released: u64,
    /// Records that pushes had to refuse.
    pub rejected: u64,
    /// Pops that found nothing.
    pub empty_pops: u64,
    /// Most records that lay in the ring at once.
    pub high_water: u64,
}

/// A ring of fixed-stride records in device memory, with one pushing and one
/// popping side.
///
/// Pushes and pops may come from any threads and streams: the library orders
/// those of one side among each other, and pushes against pops as
/// [`Arbitration`] says, with events and without blocking a thread. When the
/// mailbox is full, a push accepts what fits and reports how much that was.
/// Dropping it waits for its own operations.
pub struct Mailbox {
    context: Context,
    arbitration: Arbitration,
    single_stream: bool,
    capacity: u64,
    payload_bytes: u32,
    stride: u32,
    push: Side,
    pop: Side,
    ring: DeviceBuffer,
    _progress: PinnedBuffer,
    pub(crate) staging: Mutex<Option<Staging>>,
}

impl Mailbox {
    /// Makes a mailbox. Blocks until its memory is ready.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` (capacity no power of two, no payload), `OVERFLOW`,
    /// `OUT_OF_MEMORY`, `OUT_OF_HOST_MEMORY`.
    pub fn new(context: &Context, options: &MailboxOptions) -> Result<Self> {
        let stride = slot_stride(options)?;
        let slots = options.capacity.checked_mul(u64::from(stride));
        let bytes = slots
            .and_then(|slots| slots.checked_add(size_of::<gmb_ring_header>() as u64))
            .filter(|&bytes| bytes <= isize::MAX as u64)
            .ok_or_else(|| {
                Error::new(
                    GMB_ERROR_OVERFLOW,
                    format!("{} slots of {stride} bytes exceed the address space", options.capacity),
                )
            })?;
        let ring = context.device_buffer(bytes as usize)?;
        let progress = context.pinned_buffer(256)?;
        let first = options.initial_index;
        let header = gmb_ring_header {
            magic: GMB_MAGIC,
            version: GMB_LAYOUT_VERSION,
            header_bytes: size_of::<gmb_ring_header>() as u32,
            capacity: options.capacity,
            capacity_bytes: bytes - size_of::<gmb_ring_header>() as u64,
            stride,
            payload_bytes: options.payload_bytes,
            producer_id: options.producer_id,
            consumer_id: options.consumer_id,
            readers: 1,
            flags: 0,
            initial_index: first,
            fault: GMB_OK,
            reserved0: 0,
            pad: [0; 7],
            writer: gmb_ring_side::at(first),
            reader: [gmb_ring_side::at(first); GMB_MAX_READERS as usize],
        };
        let service = context.service();
        // SAFETY: the ring has room for the header and all slots; both are waited for.
        unsafe {
            context.backend().fill(ring.address(), 0, bytes as usize, service)?;
            let from = std::ptr::from_ref(&header) as u64;
            let copied = context.backend().copy(ring.address(), from, size_of::<gmb_ring_header>(), service);
            context.backend().stream_synchronize(service).and(copied)?;
        }
        Ok(Self {
            context: context.clone(),
            arbitration: options.arbitration,
            single_stream: options.single_stream,
            capacity: options.capacity,
            payload_bytes: options.payload_bytes,
            stride,
            push: Side::new(context, progress.address(), first)?,
            pop: Side::new(context, progress.address() + 128, first)?,
            ring,
            _progress: progress,
            staging: Mutex::default(),
        })
    }

    /// The context it lives in.
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// Bytes that a dense array needs for each record: the payload size rounded up to 16.
    pub fn row_bytes(&self) -> u64 {
        u64::from(self.stride) - 16
    }

    /// Pushes records on a stream: accepts the first so many that fit. Never
    /// blocks for room. With a token, the outcome says how many were accepted;
    /// if `lengths` holds one above the payload size or stride, the records
    /// before it are accepted and the status is `BAD_LENGTH`.
    ///
    /// # Errors
    /// `ZERO_COUNT`, `NULL_POINTER`, `MISALIGNED`, `OVERLAP`, `OVERFLOW`,
    /// `BAD_LENGTH`, `INVALID_STREAM`, `BUSY` (token), `DEVICE_LOST`,
    /// `DRIVER`. Then nothing was pushed and the token is as before.
    ///
    /// # Safety
    /// The source memory must be valid, and not written, until the operation is done.
    pub unsafe fn push(&self, push: &Push, stream: Stream, token: Option<&Token>) -> Result<()> {
        let args = self.push_args(push)?;
        let most = u64::from(push.count).min(self.capacity);
        let mut submitted = lock(&self.push.submission);
        let id = self.stream_id(stream)?;
        self.push.make_wait(stream, id)?;
        let end = self.push.can_reach(&mut submitted).wrapping_add(u64::from(push.count));
        // With room in any case, how far the pops are makes no difference.
        if self.arbitration == Arbitration::Cpu && ahead(end, self.pop.reached()) > self.capacity {
            self.pop.make_wait(stream, id)?;
        }
        self.submit(&self.push, submitted, stream, id, most, token, |report| {
            Kernel::Push(gmb_push_args { report, ..args })
        })
    }

    /// Pops up to `max` records on a stream, dense or strided, into device
    /// memory. With a token, the outcome is the count; without one nobody
    /// learns it. Bytes past a record's length and rows past the count are
    /// unspecified: a push beside the pop may have been copied in part.
    ///
    /// # Errors
    /// As for [`Mailbox::push`]; with a token also `CORRUPT`: a slot does not
    /// hold the record it should, and the pop ends before it.
    ///
    /// # Safety
    /// The output memory must be valid, and not otherwise used, until the operation is done.
    pub unsafe fn pop(&self, pop: &Pop, stream: Stream, token: Option<&Token>) -> Result<()> {
        let args = self.pop_args(pop)?;
        let most = u64::from(pop.max).min(self.capacity);
        let mut submitted = lock(&self.pop.submission);
        let id = self.stream_id(stream)?;
        self.pop.make_wait(stream, id)?;
        let end = self.pop.can_reach(&mut submitted).wrapping_add(u64::from(pop.max));
        // With `max` records there in any case, later pushes make no difference.
        if self.arbitration == Arbitration::Cpu && ahead(self.push.reached(), end) > self.capacity {
            self.push.make_wait(stream, id)?;
        }
        self.submit(&self.pop, submitted, stream, id, most, token, |report| {
            Kernel::Pop(gmb_pop_args { report, ..args })
        })
    }

    /// Names the stream, and holds a single-stream mailbox to its first one.
    /// Called under the side's submission lock.
    fn stream_id(&self, stream: Stream) -> Result<StreamId> {
        let id = self.context.backend().stream_id(stream.raw())?;
        if self.single_stream && (self.push.is_of_another(id) || self.pop.is_of_another(id)) {
            return Err(Error::new(
                GMB_ERROR_INVALID_STREAM,
                "the mailbox was made for a single stream and its first operation came on another one",
            ));
        }
        Ok(id)
    }

    /// Launches and marks the end, all under the side's submission lock.
    #[allow(clippy::too_many_arguments)]
    fn submit(
        &self,
        side: &Side,
        mut submitted: MutexGuard<'_, Submitted>,
        stream: Stream,
        id: StreamId,
        most: u64,
        token: Option<&Token>,
        kernel: impl FnOnce(gmb_report_args) -> Kernel,
    ) -> Result<()> {
        if token.is_some_and(|token| !token.context().is(&self.context)) {
            return Err(Error::argument("the token is of another context than the mailbox"));
        }
        let submission = token.map(|token| token.submit(&side.event)).transpose()?;
        let mut report = submission.as_ref().map(|s| s.report()).unwrap_or_default();
        report.host_progress = side.progress;
        report.operation = side.operations.load(Ordering::Relaxed) as u32 + 1;
        let blocks = self.blocks_for(most);
        // SAFETY: the ring and the slots outlive the kernel; the caller vouches for the rest.
        unsafe { self.context.backend().launch(&kernel(report), blocks, stream.raw())? };
        if let Some(submission) = submission {
            submission.confirm();
        }
        side.launched(&mut submitted, stream, id, most, !self.single_stream)
    }

    fn push_args(&self, push: &Push) -> Result<gmb_push_args> {
        check_count("count", push.count)?;
        let stride = if push.stride == 0 { self.row_bytes() } else { push.stride };
        let payload = u64::from(self.payload_bytes);
        // The most that any row can hold: the device checks lengths in an array against it.
        let longest = if push.lengths == 0 { u64::from(push.length) } else { payload.min(stride) };
        if longest > payload {
            return Err(Error::new(
                GMB_ERROR_BAD_LENGTH,
                format!("length {longest} exceeds the mailbox's payload size of {payload} bytes"),
            ));
        }
        check_stride(stride, longest)?;
        if longest > 0 {
            check_address("records", push.records, 16)?;
            self.check_outside_ring(&Extent::rows("records", push.records, push.count, stride, longest)?)?;
        }
        for (name, address) in [("lengths", push.lengths), ("types", push.types)] {
            if address != 0 {
                check_address(name, address, 4)?;
                self.check_outside_ring(&Extent::array(name, address, push.count, 4)?)?;
            }
        }
        Ok(gmb_push_args {
            ring: self.ring.address(),
            records: push.records,
            stride,
            lengths: push.lengths,
            types: push.types,
            count: push.count,
            length: push.length,
            msg_type: push.msg_type,
            lanes_log2: self.lanes_log2(),
            max_length: longest as u32,
            reserved: 0,
            report: gmb_report_args::default(),
        })
    }

    fn pop_args(&self, pop: &Pop) -> Result<gmb_pop_args> {
        check_count("max", pop.max)?;
        let stride = if pop.stride == 0 { self.row_bytes() } else { pop.stride };
        check_address("records", pop.records, 16)?;
        check_stride(stride, u64::from(self.payload_bytes))?;
        // No more than the capacity is ever written.
        let most = u64::from(pop.max).min(self.capacity) as u32;
        let rows = Extent::rows("records", pop.records, most, stride, self.row_bytes())?;
        self.check_outside_ring(&rows)?;
        if pop.headers != 0 {
            check_address("headers", pop.headers, 16)?;
            let headers = Extent::array("headers", pop.headers, most, size_of::<gmb_record_header>() as u64)?;
            self.check_outside_ring(&headers)?;
            check_disjoint(&rows, &headers)?;
        }
        Ok(gmb_pop_args {
            ring: self.ring.address(),
            records: pop.records,
            stride,
            headers: pop.headers,
            max: pop.max,
            reader: 0,
            lanes_log2: self.lanes_log2(),
            reserved: 0,
            report: gmb_report_args::default(),
        })
    }

    fn check_outside_ring(&self, range: &Extent) -> Result<()> {
        let ring = Extent::whole("the mailbox's own ring", self.ring.address(), self.ring.bytes() as u64);
        check_disjoint(&ring, range)
    }

    /// Threads that move one record together: one for each of its units, within a warp.
    fn lanes_log2(&self) -> u32 {
        let threads = self.context.backend().info().block_threads;
        (self.stride / 16).next_power_of_two().min(32).min(threads).ilog2()
    }

    /// Blocks for so many records: each thread group takes four.
    fn blocks_for(&self, records: u64) -> u32 {
        let info = self.context.backend().info();
        let per_block = u64::from(info.block_threads >> self.lanes_log2()) * 4;
        records.div_ceil(per_block).clamp(1, u64::from(info.max_blocks)) as u32
    }

    /// Shape and counts. Copies the header to the host and blocks for that;
    /// it does not wait for operations under way.
    pub fn info(&self) -> Result<MailboxInfo> {
        let header = self.read_header()?;
        Ok(MailboxInfo {
            capacity: self.capacity,
            payload_bytes: self.payload_bytes,
            slot_stride: self.stride,
            ring: self.ring.address(),
            ring_bytes: self.ring.bytes() as u64,
            published: header.writer.committed,
            released: header.reader[0].committed,
            rejected: header.writer.refused,
            empty_pops: header.reader[0].empty,
            high_water: header.writer.high_water,
        })
    }

    fn read_header(&self) -> Result<gmb_ring_header> {
        let mut header = std::mem::MaybeUninit::<gmb_ring_header>::zeroed();
        let service = self.context.service();
        let backend = self.context.backend();
        // SAFETY: the destination has the header's size and is waited for; all bit patterns are valid.
        unsafe {
            backend.copy(
                header.as_mut_ptr() as u64,
                self.ring.address(),
                size_of::<gmb_ring_header>(),
                service,
            )?;
            backend.stream_synchronize(service)?;
            Ok(header.assume_init())
        }
    }

    pub(crate) fn payload_bytes(&self) -> u32 {
        self.payload_bytes
    }

    pub(crate) fn capacity(&self) -> u64 {
        self.capacity
    }
}

impl Drop for Mailbox {
    fn drop(&mut self) {
        // The ring must outlive its kernels; a lost device answers at once. Without
        // events, freeing the ring waits for the whole device.
        let _ = self.push.event.synchronize();
        let _ = self.pop.event.synchronize();
    }
}

fn slot_stride(options: &MailboxOptions) -> Result<u32> {
    let capacity = options.capacity;
    if capacity > u64::from(GMB_MAX_RECORDS) {
        return Err(Error::new(
            GMB_ERROR_OVERFLOW,
            format!("capacity {capacity} exceeds the most a mailbox can hold, {GMB_MAX_RECORDS}"),
        ));
    }
    if !capacity.is_power_of_two() {
        let next = capacity.next_power_of_two();
        return Err(Error::argument(format!("capacity {capacity} is no power of two: use {next}")));
    }
    if options.payload_bytes == 0 {
        return Err(Error::argument("payload_bytes is 0: a record needs at least 1"));
    }
    options.payload_bytes.checked_next_multiple_of(GMB_ALIGNMENT).and_then(|p| p.checked_add(16)).ok_or_else(
        || {
            Error::new(
                GMB_ERROR_OVERFLOW,
                format!("payload_bytes {} leaves no slot stride", options.payload_bytes),
            )
        },
    )
}

fn check_count(name: &str, count: u32) -> Result<()> {
    match count {
        0 => Err(Error::new(GMB_ERROR_ZERO_COUNT, format!("{name} is 0: nothing to do"))),
        _ if count > GMB_MAX_RECORDS => {
            Err(Error::new(GMB_ERROR_OVERFLOW, format!("{name} {count} exceeds {GMB_MAX_RECORDS}")))
        }
        _ => Ok(()),
    }
}

fn check_address(name: &str, address: u64, alignment: u64) -> Result<()> {
    if address == 0 {
        return Err(Error::new(GMB_ERROR_NULL_POINTER, format!("{name} is null")));
    }
    if address % alignment != 0 {
        return Err(Error::new(
            GMB_ERROR_MISALIGNED,
            format!("{name} at {address:#x} is not a multiple of {alignment} bytes"),
        ));
    }
    Ok(())
}

fn check_stride(stride: u64, payload: u64) -> Result<()> {
    if stride % u64::from(GMB_ALIGNMENT) != 0 {
        return Err(Error::new(
            GMB_ERROR_MISALIGNED,
            format!("stride {stride} is not a multiple of 16 bytes"),
        ));
    }
    if stride < payload {
        return Err(Error::argument(format!("stride {stride} is less than the {payload} bytes of a record")));
    }
    Ok(())
}
