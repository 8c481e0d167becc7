//! Triple buffers: three device buffers that go round, one uploaded to, one processed, one downloaded from.

mod turns;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Arc;
use std::time::Duration;

use crate::backend::wait_until;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::events::{Event, EventKind};
use crate::layout::gmb_dtype;
use crate::profiler::Range;
use crate::status::*;
use crate::stream::{Resolved, Stream};
use crate::tensor::{bytes_of, check_dtype};
use turns::{Turns, BUFFERS};

/// What a buffer is asked for: the three parts of one turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Data comes from the host.
    Upload,
    /// Kernels work on it.
    Process,
    /// Results go to the host.
    Download,
}

impl Step {
    pub(crate) const ALL: [Self; 3] = [Self::Upload, Self::Process, Self::Download];

    pub(crate) fn index(self) -> usize {
        self as usize
    }

    /// The step before, of the same turn; before an upload, that of the turn before.
    fn before(self) -> Self {
        match self {
            Self::Upload => Self::Download,
            Self::Process => Self::Upload,
            Self::Download => Self::Process,
        }
    }

    pub(crate) fn participle(self) -> &'static str {
        match self {
            Self::Upload => "uploaded to",
            Self::Process => "processed",
            Self::Download => "downloaded from",
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Upload => "upload",
            Self::Process => "process",
            Self::Download => "download",
        }
    }
}

/// Where a buffer stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BufferState {
    /// It can be asked for, to be uploaded to.
    Free,
    /// It was asked for, and what is uploaded is not all there.
    Uploading,
    /// It is to be processed, or is being processed.
    Processing,
    /// It is to be downloaded from, or is being.
    Downloading,
}

/// What a triple buffer is made with.
#[derive(Clone, Copy, Debug, Default)]
pub struct TripleBufferOptions {
    /// The elements' type.
    pub dtype: gmb_dtype,
    /// Elements of each of the three buffers.
    pub elements: u64,
}

/// A triple buffer's shape, and where its buffers stand at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TripleBufferInfo {
    /// The elements' type.
    pub dtype: gmb_dtype,
    /// Elements of each buffer.
    pub elements: u64,
    /// Bytes of each buffer.
    pub bytes: u64,
    /// Device addresses of the buffers.
    pub addresses: [u64; 3],
    /// Where they stand, all at one moment.
    pub states: [BufferState; 3],
    /// Times that a buffer became free again.
    pub completed: u64,
}

/// Three device buffers of one element type, which go from free to uploading, processing, downloading and back to free, in
/// their order. Whoever asks for a buffer has it alone until the work of that step is enqueued; the next step gets it once
/// that work is done. Clones are the same three buffers.
///
/// Every state change is one compare and swap: any number of threads may ask, submit and [`advance`](Self::advance) at once,
/// and none of these calls ever waits.
///
/// ```
/// use gpumailbox::{gmb_dtype, Context, ContextOptions, Step, TripleBuffer, TripleBufferOptions};
///
/// let context = Context::new(&ContextOptions::default())?;
/// let [up, work, down] = [context.stream()?, context.stream()?, context.stream()?];
/// let float = gmb_dtype { code: 2, bits: 32, lanes: 1 };
/// let triple = TripleBuffer::new(&context, &TripleBufferOptions { dtype: float, elements: 1024 })?;
/// let (input, output) = (context.pinned_buffer(4096)?, context.pinned_buffer(4096)?);
///
/// let mut finished = 0;
/// while finished < 10 {
///     // SAFETY: the memory outlives the copies: the loop ends when the last one is done.
///     unsafe {
///         if let Some(buffer) = triple.acquire(Step::Upload)? {
///             context.copy(buffer.address(), input.address(), 4096, up.get())?;
///             buffer.submit(up.get())?;
///         }
///         if let Some(buffer) = triple.acquire(Step::Process)? {
///             context.fill(buffer.address(), 7, 4096, work.get())?;
///             buffer.submit(work.get())?;
///         }
///         if let Some(buffer) = triple.acquire(Step::Download)? {
///             context.copy(output.address(), buffer.address(), 4096, down.get())?;
///             buffer.submit(down.get())?;
///         }
///     }
///     triple.advance()?;
///     finished = triple.info().completed;
/// }
/// for stream in [&up, &work, &down] {
///     context.synchronize(stream.get())?;
/// }
/// # Ok::<(), gpumailbox::Error>(())
/// ```
#[derive(Clone)]
pub struct TripleBuffer {
    core: Arc<Core>,
}

