//! Graphs: work of streams, captured once and launched any number of times.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, Weak};

use crate::backend::{CaptureId, RawGraph, StreamState};
use crate::context::{BackendKind, Context};
use crate::error::{Error, Result};
use crate::profiler::Range;
use crate::status::*;
use crate::stream::Stream;
use crate::sync::lock;

/// Which calls of other code a capture forbids while it lasts, as CUDA has it. The host backend forbids none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CaptureMode {
    /// Calls that are unsafe beside a capture, in every thread.
    #[default]
    Global,
    /// Those of the capturing thread.
    ThreadLocal,
    /// None.
    Relaxed,
}

/// Captured work, ready to be launched. It keeps the mailboxes and result slots that it uses
/// alive; dropped, launches of it still complete.
///
/// ```
/// use gpumailbox::{CaptureMode, Context, ContextOptions, Mailbox, MailboxOptions, Pop, Push};
///
/// let context = Context::new(&ContextOptions::default())?;
/// let stream = context.stream()?;
/// let mailbox = Mailbox::new(&context, &MailboxOptions { capacity: 64, payload_bytes: 16, ..Default::default() })?;
/// let (rows, out) = (context.device_buffer(16 * 16)?, context.device_buffer(16 * 16)?);
///
/// context.begin_capture(stream.get(), CaptureMode::ThreadLocal)?;
/// let push = Push { count: 16, records: rows.address(), length: 16, ..Default::default() };
/// let pop = Pop { max: 16, records: out.address(), ..Default::default() };
/// // SAFETY: both buffers outlive the launches below.
/// unsafe {
///     mailbox.push(&push, stream.get(), None)?;
///     mailbox.pop(&pop, stream.get(), None)?;
/// }
/// let graph = context.end_capture(stream.get())?;
/// for _ in 0..10 {
///     graph.launch(stream.get())?;
/// }
/// context.synchronize(stream.get())?;
/// assert_eq!(mailbox.info()?.published, 160);
/// # Ok::<(), gpumailbox::Error>(())
/// ```
pub struct Graph {
    context: Context,
    raw: RawGraph,
    /// What operations in it are of; the graph itself holds them. In the order of their addresses.
    parts: Vec<Weak<dyn Part>>,
}

/// Something with operations in a graph that other threads may submit operations to as well.
pub(crate) trait Part: Send + Sync {
    /// Keeps others from submitting until the answer is dropped.
    fn hold(&self) -> Box<dyn Hold + '_>;
}

/// What is only held.
pub(crate) trait Hold {}
impl<T> Hold for T {}

/// A capture under way that this library began, and what takes part in it.
struct Begun {
    key: (BackendKind, CaptureId),
    stream: usize,
    parts: Vec<Weak<dyn Part>>,
}

/// Of all contexts: operations of one may be captured on a stream of another.
static BEGUN: Mutex<Vec<Begun>> = Mutex::new(Vec::new());

/// Backends count their captures each for itself.
fn key(context: &Context, capture: CaptureId) -> (BackendKind, CaptureId) {
    (context.kind(), capture)
}

/// Notes a part, if the capture is known here.
pub(crate) fn note_part(context: &Context, capture: CaptureId, part: &Arc<dyn Part>) {
    let key = key(context, capture);
    if let Some(begun) = lock(&BEGUN).iter_mut().find(|begun| begun.key == key) {
        begun.parts.push(Arc::downgrade(part));
    }
}

impl Context {
    /// Captures the stream's work from now on, instead of having it run, until
    /// [`Context::end_capture`]. Other code may capture as well, by the CUDA driver or runtime or by
    /// PyTorch: this is for programs that also run on the host backend.
    ///
    /// # Errors
    /// `CAPTURE` (it is being captured already), `INVALID_STREAM`, `NOT_SUPPORTED` (the legacy
    /// default stream), `DRIVER`.
    pub fn begin_capture(&self, stream: Stream, mode: CaptureMode) -> Result<()> {
        let stream = self.resolve(stream)?;
        if stream.raw as usize <= 1 {
            return Err(Error::new(
                GMB_ERROR_NOT_SUPPORTED,
                "the legacy default stream cannot be captured: use another stream",
            ));
        }
        if stream.is_capturing() {
            return Err(Error::new(
                GMB_ERROR_CAPTURE,
                "the stream is being captured already: end that capture first",
            ));
        }
        self.backend().capture_begin(stream.raw, mode)?;
        if let StreamState::Capturing(capture) = self.backend().stream_state(stream.raw)? {
            let mut begun = lock(&BEGUN);
            // An earlier one of this stream that other code has ended.
            begun.retain(|begun| begun.stream != stream.raw as usize);
            begun.push(Begun { key: key(self, capture), stream: stream.raw as usize, parts: Vec::new() });
        }
        Ok(())
    }

