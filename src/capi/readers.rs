//! Readers of a mailbox.

use super::boundary::boundary;
use super::mailbox::gmb_mailbox;
use super::stream::{gmb_stream, stream};
use super::{output, write_info, MAILBOXES};
use crate::error::Error;
use crate::status::*;
use crate::ReaderStart;

/// Where a reader that is let in begins: `GMB_READER_*`.
#[allow(non_camel_case_types)]
pub type gmb_reader_start = i32;

/// With the next record that is pushed.
pub const GMB_READER_NEXT: gmb_reader_start = 0;
/// With the oldest record that another reader still holds; of a mailbox that overwrites, with
/// the oldest that is intact.
pub const GMB_READER_OLDEST: gmb_reader_start = 1;

/// One reader's counts at one moment.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct gmb_reader_info {
    /// Index after the last record it released; of a shared mailbox, that it took.
    pub released: u64,
    /// Records published and not released by it; of a shared mailbox, not taken.
    pub unread: u64,
    /// Records it lost: overwritten, or replaced by newer ones.
    pub lost: u64,
    /// Its pops that found nothing.
    pub empty_pops: u64,
}

/// Lets one more reader in, in the order of the stream and of the mailbox's pushes; `start` is
/// `GMB_READER_NEXT` or `_OLDEST`. Its number is the least that is not in use, and valid for pops at
/// once. End it with `gmb_mailbox_remove_reader`. Does not block beyond the launch; of a shared mailbox it blocks until all
/// that was launched on it is done, and no kernel may use it meanwhile. Thread-safe.
/// Errors: `GMB_ERROR_INVALID_HANDLE`, `_NULL_POINTER`, `_INVALID_ARGUMENT`, `_OVERFLOW` (all
/// `GMB_MAX_READERS` are in use), `_INVALID_STREAM`, `_NOT_SUPPORTED` (the stream is being captured, or operations of
/// the mailbox were; express mode), `_DEVICE_LOST`.
#[no_mangle]
pub extern "C" fn gmb_mailbox_add_reader(
    mailbox: gmb_mailbox,
    start: gmb_reader_start,
    stream: gmb_stream,
    reader: *mut u32,
) -> gmb_status {
    boundary(|| {
        let out = output(reader, "reader")?;
        let start = match start {
            GMB_READER_NEXT => ReaderStart::Next,
            GMB_READER_OLDEST => ReaderStart::Oldest,
            _ => return Err(Error::argument(format!("start {start} is none of GMB_READER_NEXT, _OLDEST"))),
        };
        out.write(MAILBOXES.get(mailbox.id)?.add_reader(start, self::stream(stream))?);
        Ok(())
    })
}

/// Lets a reader out, in the order of the stream, of its own pops and of the mailbox's pushes: what
/// it has not read no longer takes space, and threads that wait for room go on. Later pops of this
/// reader are refused. Blocks as `gmb_mailbox_add_reader` does; thread-safe.
/// Errors: `GMB_ERROR_INVALID_HANDLE`, `_INVALID_ARGUMENT` (not in use), `_INVALID_STREAM`,
/// `_NOT_SUPPORTED` (the stream is being captured, or operations of
/// the mailbox were; express mode), `_DEVICE_LOST`.
#[no_mangle]
pub extern "C" fn gmb_mailbox_remove_reader(
    mailbox: gmb_mailbox,
    reader: u32,
    stream: gmb_stream,
) -> gmb_status {
    boundary(|| MAILBOXES.get(mailbox.id)?.remove_reader(reader, self::stream(stream)))
}

/// One reader's counts as the device has them now: operations under way, `gmb_mailbox_add_reader` among
/// them, are not in them yet. `info_size` is `sizeof(gmb_reader_info)`. Copies the header to the host
/// and blocks for that. Thread-safe.
/// Errors: `GMB_ERROR_INVALID_HANDLE`, `_NULL_POINTER`, `_STRUCT_SIZE`, `_INVALID_ARGUMENT` (not in use), `_DEVICE_LOST`.
#[no_mangle]
pub extern "C" fn gmb_mailbox_get_reader_info(
    mailbox: gmb_mailbox,
    reader: u32,
    info: *mut gmb_reader_info,
    info_size: usize,
) -> gmb_status {
    boundary(|| {
        let known = MAILBOXES.get(mailbox.id)?.reader_info(reader)?;
        let value = gmb_reader_info {
            released: known.released,
            unread: known.unread,
            lost: known.lost,
            empty_pops: known.empty_pops,
        };
        write_info(info, info_size, value)
    })
}