struct Core {
    context: Context,
    dtype: gmb_dtype,
    elements: u64,
    bytes: u64,
    addresses: [u64; 3],
    /// What each buffer's last step enqueued.
    events: [Event; 3],
    turns: AtomicU64,
    /// The operation of a coordinator that worked on each buffer last, by its id.
    operations: [AtomicU64; 3],
    key: u64,
    closed: AtomicBool,
}

/// A buffer in the hands of whoever asked for it: enqueue the step's work on it, then [`submit`](Self::submit). Dropped
/// without that, the buffer is given up: it becomes free again without its further steps.
#[derive(Debug)]
pub struct Buffer {
    of: TripleBuffer,
    turn: u64,
    step: Step,
    open: bool,
}

static NEXT_KEY: AtomicU64 = AtomicU64::new(1);

impl TripleBuffer {
    /// Allocates three buffers; their content is unspecified. Blocks until their memory is there.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` (no element type), `ZERO_COUNT`, `OVERFLOW`, `OUT_OF_MEMORY`, `MEMORY_LIMIT`, `DEVICE_LOST`.
    pub fn new(context: &Context, options: &TripleBufferOptions) -> Result<Self> {
        let _range = Range::new(c"make a triple buffer");
        check_dtype(options.dtype)?;
        if options.elements == 0 {
            return Err(Error::new(GMB_ERROR_ZERO_COUNT, "elements is 0: a buffer has at least one"));
        }
        let bytes = bytes_of(options.dtype, options.elements)?;
        let event = || context.event(EventKind::Untimed);
        let mut core = Core {
            context: context.clone(),
            dtype: options.dtype,
            elements: options.elements,
            bytes,
            addresses: [0; 3],
            events: [event()?, event()?, event()?],
            turns: AtomicU64::new(0),
            operations: Default::default(),
            key: NEXT_KEY.fetch_add(1, Ordering::Relaxed),
            closed: AtomicBool::new(false),
        };
        // What was allocated goes with `core`, also when the next one fails.
        for address in &mut core.addresses {
            *address = context.allocate_ring(bytes as usize)?;
        }
        context.backend().stream_synchronize(context.service())?;
        Ok(Self { core: Arc::new(core) })
    }

    /// The context it lives in.
    pub fn context(&self) -> &Context {
        &self.core.context
    }

    /// Shape and states. Never blocks.
    pub fn info(&self) -> TripleBufferInfo {
        let core = &self.core;
        let turns = Turns::unpack(core.turns.load(Ordering::Acquire));
        TripleBufferInfo {
            dtype: core.dtype,
            elements: core.elements,
            bytes: core.bytes,
            addresses: core.addresses,
            states: [0, 1, 2].map(|buffer| turns.state(buffer)),
            completed: turns.completed(),
        }
    }

    /// Asks for the next buffer of a step, in the order in which they were uploaded to: `None` until the device has done the
    /// work of its step before. Any stream can use the buffer then. Never blocks.
    ///
    /// # Errors
    /// `DEVICE_LOST`, `DRIVER`.
    pub fn acquire(&self, step: Step) -> Result<Option<Buffer>> {
        self.take(step, None)
    }

    /// The same for work of one stream, which is made to wait for the step before: `None` only until that step's work is
    /// enqueued. The device has no gap between steps then. Never blocks.
    ///
    /// # Errors
    /// `INVALID_STREAM`, `NOT_SUPPORTED` (the stream is being captured), `DEVICE_LOST`, `DRIVER`.
    pub fn acquire_on(&self, step: Step, stream: Stream) -> Result<Option<Buffer>> {
        let stream = self.check_stream(stream)?;
        self.take(step, Some(stream))
    }

