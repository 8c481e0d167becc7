//! `gmb_queue`: work queues.

use std::ffi::c_void;

use super::boundary::boundary;
use super::context::gmb_context;
use super::stream::{gmb_stream, stream};
use super::token::gmb_token;
use super::{optional_token, output, sized, write_info, Sized32, CONTEXTS, QUEUES};
use crate::checks::{check_address, check_count};
use crate::error::{Error, Result};
use crate::extent::Extent;
use crate::layout::gmb_queue_header;
use crate::status::*;
use crate::{Queue, QueueOptions};

/// Handle of a work queue: small items in device memory, first in, first out, for many producers and consumers. Zero is null.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct gmb_queue {
    /// Opaque.
    pub id: u64,
}

/// What a work queue is made with. Start from `GMB_QUEUE_OPTIONS_INIT`.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct gmb_queue_options {
    /// `sizeof(gmb_queue_options)`.
    pub struct_size: u32,
    /// Bytes of an item: 4, 8 or 16.
    pub item_bytes: u32,
    /// Items it holds; a power of two, 1 to `GMB_MAX_RECORDS`.
    pub capacity: u64,
    /// Threads of the blocks of a launched push or pop, a multiple of 32, at most 1,024; 0 for the library's choice.
    pub block_threads: u32,
    /// Blocks of a launched push or pop, at most; 0 for as many as run at once.
    pub max_blocks: u32,
    /// Must be zero.
    pub reserved: u64,
}

// SAFETY: repr(C), begins with struct_size, integers only.
unsafe impl Sized32 for gmb_queue_options {
    const NAME: &'static str = "gmb_queue_options";
    const FIRST_SIZE: usize = 32;
}

/// A work queue's shape, and its counts at one moment.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct gmb_queue_info {
    /// Items it holds.
    pub capacity: u64,
    /// Bytes of an item.
    pub item_bytes: u32,
    /// Workers that use it.
    pub workers: u32,
    /// Items that nobody has taken.
    pub size: u64,
    /// Items that were pushed, or are being pushed, since it was made.
    pub pushed: u64,
    /// Items that were popped, or are being popped.
    pub popped: u64,
    /// The queue in device memory, for kernels: `gmb::device::work_queue`.
    pub queue: *mut gmb_queue_header,
    /// Bytes of header and slots.
    pub queue_bytes: u64,
    /// Threads of the blocks of a launch.
    pub block_threads: u32,
    /// Blocks of a launch, at most.
    pub max_blocks: u32,
}

/// What `gmb_queue_measure` found.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct gmb_queue_measurement {
    /// Items that were pushed and popped again.
    pub items: u64,
    /// Seconds on the device, from the first push to the last pop.
    pub seconds: f64,
    /// Items in a second: each is one push and one pop.
    pub items_per_second: f64,
}

/// Makes an empty work queue in the context's device memory.
///
/// The caller owns it and ends it with `gmb_queue_destroy`. Blocks until it is ready; thread-safe.
///
/// Errors: `GMB_ERROR_INVALID_HANDLE`, `_NULL_POINTER`, `_STRUCT_SIZE`, `_INVALID_ARGUMENT` (capacity no power of two, items
/// of another size, threads of a block), `_OVERFLOW`, `_OUT_OF_MEMORY`, `_MEMORY_LIMIT`, `_DEVICE_LOST`.
#[no_mangle]
pub extern "C" fn gmb_queue_create(
    context: gmb_context,
    options: *const gmb_queue_options,
    queue: *mut gmb_queue,
) -> gmb_status {
    boundary(|| {
        let out = output(queue, "queue")?;
        let options = sized(options, "options")?;
        if options.reserved != 0 {
            return Err(Error::argument("options.reserved is not zero"));
        }
        let wanted = QueueOptions {
            capacity: options.capacity,
            item_bytes: options.item_bytes,
            block_threads: options.block_threads,
            max_blocks: options.max_blocks,
        };
        let context = CONTEXTS.get(context.id)?;
        out.write(gmb_queue { id: QUEUES.insert(Queue::new(&context, &wanted)?)? });
        Ok(())
    })
}

