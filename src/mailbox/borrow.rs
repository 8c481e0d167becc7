//! Records borrowed in place: read where they lie, and released on a stream.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::core::Core;
use super::readers::not_in_use;
use super::submit::choose;
use super::{Arbitration, FullPolicy, Mailbox};
use crate::backend::args::{gmb_borrow_args, gmb_geometry_args, gmb_report_args};
use crate::backend::Kernel;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::layout::*;
use crate::profiler::Range;
use crate::results::{After, Token};
use crate::status::*;
use crate::stream::Stream;
use crate::sync::lock;

/// Borrows that a reader can hold at once, as in overwrite.cuh.
const MOST: u32 = 64;
/// Bytes of an entry of a table, as in overwrite.cuh.
const ENTRY_BYTES: u64 = 16;
const TABLE_BYTES: u64 = MOST as u64 * ENTRY_BYTES;

/// What readers of a mailbox have borrowed.
#[derive(Default)]
pub(super) struct Borrows {
    /// Address of the readers' tables, made with the first borrow.
    tables: OnceLock<u64>,
    /// Places in use by reader, each changed under its submission lock.
    used: [AtomicU64; GMB_MAX_READERS as usize],
}

impl Borrows {
    /// Address of the tables while something may be borrowed, else zero.
    pub(super) fn tables(&self) -> u64 {
        if self.used.iter().all(|used| used.load(Ordering::Acquire) == 0) {
            return 0;
        }
        self.tables.get().copied().unwrap_or(0)
    }

    pub(super) fn were_made(&self) -> bool {
        self.tables.get().is_some()
    }

    /// For what a reader with borrows out cannot do.
    pub(super) fn check_none(&self, reader: u32) -> Result<()> {
        match self.used[reader as usize].load(Ordering::Acquire).count_ones() {
            0 => Ok(()),
            out => Err(Error::new(
                GMB_ERROR_BUSY,
                format!("reader {reader} has {out} borrows out: release them first"),
            )),
        }
    }

    fn make(&self, context: &Context) -> Result<u64> {
        if let Some(&tables) = self.tables.get() {
            return Ok(tables);
        }
        let bytes = TABLE_BYTES as usize * GMB_MAX_READERS as usize;
        let tables = context.allocate_ring(bytes)?;
        let (backend, service) = (context.backend(), context.service());
        // SAFETY: so many bytes were allocated just now; the fill is waited for.
        let zeroed = unsafe { backend.fill(tables, 0, bytes, service) }
            .and_then(|()| backend.stream_synchronize(service));
        // Of two at once the first stays.
        if zeroed.is_err() || self.tables.set(tables).is_err() {
            // SAFETY: nothing uses it.
            let _ = unsafe { context.free_ring(tables) };
        }
        zeroed?;
        self.tables.get().copied().ok_or_else(|| Error::argument("no tables"))
    }

    /// Gives the tables back; when no operation can be under way any more.
    pub(super) fn free(&self, context: &Context) {
        if let Some(&tables) = self.tables.get() {
            // SAFETY: as promised by the caller.
            let _ = unsafe { context.free_ring(tables) };
        }
    }
}

/// Records of a mailbox that a reader has taken and that stay where they are until they are
/// released: to be read by any kernel, or as a tensor with a stride.
///
/// It belongs to no thread and may outlive the mailbox's handle. Not released, it keeps its slots as long as the
/// mailbox lasts.
///
/// ```
/// use gpumailbox::{Context, ContextOptions, HostRows, Mailbox, MailboxOptions};
///
/// let context = Context::new(&ContextOptions::default())?;
/// let stream = context.stream()?;
/// let mailbox = Mailbox::new(&context, &MailboxOptions { capacity: 8, payload_bytes: 16, ..Default::default() })?;
/// mailbox.push_from_host_blocking(&HostRows { rows: b"hello", stride: 16, lengths: &[5], types: &[] }, None)?;
/// let borrow = mailbox.borrow(0, 8, stream.get())?;
/// let (result, spans) = borrow.wait(None)?;
/// assert_eq!((result.count, spans.count), (1, [1, 0]));
/// // ... kernels on `stream` that read from spans.records[0] ...
/// borrow.release(stream.get())?;
/// # Ok::<(), gpumailbox::Error>(())
/// ```
pub struct Borrow {
    core: Arc<Core>,
    token: Token,
    geometry: gmb_geometry_args,
    reader: u32,
    place: u32,
    released: AtomicBool,
}

