//! Coordinators: uploads, compute and downloads on three streams, each as soon as what it comes after is done.

mod books;
mod clock;
mod enqueue;
mod graph;
mod outcome;
mod staging;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Mutex;
use std::time::{Duration, Instant};

pub use enqueue::{Callback, Compute, Place, Work};
pub use graph::{After, Task};

use crate::backend::wait_until;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::profiler::Range;
use crate::status::*;
use crate::stream::{OwnedStream, Priority, Resolved, Stream};
use crate::sync::{lock, thread_number};
use crate::triple::{Buffer, Step};
use crate::Push;
use books::{Books, Enqueued, Reserved};
use enqueue::Done;
use outcome::{Before, Failure, Place as InStream, Why};
use staging::Staging;

/// What a coordinator is made with.
#[derive(Clone, Copy, Debug, Default)]
pub struct CoordinatorOptions {
    /// Operations from the oldest that is not done to the newest, at most, and as many are remembered after they were done;
    /// 0 for 4,096, at most 2^20.
    pub max_operations: u32,
    /// Of its streams.
    pub priority: Priority,
    /// One stream for all steps, so that operations run in the order in which they are queued.
    pub one_stream: bool,
    /// Completions tell when operations ran. Costs an event more for each.
    pub timed: bool,
}

const MAX_OPERATIONS: u32 = 4096;
const MOST_OPERATIONS: u32 = 1 << 20;

/// An operation of a coordinator. A coordinator gives no id twice, and those of others are told apart; a later operation has a
/// greater one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OperationId(pub(crate) u64);

impl OperationId {
    /// The id as a number, as the C API has it.
    pub fn raw(self) -> u64 {
        self.0
    }

    /// The id of a number that [`raw`](Self::raw) gave. Any number will do: those that are none are refused when used.
    pub fn from_raw(raw: u64) -> Self {
        Self(raw)
    }
}

/// What an operation does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OperationKind {
    /// Copies from host memory to the device.
    #[default]
    Upload,
    /// Runs a kernel, or what a callback enqueues.
    Compute,
    /// Copies from the device to host memory.
    Download,
    /// Pushes records into a mailbox.
    Push,
    /// Pops records from a mailbox.
    Pop,
}

impl OperationKind {
    fn name(self) -> &'static str {
        match self {
            Self::Upload => "upload",
            Self::Compute => "compute",
            Self::Download => "download",
            Self::Push => "push",
            Self::Pop => "pop",
        }
    }
}

/// An operation that is done, or failed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Completion {
    /// Which.
    pub operation: OperationId,
    /// What it did.
    pub kind: OperationKind,
    /// `GMB_OK`, or why it failed: by itself, or what it came after.
    pub status: gmb_status,
    /// Records pushed or popped.
    pub count: u32,
    /// The operation that failed first: itself, or one that it came after. `None` for success.
    pub cause: Option<OperationId>,
    /// When it ran, of a coordinator that is timed; `None` of one that was not begun.
    pub span: Option<Span>,
}

/// When an operation ran, by the device's clock: microseconds since the coordinator's first operation began. What its stream
/// waited for is not in it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Span {
    /// Its begin.
    pub begin_us: f64,
    /// Its end.
    pub end_us: f64,
}

/// A coordinator's counts at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CoordinatorInfo {
    /// Operations from the oldest that is not done to the newest, at most.
    pub max_operations: u32,
    /// Operations that were queued so far; refused ones may count.
    pub queued: u64,
    /// Of them, those that are not known to be done.
    pub in_flight: u64,
    /// Most from the oldest that was not done to the newest, at once.
    pub high_water: u64,
    /// Events that it holds; it takes more only when all of them are in use.
    pub events: u64,
}

