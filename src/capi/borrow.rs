//! `gmb_borrow`: records read where they lie.

use super::boundary::{boundary, boundary_status};
use super::mailbox::gmb_mailbox;
use super::stream::{gmb_stream, stream};
use super::{output, timeout, BORROWS, MAILBOXES};
use crate::layout::{gmb_result, gmb_spans};
use crate::status::*;

/// Handle of a borrow: records of a mailbox that stay where they are until they are released. Zero is null.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct gmb_borrow {
    /// Opaque.
    pub id: u64,
}

/// Takes up to `max` records of a reader without moving them: those that are next, or the newest under `GMB_FULL_LATEST`.
/// In the order of the stream, and against pushes as a pop. Until they are released their slots are not written, whatever
/// the policy: pushes find so much less room, and one that overwrites accepts no more than fits beside them. A reader can
/// hold 64 borrows, and cannot pop meanwhile (`GMB_ERROR_BUSY`). The caller owns the borrow and ends it with
/// `gmb_borrow_release`; it may outlive the mailbox's handle. Does not block, but for a mailbox's first one; thread-safe.
/// Errors: `GMB_ERROR_INVALID_HANDLE`, `_NULL_POINTER`, `_ZERO_COUNT`, `_OVERFLOW` (too many records; 64 borrows are out),
/// `_INVALID_ARGUMENT` (no such reader), `_INVALID_STREAM` (also of a single-stream mailbox), `_NOT_SUPPORTED` (under
/// capture, or operations of the mailbox were captured; a mailbox that overwrites and is arbitrated by the device;
/// express mode), `_OUT_OF_MEMORY`, `_OUT_OF_HOST_MEMORY`, `_MEMORY_LIMIT`, `_DEVICE_LOST`, `_DRIVER`. In the result:
/// `GMB_ERROR_CORRUPT`, `_ORDER_VIOLATION`.
#[no_mangle]
pub extern "C" fn gmb_mailbox_borrow(
    mailbox: gmb_mailbox,
    reader: u32,
    max: u32,
    stream: gmb_stream,
    borrow: *mut gmb_borrow,
) -> gmb_status {
    boundary(|| {
        let out = output(borrow, "borrow")?;
        let made = MAILBOXES.get(mailbox.id)?.borrow(reader, max, self::stream(stream))?;
        out.write(gmb_borrow { id: BORROWS.insert(made)? });
        Ok(())
    })
}

/// What came, and where it lies: `GMB_OK` when that is known, else `GMB_NOT_READY`, and then nothing is written. Never
/// blocks and asks no driver; thread-safe.
/// Errors: `GMB_ERROR_INVALID_HANDLE`, `_NULL_POINTER`.
#[no_mangle]
pub extern "C" fn gmb_borrow_poll(
    borrow: gmb_borrow,
    result: *mut gmb_result,
    spans: *mut gmb_spans,
) -> gmb_status {
    boundary_status(|| {
        let (result_out, spans_out) = (output(result, "result")?, output(spans, "spans")?);
        Ok(match BORROWS.get(borrow.id)?.poll()? {
            Some((result, spans)) => {
                result_out.write(result);
                spans_out.write(spans);
                GMB_OK
            }
            None => GMB_NOT_READY,
        })
    })
}

/// Blocks the calling thread until it is known what came, and where it lies. Spins, then yields, then sleeps. `timeout_ns`
/// is in nanoseconds; `GMB_WAIT_FOREVER` waits without limit, 0 asks once. Thread-safe.
/// Errors: `GMB_ERROR_INVALID_HANDLE`, `_NULL_POINTER`, `_TIMEOUT` (wait again), `_DEVICE_LOST`.
#[no_mangle]
pub extern "C" fn gmb_borrow_wait(
    borrow: gmb_borrow,
    timeout_ns: u64,
    result: *mut gmb_result,
    spans: *mut gmb_spans,
) -> gmb_status {
    boundary(|| {
        let (result_out, spans_out) = (output(result, "result")?, output(spans, "spans")?);
        let (result, spans) = BORROWS.get(borrow.id)?.wait(timeout(timeout_ns))?;
        result_out.write(result);
        spans_out.write(spans);
        Ok(())
    })
}

/// Address of the `gmb_spans` in device memory, for kernels: written in the order of the borrow's stream, valid until it
/// is released. Never blocks; thread-safe.
/// Errors: `GMB_ERROR_INVALID_HANDLE`, `_NULL_POINTER`.
#[no_mangle]
pub extern "C" fn gmb_borrow_get_device_spans(
    borrow: gmb_borrow,
    spans: *mut *const gmb_spans,
) -> gmb_status {
    boundary(|| {
        let out = output(spans, "spans")?;
        out.write(BORROWS.get(borrow.id)?.device_spans().0 as *const gmb_spans);
        Ok(())
    })
}

/// Releases the records in the order of a stream, and ends the borrow: what the stream holds now may still read them, later
/// work must not. Borrows are released in any order; space is free for pushes in the order of the records. Does not block;
/// thread-safe. After an error it is still held.
/// Errors: `GMB_ERROR_INVALID_HANDLE` (released already), `_INVALID_STREAM`, `_NOT_SUPPORTED` (the stream is being
/// captured), `_MEMORY_LIMIT`, `_OUT_OF_MEMORY` (of a shared mailbox), `_DEVICE_LOST`, `_DRIVER`.
#[no_mangle]
pub extern "C" fn gmb_borrow_release(borrow: gmb_borrow, stream: gmb_stream) -> gmb_status {
    boundary(|| {
        let held = BORROWS.get(borrow.id)?;
        held.release(self::stream(stream)).map_err(|error| match error.status() {
            // Two threads at once: the other one has released it.
            GMB_ERROR_INVALID_ARGUMENT => crate::error::Error::new(GMB_ERROR_INVALID_HANDLE, error.message()),
            _ => error,
        })?;
        BORROWS.remove(borrow.id)
    })
}
