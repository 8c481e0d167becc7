//! `gmb_event` and its pools.

use super::boundary::{boundary, boundary_status};
use super::context::gmb_context;
use super::stream::{gmb_stream, stream};
use super::{output, timeout, write_info, CONTEXTS, EVENTS};
use crate::error::{Error, Result};
use crate::status::*;
use crate::EventKind;

/// Handle of an event: a point in a stream's work. Zero is null.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct gmb_event {
    /// Opaque.
    pub id: u64,
}

/// What an event is for: `GMB_EVENT_*`. Each kind has a pool of its own.
#[allow(non_camel_case_types)]
pub type gmb_event_kind = i32;

/// Order and completion: the cheapest.
pub const GMB_EVENT_UNTIMED: gmb_event_kind = 0;
/// Also the time between two of them.
pub const GMB_EVENT_TIMED: gmb_event_kind = 1;
/// For streams under capture: orders the work of a graph; cannot be asked or waited for by a thread.
pub const GMB_EVENT_CAPTURE: gmb_event_kind = 2;

/// An event pool's counts at one moment.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct gmb_event_pool_info {
    /// Events made so far; none is destroyed before the context.
    pub size: u64,
    /// Events that somebody holds, the library's own included.
    pub in_use: u64,
    /// Most events that were held at once.
    pub high_water: u64,
    /// Events given back that the device had not reached when last looked at.
    pub pending: u64,
}

fn event_kind(value: gmb_event_kind) -> Result<EventKind> {
    match value {
        GMB_EVENT_UNTIMED => Ok(EventKind::Untimed),
        GMB_EVENT_TIMED => Ok(EventKind::Timed),
        GMB_EVENT_CAPTURE => Ok(EventKind::Capture),
        _ => {
            Err(Error::argument(format!("event kind {value} is none of GMB_EVENT_UNTIMED, _TIMED, _CAPTURE")))
        }
    }
}

/// Takes an event from the context's pool of its kind (`GMB_EVENT_*`); a new one is made only when
/// none is free. The caller owns it and gives it back with `gmb_event_destroy`. Does not block; thread-safe.
/// Errors: `GMB_ERROR_INVALID_HANDLE`, `_NULL_POINTER`, `_INVALID_ARGUMENT`, `_DEVICE_LOST`, `_DRIVER`.
#[no_mangle]
pub extern "C" fn gmb_event_create(
    context: gmb_context,
    kind: gmb_event_kind,
    event: *mut gmb_event,
) -> gmb_status {
    boundary(|| {
        let out = output(event, "event")?;
        let made = CONTEXTS.get(context.id)?.event(event_kind(kind)?)?;
        out.write(gmb_event { id: EVENTS.insert(made)? });
        Ok(())
    })
}

/// Gives an event back to its pool, where it is used again once the device has reached it.
/// Waits that were enqueued on it still hold. Does not block, unless it is the last of a context
/// whose handle is gone; thread-safe.
/// Errors: `GMB_ERROR_INVALID_HANDLE`.
#[no_mangle]
pub extern "C" fn gmb_event_destroy(event: gmb_event) -> gmb_status {
    boundary(|| EVENTS.remove(event.id))
}

/// Marks the stream's present end; replaces what was recorded before. Does not block; thread-safe.
/// Errors: `GMB_ERROR_INVALID_HANDLE`, `_INVALID_STREAM`, `_NOT_SUPPORTED` (the stream is being captured and the
/// event is not of kind `GMB_EVENT_CAPTURE`; the capture goes on), `_DEVICE_LOST`, `_DRIVER`.
#[no_mangle]
pub extern "C" fn gmb_event_record(event: gmb_event, stream: gmb_stream) -> gmb_status {
    boundary(|| EVENTS.get(event.id)?.record(self::stream(stream)))
}

/// `GMB_OK` when the device has reached what was recorded last, or nothing was; else
/// `GMB_NOT_READY`. Never blocks; thread-safe.
/// Errors: `GMB_ERROR_INVALID_HANDLE`, `_NOT_SUPPORTED` (kind `GMB_EVENT_CAPTURE`), `_DEVICE_LOST`.
#[no_mangle]
pub extern "C" fn gmb_event_query(event: gmb_event) -> gmb_status {
    boundary_status(|| Ok(if EVENTS.get(event.id)?.is_reached()? { GMB_OK } else { GMB_NOT_READY }))
}

/// Blocks the calling thread until the device has reached what was recorded last. `timeout_ns`
/// is in nanoseconds; `GMB_WAIT_FOREVER` waits without limit, 0 asks once. Thread-safe.
/// Errors: `GMB_ERROR_INVALID_HANDLE`, `_TIMEOUT` (wait again), `_NOT_SUPPORTED` (kind
/// `GMB_EVENT_CAPTURE`), `_DEVICE_LOST`.
#[no_mangle]
pub extern "C" fn gmb_event_synchronize(event: gmb_event, timeout_ns: u64) -> gmb_status {
    boundary(|| EVENTS.get(event.id)?.synchronize(timeout(timeout_ns)))
}

/// Milliseconds on the device from one event to another, both of kind `GMB_EVENT_TIMED`; their
/// resolution is about half a microsecond. `GMB_NOT_READY` while one is not reached: nothing is
/// written then. Never blocks; thread-safe.
/// Errors: `GMB_ERROR_INVALID_HANDLE`, `_NULL_POINTER`, `_INVALID_ARGUMENT` (other kinds, never
/// recorded, different contexts), `_DEVICE_LOST`.
#[no_mangle]
pub extern "C" fn gmb_event_elapsed_ms(
    start: gmb_event,
    end: gmb_event,
    milliseconds: *mut f64,
) -> gmb_status {
    boundary_status(|| {
        let out = output(milliseconds, "milliseconds")?;
        Ok(match EVENTS.get(start.id)?.elapsed_ms(&*EVENTS.get(end.id)?)? {
            Some(value) => {
                out.write(value);
                GMB_OK
            }
            None => GMB_NOT_READY,
        })
    })
}

/// Counts of one of the context's event pools. `info_size` is `sizeof(gmb_event_pool_info)`.
/// Never blocks; thread-safe.
/// Errors: `GMB_ERROR_INVALID_HANDLE`, `_NULL_POINTER`, `_STRUCT_SIZE`, `_INVALID_ARGUMENT`.
#[no_mangle]
pub extern "C" fn gmb_event_pool_get_info(
    context: gmb_context,
    kind: gmb_event_kind,
    info: *mut gmb_event_pool_info,
    info_size: usize,
) -> gmb_status {
    boundary(|| {
        let known = CONTEXTS.get(context.id)?.event_pool(event_kind(kind)?);
        let value = gmb_event_pool_info {
            size: known.size,
            in_use: known.in_use,
            high_water: known.high_water,
            pending: known.pending,
        };
        write_info(info, info_size, value)
    })
}
