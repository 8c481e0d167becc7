//! `gmb_mailbox`.

use std::ffi::c_void;

use super::boundary::boundary;
use super::context::gmb_context;
use super::stream::{gmb_stream, stream};
use super::token::gmb_token;
use super::{optional_token, output, sized, timeout, write_info, Sized32, CONTEXTS, MAILBOXES};
use crate::error::{Error, Result};
use crate::layout::{gmb_full_policy, gmb_mode, gmb_record_header, gmb_ring_header};
use crate::status::*;
use crate::{Arbitration, FullPolicy, Mailbox, MailboxOptions, Mode, Pop, Push};

/// Handle of a mailbox: records in a ring in device memory. Zero is null.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct gmb_mailbox {
    /// Opaque.
    pub id: u64,
}

/// Who orders a push and a pop of different streams: `GMB_ARBITRATION_*`.
#[allow(non_camel_case_types)]
pub type gmb_arbitration = i32;

/// The library, with events: a pop finds all that pushes submitted before it published, and a
/// push all the room that pops submitted before it made, whatever their streams. Where that is
/// certain anyway, the two overlap.
pub const GMB_ARBITRATION_CPU: gmb_arbitration = 0;
/// The ring's atomics alone: a pop takes what is published when it runs. Pushes stay ordered
/// among each other, and so do pops.
pub const GMB_ARBITRATION_DEVICE: gmb_arbitration = 1;

/// In `gmb_mailbox_options.flags`: all operations come on one stream, that of the first. No event
/// is recorded then, and another stream is `GMB_ERROR_INVALID_STREAM`.
pub const GMB_MAILBOX_SINGLE_STREAM: u32 = 1;
/// In `gmb_mailbox_options.flags`: any number of pushes, and of pops of a reader, at once, those of running kernels among
/// them (`gpumailbox/device.cuh`). Not with `GMB_FULL_OVERWRITE_OLDEST` or `_LATEST`: `GMB_ERROR_NOT_SUPPORTED`.
pub const GMB_MAILBOX_SHARED: u32 = 2;
/// In `gmb_mailbox_options.flags`: for latency, one producer and one consumer of running kernels (`gpumailbox/express.cuh`),
/// and at most `GMB_EXPRESS_BYTES` of payload. Only with `GMB_FULL_REJECT` and one reader; pushes, pops and waits of the CPU
/// are `GMB_ERROR_NOT_SUPPORTED`. Not together with `GMB_MAILBOX_SHARED`.
pub const GMB_MAILBOX_EXPRESS: u32 = 4;

/// What a mailbox is made with. Start from `GMB_MAILBOX_OPTIONS_INIT`.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct gmb_mailbox_options {
    /// `sizeof(gmb_mailbox_options)`.
    pub struct_size: u32,
    /// Largest payload of a record in bytes, at least 1; required.
    pub payload_bytes: u32,
    /// Records it holds, a power of two up to `GMB_MAX_RECORDS`, at least 2 under `GMB_FULL_LATEST`; required.
    pub capacity: u64,
    /// Who orders pushes against pops; default `GMB_ARBITRATION_CPU`.
    pub arbitration: gmb_arbitration,
    /// What a push does when full; default `GMB_FULL_REJECT`.
    pub full_policy: gmb_full_policy,
    /// Your id for the producing module; stored in the header.
    pub producer_id: u32,
    /// Your id for the consuming module; stored in the header.
    pub consumer_id: u32,
    /// Index of the first record; default 0. Indices are 64-bit and may wrap.
    pub initial_index: u64,
    /// `GMB_MAILBOX_*` bits; default 0.
    pub flags: u32,
    /// Readers to begin with, 1 to `GMB_MAX_READERS`; default 0, which means 1. Every record
    /// reaches each of them.
    pub readers: u32,
}

// SAFETY: repr(C), begins with struct_size, integers only.
unsafe impl Sized32 for gmb_mailbox_options {
    const NAME: &'static str = "gmb_mailbox_options";
    const FIRST_SIZE: usize = 48;
}

