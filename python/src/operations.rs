//! A coordinator's operations: what they use, kept until they are done, and how they ended.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, Weak};
use std::time::{Duration, Instant};

use pyo3::prelude::*;

use crate::calling;
use crate::context::ContextHandle;
use crate::error::{argument, check, closed, status, CALLBACK};
use crate::interpreter::{apart, ended};
use crate::keeping::Kept;
use crate::launch::Raised;
use crate::waiting::{nanoseconds, patiently_while};
use crate::{ffi, lock};

/// What the library does not do for operations: their memory, and what functions of Python raised.
#[derive(Default)]
struct Books {
    /// Those of this package.
    under_way: HashMap<u64, UnderWay>,
    /// Calls that may not have entered theirs yet.
    entering: usize,
    /// Completions that came before their operation was entered, or that are somebody else's.
    early: Vec<ffi::gmb_completion>,
    told: VecDeque<Told>,
    /// Operations that are known to be done.
    settled: u64,
    /// Kept longer than others: more may come after them.
    failed: BTreeMap<u64, Failure>,
}

/// An operation that may not be done.
pub struct UnderWay {
    pub kept: Vec<Kept>,
    pub raised: Arc<Raised>,
    /// What it comes after, where functions of Python may fail on the host.
    pub after: Vec<u64>,
}

/// How an operation failed.
#[derive(Clone)]
pub struct Failure {
    status: i32,
    /// Which failed first; itself, or one that it came after. And what that does, if it is known.
    cause: u64,
    cause_kind: i32,
    words: Arc<str>,
    /// What a function of Python raised, if that was it.
    raised: Option<Arc<Raised>>,
}

impl Failure {
    /// What was raised, where this is the operation whose function did; else an error of the library that comes from it.
    pub fn error(&self, py: Python<'_>, operation: u64) -> PyErr {
        let raised = self.raised.as_ref().and_then(|raised| raised.get()).map(|error| error.clone_ref(py));
        match raised {
            Some(raised) if self.cause == operation => raised,
            Some(raised) => {
                let (one, cause) = (number(operation), number(self.cause));
                let words =
                    format!("operation {one}: operation {cause}, which it came after, failed: {raised}");
                let error = status(self.status, words);
                error.set_cause(py, Some(raised));
                error
            }
            None => status(self.status, &self.words),
        }
    }
}

/// A completion, as it is told.
pub struct Told {
    pub operation: u64,
    pub kind: i32,
    pub count: u32,
    pub cause: u64,
    pub cause_kind: i32,
    pub failure: Option<Failure>,
}

/// Failed operations that are remembered, with what was raised: fewer than in the library, since that has frames with it.
const MOST_FAILED: usize = 1 << 12;

/// Of an id, what tells the operation from others of its coordinator: as the library's messages name it.
pub fn number(operation: u64) -> u64 {
    operation & ((1 << 44) - 1)
}

impl Books {
    /// How an operation ended that the library says is done; what it used goes to `over`.
    fn settle(
        &mut self,
        done: &ffi::gmb_completion,
        words: Option<Arc<str>>,
        over: &mut Vec<UnderWay>,
    ) -> Told {
        let id = done.operation.id;
        let known = self.under_way.remove(&id);
        let raised = known.as_ref().map(|it| &it.raised).filter(|raised| raised.get().is_some());
        let before = known.as_ref().and_then(|it| it.after.iter().find_map(|before| self.failed.get(before)));
        let failure = if done.status < 0 {
            let cause = self.failed.get(&done.cause.id);
            let itself = done.cause.id == id;
            Some(Failure {
                status: done.status,
                cause: done.cause.id,
                cause_kind: if itself { done.kind } else { cause.map_or(-1, |cause| cause.cause_kind) },
                words: words.unwrap_or_else(|| "the operation failed".into()),
                raised: raised.filter(|_| itself).cloned().or(cause.and_then(|cause| cause.raised.clone())),
            })
        } else if let Some(raised) = raised {
            let words = format!("operation {} (compute): its function raised an exception", number(id));
            let status = CALLBACK;
            let raised = Some(Arc::clone(raised));
            Some(Failure { status, cause: id, cause_kind: done.kind, words: words.into(), raised })
        } else {
            before.map(|before| {
                let (one, cause) = (number(id), number(before.cause));
                let words = format!("operation {one}: operation {cause}, which it came after, failed");
                Failure { words: words.into(), ..before.clone() }
            })
        };
        over.extend(known);
        if let Some(failure) = &failure {
            self.failed.insert(id, failure.clone());
            if self.failed.len() > MOST_FAILED {
                self.failed.pop_first();
            }
        }
        let (cause, cause_kind) = failure.as_ref().map_or((0, -1), |it| (it.cause, it.cause_kind));
        let count = if failure.is_some() { 0 } else { done.count };
        self.settled += 1;
        Told { operation: id, kind: done.kind, count, cause, cause_kind, failure }
    }

