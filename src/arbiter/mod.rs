//! Arbiters: a small kernel that stays, looks at many mailboxes, and tells other kernels which have records.

use std::any::Any;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::backend::{wait_until_about, Entry, Kernel, Resident};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::layout::*;
use crate::lines::Line;
use crate::log::{log, LogLevel};
use crate::mailbox::Mailbox;
use crate::profiler::Range;
use crate::status::*;
use crate::stream::OwnedStream;
use crate::sync::{forked, lock, wait};
use crate::worker::residency::{self, Share};
use crate::worker::slices::Slices;

/// How urgent what comes through a mailbox is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Class {
    /// First.
    #[default]
    Focus,
    /// When there is nothing of class focus.
    Peripheral,
}

/// A mailbox that an arbiter looks at, for one of its readers.
#[derive(Clone, Copy, Debug)]
pub struct Arbitrated<'a> {
    /// Which one.
    pub mailbox: &'a Mailbox,
    /// For which reader.
    pub reader: u32,
    /// How urgent it is.
    pub class: Class,
}

/// An arbiter at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArbiterInfo {
    /// Mailboxes that it looks at.
    pub mailboxes: u32,
    /// How many of them are of class focus.
    pub focus: u32,
    /// Times that its kernel came.
    pub slices: u64,
    /// When it last went round, in nanoseconds of the device's clock; zero while its kernel is away.
    pub heartbeat: u64,
    /// Device address of the `gmb_arbiter_header`, for kernels.
    pub arbiter: u64,
}

/// A kernel of one block that looks at up to `GMB_MOST_ARBITRATED` mailboxes, again and again, and says in device memory which
/// have records that nobody has taken (`gpumailbox/arbiter.cuh`). It takes its block from the budget that workers have
/// ([`crate::ContextOptions::resident_percent`]). Every slice it leaves for a moment, as workers do; dropped, it leaves for good.
/// Its mailboxes last as long as it does.
pub struct Arbiter {
    shared: Arc<Shared>,
    keeper: Option<JoinHandle<()>>,
}

struct Shared {
    context: Context,
    stream: OwnedStream,
    /// The header, the entries, and a word in which its warps tell each other to leave.
    memory: Memory,
    /// When it last went round, and the command.
    line: Line,
    count: u32,
    focus: u32,
    slices: Slices,
    state: Mutex<State>,
    changed: Condvar,
    _mailboxes: Vec<Arc<dyn Any + Send + Sync>>,
    _share: Share,
}

#[derive(Default)]
struct State {
    closed: bool,
    slices: u64,
    /// Why it will not come again.
    failed: Option<Error>,
}

struct Memory {
    context: Context,
    address: u64,
}

const WARP: u32 = 32;
const DEFAULT_SLICE: Duration = Duration::from_millis(100);

impl Memory {
    fn bytes(count: usize) -> usize {
        size_of::<gmb_arbiter_header>() + count * size_of::<gmb_arbiter_entry>() + size_of::<u64>()
    }

    fn entries(&self) -> u64 {
        self.address + size_of::<gmb_arbiter_header>() as u64
    }

    fn told(&self, count: u32) -> u64 {
        self.entries() + u64::from(count) * size_of::<gmb_arbiter_entry>() as u64
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: its kernel has left, and the caller's that asked it have ended.
        let _ = unsafe { self.context.free_ring(self.address) };
    }
}