/// Records to push. Start from `GMB_PUSH_INIT`.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct gmb_push {
    /// `sizeof(gmb_push)`.
    pub struct_size: u32,
    /// Records to push, 1 to `GMB_MAX_RECORDS`; required.
    pub count: u32,
    /// Device address of the first record, 16-byte aligned. Each record is read in whole
    /// 16-byte units. May be null only when `length` is 0 and `lengths` null.
    pub records: *const c_void,
    /// Bytes from record to record, a multiple of 16; 0 for dense: the payload size rounded up to 16.
    pub stride: u64,
    /// Device address of a length per record, or null to use `length` for all. With lengths, every row is read
    /// as far as the longest record could reach (the payload size, or `stride` if that is less), whatever its own is.
    pub lengths: *const u32,
    /// Device address of a type per record, or null to use `msg_type` for all.
    pub types: *const u32,
    /// Bytes of every record; at most the payload size.
    pub length: u32,
    /// Type of every record: yours to define.
    pub msg_type: u32,
    /// How long the calling thread waits for room under `GMB_FULL_WAIT`, in nanoseconds: 0 tries
    /// once, `GMB_WAIT_FOREVER` (what `GMB_PUSH_INIT` sets) waits without limit.
    pub timeout_ns: u64,
}

// SAFETY: repr(C), begins with struct_size, integers and raw pointers only.
unsafe impl Sized32 for gmb_push {
    const NAME: &'static str = "gmb_push";
    const FIRST_SIZE: usize = 56;
}

/// Where popped records go. Start from `GMB_POP_INIT`.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct gmb_pop {
    /// `sizeof(gmb_pop)`.
    pub struct_size: u32,
    /// Most records wanted, 1 to `GMB_MAX_RECORDS`; required.
    pub max: u32,
    /// Device address for the first record, 16-byte aligned; required. Each record is written
    /// in whole 16-byte units; bytes past its length and rows past the count are unspecified.
    pub records: *mut c_void,
    /// Bytes from record to record, a multiple of 16; 0 for dense: the payload size rounded up to 16.
    pub stride: u64,
    /// Device address for a header per record (index, length, type), 16-byte aligned, or null.
    pub headers: *mut gmb_record_header,
    /// Which reader pops; default 0. Pops of one reader share its records.
    pub reader: u32,
    /// Must be zero.
    pub reserved: u32,
}

// SAFETY: repr(C), begins with struct_size, integers and raw pointers only.
unsafe impl Sized32 for gmb_pop {
    const NAME: &'static str = "gmb_pop";
    const FIRST_SIZE: usize = 40;
}

/// A mailbox's shape, and its counts at one moment.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct gmb_mailbox_info {
    /// Records it holds.
    pub capacity: u64,
    /// Largest payload in bytes.
    pub payload_bytes: u32,
    /// Bytes from slot to slot.
    pub slot_stride: u32,
    /// Device address of the header; the slots follow it.
    pub ring: *mut gmb_ring_header,
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
    pub reader_mask: u32,
    /// What a push does when full.
    pub full_policy: gmb_full_policy,
    /// `GMB_OK`, or what stopped the mailbox for good: `GMB_ERROR_ORDER_VIOLATION`. No record moves then.
    pub fault: gmb_status,
    /// Whether operations of one side run one after the other.
    pub mode: gmb_mode,
}

pub(super) fn arbitration(value: gmb_arbitration) -> Result<Arbitration> {
    match value {
        GMB_ARBITRATION_CPU => Ok(Arbitration::Cpu),
        GMB_ARBITRATION_DEVICE => Ok(Arbitration::Device),
        _ => Err(Error::argument(format!("arbitration {value} is none of GMB_ARBITRATION_CPU, _DEVICE"))),
    }
}

pub(super) fn full_policy(value: gmb_full_policy) -> Result<FullPolicy> {
    FullPolicy::from_value(value)
        .ok_or_else(|| Error::argument(format!("full_policy {value} is none of GMB_FULL_*")))
}