/// Ends a queue. Blocks until its own launches are done; items in it are dropped. Kernels of yours that use it must have
/// ended before. Safe while other threads are inside calls on it. Errors: `GMB_ERROR_INVALID_HANDLE`, `_BUSY` (a worker uses
/// it: destroy that one first; the queue stays).
#[no_mangle]
pub extern "C" fn gmb_queue_destroy(queue: gmb_queue) -> gmb_status {
    boundary(|| {
        QUEUES.get(queue.id)?.check_unused()?;
        QUEUES.remove(queue.id)
    })
}

/// A queue's shape and counts. `info_size` is `sizeof(gmb_queue_info)`. Copies the header to the host and blocks for that, not
/// for operations under way. Thread-safe.
/// Errors: `GMB_ERROR_INVALID_HANDLE`, `_NULL_POINTER`, `_STRUCT_SIZE`, `_DEVICE_LOST`.
#[no_mangle]
pub extern "C" fn gmb_queue_get_info(
    queue: gmb_queue,
    info: *mut gmb_queue_info,
    info_size: usize,
) -> gmb_status {
    boundary(|| {
        let known = QUEUES.get(queue.id)?.info()?;
        let value = gmb_queue_info {
            capacity: known.capacity,
            item_bytes: known.item_bytes,
            workers: known.workers,
            size: known.size,
            pushed: known.pushed,
            popped: known.popped,
            queue: known.queue as *mut gmb_queue_header,
            queue_bytes: known.queue_bytes,
            block_threads: known.block_threads,
            max_blocks: known.max_blocks,
        };
        write_info(info, info_size, value)
    })
}

/// Pushes `count` items, dense at `items` in device memory and aligned to their size, on a stream, in one launch. They come
/// in their order, perhaps with items of pushes at the same time between them; where there is room for fewer the first so many
/// are pushed.
///
/// The items must stay valid and unwritten until the operation is done. Does not block beyond the launch. Ordered after the
/// stream's work alone: other pushes and pops run beside it. The result of `token`, which may be zero, is the count pushed.
/// Can be captured into a graph. Thread-safe.
///
/// Errors, with nothing pushed and the token as before: `GMB_ERROR_INVALID_HANDLE`, `_NULL_POINTER`, `_ZERO_COUNT`,
/// `_MISALIGNED`, `_OVERLAP`, `_OVERFLOW`, `_INVALID_ARGUMENT` (a token of another context; not reachable, where that is checked), `_INVALID_STREAM`,
/// `_BUSY` (token), `_MEMORY_LIMIT`, `_OUT_OF_MEMORY`, `_DEVICE_LOST`, `_DRIVER`. In the result: `GMB_ERROR_BAD_MAGIC`,
/// `_BAD_VERSION`, `_WRONG_MODE` (something else wrote there).
#[no_mangle]
pub extern "C" fn gmb_queue_push(
    queue: gmb_queue,
    items: *const c_void,
    count: u32,
    stream: gmb_stream,
    token: gmb_token,
) -> gmb_status {
    boundary(|| {
        let queue = QUEUES.get(queue.id)?;
        let token = optional_token(token.id)?;
        // SAFETY: that the memory stays valid is the caller's contract.
        unsafe { queue.push(items as u64, count, self::stream(stream), token.as_deref()) }
    })
}

/// Pops up to `max` items, dense to `items` in device memory, on a stream, in one launch. The result of `token` is the count
/// popped; it is ready only when the items are there. With a token of zero nobody learns the count. Does not block beyond the
/// launch. Otherwise as `gmb_queue_push`. Errors: as there.
#[no_mangle]
pub extern "C" fn gmb_queue_pop(
    queue: gmb_queue,
    items: *mut c_void,
    max: u32,
    stream: gmb_stream,
    token: gmb_token,
) -> gmb_status {
    boundary(|| {
        let queue = QUEUES.get(queue.id)?;
        let token = optional_token(token.id)?;
        // SAFETY: that the memory stays valid is the caller's contract.
        unsafe { queue.pop(items as u64, max, self::stream(stream), token.as_deref()) }
    })
}