impl Mailbox {
    /// Takes up to `max` records of a reader without moving them: those that are next, or the newest under
    /// [`FullPolicy::Latest`]. In the order of the stream, and against pushes as a pop; does not block, but for the first
    /// one of a mailbox. Until they are released their slots are not written, whatever the policy: pushes find so much less
    /// room, and one that overwrites accepts no more than fits beside them. A reader can hold 64 borrows, and cannot pop
    /// meanwhile.
    ///
    /// # Errors
    /// `ZERO_COUNT`, `OVERFLOW` (more than `GMB_MAX_RECORDS`; 64 are out), `INVALID_ARGUMENT` (no such reader),
    /// `NOT_SUPPORTED` (under capture, or operations of the mailbox were captured; a mailbox that overwrites and is
    /// arbitrated by the device), `INVALID_STREAM`, `OUT_OF_MEMORY`, `MEMORY_LIMIT`, `DEVICE_LOST`, `DRIVER`. In the result:
    /// `CORRUPT`.
    pub fn borrow(&self, reader: u32, max: u32, stream: Stream) -> Result<Borrow> {
        let _range = Range::new(c"borrow");
        super::submit::check_count("max", max)?;
        let side = self.core.readers.get(reader)?;
        if self.core.full_policy.overwrites() && self.arbitration == Arbitration::Device {
            return Err(Error::new(
                GMB_ERROR_NOT_SUPPORTED,
                "a push beside it could write over what is borrowed: the mailbox overwrites, and the device arbitrates",
            ));
        }
        if self.core.is_captured() {
            return Err(Error::new(
                GMB_ERROR_NOT_SUPPORTED,
                "operations of the mailbox were captured, and their launches do not know what is borrowed",
            ));
        }
        let stream = self.context.resolve(stream)?;
        drop(self.core.check_stream(stream)?);
        let tables = self.core.borrows.make(&self.context)?;
        let token = Token::new(&self.context)?;
        let _entered = self.context.backend().enter_for_calls()?;
        let mut submitted = lock(&side.submission);
        if !self.core.readers.is_in_use(reader) {
            return Err(not_in_use(reader));
        }
        let only = self.core.check_stream(stream)?;
        let used = &self.core.borrows.used[reader as usize];
        let place = used.load(Ordering::Acquire).trailing_ones();
        if place >= MOST {
            return Err(Error::new(
                GMB_ERROR_OVERFLOW,
                format!("reader {reader} has {MOST} borrows out, the most that one can have: release some"),
            ));
        }
        side.make_wait(stream)?;
        if self.arbitration == Arbitration::Cpu {
            self.core.push.make_wait(stream)?;
        }
        side.can_reach(&mut submitted);
        let (device_spans, host_spans) = token.spans();
        let args = gmb_borrow_args {
            ring: self.core.ring.address,
            table: tables + u64::from(reader) * TABLE_BYTES,
            device_spans,
            host_spans,
            host_borrowed: side.borrowed_word(),
            reader,
            place,
            max,
            geometry: self.geometry(),
            ..Default::default()
        };
        let most = if self.core.full_policy == FullPolicy::Latest { 1 } else { u64::from(max) };
        // Before the launch: a push that is submitted afterwards must know.
        used.fetch_or(1 << place, Ordering::AcqRel);
        let submission = token.submit()?;
        let kernel = |report: gmb_report_args| Kernel::Borrow(gmb_borrow_args { report, ..args });
        self.core
            .submit(side, submitted, stream, 1, most.min(self.core.capacity), Some(submission), kernel)
            .inspect_err(|_| {
                used.fetch_and(!(1 << place), Ordering::AcqRel);
            })?;
        choose(only, stream);
        Ok(Borrow {
            core: Arc::clone(&self.core),
            token,
            geometry: self.geometry(),
            reader,
            place,
            released: AtomicBool::new(false),
        })
    }
}

impl Borrow {
    /// What came and where it lies, or `None` while it is not ready. Never blocks, asks no driver.
    ///
    /// # Errors
    /// Those of [`Token::poll`].
    pub fn poll(&self) -> Result<Option<(gmb_result, gmb_spans)>> {
        Ok(self.token.poll()?.map(|result| (result, self.token.read_spans())))
    }

    /// Blocks the calling thread until it is ready: spins, then yields, then sleeps. `None` waits without limit.
    ///
    /// # Errors
    /// `TIMEOUT`, `DEVICE_LOST`.
    pub fn wait(&self, timeout: Option<Duration>) -> Result<(gmb_result, gmb_spans)> {
        let result = self.token.wait(After::Submission, timeout)?;
        Ok((result, self.token.read_spans()))
    }

    /// Addresses of the `gmb_spans` and of the `gmb_result` in device memory, for kernels: written in
    /// the order of the borrow's stream. Valid as long as this.
    pub fn device_spans(&self) -> (u64, u64) {
        (self.token.spans().0, self.token.device_result())
    }

    /// Releases the records in the order of a stream: what that holds now may still read them, later work must not.
    /// Borrows are released in any order; space is free for pushes in the order of the records. Does not block.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` (released already), `INVALID_STREAM`, `NOT_SUPPORTED` (under capture), `DEVICE_LOST`, `DRIVER`.
    /// Then it is still held.
    pub fn release(&self, stream: Stream) -> Result<()> {
        let _range = Range::new(c"release");
        let core = &self.core;
        let side = core.readers.get(self.reader)?;
        let _entered = core.context.backend().enter_for_calls()?;
        let stream = core.context.resolve(stream)?;
        let mut submitted = lock(&side.submission);
        if self.released.load(Ordering::Acquire) {
            return Err(Error::argument("these records were released already"));
        }
        let only = core.check_stream(stream)?;
        side.make_wait(stream)?;
        side.can_reach(&mut submitted);
        let args = gmb_borrow_args {
            ring: core.ring.address,
            table: core.borrows.make(&core.context)? + u64::from(self.reader) * TABLE_BYTES,
            host_borrowed: side.borrowed_word(),
            reader: self.reader,
            place: self.place,
            geometry: self.geometry,
            ..Default::default()
        };
        core.submit(side, submitted, stream, 1, 0, None, |report| {
            Kernel::Release(gmb_borrow_args { report, ..args })
        })?;
        choose(only, stream);
        self.released.store(true, Ordering::Release);
        core.borrows.used[self.reader as usize].fetch_and(!(1 << self.place), Ordering::AcqRel);
        Ok(())
    }
}

impl std::fmt::Debug for Borrow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Borrow").field("reader", &self.reader).finish_non_exhaustive()
    }
}