    fn check_stream(&self, stream: Stream) -> Result<Resolved> {
        let stream = self.core.context.resolve(stream)?;
        if stream.is_capturing() {
            return Err(Error::new(
                GMB_ERROR_NOT_SUPPORTED,
                "the stream is being captured: a buffer's turn is decided when the call is made, not when a graph runs",
            ));
        }
        Ok(stream)
    }

    fn take(&self, step: Step, hold: Option<Resolved>) -> Result<Option<Buffer>> {
        let core = &self.core;
        let mut reached = |buffer: usize| core.event(buffer)?.is_reached();
        let mut held = |buffer: usize| match hold {
            Some(stream) => core.event(buffer)?.hold(stream.raw).map(|()| true),
            None => Ok(false),
        };
        let mut seen = core.turns.load(Ordering::Acquire);
        loop {
            let mut turns = Turns::unpack(seen);
            let mut taken = turns.take(step);
            // What was given up has to come round, too, and may lie before what is to come.
            while taken.is_none()
                && (turns.pass(step.before(), &mut held)?
                    || (step == Step::Upload && turns.pass_given_up(&mut held)?)
                    || turns.rotate(&mut reached)? > 0)
            {
                taken = turns.take(step);
            }
            if turns.pack() == seen {
                return Ok(None);
            }
            match self.swap(seen, &turns) {
                Ok(()) => {
                    let buffer = taken.map(|turn| Buffer { of: self.clone(), turn, step, open: true });
                    if let Some(buffer) = buffer.as_ref().filter(|_| step == Step::Upload) {
                        buffer.note(0);
                    }
                    return Ok(buffer);
                }
                Err(now) => seen = now,
            }
        }
    }

    /// Passes each buffer on whose step is done, to what comes next: from uploading to processing, to downloading, to free.
    /// How many were passed on. Asking for a buffer does the same as far as that takes, so a loop needs this only to see the
    /// states move. Never blocks.
    ///
    /// # Errors
    /// `DEVICE_LOST`, `DRIVER`.
    pub fn advance(&self) -> Result<u32> {
        let core = &self.core;
        let mut seen = core.turns.load(Ordering::Acquire);
        loop {
            let mut turns = Turns::unpack(seen);
            let passed = turns.rotate(|buffer| core.event(buffer)?.is_reached())?;
            if passed == 0 {
                return Ok(0);
            }
            match self.swap(seen, &turns) {
                Ok(()) => return Ok(passed),
                Err(now) => seen = now,
            }
        }
    }

    /// As [`acquire`](Self::acquire), and blocks the calling thread until there is one. `None` waits without limit.
    ///
    /// # Errors
    /// `TIMEOUT` (nobody submitted the step before, or its work is not done), `DEVICE_LOST`, `DRIVER`.
    pub fn wait(&self, step: Step, timeout: Option<Duration>) -> Result<Buffer> {
        let mut failed = None;
        let closed = || {
            Error::new(
                GMB_ERROR_INVALID_HANDLE,
                "the triple buffer was destroyed while a thread waited for a buffer of it",
            )
        };
        let ready = || match self.acquire(step).and_then(|taken| match taken {
            None if self.core.closed.load(Ordering::Acquire) => Err(closed()),
            taken => Ok(taken),
        }) {
            Ok(taken) => taken.map(Some),
            Err(error) => {
                failed = Some(error);
                Some(None)
            }
        };
        match (wait_until(timeout, ready, || self.core.context.pulse())?, failed) {
            (Some(Some(buffer)), _) => Ok(buffer),
            (_, Some(error)) => Err(error),
            _ => Err(Error::new(
                GMB_ERROR_TIMEOUT,
                format!(
                    "no buffer came to be {} in time: submit the step before, or wait again",
                    step.participle()
                ),
            )),
        }
    }

