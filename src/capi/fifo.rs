//! `gmb_fifo`: records from kernels to the host.

use super::boundary::boundary;
use super::context::gmb_context;
use super::readiness::gmb_watch;
use super::stream::{gmb_stream, stream};
use super::token::gmb_token;
use super::{optional_token, output, sized, timeout, write_info, Sized32, CONTEXTS, FIFOS, WATCHES};
use crate::checks::{check_address, check_count};
use crate::error::Error;
use crate::extent::Extent;
use crate::layout::*;
use crate::status::*;
use crate::Fifo;

/// Handle of a FIFO: records from kernels that run to the host. Zero is null.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct gmb_fifo {
    /// Opaque.
    pub id: u64,
}

/// What a FIFO is made with. Start from `GMB_FIFO_OPTIONS_INIT`.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct gmb_fifo_options {
    /// `sizeof(gmb_fifo_options)`.
    pub struct_size: u32,
    /// Must be zero.
    pub reserved: u32,
    /// Records it holds; a power of two, at most `GMB_MOST_MAPPED`.
    pub capacity: u64,
}

// SAFETY: repr(C), begins with struct_size, integers only.
unsafe impl Sized32 for gmb_fifo_options {
    const NAME: &'static str = "gmb_fifo_options";
    const FIRST_SIZE: usize = 16;
}

/// A FIFO's counts at one moment.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct gmb_fifo_info {
    /// Records it holds.
    pub capacity: u64,
    /// Records that the host has taken since it was made.
    pub drained: u64,
    /// The FIFO in device memory, for kernels: `gmb::device::fifo`.
    pub fifo: *mut gmb_fifo_header,
}

/// Makes an empty FIFO in a context.
///
/// The caller owns it and ends it with `gmb_fifo_destroy`. Blocks until it is ready; thread-safe.
///
/// Errors: `GMB_ERROR_INVALID_HANDLE`, `_NULL_POINTER`, `_STRUCT_SIZE`, `_INVALID_ARGUMENT` (capacity no power of two),
/// `_OVERFLOW`, `_OUT_OF_MEMORY`, `_OUT_OF_HOST_MEMORY`, `_MEMORY_LIMIT`, `_DEVICE_LOST`.
#[no_mangle]
pub extern "C" fn gmb_fifo_create(
    context: gmb_context,
    options: *const gmb_fifo_options,
    fifo: *mut gmb_fifo,
) -> gmb_status {
    boundary(|| {
        let out = output(fifo, "fifo")?;
        let options = sized(options, "options")?;
        if options.reserved != 0 {
            return Err(Error::argument("options.reserved is not zero"));
        }
        let made = Fifo::new(&*CONTEXTS.get(context.id)?, options.capacity)?;
        out.write(gmb_fifo { id: FIFOS.insert(made)? });
        Ok(())
    })
}

/// Ends a FIFO; records in it are dropped, and threads that wait for some get `GMB_ERROR_INVALID_HANDLE`. Blocks until its own
/// launches are done, or leaves that to the last thread that is inside a call on it. Kernels of yours that use it must have ended before. Safe while other threads are inside calls on it.
/// Errors: `GMB_ERROR_INVALID_HANDLE`.
#[no_mangle]
pub extern "C" fn gmb_fifo_destroy(fifo: gmb_fifo) -> gmb_status {
    boundary(|| {
        let pinned = FIFOS.get(fifo.id)?;
        FIFOS.remove(fifo.id)?;
        pinned.close();
        Ok(())
    })
}

/// A FIFO's counts. `info_size` is `sizeof(gmb_fifo_info)`. Never blocks for the device; thread-safe.
/// Errors: `GMB_ERROR_INVALID_HANDLE`, `_NULL_POINTER`, `_STRUCT_SIZE`.
#[no_mangle]
pub extern "C" fn gmb_fifo_get_info(
    fifo: gmb_fifo,
    info: *mut gmb_fifo_info,
    info_size: usize,
) -> gmb_status {
    boundary(|| {
        let known = FIFOS.get(fifo.id)?.info();
        let value = gmb_fifo_info {
            capacity: known.capacity,
            drained: known.drained,
            fifo: known.fifo as *mut gmb_fifo_header,
        };
        write_info(info, info_size, value)
    })
}

