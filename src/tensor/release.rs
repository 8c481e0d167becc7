//! A thread of a context that gives tensors back: it waits until the work of their streams is done and then has each
//! producer end its memory, under no lock, in relaxed capture mode and with the device's context current. It sleeps while
//! there is nothing to give back.

use std::collections::{HashMap, VecDeque};
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, Weak};
use std::thread::{JoinHandle, ThreadId};
use std::time::{Duration, Instant};

use super::books::{Books, Item};
use super::lease::User;
use crate::backend::{RawEvent, RawStream, StreamId, StreamState};
use crate::context::Context;
use crate::events::EventKind;
use crate::log::{log, LogLevel};
use crate::status::GMB_ERROR_DEVICE_LOST;
use crate::sync::{forked, lock, wait};

/// What of a stream's work is to be done first.
pub(super) enum Mark {
    /// All that it held when this was recorded.
    Recorded(RawEvent),
    /// Its end, once it is no longer being captured.
    Capturing(User),
    /// Everything of the device: the stream is gone.
    Everything,
    /// Nothing more.
    Nothing,
}

impl Mark {
    /// What the stream holds now. Never fails: what cannot be marked is waited for otherwise.
    pub(super) fn of(books: &Books, user: User) -> Self {
        match books.context.backend().stream_state(user.raw()) {
            Ok(StreamState::Capturing(_)) => Self::Capturing(user),
            Ok(StreamState::Running(id)) if id == user.id() => Self::record(books, user.raw()),
            Err(error) if error.status() == GMB_ERROR_DEVICE_LOST => Self::Nothing,
            _ => Self::Everything,
        }
    }

    fn record(books: &Books, stream: RawStream) -> Self {
        books.record(stream).map_or(Self::Everything, Self::Recorded)
    }

    /// True when what it stands for is done; then an event is no longer needed.
    fn is_past(&mut self, books: &Books) -> bool {
        match self {
            Self::Recorded(event) => books.is_reached(*event),
            Self::Capturing(user) => {
                *self = Self::of(books, *user);
                matches!(self, Self::Nothing)
            }
            // The only one that blocks: for work of a stream that nobody can name any more.
            Self::Everything => {
                if let Err(error) = books.context.backend().synchronize() {
                    log(LogLevel::Warning, || format!("a tensor's stream is gone: {}", error.message()));
                }
                true
            }
            Self::Nothing => true,
        }
    }
}

/// All that is to be done first.
pub(super) enum Marks {
    /// Of one stream: these are kept in order, and the last one tells of all before it.
    One(StreamId, Mark),
    /// Of several.
    All(Vec<Mark>),
}

/// A tensor that nobody reads any more, once its marks are past.
pub(super) struct Retired {
    books: Arc<Books>,
    item: Option<Item>,
    /// Nobody has read it: its producer's stream is waited for by itself.
    unread: bool,
    marks: Marks,
    /// Kept as long.
    pub(super) keep: Option<Kept>,
}

pub(super) type Kept = Arc<dyn std::any::Any + Send + Sync>;

impl Retired {
    pub(super) fn new(item: Item, marks: Marks, books: Arc<Books>) -> Self {
        Self { books, item: Some(item), unread: false, marks, keep: None }
    }

    /// No tensor, but what they lay in.
    pub(super) fn memory(books: Arc<Books>, keep: Kept, marks: Marks) -> Self {
        Self { books, item: None, unread: false, marks, keep: Some(keep) }
    }

    /// No stream has waited for the producer's.
    pub(super) fn unread(mut self) -> Self {
        self.unread = true;
        self
    }

    fn is_past(&mut self) -> bool {
        let Self { books, item, unread, marks, .. } = self;
        if let Some(item) = item.as_ref().filter(|_| *unread) {
            if !books.is_reached(item.produced) {
                return false;
            }
            *unread = false;
        }
        match marks {
            Marks::One(_, mark) => mark.is_past(books),
            Marks::All(marks) => {
                while let Some(mark) = marks.last_mut() {
                    if !mark.is_past(books) {
                        return false;
                    }
                    if let Some(Mark::Recorded(event)) = marks.pop() {
                        let reached = std::iter::once(event);
                        books.context.events().give_back_reached(EventKind::Untimed, reached);
                    }
                }
                true
            }
        }
    }

    /// The one stream whose order it follows.
    fn line(&self) -> Option<(usize, StreamId)> {
        match self.marks {
            Marks::One(stream, Mark::Recorded(_)) if !self.unread => {
                Some((Arc::as_ptr(&self.books) as usize, stream))
            }
            _ => None,
        }
    }

    /// The events that are reached with it.
    fn events(&self) -> impl Iterator<Item = RawEvent> {
        let own = match self.marks {
            Marks::One(_, Mark::Recorded(event)) => Some(event),
            _ => None,
        };
        self.item.as_ref().map(|item| item.produced).into_iter().chain(own)
    }
}

/// The producers' memory ends, of tensors of one mailbox.
pub(super) fn end_all(all: Vec<Retired>) {
    let Some(books) = all.first().map(|retired| Arc::clone(&retired.books)) else { return };
    let context = &books.context;
    // Without a question to the driver: these go back to the pool as they are.
    context.events().give_back_reached(EventKind::Untimed, all.iter().flat_map(Retired::events));
    let _entered = context.backend().enter_for_calls();
    let mut count = 0;
    for retired in all {
        let Retired { item, keep, .. } = retired;
        if let Some(item) = item {
            // A panic of an owner in Rust must not end this thread. (What C++ throws cannot be caught here.)
            let _ = catch_unwind(AssertUnwindSafe(move || drop(item)));
            count += 1;
        }
        drop(keep);
    }
    books.release(count);
}