    /// Changes a buffer's turn, if it is with whoever asked for this step of it.
    fn change(&self, step: Step, turn: u64, change: impl Fn(&mut Turns)) -> Result<()> {
        let core = &self.core;
        let mut seen = core.turns.load(Ordering::Acquire);
        loop {
            let mut turns = Turns::unpack(seen);
            if !turns.is_held(step, turn) {
                return Err(wrong_state(step, turn, &turns));
            }
            change(&mut turns);
            match self.swap(seen, &turns) {
                Ok(()) => return Ok(()),
                Err(now) => seen = now,
            }
        }
    }

    /// `after`: the stream may not be the one that waits for the step before.
    pub(crate) fn submit(&self, step: Step, turn: u64, stream: Stream, after: bool) -> Result<()> {
        let stream = self.check_stream(stream)?;
        // Of two threads one records the event.
        self.change(step, turn, |turns| turns.claim(turn))?;
        let marked = self.core.event(buffer_of(turn)).and_then(|event| {
            if after {
                event.hold(stream.raw)?;
            }
            event.mark(stream.raw)
        });
        self.change_claimed(|turns| match marked {
            Ok(()) => turns.submit(turn),
            Err(_) => turns.unclaim(turn),
        });
        marked
    }

    fn change_claimed(&self, change: impl Fn(&mut Turns)) {
        let mut seen = self.core.turns.load(Ordering::Acquire);
        loop {
            let mut turns = Turns::unpack(seen);
            change(&mut turns);
            match self.swap(seen, &turns) {
                Ok(()) => return,
                Err(now) => seen = now,
            }
        }
    }

    pub(crate) fn give_up(&self, step: Step, turn: u64) -> Result<()> {
        self.change(step, turn, |turns| turns.give_up(turn))
    }

    /// Gives a turn up whose next step nobody has asked for; nothing if somebody has.
    pub(crate) fn give_up_rest(&self, step: Step, turn: u64) {
        let mut seen = self.core.turns.load(Ordering::Acquire);
        loop {
            let mut turns = Turns::unpack(seen);
            if !turns.is_to_come(step, turn) {
                return;
            }
            turns.give_up(turn);
            match self.swap(seen, &turns) {
                Ok(()) => return,
                Err(now) => seen = now,
            }
        }
    }

    fn swap(&self, seen: u64, turns: &Turns) -> std::result::Result<(), u64> {
        let word = &self.core.turns;
        word.compare_exchange_weak(seen, turns.pack(), Ordering::AcqRel, Ordering::Acquire).map(|_| ())
    }

    /// Tells this triple buffer from all others.
    pub(crate) fn key(&self) -> u64 {
        self.core.key
    }

    /// It is about to end: nobody waits for it any longer.
    pub(crate) fn close(&self) {
        self.core.closed.store(true, Ordering::Release);
    }

    /// The operation that worked on a turn's buffer last: in this turn, where that is not the first step.
    pub(crate) fn operation(&self, turn: u64) -> u64 {
        self.core.operations[buffer_of(turn)].load(Ordering::Acquire)
    }

    /// Fails unless so many bytes are elements of the buffers' type, and fit.
    pub(crate) fn check_bytes(&self, dtype: gmb_dtype, bytes: u64) -> Result<()> {
        let core = &self.core;
        if dtype != core.dtype {
            return Err(Error::new(
                GMB_ERROR_WRONG_TYPE,
                format!(
                    "elements of dtype {} for buffers of dtype {}: convert them first",
                    named(dtype),
                    named(core.dtype)
                ),
            ));
        }
        if bytes > core.bytes {
            return Err(Error::argument(format!("{bytes} bytes: the buffers have {}", core.bytes)));
        }
        Ok(())
    }

    pub(crate) fn address(&self, turn: u64) -> u64 {
        self.core.addresses[buffer_of(turn)]
    }
}

fn buffer_of(turn: u64) -> usize {
    (turn % BUFFERS) as usize
}

fn named(dtype: gmb_dtype) -> String {
    format!("{{code {}, bits {}, lanes {}}}", dtype.code, dtype.bits, dtype.lanes)
}