/// Bytes of so many items of host memory, which begin somewhere.
fn host_bytes(queue: &Queue, items: *const c_void, counted: &str, count: u32) -> Result<usize> {
    check_count(counted, count)?;
    check_address("items", items as u64, 1)?;
    let bytes = count as usize * queue.item_bytes() as usize;
    Extent::bytes("items", items as u64, bytes as u64)?;
    Ok(bytes)
}

/// Pushes items from host memory, and waits for that. `pushed` gets how many there was room for: the first so many. Items
/// of others that push at the same time may come between them. For set-up, tests and tools. Blocks; thread-safe.
///
/// Errors: `GMB_ERROR_INVALID_HANDLE`, `_NULL_POINTER`, `_ZERO_COUNT`, `_OVERFLOW`, `_OUT_OF_MEMORY`, `_MEMORY_LIMIT`,
/// `_DEVICE_LOST`, `_DRIVER`.
#[no_mangle]
pub extern "C" fn gmb_queue_push_from_host_blocking(
    queue: gmb_queue,
    items: *const c_void,
    count: u32,
    pushed: *mut u64,
) -> gmb_status {
    boundary(|| {
        let out = output(pushed, "pushed")?;
        let queue = QUEUES.get(queue.id)?;
        let bytes = host_bytes(&queue, items, "count", count)?;
        // SAFETY: the caller has so many items there.
        out.write(
            queue
                .push_from_host_blocking(unsafe { std::slice::from_raw_parts(items.cast::<u8>(), bytes) })?,
        );
        Ok(())
    })
}

/// Pops up to `max` items to host memory, and waits for that. `popped` gets how many there were; what lies behind them stays
/// as it is. Otherwise as `gmb_queue_push_from_host_blocking`. Errors: as there.
#[no_mangle]
pub extern "C" fn gmb_queue_pop_to_host_blocking(
    queue: gmb_queue,
    items: *mut c_void,
    max: u32,
    popped: *mut u64,
) -> gmb_status {
    boundary(|| {
        let out = output(popped, "popped")?;
        let queue = QUEUES.get(queue.id)?;
        let bytes = host_bytes(&queue, items, "max", max)?;
        // SAFETY: the caller has room for so many items there.
        out.write(
            queue
                .pop_to_host_blocking(unsafe { std::slice::from_raw_parts_mut(items.cast::<u8>(), bytes) })?,
        );
        Ok(())
    })
}

/// Measures round trips: pushes `batch` items and pops them again, `iterations` times on one stream; what comes out is held
/// against what went in. The queue must be empty, and nobody else may use it meanwhile. Blocks; thread-safe.
///
/// Errors: `GMB_ERROR_INVALID_HANDLE`, `_NULL_POINTER`, `_ZERO_COUNT`, `_OVERFLOW`, `_INVALID_ARGUMENT` (more than the
/// capacity; not empty), `_BUSY` (a worker uses it), `_CORRUPT` (somebody else used it), `_OUT_OF_MEMORY`, `_MEMORY_LIMIT`,
/// `_DEVICE_LOST`, `_DRIVER`.
#[no_mangle]
pub extern "C" fn gmb_queue_measure(
    queue: gmb_queue,
    batch: u32,
    iterations: u32,
    measurement: *mut gmb_queue_measurement,
) -> gmb_status {
    boundary(|| {
        let out = output(measurement, "measurement")?;
        let found = QUEUES.get(queue.id)?.measure(batch, iterations)?;
        out.write(gmb_queue_measurement {
            items: found.items,
            seconds: found.seconds,
            items_per_second: found.items_per_second,
        });
        Ok(())
    })
}