/// A ring in which device code says what it has released.
pub(super) trait Ring: Send + Sync {
    /// Of which context it is.
    fn context(&self) -> &Context;
    /// Ends what was released: whether something was, and whether there is more to come.
    fn collect(&self) -> (bool, bool);
}

/// How long the thread stays awake when there is nothing to do.
const LINGER: Duration = Duration::from_millis(2);

#[derive(Default)]
struct State {
    arrived: Vec<Retired>,
    rings: Vec<Weak<dyn Ring>>,
    started: bool,
    asleep: bool,
    ended: bool,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

/// The giving thread of a context, started when first needed.
#[derive(Default)]
pub(crate) struct Releaser {
    shared: Arc<Shared>,
    thread: Mutex<Option<(JoinHandle<()>, ThreadId)>>,
}

impl Releaser {
    pub(super) fn retire(&self, retired: Retired) {
        let mut state = lock(&self.shared.state);
        state.arrived.push(retired);
        self.wake(state);
    }

    /// Looks after a ring until it says that nothing more will come.
    pub(super) fn look_after(&self, ring: &Arc<impl Ring + 'static>) {
        let ring: Weak<dyn Ring> = Arc::downgrade(ring) as Weak<dyn Ring>;
        let mut state = lock(&self.shared.state);
        state.rings.push(ring);
        self.wake(state);
    }

    fn wake(&self, mut state: MutexGuard<'_, State>) {
        let asleep = state.asleep;
        let first = !std::mem::replace(&mut state.started, true);
        drop(state);
        if asleep {
            self.shared.changed.notify_one();
        }
        if !first {
            return;
        }
        let shared = Arc::clone(&self.shared);
        match std::thread::Builder::new().name("gmb-release".to_owned()).spawn(move || shared.work()) {
            Ok(started) => {
                let id = started.thread().id();
                *lock(&self.thread) = Some((started, id));
            }
            Err(error) => {
                // The next tensor tries again.
                lock(&self.shared.state).started = false;
                log(LogLevel::Error, || format!("no thread to give tensors back with: {error}"));
            }
        }
    }

    /// Ends the thread.
    pub(crate) fn end(&self) {
        let thread = lock(&self.thread).take();
        lock(&self.shared.state).ended = true;
        self.shared.changed.notify_one();
        // The last user of a context may be a tensor that this very thread gave back.
        if let Some((thread, _)) = thread.filter(|(_, id)| *id != std::thread::current().id() && !forked()) {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn work(&self) {
        let mut lines: HashMap<(usize, StreamId), VecDeque<Retired>> = HashMap::new();
        let mut others: Vec<Retired> = Vec::new();
        let mut relaxed = false;
        let mut quiet = Instant::now();
        loop {
            let (arrived, mut rings) = {
                let mut state = lock(&self.state);
                // Where tensors come and go it stays awake for a while: to be woken costs whoever releases the next one more
                // than all the rest.
                while !state.ended
                    && state.arrived.is_empty()
                    && state.rings.is_empty()
                    && lines.is_empty()
                    && others.is_empty()
                    && quiet.elapsed() > LINGER
                {
                    state.asleep = true;
                    state = wait(&self.changed, state);
                    state.asleep = false;
                    quiet = Instant::now();
                }
                // Whoever holds the context has nothing retired any more.
                if state.ended {
                    return;
                }
                (std::mem::take(&mut state.arrived), std::mem::take(&mut state.rings))
            };
            let mut busy = !arrived.is_empty();
            for retired in arrived {
                if !relaxed {
                    retired.books.context.backend().relax();
                    relaxed = true;
                }
                match retired.line() {
                    Some(line) => lines.entry(line).or_default().push_back(retired),
                    None => others.push(retired),
                }
            }
            lines.retain(|_, line| {
                let past = count_past(line);
                busy |= past > 0;
                end_all(line.drain(..past).collect());
                !line.is_empty()
            });
            let mut i = 0;
            while i < others.len() {
                match others[i].is_past() {
                    true => end_all(vec![others.swap_remove(i)]),
                    false => i += 1,
                }
            }
            rings.retain(|ring| {
                let Some(ring) = ring.upgrade() else { return false };
                if !relaxed {
                    ring.context().backend().relax();
                    relaxed = true;
                }
                let (some, more) = ring.collect();
                busy |= some;
                more
            });
            lock(&self.state).rings.append(&mut rings);
            if busy {
                quiet = Instant::now();
            }
            // What comes soon is given back soon; what does not costs little.
            let nap = match quiet.elapsed().as_micros() {
                0..2_000 => 20,
                2_000..100_000 => 100,
                _ => 500,
            };
            std::thread::sleep(Duration::from_micros(nap));
        }
    }
}

/// How many at the front are past. They are in the order of a stream, so few are asked.
fn count_past(line: &mut VecDeque<Retired>) -> usize {
    let last = line.len().saturating_sub(1);
    let mut past = |i: usize| line.get_mut(i).is_some_and(Retired::is_past);
    if past(last) {
        return last + 1;
    }
    let (mut low, mut high) = (0, last);
    while low < high {
        let middle = low + (high - low) / 2;
        if past(middle) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    low
}