#[cold]
fn wrong_state(step: Step, turn: u64, turns: &Turns) -> Error {
    let buffer = buffer_of(turn);
    Error::new(
        GMB_ERROR_WRONG_STATE,
        format!(
            "buffer {buffer} is not with this caller to {}: it is {:?} now, was submitted or given up before, or was never asked \
             for",
            step.name(),
            turns.state(buffer)
        ),
    )
}

impl Core {
    fn event(&self, buffer: usize) -> Result<&Event> {
        self.events.get(buffer).ok_or_else(|| Error::argument(format!("buffer {buffer} of three")))
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        // Memory must outlive the work on it; a lost device does none.
        let done = self.events.iter().map(|event| event.synchronize(None)).fold(Ok(()), Result::and);
        if done.is_err_and(|error| error.status() != GMB_ERROR_DEVICE_LOST) {
            return;
        }
        for address in self.addresses.into_iter().filter(|&address| address != 0) {
            // SAFETY: the work that was submitted is done, and no other may use the buffers.
            let _ = unsafe { self.context.free_ring(address) };
        }
    }
}

impl Buffer {
    /// Device address of the first element.
    pub fn address(&self) -> u64 {
        self.of.address(self.turn)
    }

    /// Bytes.
    pub fn bytes(&self) -> u64 {
        self.of.core.bytes
    }

    /// Which of the three it is.
    pub fn index(&self) -> usize {
        buffer_of(self.turn)
    }

    /// Which turn of the triple buffer this is, from 0 on: what was uploaded in a turn is processed and downloaded in it.
    pub fn turn(&self) -> u64 {
        self.turn
    }

    /// What it was asked for.
    pub fn step(&self) -> Step {
        self.step
    }

    /// The step's work is enqueued on the stream: what the stream holds now. The next step gets the buffer once that is done.
    /// Does not block.
    ///
    /// # Errors
    /// `INVALID_STREAM`, `NOT_SUPPORTED` (the stream is being captured), `DEVICE_LOST`, `DRIVER`. Then the call waits for all of the
    /// device's work, some of which may be on the buffer, and the buffer is given up.
    pub fn submit(self, stream: Stream) -> Result<()> {
        self.hand_on(stream, true)
    }

    /// The same on the stream that was made to wait for the step before.
    pub(crate) fn submit_on_the_same(self, stream: Stream) -> Result<()> {
        self.hand_on(stream, false)
    }

    fn hand_on(mut self, stream: Stream, after: bool) -> Result<()> {
        self.of.submit(self.step, self.turn, stream, after).inspect_err(|_| {
            let _ = self.of.core.context.backend().synchronize();
        })?;
        self.open = false;
        Ok(())
    }

    /// The triple buffer.
    pub(crate) fn of(&self) -> &TripleBuffer {
        &self.of
    }

    /// A coordinator's operation works on it: before it is submitted.
    pub(crate) fn note(&self, id: u64) {
        self.of.core.operations[buffer_of(self.turn)].store(id, Ordering::Release);
    }

    /// Nothing was enqueued on it: the next who asks for this step gets it, unless another was asked for since; then it is
    /// given up.
    pub(crate) fn put_back(mut self) {
        let core = &self.of.core;
        let is_reached = core.event(buffer_of(self.turn)).and_then(Event::is_reached).unwrap_or(false);
        let mut seen = core.turns.load(Ordering::Acquire);
        loop {
            let mut turns = Turns::unpack(seen);
            if !turns.is_held(self.step, self.turn) || !turns.put_back(self.step, self.turn, is_reached) {
                return;
            }
            match self.of.swap(seen, &turns) {
                Ok(()) => break,
                Err(now) => seen = now,
            }
        }
        self.open = false;
    }

    /// The triple buffer and the turn, in the caller's hands from now on.
    pub(crate) fn into_turn(mut self) -> u64 {
        self.open = false;
        self.turn
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.open {
            let _ = self.of.give_up(self.step, self.turn);
        }
    }
}

impl std::fmt::Debug for TripleBuffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TripleBuffer")
            .field("dtype", &self.core.dtype)
            .field("elements", &self.core.elements)
            .finish_non_exhaustive()
    }
}
