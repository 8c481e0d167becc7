//! FIFOs: records from kernels that run to the host.

use std::mem::ManuallyDrop;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use crate::backend::args::gmb_queue_args;
use crate::backend::{wait_until, Kernel};
use crate::checks::{check_address, check_capacity, check_count, nothing};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::extent::Extent;
use crate::lanes::{lane_of, Lanes, Meetings};
use crate::layout::*;
use crate::lines::Line;
use crate::mapped::MappedRing;
use crate::profiler::Range;
use crate::results::Token;
use crate::status::*;
use crate::stream::Stream;
use crate::sync::lock;
use crate::watch::{Source, Watch};

const WORDS: usize = GMB_FIFO_WORDS as usize;

/// A FIFO's counts at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FifoInfo {
    /// Records it holds.
    pub capacity: u64,
    /// Records that the host has taken since it was made.
    pub drained: u64,
    /// Device address of the `gmb_fifo_header`, for kernels.
    pub fifo: u64,
}

/// A ring of records of 16 bytes from kernels to the host: any number of groups of running kernels push
/// (`gpumailbox/doorbell.cuh`), or a launch does, and the host drains, in the order of the pushes. What finds no room is not pushed,
/// and who pushes knows.
///
/// Clones are the same FIFO.
#[derive(Clone)]
pub struct Fifo {
    core: Arc<Core>,
}

struct Core {
    context: Context,
    header: u64,
    records: ManuallyDrop<MappedRing<WORDS>>,
    /// How far the host has come, for the device.
    drained: ManuallyDrop<Line>,
    /// The same for the host.
    taken: Mutex<u64>,
    pushes: Lanes,
    meetings: Meetings,
    closed: AtomicBool,
}

impl Fifo {
    /// Makes an empty FIFO of so many records, a power of two. Blocks until its memory is ready.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` (no power of two), `OVERFLOW` (more than `GMB_MOST_MAPPED`), `OUT_OF_MEMORY`, `MEMORY_LIMIT`,
    /// `OUT_OF_HOST_MEMORY`, `DEVICE_LOST`.
    pub fn new(context: &Context, capacity: u64) -> Result<Self> {
        let _range = Range::new(c"make a fifo");
        check_capacity("a FIFO", capacity, GMB_MOST_MAPPED)?;
        let records = MappedRing::new(context, capacity)?;
        let drained = Line::of(context, 1)?;
        drained.word(0).store(0, Ordering::Release);
        let meetings = Meetings::new(context)?;
        let bytes = size_of::<gmb_fifo_header>();
        let core = Core {
            context: context.clone(),
            header: context.allocate_ring(bytes).inspect_err(|_| meetings.free(context))?,
            records: ManuallyDrop::new(records),
            drained: ManuallyDrop::new(drained),
            taken: Mutex::new(0),
            pushes: Lanes::default(),
            meetings,
            closed: AtomicBool::new(false),
        };
        let header = gmb_fifo_header::new(capacity, core.records.address(), core.drained.address());
        let (backend, service) = (context.backend(), context.service());
        // SAFETY: the memory was allocated for this just now, and the header is copied before it goes.
        unsafe { backend.copy(core.header, std::ptr::from_ref(&header) as u64, bytes, service)? };
        backend.stream_synchronize(service)?;
        Ok(Self { core: Arc::new(core) })
    }

    /// The context it lives in.
    pub fn context(&self) -> &Context {
        &self.core.context
    }

    /// Its counts. Never blocks, but for a pop under way.
    pub fn info(&self) -> FifoInfo {
        FifoInfo {
            capacity: self.core.records.slots(),
            drained: *lock(&self.core.taken),
            fifo: self.core.header,
        }
    }

    /// Pushes `count` records, dense at `records` in device memory, on a stream, in one launch: the first so many that there is
    /// room for, as the token's result says. Does not block. Into a capture it does not go.
    ///
    /// # Errors
    /// `ZERO_COUNT`, `OVERFLOW`, `NULL_POINTER`, `MISALIGNED` (8 bytes), `INVALID_ARGUMENT` (a token of another context; not
    /// reachable, with `GMB_CHECK_POINTERS=1`), `INVALID_STREAM`, `NOT_SUPPORTED` (a stream that is captured), `BUSY` (token),
    /// `MEMORY_LIMIT`, `OUT_OF_MEMORY`, `DEVICE_LOST`, `DRIVER`.
    ///
    /// # Safety
    /// The records must be valid, and not written, until the operation is done.
    pub unsafe fn push(&self, records: u64, count: u32, stream: Stream, token: Option<&Token>) -> Result<()> {
        let _range = Range::new(c"push to a fifo");
        let core = &self.core;
        check_count("count", count)?;
        let bytes = size_of::<gmb_fifo_record>() as u32;
        check_address("records", records, align_of::<gmb_fifo_record>() as u64)?;
        core.context.check_reachable(&Extent::array("records", records, count, bytes.into())?)?;
        if token.is_some_and(|token| !token.context().is(&core.context)) {
            return Err(Error::argument("the token is of another context than the FIFO"));
        }
        let backend = core.context.backend();
        let _entered = backend.enter_for_calls()?;
        let stream = core.context.resolve(stream)?;
        if stream.is_capturing() {
            return Err(Error::new(
                GMB_ERROR_NOT_SUPPORTED,
                "pushes to a FIFO are not captured: push from a kernel",
            ));
        }
        let mut held = core.pushes.hold();
        let submission = token.map(Token::submit).transpose()?;
        let report = submission.as_ref().map(|s| s.report()).unwrap_or_default();
        let lane = lane_of(&mut held, &core.meetings, &core.context, stream)?;
        let args = gmb_queue_args {
            queue: core.header,
            items: records,
            count,
            item_bytes: bytes,
            report,
            ..Default::default()
        };
        // SAFETY: the FIFO outlives the kernel; the caller vouches for the records.
        unsafe { backend.launch(&Kernel::FifoPush(args), 1, stream.raw)? };
        lane.launched(stream)?;
        if let Some(submission) = submission {
            submission.confirm();
        }
        Ok(())
    }

