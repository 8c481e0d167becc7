//! Device and pinned memory.

use std::ffi::c_void;

use super::boundary::boundary;
use super::context::gmb_context;
use super::stream::{gmb_stream, stream};
use super::{check_pointer, output, CONTEXTS};
use crate::error::{Error, Result};
use crate::extent::{check_disjoint, Extent};
use crate::status::*;

fn check_bytes(bytes: u64) -> Result<usize> {
    match bytes {
        0 => Err(Error::new(GMB_ERROR_ZERO_COUNT, "bytes is 0: nothing to do")),
        _ if bytes > isize::MAX as u64 => {
            Err(Error::new(GMB_ERROR_OVERFLOW, format!("{bytes} bytes exceed the address space")))
        }
        _ => Ok(bytes as usize),
    }
}

/// Allocates device memory, at least 256-byte aligned; its content is unspecified.
/// The caller owns it and frees it with `gmb_memory_free`. May block; thread-safe.
/// Errors: `GMB_ERROR_INVALID_HANDLE`, `_NULL_POINTER`, `_ZERO_COUNT`, `_OVERFLOW`, `_OUT_OF_MEMORY`, `_DEVICE_LOST`.
#[no_mangle]
pub extern "C" fn gmb_memory_allocate(
    context: gmb_context,
    bytes: u64,
    memory: *mut *mut c_void,
) -> gmb_status {
    boundary(|| {
        let out = output(memory, "memory")?;
        let bytes = check_bytes(bytes)?;
        out.write(CONTEXTS.get(context.id)?.allocate(bytes)? as *mut c_void);
        Ok(())
    })
}

/// Frees device memory from `gmb_memory_allocate`; null is nothing to free. Blocks until the
/// device's work enqueued before is done. Thread-safe.
/// Errors: `GMB_ERROR_INVALID_HANDLE`, `_INVALID_ARGUMENT`, `_DEVICE_LOST`.
#[no_mangle]
pub extern "C" fn gmb_memory_free(context: gmb_context, memory: *mut c_void) -> gmb_status {
    boundary(|| {
        let context = CONTEXTS.get(context.id)?;
        if memory.is_null() {
            return Ok(());
        }
        // SAFETY: that nothing enqueued later uses it is the caller's contract.
        unsafe { context.free(memory as u64) }
    })
}

/// Allocates zeroed host memory that kernels reach at the same address, 256-byte aligned.
/// The caller owns it and frees it with `gmb_pinned_free`. May block; thread-safe.
/// Errors: `GMB_ERROR_INVALID_HANDLE`, `_NULL_POINTER`, `_ZERO_COUNT`, `_OVERFLOW`, `_OUT_OF_HOST_MEMORY`,
/// `_DEVICE_LOST`.
#[no_mangle]
pub extern "C" fn gmb_pinned_allocate(
    context: gmb_context,
    bytes: u64,
    memory: *mut *mut c_void,
) -> gmb_status {
    boundary(|| {
        let out = output(memory, "memory")?;
        let bytes = check_bytes(bytes)?;
        out.write(CONTEXTS.get(context.id)?.allocate_pinned(bytes)? as *mut c_void);
        Ok(())
    })
}

/// Frees memory from `gmb_pinned_allocate`; null is nothing to free. May block until the
/// device's work enqueued before is done. Thread-safe.
/// Errors: `GMB_ERROR_INVALID_HANDLE`, `_INVALID_ARGUMENT`, `_DEVICE_LOST`.
#[no_mangle]
pub extern "C" fn gmb_pinned_free(context: gmb_context, memory: *mut c_void) -> gmb_status {
    boundary(|| {
        let context = CONTEXTS.get(context.id)?;
        if memory.is_null() {
            return Ok(());
        }
        // SAFETY: that nothing enqueued later uses it is the caller's contract.
        unsafe { context.free_pinned(memory as u64) }
    })
}

/// Copies bytes between any two of device, pinned and pageable memory, in stream order. The
/// ranges must not overlap and must stay valid until the copy is done. With pageable memory
/// the call may block; else it does not. Thread-safe.
/// Errors: `GMB_ERROR_INVALID_HANDLE`, `_NULL_POINTER`, `_ZERO_COUNT`, `_OVERFLOW`, `_OVERLAP`,
/// `_INVALID_STREAM`, `_INVALID_ARGUMENT`, `_DEVICE_LOST`.
#[no_mangle]
pub extern "C" fn gmb_memory_copy(
    context: gmb_context,
    to: *mut c_void,
    from: *const c_void,
    bytes: u64,
    stream: gmb_stream,
) -> gmb_status {
    boundary(|| {
        let context = CONTEXTS.get(context.id)?;
        check_pointer(to.cast::<u8>(), "to")?;
        check_pointer(from.cast::<u8>(), "from")?;
        let bytes = check_bytes(bytes)?;
        let target = Extent::whole("to", to as u64, bytes as u64);
        check_disjoint(&target, &Extent::whole("from", from as u64, bytes as u64))?;
        // SAFETY: that both ranges stay valid is the caller's contract.
        unsafe { context.copy(to as u64, from as u64, bytes, self::stream(stream)) }
    })
}

/// Fills device memory with one byte value, in stream order. The range must stay valid until
/// then. Does not block; thread-safe.
/// Errors: `GMB_ERROR_INVALID_HANDLE`, `_NULL_POINTER`, `_ZERO_COUNT`, `_OVERFLOW`, `_INVALID_STREAM`,
/// `_INVALID_ARGUMENT`, `_DEVICE_LOST`.
#[no_mangle]
pub extern "C" fn gmb_memory_fill(
    context: gmb_context,
    memory: *mut c_void,
    value: u8,
    bytes: u64,
    stream: gmb_stream,
) -> gmb_status {
    boundary(|| {
        let context = CONTEXTS.get(context.id)?;
        check_pointer(memory.cast::<u8>(), "memory")?;
        let bytes = check_bytes(bytes)?;
        // SAFETY: that the range stays valid is the caller's contract.
        unsafe { context.fill(memory as u64, value, bytes, self::stream(stream)) }
    })
}