/// Three streams, one each to upload, compute and download, and operations on them that come after each other as told: any
/// directed acyclic graph. Queueing an operation does not wait for the device; its id is good for others to come after it,
/// for [`wait`](Self::wait), and in what [`poll`](Self::poll) tells.
///
/// An operation that fails fails those that come after it, with its status; others go on. What was enqueued on the device
/// before the failure was known has run, with unspecified results. A lost device fails everything with `DEVICE_LOST`.
///
/// Dropped, it waits for what was queued.
///
/// ```
/// use gpumailbox::{Callback, Compute, Context, ContextOptions, Coordinator, CoordinatorOptions, Place, Work};
///
/// let context = Context::new(&ContextOptions::default())?;
/// let coordinator = Coordinator::new(&context, &CoordinatorOptions::default())?;
/// let memory = context.device_buffer(1024)?;
/// let (input, mut output) = (vec![1u8; 1024], vec![0u8; 1024]);
///
/// // SAFETY: all memory outlives the operations, which are waited for.
/// unsafe {
///     let upload = Work::Upload { to: Place::Address(memory.address()), from: input.as_ptr() as u64, bytes: 1024 };
///     let uploaded = coordinator.queue(upload, &[])?;
///     let (filled, on) = (memory.address(), context.clone());
///     let fill: Callback = Box::new(move |stream, _| on.fill(filled, 2, 512, stream));
///     let computed = coordinator.queue(Work::Compute(Compute::Callback(fill)), &[uploaded])?;
///     let to = output.as_mut_ptr() as u64;
///     let download = Work::Download { to, from: Place::Address(memory.address()), bytes: 1024 };
///     let downloaded = coordinator.queue(download, &[computed])?;
///     coordinator.wait(downloaded, None)?;
/// }
/// assert_eq!((output[511], output[512]), (2, 1));
/// assert_eq!(coordinator.poll(10)?.len(), 3);
/// # Ok::<(), gpumailbox::Error>(())
/// ```
pub struct Coordinator {
    context: Context,
    max_operations: u32,
    lanes: Vec<Lane>,
    books: Books,
    /// Of uploads, and of downloads: never waited for together.
    uploads: Staging,
    downloads: Staging,
}

/// One stream, and what it is known to come after.
struct Lane {
    stream: OwnedStream,
    submitted: Mutex<Submitted>,
    /// The thread that is in a callback here; zero for none.
    inside: AtomicU64,
}

#[derive(Default)]
struct Submitted {
    /// Operations of this stream so far.
    placed: u64,
    /// Up to which operation of each stream this one was made to wait.
    waited: [u64; 3],
}

/// An operation's id, or why there is none and the number that is still to be had.
type Queued<'a> = std::result::Result<OperationId, (Error, Reserved<'a>)>;

static NEXT: AtomicU64 = AtomicU64::new(0);

impl Coordinator {
    /// Makes one, with streams of its own.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` (`max_operations` above 2^20), `OUT_OF_HOST_MEMORY`, `DEVICE_LOST`, `DRIVER`, `SYSTEM`.
    pub fn new(context: &Context, options: &CoordinatorOptions) -> Result<Self> {
        let _range = Range::new(c"make a coordinator");
        let max_operations = match options.max_operations {
            0 => MAX_OPERATIONS,
            most if most <= MOST_OPERATIONS => most,
            most => {
                return Err(Error::argument(format!("max_operations {most} exceeds {MOST_OPERATIONS}")));
            }
        };
        let lane = || -> Result<Lane> {
            Ok(Lane {
                stream: context.stream_of(options.priority)?,
                submitted: Mutex::default(),
                inside: AtomicU64::new(0),
            })
        };
        // Zero would make ids of small numbers. After a million coordinators ids come again.
        let tag = 1 + NEXT.fetch_add(1, Ordering::Relaxed) % (books::TAGS - 1);
        Ok(Self {
            context: context.clone(),
            max_operations,
            lanes: (0..if options.one_stream { 1 } else { 3 }).map(|_| lane()).collect::<Result<_>>()?,
            books: Books::new(tag, max_operations, options.timed)?,
            uploads: Staging::default(),
            downloads: Staging::default(),
        })
    }

