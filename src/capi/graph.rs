//! `gmb_graph`, and captures that make one.

use super::boundary::boundary;
use super::context::gmb_context;
use super::stream::{gmb_stream, stream};
use super::{output, CONTEXTS, GRAPHS};
use crate::error::{Error, Result};
use crate::status::*;
use crate::CaptureMode;

/// Handle of a graph: captured work, ready to be launched any number of times. Zero is null.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct gmb_graph {
    /// Opaque.
    pub id: u64,
}

/// Which CUDA calls of other code a capture forbids while it lasts: `GMB_CAPTURE_*`. The host backend forbids none.
#[allow(non_camel_case_types)]
pub type gmb_capture_mode = i32;

/// Calls that are unsafe beside a capture, in every thread.
pub const GMB_CAPTURE_GLOBAL: gmb_capture_mode = 0;
/// Those of the capturing thread.
pub const GMB_CAPTURE_THREAD_LOCAL: gmb_capture_mode = 1;
/// None.
pub const GMB_CAPTURE_RELAXED: gmb_capture_mode = 2;

fn capture_mode(value: gmb_capture_mode) -> Result<CaptureMode> {
    match value {
        GMB_CAPTURE_GLOBAL => Ok(CaptureMode::Global),
        GMB_CAPTURE_THREAD_LOCAL => Ok(CaptureMode::ThreadLocal),
        GMB_CAPTURE_RELAXED => Ok(CaptureMode::Relaxed),
        _ => Err(Error::argument(format!(
            "capture mode {value} is none of GMB_CAPTURE_GLOBAL, _THREAD_LOCAL, _RELAXED"
        ))),
    }
}

/// Captures the stream's work from now on, instead of having it run, until `gmb_stream_end_capture`. `mode` is one of
/// `GMB_CAPTURE_*`. Captures that other code begins, by the CUDA driver or runtime or by PyTorch, do as well: this is
/// for programs that also run on the host backend. Does not block; thread-safe.
/// Errors: `GMB_ERROR_INVALID_HANDLE`, `_INVALID_ARGUMENT`, `_INVALID_STREAM`, `_CAPTURE` (it is being captured
/// already; that capture goes on), `_NOT_SUPPORTED` (the legacy default stream), `_DEVICE_LOST`, `_DRIVER`.
#[no_mangle]
pub extern "C" fn gmb_stream_begin_capture(
    context: gmb_context,
    stream: gmb_stream,
    mode: gmb_capture_mode,
) -> gmb_status {
    boundary(|| CONTEXTS.get(context.id)?.begin_capture(self::stream(stream), capture_mode(mode)?))
}

/// Writes 1 where the stream's work is being captured, by the library, the CUDA driver or runtime or PyTorch, and 0 where
/// it runs. Never blocks; thread-safe.
/// Errors: `GMB_ERROR_INVALID_HANDLE`, `_NULL_POINTER`, `_INVALID_STREAM`, `_CAPTURE` (its capture was spoilt),
/// `_DEVICE_LOST`, `_DRIVER`.
#[no_mangle]
pub extern "C" fn gmb_stream_is_capturing(
    context: gmb_context,
    stream: gmb_stream,
    capturing: *mut i32,
) -> gmb_status {
    boundary(|| {
        let out = output(capturing, "capturing")?;
        out.write(CONTEXTS.get(context.id)?.is_capturing(self::stream(stream))?.into());
        Ok(())
    })
}

/// Ends the capture that began on this stream, in the thread that began it, and makes a graph of it. Streams that
/// events pulled into the capture must have been joined by events. The caller owns the graph and ends it with
/// `gmb_graph_destroy`. Does not wait for the device; thread-safe.
/// Errors: `GMB_ERROR_INVALID_HANDLE`, `_NULL_POINTER`, `_INVALID_STREAM`, `_CAPTURE` (nothing is being captured here; or
/// the capture was spoilt or not joined, and is ended without a graph), `_DEVICE_LOST`, `_OUT_OF_MEMORY`, `_DRIVER`.
#[no_mangle]
pub extern "C" fn gmb_stream_end_capture(
    context: gmb_context,
    stream: gmb_stream,
    graph: *mut gmb_graph,
) -> gmb_status {
    boundary(|| {
        let out = output(graph, "graph")?;
        let made = CONTEXTS.get(context.id)?.end_capture(self::stream(stream))?;
        out.write(gmb_graph { id: GRAPHS.insert(made)? });
        Ok(())
    })
}

/// Launches a graph in the order of a stream. Does not block; thread-safe. Launches of one graph run one after the
/// other. Every operation in it reports to its token anew, with the next epoch.
/// Errors: `GMB_ERROR_INVALID_HANDLE`, `_INVALID_STREAM`, `_NOT_SUPPORTED` (the stream is being captured; the capture
/// goes on), `_DEVICE_LOST`, `_DRIVER`.
#[no_mangle]
pub extern "C" fn gmb_graph_launch(graph: gmb_graph, stream: gmb_stream) -> gmb_status {
    boundary(|| GRAPHS.get(graph.id)?.launch(self::stream(stream)))
}

/// Ends a graph. Launches of it still complete; mailboxes and result slots that only it held are given back after
/// them, by a thread of the library. Does not block; thread-safe.
/// Errors: `GMB_ERROR_INVALID_HANDLE`.
#[no_mangle]
pub extern "C" fn gmb_graph_destroy(graph: gmb_graph) -> gmb_status {
    boundary(|| GRAPHS.remove(graph.id))
}
