//! Copies from and to pageable memory, in stream order: in pieces through pinned memory. Functions on a stream of their own move
//! each piece between the two, so one piece is moved while the one before it is on its way, and no caller waits.

use std::sync::Mutex;

use crate::context::Context;
use crate::error::Result;
use crate::events::{Event, EventKind};
use crate::memory::PinnedBuffer;
use crate::stream::{OwnedStream, Resolved};
use crate::sync::lock;

/// Bytes of a piece, and pieces at once.
const PIECE: usize = 1 << 20;
const PIECES: usize = 4;

/// Up to so many bytes are copied by the calling thread, when they may be at once: a function in a stream takes longer.
const SMALL: usize = 16 << 10;

/// Pinned memory that the copies of one direction go through.
#[derive(Default)]
pub(super) struct Staging(Mutex<Option<Ready>>);

struct Ready {
    memory: PinnedBuffer,
    stream: OwnedStream,
    /// Recorded when a piece's memory can be used again.
    free: Vec<Event>,
    /// Recorded when the other stream may go on with a piece.
    filled: Event,
    next: usize,
}

impl Ready {
    fn new(context: &Context) -> Result<Self> {
        let event = || context.event(EventKind::Untimed);
        Ok(Self {
            memory: context.pinned_buffer(PIECE * PIECES)?,
            stream: context.stream()?,
            free: (0..PIECES).map(|_| event()).collect::<Result<_>>()?,
            filled: event()?,
            next: 0,
        })
    }

    /// The next piece's memory, and when it is free.
    fn piece(&mut self) -> (u64, usize) {
        let n = self.next % PIECES;
        self.next += 1;
        (self.memory.address() + (n * PIECE) as u64, n)
    }
}

/// Moves bytes on the CPU, when the stream has come to it.
fn move_bytes(to: u64, from: u64, bytes: usize) -> impl FnOnce() + Send {
    // SAFETY: whoever queued the copy keeps both valid until it is done.
    move || unsafe { std::ptr::copy_nonoverlapping(from as *const u8, to as *mut u8, bytes) }
}

fn pieces(bytes: usize) -> impl Iterator<Item = (u64, usize)> {
    (0..bytes).step_by(PIECE).map(move |at| (at as u64, PIECE.min(bytes - at)))
}

impl Staging {
    /// Gives the pinned memory back, unless something may still use it.
    pub(super) fn end(&self, is_done: bool) {
        let Some(Ready { memory, stream, .. }) = lock(&self.0).take() else { return };
        drop(stream);
        if is_done {
            // SAFETY: whoever copied through it has waited for that.
            unsafe { memory.free_unused() };
        } else {
            std::mem::forget(memory);
        }
    }

    /// Uploads from pageable memory. `hold` makes a stream wait for what the copy comes after; `at_once` says that there is
    /// nothing.
    ///
    /// # Safety
    /// Both ranges stay valid until the copy is done.
    pub(super) unsafe fn upload(
        &self,
        context: &Context,
        (to, from, bytes): (u64, u64, usize),
        stream: Resolved,
        at_once: bool,
        hold: impl Fn(Resolved) -> Result<()>,
    ) -> Result<()> {
        self.with(context, stream, |ready| {
            let backend = context.backend();
            if at_once && bytes <= SMALL {
                let (piece, n) = ready.piece();
                if ready.free[n].is_reached()? {
                    move_bytes(piece, from, bytes)();
                    // SAFETY: as promised by the caller; the piece is used again once the event is reached.
                    unsafe { backend.copy(to, piece, bytes, stream.raw)? };
                    return ready.free[n].mark(stream.raw);
                }
            }
            let own = context.resolve(ready.stream.get())?;
            hold(own)?;
            for (at, size) in pieces(bytes) {
                let (piece, n) = ready.piece();
                ready.free[n].hold(own.raw)?;
                backend.host_function(own.raw, Box::new(move_bytes(piece, from + at, size)))?;
                ready.filled.mark(own.raw)?;
                ready.filled.hold(stream.raw)?;
                // SAFETY: as above.
                unsafe { backend.copy(to + at, piece, size, stream.raw)? };
                ready.free[n].mark(stream.raw)?;
            }
            Ok(())
        })
    }

    /// Downloads to pageable memory. Later work of the stream comes after all of it.
    ///
    /// # Safety
    /// Both ranges stay valid until the copy is done.
    pub(super) unsafe fn download(
        &self,
        context: &Context,
        (to, from, bytes): (u64, u64, usize),
        stream: Resolved,
    ) -> Result<()> {
        self.with(context, stream, |ready| {
            let backend = context.backend();
            let own = context.resolve(ready.stream.get())?;
            let mut last = 0;
            for (at, size) in pieces(bytes) {
                let (piece, n) = ready.piece();
                ready.free[n].hold(stream.raw)?;
                // SAFETY: as promised by the caller; the piece is free.
                unsafe { backend.copy(piece, from + at, size, stream.raw)? };
                ready.filled.mark(stream.raw)?;
                ready.filled.hold(own.raw)?;
                backend.host_function(own.raw, Box::new(move_bytes(to + at, piece, size)))?;
                ready.free[n].mark(own.raw)?;
                last = n;
            }
            ready.free[last].hold(stream.raw)
        })
    }

    /// Gives the pinned memory to use, which is made when first needed.
    fn with(
        &self,
        context: &Context,
        stream: Resolved,
        copy: impl FnOnce(&mut Ready) -> Result<()>,
    ) -> Result<()> {
        let mut kept = lock(&self.0);
        if kept.is_none() {
            *kept = Some(Ready::new(context)?);
        }
        let Some(ready) = kept.as_mut() else { return Ok(()) };
        copy(ready).inspect_err(|_| {
            // What was enqueued of it uses pieces whose events nobody records any more.
            let _ = context.backend().stream_synchronize(stream.raw);
            let _ = context.synchronize(ready.stream.get());
        })
    }
}