impl Arbiter {
    /// Makes an arbiter of mailboxes of one context, and starts it: their numbers are their places here. `slice` is how long its
    /// kernel stays before it leaves for a moment; `None` for 100 ms, [`Duration::MAX`] for ever. Blocks until its memory is
    /// ready; the kernel comes soon.
    ///
    /// # Errors
    /// `ZERO_COUNT` (no mailbox), `INVALID_ARGUMENT` (more than `GMB_MOST_ARBITRATED`; of another context; no such reader; the
    /// device's budget is less than a block),
    /// `NOT_SUPPORTED` (express mode), `BUSY` (workers hold what the device's budget allows), `OUT_OF_MEMORY`, `MEMORY_LIMIT`,
    /// `OUT_OF_HOST_MEMORY`, `SYSTEM` (no thread), `DEVICE_LOST`.
    pub fn new(context: &Context, mailboxes: &[Arbitrated<'_>], slice: Option<Duration>) -> Result<Self> {
        let _range = Range::new(c"make an arbiter");
        let count = mailboxes.len();
        if count == 0 {
            return Err(crate::checks::nothing("count"));
        }
        if count > GMB_MOST_ARBITRATED as usize {
            return Err(Error::argument(format!(
                "count {count}: an arbiter looks at {GMB_MOST_ARBITRATED} mailboxes at most"
            )));
        }
        let mut order: Vec<usize> = (0..count).collect();
        // Stable: those of a class keep their order.
        order.sort_by_key(|&number| mailboxes.get(number).is_some_and(|one| one.class == Class::Peripheral));
        let mut header = gmb_arbiter_header::new(count as u32);
        let (mut entries, mut kept) = (Vec::with_capacity(count), Vec::with_capacity(count));
        for (place, &number) in order.iter().enumerate() {
            let Some(one) = mailboxes.get(number) else { continue };
            if !one.mailbox.context().is(context) {
                return Err(Error::argument(format!(
                    "mailbox {number} is of another context than the arbiter"
                )));
            }
            let (published, claimed) = one.mailbox.cursors(one.reader)?;
            entries.push(gmb_arbiter_entry {
                published: published as *const u64,
                claimed: claimed as *const u64,
            });
            kept.push(one.mailbox.keep());
            header.set(place, number);
            header.focus += u32::from(one.class == Class::Focus);
        }
        let threads = (count as u32).next_multiple_of(WARP);
        // SAFETY: the library's own kernel.
        let fitting = unsafe { context.backend().resident_blocks(0, Entry::Arbiter, threads)? };
        residency::check(context, "an arbiter's block", 1, fitting)?;
        let share = Share::take(context, 1, fitting)?;
        let memory =
            Memory { context: context.clone(), address: context.allocate_ring(Memory::bytes(count))? };
        let line = Line::of(context, 2)?;
        line.word(0).store(0, Ordering::Release);
        line.word(1).store(0, Ordering::Release);
        let (backend, service) = (context.backend(), context.service());
        // SAFETY: the memory is large enough for both, which are copied before they go.
        unsafe {
            let from = std::ptr::from_ref(&header) as u64;
            backend.copy(memory.address, from, size_of::<gmb_arbiter_header>(), service)?;
            backend.copy(
                memory.entries(),
                entries.as_ptr() as u64,
                size_of_val(entries.as_slice()),
                service,
            )?;
        }
        backend.stream_synchronize(service)?;
        let shared = Arc::new(Shared {
            context: context.clone(),
            stream: context.stream()?,
            memory,
            line,
            count: count as u32,
            focus: header.focus,
            slices: Slices::new(context, slice.unwrap_or(DEFAULT_SLICE)),
            state: Mutex::default(),
            changed: Condvar::new(),
            _mailboxes: kept,
            _share: share,
        });
        let keeps = Arc::clone(&shared);
        let keeper = std::thread::Builder::new()
            .name("gmb-arbiter".to_owned())
            .spawn(move || keeps.keep())
            .map_err(|e| Error::new(GMB_ERROR_SYSTEM, format!("no thread for an arbiter: {e}")))?;
        Ok(Self { shared, keeper: Some(keeper) })
    }

    /// Where it stands. Never blocks.
    ///
    /// # Errors
    /// What ended it: `DEVICE_LOST`, `DRIVER`.
    pub fn info(&self) -> Result<ArbiterInfo> {
        let it = &self.shared;
        let state = lock(&it.state);
        if let Some(error) = &state.failed {
            return Err(error.clone());
        }
        Ok(ArbiterInfo {
            mailboxes: it.count,
            focus: it.focus,
            slices: state.slices,
            heartbeat: it.line.word(0).load(Ordering::Acquire),
            arbiter: it.memory.address,
        })
    }

    /// Makes its kernel leave for good.
    pub(crate) fn close(&self) {
        let mut state = lock(&self.shared.state);
        state.closed = true;
        self.shared.line.word(1).store(1, Ordering::Release);
        drop(state);
        self.shared.changed.notify_all();
    }
}

impl Shared {
    fn keep(&self) {
        loop {
            let state = lock(&self.state);
            if state.closed {
                return;
            }
            drop(state);
            if let Err(error) = self.slice() {
                log(LogLevel::Error, || format!("an arbiter has ended: {}", error.message()));
                let mut state = lock(&self.state);
                state.failed = Some(error);
                while !state.closed {
                    state = wait(&self.changed, state);
                }
                return;
            }
            lock(&self.state).slices += 1;
        }
    }

    /// The kernel comes, and leaves.
    fn slice(&self) -> Result<()> {
        let slice = self.slices.begin();
        let (backend, stream) = (self.context.backend(), self.context.unresolved(self.stream.get()));
        let told = self.memory.told(self.count);
        let args = gmb_arbiter_args {
            arbiter: self.memory.address as *mut gmb_arbiter_header,
            entries: self.memory.entries() as *const gmb_arbiter_entry,
            command: (self.line.address() + size_of::<u64>() as u64) as *const u64,
            told: told as *mut u64,
            beat: self.line.address() as *mut u64,
            slice_ns: u64::try_from(slice.length.as_nanos()).unwrap_or(u64::MAX),
        };
        let threads = self.count.next_multiple_of(WARP);
        let resident = Resident { function: 0, kernel: Kernel::Arbiter(args), blocks: 1, threads };
        // It is asked often whether it has left.
        let _entered = backend.enter_for_calls()?;
        // SAFETY: the mailboxes and the memory outlive the kernel, which is waited for.
        unsafe {
            backend.fill(told, 0, size_of::<u64>(), stream)?;
            backend.launch_resident(&resident, stream)?;
        }
        let done = || match backend.stream_query(stream) {
            Ok(true) => Some(Ok(())),
            Ok(false) => None,
            Err(error) => Some(Err(error)),
        };
        wait_until_about(Some(slice.length), None, done, || Ok(()))?.unwrap_or(Ok(()))
    }
}

impl Drop for Arbiter {
    fn drop(&mut self) {
        self.close();
        if let Some(keeper) = self.keeper.take().filter(|_| !forked()) {
            let _ = keeper.join();
        }
    }
}

impl std::fmt::Debug for Arbiter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Arbiter").field("mailboxes", &self.shared.count).finish_non_exhaustive()
    }
}
