//! Captures and graphs of the driver.

use std::ffi::c_void;
use std::ptr::{null, null_mut};

use cudarc::driver::sys;

use super::{cu_event, cu_stream, Cuda};
use crate::backend::{CaptureId, Kept, RawEvent, RawGraph, RawNode, RawStream};
use crate::error::{Error, Result};
use crate::graph::CaptureMode;
use crate::status::GMB_ERROR_CAPTURE;

/// While it lives, this thread's calls are none of the business of somebody's capture, which some of them would spoil.
pub(super) struct Relaxed(sys::CUstreamCaptureMode);

impl Relaxed {
    pub(super) fn new() -> Self {
        let mut mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED;
        // SAFETY: the driver was found when the backend was made; the pointer is valid.
        let _ = unsafe { sys::cuThreadExchangeStreamCaptureMode(&mut mode) };
        Self(mode)
    }
}

impl Drop for Relaxed {
    fn drop(&mut self) {
        // SAFETY: as above.
        let _ = unsafe { sys::cuThreadExchangeStreamCaptureMode(&mut self.0) };
    }
}

/// A capture under way, as the driver tells of it.
struct Progress {
    graph: sys::CUgraph,
    /// What the stream's next work comes after.
    before: Vec<sys::CUgraphNode>,
}

fn check_active(status: sys::CUstreamCaptureStatus, stream: RawStream) -> Result<()> {
    match status {
        sys::CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_ACTIVE => Ok(()),
        sys::CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_INVALIDATED => Err(Error::new(
            GMB_ERROR_CAPTURE,
            format!("the capture of stream {stream:p} was spoilt by a call that cannot be captured: end it"),
        )),
        _ => Err(Error::new(GMB_ERROR_CAPTURE, format!("stream {stream:p} is not being captured"))),
    }
}

/// Called by the driver when the last graph that held it is gone.
unsafe extern "C" fn let_go(kept: *mut c_void) {
    // SAFETY: the box that `keep` leaked for this one call.
    let kept = unsafe { Box::from_raw(kept.cast::<Kept>()) };
    let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(kept)));
}

impl Cuda {
    fn progress(&self, stream: RawStream) -> Result<Progress> {
        let _current = self.enter()?;
        let mut status = sys::CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE;
        let (mut graph, mut nodes, mut count) = (null_mut(), null::<sys::CUgraphNode>(), 0usize);
        // SAFETY: all pointers are valid; the driver owns the list of nodes.
        let result = unsafe {
            sys::cuStreamGetCaptureInfo_v2(
                cu_stream(stream),
                &mut status,
                null_mut(),
                &mut graph,
                &mut nodes,
                &mut count,
            )
        };
        self.check(result, "cuStreamGetCaptureInfo")?;
        check_active(status, stream)?;
        let mut before = Vec::new();
        if count != 0 {
            // SAFETY: the list holds for as long as nothing is added to the capture.
            before.extend_from_slice(unsafe { std::slice::from_raw_parts(nodes, count) });
        }
        Ok(Progress { graph, before })
    }

    /// Of a stream of this context under capture.
    pub(super) fn capture_id(&self, stream: RawStream) -> Result<CaptureId> {
        let _current = self.enter()?;
        let mut status = sys::CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE;
        let (mut id, mut context) = (0, null_mut());
        // SAFETY: both pointers are valid; what is not asked for is null.
        let result = unsafe {
            sys::cuStreamGetCaptureInfo_v2(
                cu_stream(stream),
                &mut status,
                &mut id,
                null_mut(),
                null_mut(),
                null_mut(),
            )
        };
        self.check(result, "cuStreamGetCaptureInfo")?;
        check_active(status, stream)?;
        let _relaxed = Relaxed::new();
        // SAFETY: the pointer is valid.
        self.check(unsafe { sys::cuStreamGetCtx(cu_stream(stream), &mut context) }, "cuStreamGetCtx")?;
        self.check_own(stream, context)?;
        Ok(id.wrapping_add(1).max(1))
    }

    pub(super) fn begin_capture(&self, stream: RawStream, mode: CaptureMode) -> Result<()> {
        let mode = match mode {
            CaptureMode::Global => sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_GLOBAL,
            CaptureMode::ThreadLocal => sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL,
            CaptureMode::Relaxed => sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED,
        };
        let _current = self.enter()?;
        // SAFETY: the context is current and the stream was checked.
        self.check(unsafe { sys::cuStreamBeginCapture_v2(cu_stream(stream), mode) }, "cuStreamBeginCapture")
    }