    /// Whether the stream's work is being captured, by whomever, instead of running.
    ///
    /// # Errors
    /// `INVALID_STREAM`, `CAPTURE` (its capture was spoilt), `DEVICE_LOST`, `DRIVER`.
    pub fn is_capturing(&self, stream: Stream) -> Result<bool> {
        Ok(self.resolve(stream)?.is_capturing())
    }

    /// Ends the capture that began on this stream. Streams that were pulled into it by events must
    /// have been joined by events.
    ///
    /// # Errors
    /// `CAPTURE`: nothing is being captured here, or the capture was spoilt or not joined; then it is ended, too.
    pub fn end_capture(&self, stream: Stream) -> Result<Graph> {
        let raw = self.unresolved(stream);
        match self.backend().stream_state(raw) {
            Ok(StreamState::Running(_)) => {
                return Err(Error::new(GMB_ERROR_CAPTURE, "the stream is not being captured"));
            }
            // Spoilt, it must be ended all the same.
            Err(error) if error.status() != GMB_ERROR_CAPTURE => return Err(error),
            _ => {}
        }
        let ended = self.backend().capture_end(raw);
        let goes_on =
            ended.is_err() && matches!(self.backend().stream_state(raw), Ok(StreamState::Capturing(_)));
        let mut parts = Vec::new();
        if !goes_on {
            let mut begun = lock(&BEGUN);
            if let Some(at) = begun.iter().position(|begun| begun.stream == raw as usize) {
                parts = begun.swap_remove(at).parts;
            }
        }
        parts.sort_by_key(|part| part.as_ptr() as *const () as usize);
        parts.dedup_by_key(|part| part.as_ptr() as *const () as usize);
        Ok(Graph { context: self.clone(), raw: ended?, parts })
    }
}

impl Graph {
    /// Launches the graph in the order of a stream. Does not block. Launches of one graph run one
    /// after the other; mind that operations of one side of a mailbox must not run at once: see
    /// docs/graphs.md for what orders different graphs.
    ///
    /// # Errors
    /// `INVALID_STREAM`, `NOT_SUPPORTED` (the stream is being captured), `DEVICE_LOST`, `DRIVER`.
    pub fn launch(&self, stream: Stream) -> Result<()> {
        let _range = Range::new(c"launch a graph");
        let stream = self.context.resolve(stream)?;
        if stream.is_capturing() {
            return Err(Error::new(
                GMB_ERROR_NOT_SUPPORTED,
                "the stream is being captured, and a graph within a graph is not supported; the capture goes on",
            ));
        }
        // A launch is a submission to each: wait, run and record are one step.
        let parts: Vec<Arc<dyn Part>> = self.parts.iter().filter_map(Weak::upgrade).collect();
        let _held: Vec<_> = parts.iter().map(|part| part.hold()).collect();
        self.context.backend().graph_launch(self.raw, stream.raw)
    }
}

impl std::fmt::Debug for Graph {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Graph").field("raw", &self.raw).finish_non_exhaustive()
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        self.context.backend().graph_destroy(self.raw);
    }
}

/// What a captured operation uses, held by its graph. Whoever lets go of it last may be a thread that must not
/// call into CUDA, or must not wait: so a thread of the library's does what is to be done then.
pub(crate) struct Held<T: Send + Sync + 'static>(Option<(Context, Arc<T>)>);

impl<T: Send + Sync + 'static> Held<T> {
    pub(crate) fn new(context: &Context, held: &Arc<T>) -> Self {
        Self(Some((context.clone(), Arc::clone(held))))
    }
}

impl<T: Send + Sync + 'static> Drop for Held<T> {
    fn drop(&mut self) {
        if let Some((context, held)) = self.0.take() {
            retire(Box::new(move || {
                context.backend().relax();
                drop(held);
            }));
        }
    }
}

type Work = Box<dyn FnOnce() + Send>;

/// What is to be ended, and whether a thread is at it.
static RETIRED: Mutex<(VecDeque<Work>, bool)> = Mutex::new((VecDeque::new(), false));

/// Has a thread do it that ends when there is nothing left to do.
fn retire(work: Work) {
    let mut retired = lock(&RETIRED);
    retired.0.push_back(work);
    if retired.1 {
        return;
    }
    let end = || loop {
        let work = {
            let mut retired = lock(&RETIRED);
            let work = retired.0.pop_front();
            retired.1 = work.is_some();
            work
        };
        let Some(work) = work else { return };
        work();
    };
    // Without a thread it waits for the next one.
    retired.1 = std::thread::Builder::new().name("gmb-retire".to_owned()).spawn(end).is_ok();
}