/// Pushes `count` records, dense at `records` in device memory and aligned to 8 bytes, on a stream, in one launch of one block:
/// the first so many that there is room for, which the result of `token`, if it is not zero, says.
///
/// The records must stay valid and unwritten until the operation is done. Does not block beyond the launch. Ordered after the
/// stream's work alone. Thread-safe.
///
/// Errors, with nothing pushed and the token as before: `GMB_ERROR_INVALID_HANDLE`, `_NULL_POINTER`, `_ZERO_COUNT`,
/// `_MISALIGNED`, `_OVERFLOW`, `_INVALID_ARGUMENT` (a token of another context; not reachable, where that is checked),
/// `_INVALID_STREAM`, `_NOT_SUPPORTED` (the stream is captured), `_BUSY` (token), `_MEMORY_LIMIT`, `_OUT_OF_MEMORY`,
/// `_DEVICE_LOST`, `_DRIVER`. In the result: `GMB_ERROR_BAD_MAGIC`, `_BAD_VERSION` (something else wrote there).
#[no_mangle]
pub extern "C" fn gmb_fifo_push(
    fifo: gmb_fifo,
    records: *const gmb_fifo_record,
    count: u32,
    stream: gmb_stream,
    token: gmb_token,
) -> gmb_status {
    boundary(|| {
        let fifo = FIFOS.get(fifo.id)?;
        let token = optional_token(token.id)?;
        // SAFETY: that the memory stays valid is the caller's contract.
        unsafe { fifo.push(records as u64, count, self::stream(stream), token.as_deref()) }
    })
}

/// Takes records to host memory, as many as there are and `max` allows, in the order of their pushes. Blocks until there is one
/// at least, for `timeout_ns` nanoseconds at most; `GMB_WAIT_FOREVER` waits without limit, 0 asks once. `popped` gets how many:
/// none when time is up. Spins, then yields, then sleeps. Thread-safe: threads take turns.
/// Errors: `GMB_ERROR_INVALID_HANDLE` (also when it is destroyed meanwhile), `_NULL_POINTER`, `_MISALIGNED`, `_ZERO_COUNT`,
/// `_OVERFLOW`, `_CORRUPT` (something else wrote there; what came before it was given), `_DEVICE_LOST`.
#[no_mangle]
pub extern "C" fn gmb_fifo_pop_to_host(
    fifo: gmb_fifo,
    records: *mut gmb_fifo_record,
    max: u32,
    timeout_ns: u64,
    popped: *mut u64,
) -> gmb_status {
    boundary(|| {
        let out = output(popped, "popped")?;
        check_count("max", max)?;
        let bytes = size_of::<gmb_fifo_record>() as u64;
        check_address("records", records as u64, align_of::<gmb_fifo_record>() as u64)?;
        Extent::bytes("records", records as u64, u64::from(max) * bytes)?;
        let fifo = FIFOS.get(fifo.id)?;
        // SAFETY: not null, aligned, and within the address space; that it is writable is the caller's contract.
        let into = unsafe { std::slice::from_raw_parts_mut(records, max as usize) };
        out.write(fifo.pop(into, timeout(timeout_ns))? as u64);
        Ok(())
    })
}

/// Makes a watch whose descriptor says when records are there: `gmb_watch_arm(watch, count)` for so many. The caller owns it
/// and ends it with `gmb_watch_destroy`. Does not block; thread-safe.
/// Errors: `GMB_ERROR_INVALID_HANDLE`, `_NULL_POINTER`, `_SYSTEM` (no descriptor left).
#[no_mangle]
pub extern "C" fn gmb_fifo_create_watch(fifo: gmb_fifo, watch: *mut gmb_watch) -> gmb_status {
    boundary(|| {
        let out = output(watch, "watch")?;
        let made = FIFOS.get(fifo.id)?.watch()?;
        out.write(gmb_watch { id: WATCHES.insert(made)? });
        Ok(())
    })
}