    fn tell(&mut self, told: Told, most: usize) {
        if self.told.len() >= most {
            self.told.pop_front();
        }
        self.told.push_back(told);
    }
}

/// The handle, which goes with the coordinator or the interpreter.
pub struct Core {
    pub context: Arc<ContextHandle>,
    handle: ffi::gmb_coordinator,
    /// By their steps.
    pub streams: [usize; 3],
    most_told: usize,
    closed: AtomicBool,
    /// Calls that are inside.
    inside: Mutex<usize>,
    left: Condvar,
    destroyed: AtomicBool,
    books: Mutex<Books>,
    /// One thread asks the library at a time, so that what it tells stays in its order.
    asking: Mutex<()>,
    since: AtomicU32,
}

/// Those that there are.
static OPEN: Mutex<Vec<Weak<Core>>> = Mutex::new(Vec::new());

/// How long the end of the interpreter waits for operations.
const PATIENCE: Duration = Duration::from_secs(2);

/// Operations between two looks.
const LOOK_AFTER: u32 = 16;

/// Waits for what is under way, for a moment: its memory, and functions of Python, go with the interpreter.
pub fn end_all() {
    let (open, start) = (std::mem::take(&mut *lock(&OPEN)), Instant::now());
    for core in open.iter().filter_map(Weak::upgrade) {
        if core.destroyed.load(Ordering::SeqCst) {
            continue;
        }
        let left = nanoseconds(PATIENCE.saturating_sub(start.elapsed()));
        // It stays open: to close it would wake threads that wait, which would only raise.
        // SAFETY: checked by the library.
        unsafe { ffi::gmb_coordinator_synchronize(core.handle, left) };
    }
}

thread_local! {
    /// Coordinators that this thread is inside of.
    static MINE: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
}

/// While there is one the coordinator stays.
pub struct Entered<'a>(&'a Core);

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        MINE.with(|mine| mine.borrow_mut().pop());
        let mut inside = lock(&self.0.inside);
        *inside -= 1;
        if *inside == 0 {
            self.0.left.notify_all();
        }
    }
}

/// A call that queues: its operations are entered, or it failed.
pub struct Entering<'a>(&'a Core);

impl Core {
    pub fn new(
        context: &Arc<ContextHandle>,
        handle: ffi::gmb_coordinator,
        streams: [usize; 3],
        most: u32,
    ) -> Arc<Self> {
        let core = Arc::new(Self {
            context: Arc::clone(context),
            handle,
            streams,
            most_told: 2 * most as usize,
            closed: AtomicBool::new(false),
            inside: Mutex::new(0),
            left: Condvar::new(),
            destroyed: AtomicBool::new(false),
            books: Mutex::default(),
            asking: Mutex::default(),
            since: AtomicU32::new(0),
        });
        let mut open = lock(&OPEN);
        open.retain(|known| known.strong_count() > 0);
        open.push(Arc::downgrade(&core));
        core
    }

    pub fn check_open(&self) -> PyResult<()> {
        self.context.handle()?;
        match self.closed.load(Ordering::SeqCst) {
            true => Err(closed("the coordinator is closed")),
            false => Ok(()),
        }
    }

    /// Never blocks.
    pub fn enter(&self) -> PyResult<(Entered<'_>, ffi::gmb_coordinator)> {
        self.context.handle()?;
        self.enter_if_open().ok_or_else(|| closed("the coordinator is closed"))
    }

    /// The same without a word.
    pub fn enter_if_open(&self) -> Option<(Entered<'_>, ffi::gmb_coordinator)> {
        let mut inside = lock(&self.inside);
        if self.closed.load(Ordering::SeqCst) {
            return None;
        }
        *inside += 1;
        MINE.with(|mine| mine.borrow_mut().push(self.which()));
        Some((Entered(self), self.handle))
    }

    fn which(&self) -> usize {
        std::ptr::from_ref(self) as usize
    }

    /// Waits until all is done; what was kept goes then.
    fn end(&self) {
        self.closed.store(true, Ordering::SeqCst);
        let mut inside = lock(&self.inside);
        while *inside > 0 {
            inside = self.left.wait(inside).unwrap_or_else(|p| p.into_inner());
        }
        if !self.destroyed.swap(true, Ordering::SeqCst) {
            // SAFETY: nobody uses it any more.
            unsafe { ffi::gmb_coordinator_destroy(self.handle) };
        }
    }

    pub fn close(&self, py: Python<'_>) -> PyResult<()> {
        if MINE.with(|mine| mine.borrow().contains(&self.which())) {
            return Err(argument("a callback of a coordinator cannot close it: that waits for the callback"));
        }
        // Patiently: what is under way may take long.
        if let Ok((_entered, handle)) = self.enter() {
            // SAFETY: checked by the library.
            patiently_while(
                py,
                None,
                || self.check_open(),
                |left| unsafe { ffi::gmb_coordinator_synchronize(handle, left) },
            )
            .or_else(|error| if self.check_open().is_err() { Ok(0) } else { Err(error) })?;
            self.look(py, handle)?;
        }
        py.detach(|| self.end());
        let over = std::mem::take(&mut lock(&self.books).under_way);
        drop(over);
        Ok(())
    }

