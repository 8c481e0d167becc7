//! Streams: the library's own and the caller's.

use std::ffi::c_void;
use std::marker::PhantomData;

use crate::backend::{CaptureId, RawStream, StreamId, StreamState};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::status::{GMB_ERROR_INVALID_STREAM, GMB_ERROR_NOT_SUPPORTED};
use crate::sync::lock;

/// How urgent a stream's work is beside that of other streams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Priority {
    /// Before all other work: the device's greatest priority.
    Focus,
    /// The middle of the device's range.
    #[default]
    Normal,
    /// After all other work: the device's least priority, which is that of default streams.
    Peripheral,
}

impl Priority {
    /// The class in a range of CUDA priorities, where less is more urgent.
    pub(crate) fn within(self, least: i32, greatest: i32) -> i32 {
        match self {
            Self::Focus => greatest,
            Self::Normal => (least + greatest) / 2,
            Self::Peripheral => least,
        }
    }
}

/// Any stream by value: a `CUstream` or `cudaStream_t` of this process, one
/// of the CUDA sentinels, or one of an [`OwnedStream`], which it does not outlive. Not an owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream<'a>(RawStream, PhantomData<&'a OwnedStream>);

// SAFETY: a stream is a name; the backend checks it at every use.
unsafe impl Send for Stream<'_> {}
// SAFETY: as above.
unsafe impl Sync for Stream<'_> {}

impl Stream<'static> {
    /// The legacy default stream (NULL). On the host backend: one stream of the context.
    pub const LEGACY: Self = Stream(std::ptr::null_mut(), PhantomData);
    /// The calling thread's own default stream (`cudaStreamPerThread`).
    pub const PER_THREAD: Self = Stream(2 as RawStream, PhantomData);
    /// The stream that a [`StreamGuard`](crate::StreamGuard) made current for the calling
    /// thread; the legacy default stream where there is none.
    pub const CURRENT: Self = Stream(usize::MAX as RawStream, PhantomData);
}

impl Stream<'_> {
    /// A caller's stream as it is.
    ///
    /// # Safety
    /// It must be a stream, and stay one for as long as this is used: the CUDA driver cannot be
    /// asked whether it is. On the host backend anything may be given.
    pub unsafe fn from_raw(raw: *mut c_void) -> Self {
        Self(raw, PhantomData)
    }

    /// NULL, the sentinels and the current stream: streams that nobody may destroy.
    fn is_default(self) -> bool {
        self.0 as usize <= 2 || self == Stream::CURRENT
    }

    /// The value that other CUDA code takes.
    pub fn raw(self) -> *mut c_void {
        self.0
    }
}

/// A stream that was found and checked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Resolved {
    pub(crate) raw: RawStream,
    pub(crate) state: StreamState,
}

impl Resolved {
    /// True while the stream's work is being captured into a graph.
    pub(crate) fn is_capturing(&self) -> bool {
        self.capture().is_some()
    }

    /// The capture that the stream's work goes into.
    pub(crate) fn capture(&self) -> Option<CaptureId> {
        match self.state {
            StreamState::Running(_) => None,
            StreamState::Capturing(id) => Some(id),
        }
    }

    /// Which stream it is; zero under capture.
    pub(crate) fn id(&self) -> StreamId {
        match self.state {
            StreamState::Running(id) => id,
            StreamState::Capturing(_) => 0,
        }
    }
}

/// A stream made by the library; dropped, it is destroyed and its work still completes.
#[derive(Debug)]
pub struct OwnedStream {
    context: Context,
    raw: RawStream,
}

// SAFETY: a stream is a name; the backend checks it at every use.
unsafe impl Send for OwnedStream {}
// SAFETY: as above.
unsafe impl Sync for OwnedStream {}

impl OwnedStream {
    /// The stream, to be passed to calls.
    pub fn get(&self) -> Stream<'_> {
        Stream(self.raw, PhantomData)
    }
}

impl Drop for OwnedStream {
    fn drop(&mut self) {
        lock(self.context.own_streams()).remove(&(self.raw as usize));
        let _ = self.context.destroy_stream(self.get());
    }
}

