//! Which stream is current for a thread.

use std::cell::{Cell, RefCell};
use std::ffi::c_void;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::context::Context;
use crate::error::{Error, Result};
use crate::status::*;
use crate::stream::Stream;
use crate::sync::thread_number;

/// Guards that a thread can hold at once.
const DEPTH: usize = 64;

#[derive(Clone, Copy)]
struct Entry {
    guard: u64,
    place: u64,
    raw: usize,
    ended: bool,
    /// A context is to be taken off with it.
    leave: Option<fn()>,
}

// Neither needs a destructor: those run after the library may be gone.
thread_local! {
    static STACK: RefCell<[Entry; DEPTH]> =
        const { RefCell::new([Entry { guard: 0, place: 0, raw: 0, ended: false, leave: None }; DEPTH]) };
    static HELD: Cell<usize> = const { Cell::new(0) };
}

/// Makes a stream current for this thread: [`Stream::CURRENT`] means it, and
/// on CUDA its context is current, until the guard is dropped. Guards nest;
/// one that is dropped before an inner one takes effect when that is gone.
/// It must not be forgotten: then its stream would stay current when it is gone.
///
/// A guard belongs to its thread and cannot leave it:
///
/// ```compile_fail
/// # use gpumailbox::{Context, ContextOptions};
/// let context = Context::new(&ContextOptions::default()).unwrap();
/// let stream = context.stream().unwrap();
/// let guard = context.guard(stream.get()).unwrap();
/// std::thread::spawn(move || drop(guard));
/// ```
#[derive(Debug)]
#[must_use = "the stream is current only while the guard lives"]
pub struct StreamGuard<'a> {
    inner: GuardCore,
    _of_this_thread: PhantomData<*const ()>,
    _of_the_stream: PhantomData<Stream<'a>>,
}

/// A guard that only its thread may end; C holds these by id.
#[derive(Debug)]
pub(crate) struct GuardCore {
    /// Keeps the stream's backend.
    _context: Context,
    id: u64,
    thread: u64,
}

impl Context {
    /// Makes a stream current for this thread.
    ///
    /// # Errors
    /// `INVALID_STREAM`, `OVERFLOW` (64 guards are held already), `DEVICE_LOST`.
    pub fn guard<'a>(&self, stream: Stream<'a>) -> Result<StreamGuard<'a>> {
        let inner = GuardCore::new(self, stream)?;
        Ok(StreamGuard { inner, _of_this_thread: PhantomData, _of_the_stream: PhantomData })
    }

    /// What [`Stream::CURRENT`] means for this context on this thread, as other CUDA code takes
    /// it: the stream of the innermost guard of the same device, or the legacy default stream.
    pub fn current_stream(&self) -> *mut c_void {
        let place = self.place();
        STACK.with_borrow(|stack| {
            let held = HELD.get();
            let entry = stack[..held].iter().rev().find(|e| !e.ended && e.place == place);
            entry.map_or(std::ptr::null_mut(), |e| e.raw as *mut c_void)
        })
    }
}

impl GuardCore {
    pub(crate) fn new(context: &Context, stream: Stream) -> Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let resolved = context.resolve(stream)?;
        let held = HELD.get();
        if held == DEPTH {
            return Err(Error::new(
                GMB_ERROR_OVERFLOW,
                format!("{DEPTH} stream guards are held by this thread: end one first"),
            ));
        }
        let leave = context.backend().push_context()?;
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let entry =
            Entry { guard: id, place: context.place(), raw: resolved.raw as usize, ended: false, leave };
        STACK.with_borrow_mut(|stack| stack[held] = entry);
        HELD.set(held + 1);
        Ok(Self { _context: context.clone(), id, thread: thread_number() })
    }

    /// Puts back what was current before.
    ///
    /// # Errors
    /// `WRONG_THREAD`: the guard stays.
    pub(crate) fn end(&self) -> Result<()> {
        if self.thread != thread_number() {
            return Err(Error::new(
                GMB_ERROR_WRONG_THREAD,
                "a stream guard ends on the thread that made it: it is still in force there",
            ));
        }
        STACK.with_borrow_mut(|stack| {
            let mut held = HELD.get();
            if let Some(entry) = stack[..held].iter_mut().find(|e| e.guard == self.id) {
                entry.ended = true;
            }
            while held > 0 && stack[held - 1].ended {
                held -= 1;
                if let Some(leave) = stack[held].leave {
                    leave();
                }
            }
            HELD.set(held);
        });
        Ok(())
    }
}

impl Drop for StreamGuard<'_> {
    fn drop(&mut self) {
        // Not Send: this is the thread that made it.
        let _ = self.inner.end();
    }
}