    /// Before a call that queues.
    pub fn entering(&self) -> Entering<'_> {
        lock(&self.books).entering += 1;
        Entering(self)
    }

    /// Asks the library what is done; what that used goes back. Not while a lock is held.
    pub fn look(&self, py: Python<'_>, handle: ffi::gmb_coordinator) -> PyResult<()> {
        self.since.store(0, Ordering::Relaxed);
        // In a function that it calls the library tells nothing of operations.
        if calling::on(&self.context, self.streams[1]).is_some() {
            return Ok(());
        }
        let mut over = Vec::new();
        let told = py.detach(|| self.ask(handle, &mut over));
        // May run anything.
        drop(over);
        check(told).map(drop)
    }

    /// Now and then.
    pub fn look_sometimes(&self, py: Python<'_>, handle: ffi::gmb_coordinator, queued: u32) -> PyResult<()> {
        match self.since.fetch_add(queued, Ordering::Relaxed) + queued >= LOOK_AFTER {
            true => self.look(py, handle),
            false => Ok(()),
        }
    }

    fn ask(&self, handle: ffi::gmb_coordinator, over: &mut Vec<UnderWay>) -> i32 {
        let _asking = lock(&self.asking);
        // SAFETY: numbers only.
        let mut done: [ffi::gmb_completion; 64] = unsafe { std::mem::zeroed() };
        loop {
            let mut count = 0;
            // SAFETY: room for so many.
            let told = unsafe {
                ffi::gmb_coordinator_poll(handle, done.len() as u32, done.as_mut_ptr(), &mut count)
            };
            if told < 0 {
                return told;
            }
            for one in &done[..count as usize] {
                let words = self.words(one);
                let mut books = lock(&self.books);
                if books.entering > 0 && !books.under_way.contains_key(&one.operation.id) {
                    books.early.push(*one);
                    continue;
                }
                let told = books.settle(one, words, over);
                books.tell(told, self.most_told);
            }
            if (count as usize) < done.len() {
                return 0;
            }
        }
    }

    /// Why an operation failed, in the library's words.
    fn words(&self, of: &ffi::gmb_completion) -> Option<Arc<str>> {
        if of.status >= 0 {
            return None;
        }
        // SAFETY: checked by the library.
        unsafe { ffi::gmb_coordinator_wait(self.handle, of.operation, 0, std::ptr::null_mut()) };
        Some(crate::error::message().into())
    }

    /// What is done and was not told yet.
    pub fn take_told(&self, most: usize) -> Vec<Told> {
        let mut books = lock(&self.books);
        let count = books.told.len().min(most);
        books.told.drain(..count).collect()
    }

    /// How many operations are known to be done.
    pub fn settled(&self) -> u64 {
        lock(&self.books).settled
    }

    /// Raises what an operation failed with.
    pub fn check_failed(&self, py: Python<'_>, operation: u64) -> PyResult<()> {
        let failure = lock(&self.books).failed.get(&operation).cloned();
        failure.map_or(Ok(()), |failure| Err(failure.error(py, operation)))
    }
}

impl Entering<'_> {
    /// They are queued, in this order.
    pub fn enter(self, operations: Vec<(u64, UnderWay)>) {
        let mut over = Vec::new();
        {
            let mut books = lock(&self.0.books);
            let ids: Vec<u64> = operations.iter().map(|&(id, _)| id).collect();
            books.under_way.extend(operations);
            let (mine, others) =
                std::mem::take(&mut books.early).into_iter().partition(|one| ids.contains(&one.operation.id));
            books.early = others;
            self.0.settle_all(&mut books, mine, &mut over);
        }
        drop(self);
        drop(over);
    }
}

impl Drop for Entering<'_> {
    fn drop(&mut self) {
        let mut over = Vec::new();
        let mut books = lock(&self.0.books);
        books.entering -= 1;
        if books.entering == 0 {
            // Nobody's of this package.
            let others = std::mem::take(&mut books.early);
            self.0.settle_all(&mut books, others, &mut over);
        }
    }
}

impl Core {
    fn settle_all(&self, books: &mut Books, all: Vec<ffi::gmb_completion>, over: &mut Vec<UnderWay>) {
        for one in all {
            let told = books.settle(&one, self.words(&one), over);
            books.tell(told, self.most_told);
        }
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        let kept = std::mem::take(&mut self.books.get_mut().unwrap_or_else(|p| p.into_inner()).under_way);
        let (handle, destroyed, context) =
            (self.handle, self.destroyed.load(Ordering::SeqCst), Arc::clone(&self.context));
        if ended() {
            // Never freed under a copy.
            std::mem::forget((kept, context));
            return;
        }
        apart(move || {
            if !destroyed {
                // SAFETY: nobody has it any more.
                unsafe { ffi::gmb_coordinator_destroy(handle) };
            }
            drop((kept, context));
        });
    }
}
