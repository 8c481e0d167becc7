//! Pushing from and popping to host memory.

use std::ffi::c_void;

use super::boundary::boundary;
use super::mailbox::gmb_mailbox;
use super::{check_pointer, output, timeout, MAILBOXES};
use crate::checks::check_count;
use crate::error::{Error, Result};
use crate::layout::{gmb_record_header, gmb_result};
use crate::status::*;
use crate::HostRows;

fn host_slice<'a, T>(pointer: *const T, count: usize, name: &str) -> Result<&'a [T]> {
    check_pointer(pointer, name)?;
    // SAFETY: not null and aligned; that it holds `count` elements is the caller's contract.
    Ok(unsafe { std::slice::from_raw_parts(pointer, count) })
}

fn host_bytes(count: usize, stride: u64, name: &str) -> Result<usize> {
    (count as u64)
        .checked_mul(stride)
        .filter(|&bytes| bytes <= isize::MAX as u64)
        .map(|bytes| bytes as usize)
        .ok_or_else(|| Error::new(GMB_ERROR_OVERFLOW, format!("{name}: {count} rows of {stride} bytes")))
}

fn host_count(count: u32, name: &str) -> Result<usize> {
    check_count(name, count)?;
    Ok(count as usize)
}

/// Copies records from host memory, pushes them and blocks until it is done: for tests,
/// set-up and tools. The fast path is `gmb_mailbox_push`.
///
/// Record `i` is the first `lengths[i]` bytes of row `i`; rows are `stride` bytes apart and all
/// of `count * stride` bytes must be readable. `types` may be null: all zero. All arrays are
/// host memory and are not used after the call. `timeout_ns` is how long it waits for room under
/// `GMB_FULL_WAIT`: 0 tries once, `GMB_WAIT_FOREVER` waits without limit. Thread-safe.
///
/// Errors, with nothing pushed: `GMB_ERROR_INVALID_HANDLE`, `_NULL_POINTER`, `_ZERO_COUNT`, `_OVERFLOW`,
/// `_BAD_LENGTH`, `_TIMEOUT`, `_INVALID_ARGUMENT`
/// (under `GMB_FULL_WAIT` more than the capacity), `_INVALID_STREAM` (a single-stream mailbox whose
/// stream is another one), `_NOT_SUPPORTED` (express mode), `_MEMORY_LIMIT`, `_OUT_OF_MEMORY`, `_DEVICE_LOST`. In the
/// result: as for `gmb_mailbox_push`.
#[no_mangle]
pub extern "C" fn gmb_mailbox_push_from_host_blocking(
    mailbox: gmb_mailbox,
    count: u32,
    records: *const c_void,
    stride: u64,
    lengths: *const u32,
    types: *const u32,
    timeout_ns: u64,
    result: *mut gmb_result,
) -> gmb_status {
    boundary(|| {
        let mailbox = MAILBOXES.get(mailbox.id)?;
        let out = output(result, "result")?;
        let count = host_count(count, "count")?;
        let rows = host_slice(records.cast::<u8>(), host_bytes(count, stride, "records")?, "records")?;
        let lengths = host_slice(lengths, count, "lengths")?;
        let types = if types.is_null() { &[] } else { host_slice(types, count, "types")? };
        let rows = HostRows { rows, stride: stride as usize, lengths, types };
        out.write(mailbox.push_from_host_blocking(&rows, timeout(timeout_ns))?);
        Ok(())
    })
}

/// Pops up to `max` records of one reader, blocks until it is done and copies them to host memory: for
/// tests, set-up and tools. The fast path is `gmb_mailbox_pop`.
///
/// Record `i` goes to the start of row `i`; rows are `stride` bytes apart, at least the payload
/// size, and all of `max * stride` bytes must be writable. `headers` receives `max` headers at
/// most; only the first `result->count` are written. Thread-safe.
///
/// Errors: `GMB_ERROR_INVALID_HANDLE`, `_NULL_POINTER`, `_ZERO_COUNT`, `_OVERFLOW`, `_INVALID_ARGUMENT`,
/// `_INVALID_STREAM`, `_NOT_SUPPORTED` (as for the push), `_MEMORY_LIMIT`, `_OUT_OF_MEMORY`, `_DEVICE_LOST`. In the
/// result: as for `gmb_mailbox_pop`.
#[no_mangle]
pub extern "C" fn gmb_mailbox_pop_to_host_blocking(
    mailbox: gmb_mailbox,
    reader: u32,
    max: u32,
    records: *mut c_void,
    stride: u64,
    headers: *mut gmb_record_header,
    result: *mut gmb_result,
) -> gmb_status {
    boundary(|| {
        let mailbox = MAILBOXES.get(mailbox.id)?;
        let out = output(result, "result")?;
        let max = host_count(max, "max")?;
        let bytes = host_bytes(max, stride, "records")?;
        check_pointer(records.cast::<u8>(), "records")?;
        check_pointer(headers, "headers")?;
        // SAFETY: not null and aligned; that they are this large and ours to write is the caller's contract.
        let (rows, headers) = unsafe {
            (
                std::slice::from_raw_parts_mut(records.cast::<u8>(), bytes),
                std::slice::from_raw_parts_mut(headers, max),
            )
        };
        out.write(mailbox.pop_to_host_blocking(reader, rows, stride as usize, headers)?);
        Ok(())
    })
}
