//! Records borrowed in place: read where they lie, and released on a stream.

use std::collections::HashMap;
use std::sync::atomic::{fence, AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use super::core::Core;
use super::readers::not_in_use;
use super::submit::choose;
use super::{Arbitration, Mailbox};
use crate::backend::args::{gmb_borrow_args, gmb_geometry_args, gmb_report_args};
use crate::backend::Kernel;
use crate::checks::check_count;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::graph::Part;
use crate::lanes::Lane;
use crate::layout::*;
use crate::profiler::Range;
use crate::results::Token;
use crate::status::*;
use crate::stream::Stream;
use crate::sync::lock;

/// Borrows that a reader can hold at once, as in overwrite.cuh.
const MOST: u32 = 64;
/// Bytes of an entry of a table, as in overwrite.cuh.
const ENTRY_BYTES: u64 = 16;
const TABLE_BYTES: u64 = MOST as u64 * ENTRY_BYTES;

/// What readers of a mailbox have borrowed.
pub(super) struct Borrows {
    /// Address of the readers' tables, made with the first borrow.
    tables: OnceLock<u64>,
    /// Places in use by reader, each changed under its submission lock.
    used: [AtomicU64; GMB_MAX_READERS as usize],
    /// A token for each place that was used: the next borrow there is ordered after the one before, so that kernels which
    /// read the spans in stream order find their own.
    tokens: Mutex<HashMap<(u32, u32), Arc<Token>>>,
    /// The newest record of a mailbox that was attached to lies where a borrow has moved it to.
    moved: bool,
}

impl Borrows {
    pub(super) fn new(moved: bool) -> Self {
        Self {
            tables: OnceLock::new(),
            used: [const { AtomicU64::new(0) }; GMB_MAX_READERS as usize],
            tokens: Mutex::default(),
            moved,
        }
    }

    /// A place that no borrow holds, with a token whose last result is there. Under the reader's submission lock.
    fn place(&self, context: &Context, reader: u32) -> Result<(u32, Arc<Token>)> {
        let used = self.used[reader as usize].load(Ordering::Acquire);
        if used.count_ones() == MOST {
            return Err(Error::new(
                GMB_ERROR_OVERFLOW,
                format!("reader {reader} has {MOST} borrows out, the most that one can have: release some"),
            ));
        }
        let mut tokens = lock(&self.tokens);
        for place in (0..MOST).filter(|place| used >> place & 1 == 0) {
            match tokens.get(&(reader, place)) {
                Some(token) if token.submit().is_ok() => return Ok((place, Arc::clone(token))),
                Some(_) => {}
                None => {
                    let token = Arc::new(Token::new(context)?);
                    tokens.insert((reader, place), Arc::clone(&token));
                    return Ok((place, token));
                }
            }
        }
        Err(Error::new(GMB_ERROR_BUSY, "none of the reader's last 64 borrows has reported yet: wait for one"))
    }

    /// Address of the tables while something may be borrowed, else zero.
    pub(super) fn tables(&self) -> u64 {
        if self.used.iter().all(|used| used.load(Ordering::Acquire) == 0) {
            return 0;
        }
        self.tables.get().copied().unwrap_or(0)
    }

    pub(super) fn were_made(&self) -> bool {
        self.moved || self.tables.get().is_some()
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

    /// The tables, made if they are not there. Under no lock: that may block.
    fn make(&self, core: &Core) -> Result<u64> {
        if let Some(&tables) = self.tables.get() {
            return Ok(tables);
        }
        let context = &core.context;
        let bytes = TABLE_BYTES as usize * GMB_MAX_READERS as usize;
        let tables = context.allocate_ring(bytes)?;
        let (backend, service) = (context.backend(), context.service());
        // SAFETY: so many bytes were allocated just now; the fill is waited for.
        let zeroed = unsafe { backend.fill(tables, 0, bytes, service) }
            .and_then(|()| backend.stream_synchronize(service));
        // While nobody submits anything: from then on operations order themselves otherwise. Of two at once the first stays.
        let set = zeroed.is_ok() && {
            let _held = core.hold();
            self.tables.set(tables).is_ok()
        };
        if !set {
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
    token: Arc<Token>,
    /// Of its own result: later ones are of other borrows.
    epoch: u32,
    geometry: gmb_geometry_args,
    reader: u32,
    place: u32,
    /// Of a shared mailbox, where it was launched.
    lane: Option<Arc<Lane>>,
    released: AtomicBool,
}

impl Mailbox {
    /// Takes up to `max` records of a reader without moving them: those that are next, or the newest under
    /// [`FullPolicy::Latest`](crate::FullPolicy::Latest). In the order of the stream, and against pushes as a pop; does not block, but for the first
    /// one of a mailbox. Until they are released their slots are not written, whatever the policy: pushes find so much less
    /// room, and one that overwrites accepts no more than fits beside them. A reader can hold 64 borrows, and cannot pop
    /// meanwhile.
    ///
    /// # Errors
    /// `ZERO_COUNT`, `OVERFLOW` (more than `GMB_MAX_RECORDS`; 64 are out), `INVALID_ARGUMENT` (no such reader),
    /// `NOT_SUPPORTED` (under capture, or operations of the mailbox were captured; a mailbox that overwrites and is
    /// arbitrated by the device), `INVALID_STREAM`, `OUT_OF_MEMORY`, `MEMORY_LIMIT`, `DEVICE_LOST`, `DRIVER`. In the result:
    /// `CORRUPT`, `ORDER_VIOLATION`.
    pub fn borrow(&self, reader: u32, max: u32, stream: Stream) -> Result<Borrow> {
        let _range = Range::new(c"borrow");
        self.core.check_launches()?;
        check_count("max", max)?;
        let side = self.core.readers.get(reader)?;
        if self.core.full_policy.rules().overwrites && self.arbitration == Arbitration::Device {
            return Err(Error::new(
                GMB_ERROR_NOT_SUPPORTED,
                "a push beside it could write over what is borrowed: the mailbox overwrites, and the device arbitrates",
            ));
        }
        self.check_uncaptured()?;
        let stream = self.context.resolve(stream)?;
        drop(self.core.check_stream(stream)?);
        let core = &self.core;
        let tables = core.borrows.make(core)?;
        let backend = self.context.backend();
        let _entered = backend.enter_for_calls()?;
        let (_pushes, mut submitted) = core.lock_reader(side);
        if !core.readers.is_in_use(reader) {
            return Err(not_in_use(reader));
        }
        // Told, by the tables, before it is asked; a capture does the same the other way round.
        fence(Ordering::SeqCst);
        self.check_uncaptured()?;
        let only = core.check_stream(stream)?;
        let (place, token) = core.borrows.place(&self.context, reader)?;
        let submission = token.submit()?;
        if let Some(shared) = &core.shared {
            let args = gmb_borrow_args {
                ring: core.ring.address,
                table: tables + u64::from(reader) * TABLE_BYTES,
                device_spans: token.spans(),
                reader,
                place,
                max,
                geometry: self.geometry(),
                ..Default::default()
            };
            let report = submission.report();
            let epoch = report.epoch;
            if self.arbitration == Arbitration::Cpu {
                shared.pushes.make_wait(stream)?;
            }
            if let Some(lane) = lock(&shared.released).get(&(reader, place)) {
                lane.make_wait(stream)?;
            }
            let lane = core.submit_shared(shared.takes.hold(), shared, stream, 1, report, |report, _| {
                Kernel::BorrowShared(gmb_borrow_args { report, ..args })
            })?;
            core.borrows.used[reader as usize].fetch_or(1 << place, Ordering::AcqRel);
            submission.confirm();
            choose(only, stream);
            let token = Arc::clone(&token);
            return Ok(self.borrowed(token, epoch, reader, place, Some(lane)));
        }
        side.make_wait(stream)?;
        if self.arbitration == Arbitration::Cpu {
            core.push.make_wait(stream)?;
        }
        side.can_reach(&mut submitted);
        side.begin_borrow();
        let report = submission.report();
        let epoch = report.epoch;
        let kernel = Kernel::Borrow(gmb_borrow_args {
            ring: core.ring.address,
            table: tables + u64::from(reader) * TABLE_BYTES,
            device_spans: token.spans(),
            reader,
            place,
            max,
            reserved: 0,
            geometry: self.geometry(),
            report: gmb_report_args {
                host_progress: side.progress(),
                operation: side.next_operation() as u32,
                ..report
            },
        });
        let most = u64::from(max).min(core.capacity);
        side.launches(most);
        // SAFETY: the ring, the tables and the slot outlive the kernel.
        unsafe { backend.launch(&kernel, 1, stream.raw)? };
        core.borrows.used[reader as usize].fetch_or(1 << place, Ordering::AcqRel);
        submission.confirm();
        choose(only, stream);
        let made = self.borrowed(Arc::clone(&token), epoch, reader, place, None);
        side.launched(&mut submitted, stream, most)?;
        Ok(made)
    }

    fn borrowed(
        &self,
        token: Arc<Token>,
        epoch: u32,
        reader: u32,
        place: u32,
        lane: Option<Arc<Lane>>,
    ) -> Borrow {
        let (core, geometry) = (Arc::clone(&self.core), self.geometry());
        Borrow { core, token, epoch, geometry, reader, place, lane, released: AtomicBool::new(false) }
    }

    fn check_uncaptured(&self) -> Result<()> {
        if !self.core.is_captured() {
            return Ok(());
        }
        Err(Error::new(
            GMB_ERROR_NOT_SUPPORTED,
            "operations of the mailbox were captured, and their launches do not know what is borrowed",
        ))
    }
}

impl Borrow {
    /// What came and where it lies, or `None` while it is not ready. Never blocks, asks no driver.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` (it was released).
    pub fn poll(&self) -> Result<Option<(gmb_result, gmb_spans)>> {
        self.token.poll_borrow()?.map(|told| self.own(told)).transpose()
    }

    /// Blocks the calling thread until it is ready: spins, then yields, then sleeps. `None` waits without limit.
    ///
    /// # Errors
    /// `TIMEOUT`, `INVALID_ARGUMENT` (it was released), `DEVICE_LOST`.
    pub fn wait(&self, timeout: Option<Duration>) -> Result<(gmb_result, gmb_spans)> {
        self.own(self.token.wait_borrow(self.epoch, timeout)?)
    }

    /// The spans, if what was told is this one's.
    fn own(&self, (result, (first, slot)): (gmb_result, (u64, u64))) -> Result<(gmb_result, gmb_spans)> {
        if result.epoch != self.epoch || self.released.load(Ordering::Acquire) {
            return Err(released());
        }
        Ok((result, self.spans(first, slot, result.count)))
    }

    /// As the kernel tells them on the device.
    fn spans(&self, first: u64, slot: u64, count: u32) -> gmb_spans {
        let at = &self.geometry;
        let start =
            self.core.ring.address + u64::from(at.header_bytes) + size_of::<gmb_record_header>() as u64;
        let one = u64::from(count).min(at.capacity - slot) as u32;
        let payload = |some: bool, slot: u64| if some { start + slot * u64::from(at.stride) } else { 0 };
        gmb_spans {
            first,
            records: [payload(count > 0, slot) as *const _, payload(count > one, 0) as *const _],
            count: [one, count - one],
            stride: at.stride,
            reserved: 0,
        }
    }

    /// Addresses of the `gmb_spans` and of the `gmb_result` in device memory, for kernels: written in
    /// the order of the borrow's stream. Valid as long as this.
    pub fn device_spans(&self) -> (u64, u64) {
        (self.token.spans(), self.token.device_result())
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
        let (pushes, mut submitted) = core.lock_reader(side);
        if self.released.load(Ordering::Acquire) {
            return Err(released());
        }
        let only = core.check_stream(stream)?;
        let args = gmb_borrow_args {
            ring: core.ring.address,
            table: core.borrows.make(core)? + u64::from(self.reader) * TABLE_BYTES,
            reader: self.reader,
            place: self.place,
            geometry: self.geometry,
            ..Default::default()
        };
        match (&core.shared, &self.lane) {
            (Some(shared), Some(lane)) => {
                lane.make_wait(stream)?;
                let held = shared.takes.hold();
                let lane =
                    core.submit_shared(held, shared, stream, 1, gmb_report_args::default(), |report, _| {
                        Kernel::ReleaseShared(gmb_borrow_args { report, ..args })
                    })?;
                lock(&shared.released).insert((self.reader, self.place), lane);
            }
            _ => {
                side.make_wait(stream)?;
                if pushes.is_some() {
                    core.push.make_wait(stream)?;
                }
                side.can_reach(&mut submitted);
                side.begin_borrow();
                // As much as may have been claimed behind it comes free.
                core.submit(side, submitted, stream, 1, core.capacity, None, |report| {
                    Kernel::Release(gmb_borrow_args { report, ..args })
                })?;
            }
        }
        choose(only, stream);
        self.released.store(true, Ordering::Release);
        core.borrows.used[self.reader as usize].fetch_and(!(1 << self.place), Ordering::AcqRel);
        Ok(())
    }
}

fn released() -> Error {
    Error::argument("these records were released already")
}

impl std::fmt::Debug for Borrow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Borrow").field("reader", &self.reader).finish_non_exhaustive()
    }
}
