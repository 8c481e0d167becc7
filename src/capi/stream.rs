//! `gmb_stream`.

use std::ffi::c_void;

use super::boundary::{boundary, boundary_status};
use super::context::gmb_context;
use super::event::gmb_event;
use super::{output, CONTEXTS, EVENTS};
use crate::checks::null;
use crate::error::{Error, Result};
use crate::status::*;
use crate::{Priority, Stream};

/// What CUDA's own stream types point to.
#[allow(non_camel_case_types)]
pub struct CUstream_st {
    _opaque: [u8; 0],
}

/// Any stream: a `CUstream` or `cudaStream_t` as it is, a CUDA sentinel (null is the legacy
/// default stream), one from `gmb_stream_create`, or `GMB_STREAM_CURRENT`. On the host backend only the library's
/// own streams and the sentinels; never dereference it.
#[allow(non_camel_case_types)]
pub type gmb_stream = *mut CUstream_st;

/// How urgent a stream's work is: `GMB_PRIORITY_*`.
#[allow(non_camel_case_types)]
pub type gmb_priority = i32;

/// The middle of the device's range.
pub const GMB_PRIORITY_NORMAL: gmb_priority = 0;
/// Before all other work: the device's greatest priority.
pub const GMB_PRIORITY_FOCUS: gmb_priority = 1;
/// After all other work: the device's least priority, which is that of default streams.
pub const GMB_PRIORITY_PERIPHERAL: gmb_priority = 2;

pub(super) fn priority_class(value: gmb_priority) -> Result<Priority> {
    match value {
        GMB_PRIORITY_NORMAL => Ok(Priority::Normal),
        GMB_PRIORITY_FOCUS => Ok(Priority::Focus),
        GMB_PRIORITY_PERIPHERAL => Ok(Priority::Peripheral),
        _ => Err(Error::argument(format!(
            "priority {value} is none of GMB_PRIORITY_NORMAL, _FOCUS, _PERIPHERAL"
        ))),
    }
}

/// A function to run in stream order. It must not call CUDA and must not throw.
#[allow(non_camel_case_types)]
pub type gmb_host_function = Option<extern "C" fn(argument: *mut c_void)>;

pub(super) fn stream<'a>(raw: gmb_stream) -> Stream<'a> {
    // SAFETY: that it is a stream, and stays one, is the caller's contract.
    unsafe { Stream::from_raw(raw.cast()) }
}

/// Makes a stream of a priority class (`GMB_PRIORITY_*`) that does not synchronize with the
/// legacy default stream. The caller owns it and ends it with `gmb_stream_destroy`. Does not wait for the device;
/// thread-safe.
/// Errors: `GMB_ERROR_INVALID_HANDLE`, `_NULL_POINTER`, `_INVALID_ARGUMENT`, `_DEVICE_LOST`, `_DRIVER`, `_SYSTEM`.
#[no_mangle]
pub extern "C" fn gmb_stream_create(
    context: gmb_context,
    priority: gmb_priority,
    stream: *mut gmb_stream,
) -> gmb_status {
    boundary(|| {
        let out = output(stream, "stream")?;
        out.write(CONTEXTS.get(context.id)?.create_stream(priority_class(priority)?)?.cast());
        Ok(())
    })
}

/// The priority that a stream really has, in the device's numbers: less is more urgent, 0 is
/// the least. For any stream, also the caller's own. Never blocks; thread-safe.
/// Errors: `GMB_ERROR_INVALID_HANDLE`, `_NULL_POINTER`, `_INVALID_STREAM`, `_DEVICE_LOST`, `_DRIVER`.
#[no_mangle]
pub extern "C" fn gmb_stream_get_priority(
    context: gmb_context,
    stream: gmb_stream,
    priority: *mut i32,
) -> gmb_status {
    boundary(|| {
        let out = output(priority, "priority")?;
        out.write(CONTEXTS.get(context.id)?.priority(self::stream(stream))?);
        Ok(())
    })
}

/// Destroys a stream from `gmb_stream_create`; no other. Does not block; its work still completes. Thread-safe.
/// Errors: `GMB_ERROR_INVALID_HANDLE`, `_INVALID_STREAM`, `_DEVICE_LOST`, `_DRIVER`.
#[no_mangle]
pub extern "C" fn gmb_stream_destroy(context: gmb_context, stream: gmb_stream) -> gmb_status {
    boundary(|| CONTEXTS.get(context.id)?.destroy_callers_stream(self::stream(stream)))
}

/// `GMB_OK` when everything enqueued on the stream is done, else `GMB_NOT_READY`.
/// Never blocks; thread-safe. Errors: `GMB_ERROR_INVALID_HANDLE`, `_INVALID_STREAM`, `_NOT_SUPPORTED` (the stream is
/// being captured; the capture goes on), `_DEVICE_LOST`, `_DRIVER`.
#[no_mangle]
pub extern "C" fn gmb_stream_query(context: gmb_context, stream: gmb_stream) -> gmb_status {
    boundary_status(|| {
        let idle = CONTEXTS.get(context.id)?.is_idle(self::stream(stream))?;
        Ok(if idle { GMB_OK } else { GMB_NOT_READY })
    })
}

/// Blocks the calling thread until everything enqueued on the stream is done. Thread-safe.
/// Errors: `GMB_ERROR_INVALID_HANDLE`, `_INVALID_STREAM`, `_NOT_SUPPORTED` (the stream is being
/// captured; the capture goes on), `_DEVICE_LOST`, `_DRIVER`.
#[no_mangle]
pub extern "C" fn gmb_stream_synchronize(context: gmb_context, stream: gmb_stream) -> gmb_status {
    boundary(|| CONTEXTS.get(context.id)?.synchronize(self::stream(stream)))
}

/// Runs `function(argument)` once on another thread, after what the stream holds now; later work
/// of the stream waits for it. The function must not call CUDA, wait for a stream's work, or throw.
/// `argument` must stay valid until then. Does not block; thread-safe.
/// Errors: `GMB_ERROR_INVALID_HANDLE`, `_NULL_POINTER`, `_INVALID_STREAM`, `_NOT_SUPPORTED` (the stream is being
/// captured; the capture goes on), `_DEVICE_LOST`, `_DRIVER`.
#[no_mangle]
pub extern "C" fn gmb_stream_host_function(
    context: gmb_context,
    stream: gmb_stream,
    function: gmb_host_function,
    argument: *mut c_void,
) -> gmb_status {
    boundary(|| {
        let function = function.ok_or_else(|| null("function"))?;
        let argument = argument as usize;
        let context = CONTEXTS.get(context.id)?;
        context.run_in_order(self::stream(stream), move || function(argument as *mut c_void))
    })
}

/// Makes later work of the stream wait for what the event recorded last; for nothing if nothing
/// was. Does not block; thread-safe.
/// Errors: `GMB_ERROR_INVALID_HANDLE`, `_INVALID_ARGUMENT` (event of another context),
/// `_INVALID_STREAM`, `_DEVICE_LOST`, `_DRIVER`.
#[no_mangle]
pub extern "C" fn gmb_stream_wait_event(
    context: gmb_context,
    stream: gmb_stream,
    event: gmb_event,
) -> gmb_status {
    boundary(|| {
        let context = CONTEXTS.get(context.id)?;
        let event = EVENTS.get(event.id)?;
        if !event.context().is(&context) {
            return Err(Error::argument("the event is of another context than the stream"));
        }
        event.make_wait(self::stream(stream))
    })
}