    /// The context it works in.
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// The stream of a step, for work of one's own and for events. Work on it is in order with the coordinator's operations.
    pub fn stream(&self, step: Step) -> Stream<'_> {
        self.lanes[self.lane(step)].stream.get()
    }

    fn lane(&self, step: Step) -> usize {
        step.index() % self.lanes.len()
    }

    /// Counts. Never blocks for the device.
    pub fn info(&self) -> CoordinatorInfo {
        let (queued, in_flight, high_water) = self.books.counts();
        CoordinatorInfo {
            max_operations: self.max_operations,
            queued,
            in_flight,
            high_water,
            events: self.books.events(),
        }
    }

    /// Queues one operation, after others of this coordinator, however long ago those were. It does not wait for the device, as
    /// long as the driver takes more: of a stream it holds about a thousand entries, and an operation is two to four of them.
    /// What the operation copies from or to must stay valid until it is done.
    ///
    /// A callback is called at once, by this thread: what it enqueues on the stream is the operation. An error of its ends
    /// the operation, not the call, since part of it may be enqueued. Under the full policy `Wait` a push blocks for
    /// [`Push::timeout`](crate::Push) at most.
    ///
    /// # Errors
    /// Then nothing was queued. `INVALID_HANDLE` (an id of another coordinator, or never given out), `FULL` (as many
    /// are in flight as may be: poll or wait), `UNAVAILABLE` (no buffer of a triple buffer has come to the step),
    /// `WRONG_TYPE`, `WRONG_STATE`, `NOT_SUPPORTED` (the stream is being captured), what the work's own calls answer
    /// ([`ModuleKernel::launch`](crate::ModuleKernel::launch), [`Mailbox::push`](crate::Mailbox::push), copies),
    /// `INVALID_ARGUMENT` (called by a callback of this coordinator), `DEVICE_LOST`, `DRIVER`.
    ///
    /// # Safety
    /// All memory that the work names stays valid, and is not used otherwise, until the operation is done.
    pub unsafe fn queue(&self, work: Work, after: &[OperationId]) -> Result<OperationId> {
        let _range = Range::new(c"queue an operation");
        let numbers = after.iter().map(|&id| self.books.number_of(id)).collect::<Result<Vec<_>>>()?;
        self.check_outside()?;
        let reserved = self.room(Books::reserve)?;
        // SAFETY: as promised by the caller.
        unsafe { self.queue_or_wait(work, &numbers, reserved) }.map_err(|(error, _)| error)
    }

    /// As `queue_after`. For room in a mailbox it waits without holding anything: what makes room may be queued meanwhile.
    ///
    /// # Safety
    /// As of `queue`.
    unsafe fn queue_or_wait<'a>(&'a self, work: Work, after: &[u64], reserved: Reserved<'a>) -> Queued<'a> {
        let Work::Push { mailbox, push, step } = work else {
            // SAFETY: as promised by the caller, here and below.
            return unsafe { self.queue_after(work, after, reserved) };
        };
        let (start, mut reserved) = (Instant::now(), reserved);
        loop {
            let attempt = Push { timeout: Some(Duration::ZERO), ..push };
            // SAFETY: as promised by the caller.
            let queued =
                unsafe { self.queue_after(Work::Push { mailbox, push: attempt, step }, after, reserved) };
            let passed = start.elapsed();
            reserved = match queued {
                Err((error, again))
                    if error.status() == GMB_ERROR_TIMEOUT
                        && push.timeout.is_none_or(|limit| passed < limit) =>
                {
                    again
                }
                queued => return queued,
            };
            match passed.as_millis() {
                0 => std::thread::yield_now(),
                1..50 => std::thread::sleep(Duration::from_micros(100)),
                _ => std::thread::sleep(Duration::from_millis(1)),
            }
        }
    }

    /// Queues an operation that has its number. If that fails, the number is the caller's again.
    ///
    /// # Safety
    /// As of `queue`.
    unsafe fn queue_after<'a>(&'a self, work: Work, after: &[u64], reserved: Reserved<'a>) -> Queued<'a> {
        let mut under_way = Vec::new();
        let mut latest: [Option<(u64, u64)>; 3] = [None; 3];
        let mut inherited = None;
        for &number in after {
            match self.books.before(number) {
                Before::Done(outcome) if outcome.status < 0 => drop(inherited.get_or_insert(outcome)),
                Before::Done(_) => {}
                Before::UnderWay(place, fails) => {
                    inherited = inherited.or(fails);
                    under_way.push(number);
                    // Of each stream the latest is enough.
                    let latest = &mut latest[place.lane];
                    *latest = (*latest).max(Some((place.nth, number)));
                }
            }
        }
        let (kind, step) = (work.kind(), work.step());
        let lane = &self.lanes[self.lane(step)];
        let mut submitted = lock(&lane.submitted);
        let submitted = match inherited {
            None => {
                // SAFETY: as promised by the caller.
                let enqueue = |stream, after: &[u64]| unsafe { self.enqueue(work, lane, stream, after) };
                self.submit((kind, step), latest, &mut submitted, enqueue)
            }
            Some(outcome) => {
                let turn = self.pass_over(&work, after);
                if under_way.is_empty() {
                    return Ok(reserved.fail(kind, Why::Before(&outcome), turn));
                }
                // It is told after what it came after, so it has its place there.
                let failed = Some(Failure::Before(outcome.of_dependant()));
                self.submit((kind, step), latest, &mut submitted, |_, _| {
                    Ok(Done { failed, turn, ..Default::default() })
                })
            }
        };
        let (enqueued, buffer, before) = match submitted {
            Ok(done) => done,
            Err(error) => return Err((error, reserved)),
        };
        under_way.extend(before);
        let id = reserved.enter(enqueued, &under_way);
        if let Some(buffer) = buffer {
            buffer.note(id.0);
            // If it fails, the device is lost, and the operation fails, too.
            let _ = buffer.submit_on_the_same(lane.stream.get());
        }
        Ok(id)
    }

    /// Puts an operation on its stream, under that one's lock, behind the latest of each stream that it comes after. With it
    /// the buffer that is still to be submitted, and what worked on that before.
    fn submit(
        &self,
        (kind, step): (OperationKind, Step),
        latest: [Option<(u64, u64)>; 3],
        submitted: &mut Submitted,
        enqueue: impl FnOnce(Resolved, &[u64]) -> Result<Done>,
    ) -> Result<(Enqueued, Option<Buffer>, Option<u64>)> {
        let own = self.lane(step);
        let lane = &self.lanes[own];
        let _entered = self.context.backend().enter_for_calls()?;
        let stream = self.context.resolve(lane.stream.get())?;
        if stream.is_capturing() {
            return Err(Error::new(
                GMB_ERROR_NOT_SUPPORTED,
                format!(
                    "the {} stream is being captured: a coordinator tells what is done, a graph runs later",
                    step.name()
                ),
            ));
        }
        let event = self.books.event(&self.context)?;
        for (other, before) in latest.into_iter().enumerate() {
            let Some((nth, number)) = before.filter(|_| other != own) else { continue };
            if nth > submitted.waited[other] {
                self.books.hold(number, stream)?;
                submitted.waited[other] = nth;
            }
        }
        let began = self.books.beginning(&self.context)?;
        if let Some(began) = &began {
            began.mark(stream.raw)?;
        }
        let after: Vec<u64> = latest.iter().flatten().map(|&(_, number)| number).collect();
        let done = enqueue(stream, &after)?;
        event.mark(stream.raw)?;
        submitted.placed += 1;
        let place = InStream { lane: own, nth: submitted.placed };
        let Done { token, failed, buffer, before, turn } = done;
        let turn = turn.or(buffer.as_ref().map(|buffer| (buffer.of().key(), Some(buffer.turn()))));
        Ok((Enqueued { kind, place, began, event, token, failed, turn }, buffer, before))
    }

    /// Numbers for operations, after a look for those that are done if need be.
    fn room<'a, T>(&'a self, reserve: impl Fn(&'a Books) -> Result<T>) -> Result<T> {
        reserve(&self.books).or_else(|full| {
            self.books.look()?;
            reserve(&self.books).map_err(|_| full)
        })
    }

    /// A callback holds its stream's lock.
    fn check_outside(&self) -> Result<()> {
        let me = thread_number();
        if self.lanes.iter().any(|lane| lane.inside.load(Ordering::Relaxed) == me) {
            return Err(Error::argument(
                "called by a callback of the same coordinator: a callback enqueues on the stream that it is given",
            ));
        }
        Ok(())
    }

    /// What is done and was not told yet, `most` at most, each once: an operation never before those that it came after.
    /// Never blocks for the device, and costs as much as there is to tell. What nobody asks for is dropped when twice
    /// `max_operations` later ones were queued.
    ///
    /// # Errors
    /// `DRIVER`. A lost device is told by the operations.
    pub fn poll(&self, most: usize) -> Result<Vec<Completion>> {
        self.books.look()?;
        Ok(self.books.take_told(most))
    }

    /// Blocks the calling thread until an operation is done. `None` waits without limit, zero asks once. It can be asked for
    /// again, until it is forgotten, and `poll` still tells of it.
    ///
    /// # Errors
    /// `INVALID_HANDLE` (an id of another coordinator, never given out, or forgotten), `TIMEOUT` (wait again), and why the
    /// operation failed: the message tells which one failed first.
    pub fn wait(&self, operation: OperationId, timeout: Option<Duration>) -> Result<Completion> {
        let _range = Range::new(c"wait for an operation");
        let number = self.books.number_of(operation)?;
        let kind = self.books.kind_of(number)?;
        self.wait_for(timeout, || self.books.outcome(number, kind))?
            .unwrap_or_else(|| Err(timed_out("the operation is not done in time")))
    }

    /// Blocks the calling thread until all operations are done that were queued before the call. How they ended is for `poll`
    /// to tell.
    ///
    /// # Errors
    /// `TIMEOUT` (wait again), `DRIVER`.
    pub fn synchronize(&self, timeout: Option<Duration>) -> Result<()> {
        let _range = Range::new(c"synchronize a coordinator");
        let latest = self.books.latest();
        self.wait_for(timeout, || self.books.all_done(latest).then_some(()))?
            .ok_or_else(|| timed_out("not all operations are done in time"))
    }

    fn wait_for<T>(
        &self,
        timeout: Option<Duration>,
        mut found: impl FnMut() -> Option<T>,
    ) -> Result<Option<T>> {
        self.check_outside()?;
        let mut failed = None;
        let ready = || {
            if let Some(value) = found() {
                return Some(Some(value));
            }
            if let Err(error) = self.books.look_if_nobody_does() {
                failed = Some(error);
                return Some(None);
            }
            found().map(Some)
        };
        match (wait_until(timeout, ready, || Ok(()))?, failed) {
            (_, Some(error)) => Err(error),
            (found, None) => Ok(found.flatten()),
        }
    }
}

fn timed_out(what: &str) -> Error {
    Error::new(GMB_ERROR_TIMEOUT, format!("{what}: wait again, nothing is lost"))
}

impl Drop for Coordinator {
    fn drop(&mut self) {
        // Its pinned memory, and the caller's, must outlive the work on it; a lost device does none.
        let finished = self.books.finish();
        let is_done = finished.map_or_else(|error| error.status() == GMB_ERROR_DEVICE_LOST, |()| true);
        for staging in [&self.uploads, &self.downloads] {
            staging.end(is_done);
        }
    }
}

impl std::fmt::Debug for Coordinator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Coordinator").field("max_operations", &self.max_operations).finish_non_exhaustive()
    }
}