/// Reads and checks a mailbox's options.
pub(super) fn options_of(options: *const gmb_mailbox_options) -> Result<MailboxOptions> {
    let options = sized(options, "options")?;
    let full_policy = full_policy(options.full_policy)?;
    let known = GMB_MAILBOX_SINGLE_STREAM | GMB_MAILBOX_SHARED | GMB_MAILBOX_EXPRESS;
    if options.flags & !known != 0 {
        return Err(Error::argument(format!("flags {:#x}: unknown bits are set", options.flags)));
    }
    let mode = match options.flags & (GMB_MAILBOX_SHARED | GMB_MAILBOX_EXPRESS) {
        0 => Mode::Ordered,
        GMB_MAILBOX_SHARED => Mode::Shared,
        GMB_MAILBOX_EXPRESS => Mode::Express,
        _ => return Err(Error::argument("GMB_MAILBOX_SHARED and _EXPRESS are two modes: choose one")),
    };
    Ok(MailboxOptions {
        capacity: options.capacity,
        payload_bytes: options.payload_bytes,
        producer_id: options.producer_id,
        consumer_id: options.consumer_id,
        arbitration: arbitration(options.arbitration)?,
        mode,
        full_policy,
        readers: options.readers,
        initial_index: options.initial_index,
        single_stream: options.flags & GMB_MAILBOX_SINGLE_STREAM != 0,
    })
}

/// Makes a mailbox in the context's device memory.
///
/// The caller owns it and ends it with `gmb_mailbox_destroy`. Blocks until it is ready; thread-safe.
///
/// Errors: `GMB_ERROR_INVALID_HANDLE`, `_NULL_POINTER`, `_STRUCT_SIZE`, `_INVALID_ARGUMENT` (capacity no
/// power of two, no payload, unknown policy), `_NOT_SUPPORTED`, `_OVERFLOW`, `_OUT_OF_MEMORY`, `_MEMORY_LIMIT`,
/// `_OUT_OF_HOST_MEMORY`, `_DEVICE_LOST`.
#[no_mangle]
pub extern "C" fn gmb_mailbox_create(
    context: gmb_context,
    options: *const gmb_mailbox_options,
    mailbox: *mut gmb_mailbox,
) -> gmb_status {
    boundary(|| {
        let out = output(mailbox, "mailbox")?;
        let wanted = options_of(options)?;
        let context = CONTEXTS.get(context.id)?;
        out.write(gmb_mailbox { id: MAILBOXES.insert(Mailbox::new(&context, &wanted)?)? });
        Ok(())
    })
}

/// Ends a mailbox. Blocks until its own operations are done; records in it are dropped.
/// Safe while other threads are inside calls on it: pushes that wait for room end with
/// `GMB_ERROR_INVALID_HANDLE`, and the last thread to leave ends the mailbox. Errors: `GMB_ERROR_INVALID_HANDLE`.
#[no_mangle]
pub extern "C" fn gmb_mailbox_destroy(mailbox: gmb_mailbox) -> gmb_status {
    boundary(|| {
        let pinned = MAILBOXES.get(mailbox.id)?;
        MAILBOXES.remove(mailbox.id)?;
        pinned.close();
        Ok(())
    })
}

/// A mailbox's shape and counts. `info_size` is `sizeof(gmb_mailbox_info)`. Copies the header
/// to the host and blocks for that, not for operations under way. Thread-safe.
/// Errors: `GMB_ERROR_INVALID_HANDLE`, `_NULL_POINTER`, `_STRUCT_SIZE`, `_DEVICE_LOST`.
#[no_mangle]
pub extern "C" fn gmb_mailbox_get_info(
    mailbox: gmb_mailbox,
    info: *mut gmb_mailbox_info,
    info_size: usize,
) -> gmb_status {
    boundary(|| {
        let known = MAILBOXES.get(mailbox.id)?.info()?;
        let value = gmb_mailbox_info {
            capacity: known.capacity,
            payload_bytes: known.payload_bytes,
            slot_stride: known.slot_stride,
            ring: known.ring as *mut gmb_ring_header,
            ring_bytes: known.ring_bytes,
            published: known.published,
            released: known.released,
            rejected: known.rejected,
            empty_pops: known.empty_pops,
            high_water: known.high_water,
            reader_mask: known.readers,
            full_policy: known.full_policy.rules().value,
            fault: known.fault,
            mode: known.mode.value(),
        };
        write_info(info, info_size, value)
    })
}

/// Reads what is to be pushed.
pub(super) fn push_of(push: *const gmb_push) -> Result<Push> {
    let push = sized(push, "push")?;
    Ok(Push {
        count: push.count,
        records: push.records as u64,
        stride: push.stride,
        lengths: push.lengths as u64,
        types: push.types as u64,
        length: push.length,
        msg_type: push.msg_type,
        timeout: timeout(push.timeout_ns),
    })
}

