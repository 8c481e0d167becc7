//! Device and pinned memory.

use std::ffi::c_void;

use super::boundary::boundary;
use super::context::gmb_context;
use super::stream::{gmb_stream, stream};
use super::{check_pointer, output, write_info, CONTEXTS};
use crate::checks::nothing;
use crate::error::{Error, Result};
use crate::extent::{check_disjoint, Extent};
use crate::status::*;

/// The device memory of a context at one moment, in bytes.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct gmb_memory_info {
    /// Most that may be held; zero for no limit.
    pub limit: u64,
    /// Held now, the library's own rings included; what was freed in stream order no longer counts.
    pub used: u64,
    /// Most that was held at once.
    pub high_water: u64,
    /// Held by the pool: what is used of it, and what it keeps for later.
    pub reserved: u64,
    /// Allocations behind `used`.
    pub allocations: u64,
    /// 1 when stream-ordered memory comes from a pool; 0 when it is plain memory that goes back
    /// with a delay, because the device has no pools or `GMB_DISABLE=mempool` is set.
    pub pooled: u32,
    /// Zero.
    pub reserved0: u32,
}

fn check_bytes(bytes: u64) -> Result<usize> {
    match bytes {
        0 => Err(nothing("bytes")),
        _ if bytes > isize::MAX as u64 => {
            Err(Error::new(GMB_ERROR_OVERFLOW, format!("{bytes} bytes exceed the address space")))
        }
        _ => Ok(bytes as usize),
    }
}

/// Allocates device memory, at least 256-byte aligned; its content is unspecified.
/// The caller owns it and frees it with `gmb_memory_free`. May block; thread-safe.
/// Errors: `GMB_ERROR_INVALID_HANDLE`, `_NULL_POINTER`, `_ZERO_COUNT`, `_OVERFLOW`, `_MEMORY_LIMIT`,
/// `_OUT_OF_MEMORY`, `_DEVICE_LOST`.
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

/// Allocates device memory from the device's pool, in stream order: for later work of the
/// stream, and for work of others that is ordered after it. At least 256-byte aligned; its content is
/// unspecified. The caller owns it and frees it with `gmb_memory_free_async` or `gmb_memory_free`.
/// Does not wait for the device; thread-safe.
/// Errors: as for `gmb_memory_allocate`, and `GMB_ERROR_INVALID_STREAM`.
#[no_mangle]
pub extern "C" fn gmb_memory_allocate_async(
    context: gmb_context,
    bytes: u64,
    stream: gmb_stream,
    memory: *mut *mut c_void,
) -> gmb_status {
    boundary(|| {
        let out = output(memory, "memory")?;
        let bytes = check_bytes(bytes)?;
        let context = CONTEXTS.get(context.id)?;
        let stream = context.resolve(self::stream(stream))?;
        out.write(context.allocate_on(bytes, stream)? as *mut c_void);
        Ok(())
    })
}

/// Frees device memory, however it was allocated, in stream order: after what the stream holds
/// now. Work of other streams must not use it any more. Null is nothing to free. Does not block; thread-safe.
/// Errors: `GMB_ERROR_INVALID_HANDLE`, `_INVALID_ARGUMENT` (not of this context, or freed before),
/// `_INVALID_STREAM`, `_DEVICE_LOST`.
#[no_mangle]
pub extern "C" fn gmb_memory_free_async(
    context: gmb_context,
    memory: *mut c_void,
    stream: gmb_stream,
) -> gmb_status {
    boundary(|| {
        let context = CONTEXTS.get(context.id)?;
        let stream = context.resolve(self::stream(stream))?;
        if memory.is_null() {
            return Ok(());
        }
        // SAFETY: that nothing else uses it is the caller's contract.
        unsafe { context.free_on(memory as u64, stream) }
    })
}

/// Frees device memory, however it was allocated; null is nothing to free. Blocks until the
/// device's work enqueued before is done. Thread-safe.
/// Errors: `GMB_ERROR_INVALID_HANDLE`, `_INVALID_ARGUMENT` (not of this context, or freed before), `_DEVICE_LOST`.
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
        unsafe { context.free_pinned(memory as u64, true) }
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

/// How much device memory the context holds. `info_size` is `sizeof(gmb_memory_info)`.
/// Never blocks; thread-safe. Errors: `GMB_ERROR_INVALID_HANDLE`, `_NULL_POINTER`, `_STRUCT_SIZE`, `_DEVICE_LOST`.
#[no_mangle]
pub extern "C" fn gmb_memory_get_info(
    context: gmb_context,
    info: *mut gmb_memory_info,
    info_size: usize,
) -> gmb_status {
    boundary(|| {
        let known = CONTEXTS.get(context.id)?.memory_info()?;
        let value = gmb_memory_info {
            limit: known.limit,
            used: known.used,
            high_water: known.high_water,
            reserved: known.reserved,
            allocations: known.allocations,
            pooled: u32::from(known.pooled),
            reserved0: 0,
        };
        write_info(info, info_size, value)
    })
}

/// Gives memory that the pool keeps for later back to the device, down to `keep_bytes` if so
/// much is not in use. May block; thread-safe. Errors: `GMB_ERROR_INVALID_HANDLE`, `_DEVICE_LOST`.
#[no_mangle]
pub extern "C" fn gmb_memory_trim(context: gmb_context, keep_bytes: u64) -> gmb_status {
    boundary(|| CONTEXTS.get(context.id)?.trim_memory(keep_bytes))
}