impl Context {
    /// Makes a stream of normal priority that does not synchronize with the legacy default stream.
    pub fn stream(&self) -> Result<OwnedStream> {
        self.stream_of(Priority::Normal)
    }

    /// As [`Context::stream`], of a priority class.
    pub fn stream_of(&self, priority: Priority) -> Result<OwnedStream> {
        let raw = self.create_stream(priority)?;
        lock(self.own_streams()).insert(raw as usize);
        Ok(OwnedStream { context: self.clone(), raw })
    }

    /// A stream to be ended with `destroy_stream`.
    pub(crate) fn create_stream(&self, priority: Priority) -> Result<RawStream> {
        self.backend().stream_create(priority)
    }

    /// The library's own stream, which nobody captures.
    pub(crate) fn resolved_service(&self) -> Resolved {
        Resolved { raw: self.service(), state: StreamState::Running(StreamId::MAX) }
    }

    /// Replaces the current stream by its value, and checks that the stream is of this context.
    pub(crate) fn resolve(&self, stream: Stream) -> Result<Resolved> {
        let raw = self.unresolved(stream);
        Ok(Resolved { raw, state: self.backend().stream_state(raw)? })
    }

    /// Replaces the current stream by its value, and asks nothing.
    pub(crate) fn unresolved(&self, stream: Stream) -> RawStream {
        if stream == Stream::CURRENT {
            self.current_stream()
        } else {
            stream.0
        }
    }

    /// The priority that a stream really has, in the device's numbers: less
    /// is more urgent, 0 is the least. For any stream, also the caller's.
    pub fn priority(&self, stream: Stream) -> Result<i32> {
        let stream = self.resolve(stream)?;
        self.backend().stream_priority(stream.raw)
    }

    /// The same for a caller: not one that belongs to an object.
    pub(crate) fn destroy_callers_stream(&self, stream: Stream) -> Result<()> {
        if lock(self.own_streams()).contains(&(stream.0 as usize)) {
            return Err(Error::new(
                GMB_ERROR_INVALID_STREAM,
                format!("stream {:p} belongs to an object of the library: it ends with that", stream.0),
            ));
        }
        self.destroy_stream(stream)
    }

    /// Destroys a stream that this context made. Does not block; its work still completes.
    ///
    /// # Errors
    /// `INVALID_STREAM` for the default streams and for streams of others.
    pub(crate) fn destroy_stream(&self, stream: Stream) -> Result<()> {
        if stream.is_default() {
            return Err(Error::new(GMB_ERROR_INVALID_STREAM, "the default streams and the current stream cannot be destroyed: pass the stream that was created"));
        }
        self.backend().stream_destroy(stream.0)
    }

    /// Blocks until everything enqueued on the stream is done.
    pub fn synchronize(&self, stream: Stream) -> Result<()> {
        let stream = self.resolve(stream)?;
        check_askable(stream)?;
        self.backend().stream_synchronize(stream.raw)
    }

    /// True when everything enqueued on the stream is done.
    pub fn is_idle(&self, stream: Stream) -> Result<bool> {
        let stream = self.resolve(stream)?;
        check_askable(stream)?;
        self.backend().stream_query(stream.raw)
    }

    /// Runs a function once, on a thread of the backend, after what the
    /// stream holds now; later work of the stream waits for it. The function
    /// must not call into CUDA, and must not wait for other work of a stream.
    pub fn run_in_order(&self, stream: Stream, function: impl FnOnce() + Send + 'static) -> Result<()> {
        let stream = self.resolve(stream)?;
        check_askable(stream)?;
        self.backend().host_function(stream.raw, Box::new(function))
    }
}

/// What runs once cannot be captured, and to ask after the work of a stream under capture would end the capture.
fn check_askable(stream: Resolved) -> Result<()> {
    if stream.is_capturing() {
        return Err(Error::new(
            GMB_ERROR_NOT_SUPPORTED,
            "the stream is being captured: its work runs when the graph does",
        ));
    }
    Ok(())
}