/// Reads what is to be popped.
pub(super) fn pop_of(pop: *const gmb_pop) -> Result<Pop> {
    let pop = sized(pop, "pop")?;
    if pop.reserved != 0 {
        return Err(Error::argument("pop.reserved is not zero"));
    }
    Ok(Pop {
        max: pop.max,
        records: pop.records as u64,
        stride: pop.stride,
        headers: pop.headers as u64,
        reader: pop.reader,
    })
}

/// Pushes records on a stream, in one launch. What happens when they do not all fit is the
/// mailbox's full policy: `GMB_FULL_REJECT` accepts the first so many; `GMB_FULL_WAIT` blocks the calling
/// thread, for `timeout_ns` at most, until all are sure to fit; else old records make room.
///
/// The source memory must stay valid and unwritten until the operation is done. Except under
/// `GMB_FULL_WAIT` the call does not block beyond the launch. Ordered after the stream's work and after
/// the mailbox's earlier pushes, whatever their streams (of a shared mailbox after the stream's work alone); against
/// pops as its arbitration says.
/// `token` may be zero; else its result is the count accepted. A length in `lengths` above the
/// payload size or stride ends the push before that record with status `GMB_ERROR_BAD_LENGTH`; under
/// `GMB_FULL_WAIT` nothing is accepted then. Thread-safe.
///
/// Errors, with nothing pushed and the token as before: `GMB_ERROR_INVALID_HANDLE`, `_NULL_POINTER`,
/// `_STRUCT_SIZE`, `_ZERO_COUNT`, `_MISALIGNED`, `_OVERLAP`, `_OVERFLOW`, `_BAD_LENGTH`,
/// `_INVALID_ARGUMENT` (under `GMB_FULL_WAIT` also more than the capacity), `_INVALID_STREAM`, `_BUSY` (token),
/// `_TIMEOUT` (no room in time), `_NOT_SUPPORTED` (the stream is being captured, and the capture goes on; express mode),
/// `_MEMORY_LIMIT`, `_OUT_OF_MEMORY` (of a shared mailbox), `_DEVICE_LOST`, `_DRIVER`. In the result:
/// `GMB_ERROR_BAD_LENGTH`, `_BAD_MAGIC`, `_BAD_VERSION`, `_ORDER_VIOLATION`.
#[no_mangle]
pub extern "C" fn gmb_mailbox_push(
    mailbox: gmb_mailbox,
    push: *const gmb_push,
    stream: gmb_stream,
    token: gmb_token,
) -> gmb_status {
    boundary(|| {
        let mailbox = MAILBOXES.get(mailbox.id)?;
        let push = push_of(push)?;
        let token = optional_token(token.id)?;
        // SAFETY: that the memory stays valid is the caller's contract.
        unsafe { mailbox.push(&push, self::stream(stream), token.as_deref()) }
    })
}

/// Pops up to `max` records of one reader on a stream, in one launch; under `GMB_FULL_LATEST` at
/// most one, the newest. The result of `token` is the count popped; it is ready only when the
/// records are in the output. `lost` in the result tells how many were overwritten before them.
///
/// The output memory must stay valid and otherwise unused until the operation is done. Does
/// not block beyond the launch. Ordered as `gmb_mailbox_push` is. `token` may be zero: then
/// nobody learns the count. Thread-safe.
///
/// Errors, with nothing popped and the token as before: as for `gmb_mailbox_push`, and
/// `GMB_ERROR_INVALID_ARGUMENT` for a reader that is not in use.
/// In the result: `GMB_ERROR_CORRUPT`, `_BAD_MAGIC`, `_BAD_VERSION`, `_WRONG_MODE`, `_ORDER_VIOLATION`.
#[no_mangle]
pub extern "C" fn gmb_mailbox_pop(
    mailbox: gmb_mailbox,
    pop: *const gmb_pop,
    stream: gmb_stream,
    token: gmb_token,
) -> gmb_status {
    boundary(|| {
        let mailbox = MAILBOXES.get(mailbox.id)?;
        let pop = pop_of(pop)?;
        let token = optional_token(token.id)?;
        // SAFETY: that the memory stays valid is the caller's contract.
        unsafe { mailbox.pop(&pop, self::stream(stream), token.as_deref()) }
    })
}