    pub(super) fn end_capture(&self, stream: RawStream) -> Result<RawGraph> {
        let _current = self.enter()?;
        let mut graph = null_mut();
        // SAFETY: the context is current; a stream that is none is the caller's breach as everywhere.
        self.check(unsafe { sys::cuStreamEndCapture(cu_stream(stream), &mut graph) }, "cuStreamEndCapture")?;
        if graph.is_null() {
            return Err(Error::new(GMB_ERROR_CAPTURE, "the capture was spoilt: there is no graph"));
        }
        let _relaxed = Relaxed::new();
        let mut ready = null_mut();
        // SAFETY: the graph is whole; what can be launched holds all it needs by itself.
        let made = unsafe { sys::cuGraphInstantiateWithFlags(&mut ready, graph, 0) };
        // SAFETY: as above, and nobody else has the graph.
        let _ = unsafe { sys::cuGraphDestroy(graph) };
        self.check(made, "cuGraphInstantiate")?;
        Ok(RawGraph(ready as usize))
    }

    pub(super) fn keep(&self, stream: RawStream, kept: Kept) -> Result<()> {
        let progress = self.progress(stream)?;
        let kept = Box::into_raw(Box::new(kept)).cast::<c_void>();
        let mut object = null_mut();
        let flags = sys::CUuserObject_flags::CU_USER_OBJECT_NO_DESTRUCTOR_SYNC as u32;
        // SAFETY: the function takes the box back, once.
        let made = unsafe { sys::cuUserObjectCreate(&mut object, kept, Some(let_go), 1, flags) };
        if let Err(error) = self.check(made, "cuUserObjectCreate") {
            // SAFETY: the driver did not take it.
            unsafe { let_go(kept) };
            return Err(error);
        }
        let flags = sys::CUuserObjectRetain_flags::CU_GRAPH_USER_OBJECT_MOVE as u32;
        // SAFETY: the graph is under capture, and the one reference goes over to it.
        let moved = unsafe { sys::cuGraphRetainUserObject(progress.graph, object, 1, flags) };
        self.check(moved, "cuGraphRetainUserObject").inspect_err(|_| {
            // SAFETY: the reference is still ours.
            let _ = unsafe { sys::cuUserObjectRelease(object, 1) };
        })
    }

    pub(super) fn last_node(&self, stream: RawStream) -> Result<RawNode> {
        let progress = self.progress(stream)?;
        let last = progress.before.last().copied().unwrap_or(null_mut());
        Ok(RawNode(last as usize))
    }

    pub(super) fn come_after(&self, stream: RawStream, node: RawNode) -> Result<()> {
        let mut node = node.0 as sys::CUgraphNode;
        // Nothing came before it; or what the stream was given last is that very work.
        if node.is_null() || self.progress(stream)?.before.contains(&node) {
            return Ok(());
        }
        let add = sys::CUstreamUpdateCaptureDependencies_flags::CU_STREAM_ADD_CAPTURE_DEPENDENCIES as u32;
        // SAFETY: the node is of the same capture.
        let result = unsafe { sys::cuStreamUpdateCaptureDependencies(cu_stream(stream), &mut node, 1, add) };
        self.check(result, "cuStreamUpdateCaptureDependencies")
    }

    /// An event node: each launch records the event.
    pub(super) fn record_outside(&self, event: RawEvent, stream: RawStream) -> Result<()> {
        let _current = self.enter()?;
        let external = sys::CUevent_record_flags::CU_EVENT_RECORD_EXTERNAL as u32;
        // SAFETY: the context is current; event and stream came from it or were checked.
        let result = unsafe { sys::cuEventRecordWithFlags(cu_event(event), cu_stream(stream), external) };
        self.check(result, "cuEventRecordWithFlags")
    }

    /// An event node: each launch waits for what the event stands for then.
    pub(super) fn wait_outside(&self, stream: RawStream, event: RawEvent) -> Result<()> {
        let _current = self.enter()?;
        let external = sys::CUevent_wait_flags::CU_EVENT_WAIT_EXTERNAL as u32;
        // SAFETY: as above.
        let result = unsafe { sys::cuStreamWaitEvent(cu_stream(stream), cu_event(event), external) };
        self.check(result, "cuStreamWaitEvent")
    }

    pub(super) fn launch_graph(&self, graph: RawGraph, stream: RawStream) -> Result<()> {
        let _current = self.enter()?;
        // SAFETY: the graph came from `end_capture` and was not ended.
        let result = unsafe { sys::cuGraphLaunch(graph.0 as sys::CUgraphExec, cu_stream(stream)) };
        self.check(result, "cuGraphLaunch")
    }

    pub(super) fn end_graph(&self, graph: RawGraph) {
        let _relaxed = Relaxed::new();
        if let Ok(_current) = self.enter() {
            // SAFETY: as above, and nobody uses it any more.
            let _ = unsafe { sys::cuGraphExecDestroy(graph.0 as sys::CUgraphExec) };
        }
    }
}