    /// Takes records, as many as there are and `records` holds: blocks until there is one at least, for `timeout` at most, `None`
    /// without limit, zero asks once. How many; none when time is up. One thread at a time.
    ///
    /// # Errors
    /// `ZERO_COUNT`, `CORRUPT` (something else wrote there; what came before it was given), `INVALID_HANDLE` (destroyed
    /// meanwhile), `DEVICE_LOST`.
    pub fn pop(&self, records: &mut [gmb_fifo_record], timeout: Option<Duration>) -> Result<usize> {
        if records.is_empty() {
            return Err(nothing("max"));
        }
        let attempt = || match self.core.drain(records) {
            Ok(0) => None,
            other => Some(other),
        };
        wait_until(timeout, attempt, || self.core.context.pulse())?.unwrap_or(Ok(0))
    }

    /// A file descriptor that says when records are there, to be armed.
    ///
    /// # Errors
    /// `SYSTEM` (no descriptor left).
    pub fn watch(&self) -> Result<Watch> {
        Watch::new(self.context(), Records(Arc::downgrade(&self.core)))
    }

    /// Wakes who waits.
    pub(crate) fn close(&self) {
        self.core.closed.store(true, Ordering::Release);
    }
}

impl Core {
    fn still_open(&self) -> Result<()> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::new(GMB_ERROR_INVALID_HANDLE, "the FIFO was destroyed"));
        }
        Ok(())
    }

    fn drain(&self, records: &mut [gmb_fifo_record]) -> Result<usize> {
        self.still_open()?;
        let mut taken = lock(&self.taken);
        // So often the device hears of it, that it seldom waits.
        let often = (self.records.slots() / 4).max(1);
        let mut told = *taken;
        let mut count = 0;
        let mut failed = Ok(());
        for record in records {
            match self.records.read(*taken) {
                Ok(Some([a, b, c, d])) => {
                    record.word = [u64::from(b) << 32 | u64::from(a), u64::from(d) << 32 | u64::from(c)];
                }
                Ok(None) => break,
                Err(error) => {
                    failed = Err(error);
                    break;
                }
            }
            *taken += 1;
            count += 1;
            if *taken - told >= often {
                told = *taken;
                self.drained.word(0).store(told, Ordering::Release);
            }
        }
        if told != *taken {
            self.drained.word(0).store(*taken, Ordering::Release);
        }
        if count == 0 {
            failed?;
        }
        Ok(count)
    }

    /// How many records there are, `enough` at most.
    fn unread(&self, enough: u64) -> Result<u64> {
        self.still_open()?;
        let taken = lock(&self.taken);
        let mut found = 0;
        while found < enough && self.records.read(taken.wrapping_add(found))?.is_some() {
            found += 1;
        }
        Ok(found)
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        // It must outlive its kernels: if they may still run, it stays.
        if self.pushes.finish().is_err_and(|error| error.status() != GMB_ERROR_DEVICE_LOST) {
            return;
        }
        self.meetings.free(&self.context);
        // SAFETY: every launch is done, and kernels of the caller's have ended; nothing of it is used again.
        unsafe {
            let _ = self.context.free_ring(self.header);
            ManuallyDrop::drop(&mut self.records);
            ManuallyDrop::drop(&mut self.drained);
        }
    }
}

struct Records(Weak<Core>);

impl Records {
    fn core(&self) -> Result<Arc<Core>> {
        self.0.upgrade().ok_or_else(|| Error::new(GMB_ERROR_INVALID_HANDLE, "the FIFO was destroyed"))
    }
}

impl Source for Records {
    fn check(&self, count: u32) -> Result<()> {
        let most = self.core()?.records.slots();
        match u64::from(count) {
            0 => Err(Error::new(GMB_ERROR_ZERO_COUNT, "count is 0: that is always there")),
            count if count > most => Err(Error::argument(format!("count {count}: the FIFO holds {most}"))),
            _ => Ok(()),
        }
    }

    fn ready(&self, enough: u32) -> Result<u64> {
        self.core()?.unread(enough.into())
    }
}

impl std::fmt::Debug for Fifo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fifo").field("info", &self.info()).finish_non_exhaustive()
    }
}
