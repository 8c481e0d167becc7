//! Waiting until records or room are there: a thread with a timeout, or a file descriptor for an event loop.
//!
//! What is there is known from the words in which the kernels report how far their side has come.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use super::core::Core;
use super::side::ahead;
use super::Mailbox;
use crate::backend::wait_until;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::profiler::Range;
use crate::status::*;
use crate::sync::lock;
use crate::watcher::Condition;

/// What to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// Records that a reader has not taken.
    Readable {
        /// Which reader.
        reader: u32,
    },
    /// Room that no reader holds.
    Writable,
}

impl Core {
    /// How many records, or how much room, there is, as the kernels have reported.
    fn ready(&self, interest: Interest) -> Result<u64> {
        if self.closed.load(Ordering::Acquire) {
            return Err(destroyed());
        }
        if self.is_captured() && self.single_stream {
            return Err(Error::new(
                GMB_ERROR_NOT_SUPPORTED,
                "operations in graphs of a single-stream mailbox do not tell the host how far they are",
            ));
        }
        if self.shared.is_some() {
            return self.ready_shared(interest);
        }
        match interest {
            Interest::Readable { reader } => {
                let side = self.readers.get(reader)?;
                // One that is being let in has nothing yet.
                if !side.has_begun() {
                    return Ok(0);
                }
                Ok(side.unread(|| self.push.reached()).min(self.capacity))
            }
            Interest::Writable if self.full_policy.rules().overwrites => Ok(self.capacity),
            Interest::Writable => {
                let held = |at: u64| {
                    self.readers.in_use().map(|(_, side)| ahead(at, side.reached())).max().unwrap_or(0)
                };
                // What is enqueued takes room, too.
                Ok(self.capacity.saturating_sub(held(self.push.bound())))
            }
        }
    }

    /// Refuses what can never be.
    fn check_interest(&self, interest: Interest, count: u32) -> Result<()> {
        self.check_launches()?;
        if count == 0 {
            return Err(Error::new(GMB_ERROR_ZERO_COUNT, "count is 0: that is always there"));
        }
        if u64::from(count) > self.capacity {
            return Err(Error::argument(format!(
                "count {count}: the mailbox holds {}, so that will never be there",
                self.capacity
            )));
        }
        self.ready(interest).map(|_| ())
    }
}

impl Mailbox {
    /// Blocks the calling thread until a reader has `count` unread records at least, and says how
    /// many there are. They are there for whoever pops next, so several consumers of a reader compete.
    /// `None` waits without limit, zero asks once. Spins, then yields, then sleeps. Pushes through
    /// another mailbox over the same memory do not count.
    ///
    /// # Errors
    /// `TIMEOUT`, `ZERO_COUNT`, `INVALID_ARGUMENT` (no such reader; more than the capacity), `DEVICE_LOST`;
    /// `NOT_SUPPORTED` for a single-stream mailbox of which operations were captured.
    pub fn wait_readable(&self, reader: u32, count: u32, timeout: Option<Duration>) -> Result<u64> {
        self.wait_ready(Interest::Readable { reader }, count, timeout)
    }

    /// Blocks the calling thread until there is room for `count` records at least, and says for how many. Room that
    /// pushes may take which are enqueued already does not count, except of a mailbox with operations in graphs. A
    /// mailbox that overwrites always has room.
    ///
    /// # Errors
    /// As for [`Mailbox::wait_readable`].
    pub fn wait_writable(&self, count: u32, timeout: Option<Duration>) -> Result<u64> {
        self.wait_ready(Interest::Writable, count, timeout)
    }

    fn wait_ready(&self, interest: Interest, count: u32, timeout: Option<Duration>) -> Result<u64> {
        let _range = Range::new(c"wait until ready");
        self.core.check_interest(interest, count)?;
        let attempt = || match self.core.ready(interest) {
            Ok(ready) if ready < u64::from(count) => None,
            other => Some(other),
        };
        wait_until(timeout, attempt, || self.context.pulse())?.unwrap_or_else(|| {
            Err(Error::new(GMB_ERROR_TIMEOUT, "not ready in time: wait again, nothing is lost"))
        })
    }

    /// A file descriptor for `interest`, to be armed.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` (no such reader), `SYSTEM` (no descriptor left).
    pub fn watch(&self, interest: Interest) -> Result<Watch> {
        self.core.check_interest(interest, 1)?;
        // SAFETY: a call without pointers.
        let raw = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if raw < 0 {
            return Err(system("eventfd"));
        }
        // SAFETY: it was made just now, and nobody else has it.
        let descriptor = unsafe { OwnedFd::from_raw_fd(raw) };
        Ok(Watch(Arc::new(Watched {
            context: self.context.clone(),
            core: Arc::downgrade(&self.core),
            interest,
            descriptor,
            count: Mutex::new(0),
        })))
    }
}

/// A file descriptor that becomes readable, once for each [`Watch::arm`], when a mailbox is: for epoll, libuv,
/// asyncio or tokio. A thread of the context looks for that, and sleeps while nothing is armed.
///
/// ```
/// use gpumailbox::{Context, ContextOptions, HostRows, Interest, Mailbox, MailboxOptions};
/// use std::os::fd::{AsFd, AsRawFd};
///
/// let context = Context::new(&ContextOptions::default())?;
/// let mailbox = Mailbox::new(&context, &MailboxOptions { capacity: 8, payload_bytes: 16, ..Default::default() })?;
/// let watch = mailbox.watch(Interest::Readable { reader: 0 })?;
/// watch.arm(1)?;
/// mailbox.push_from_host_blocking(&HostRows { rows: b"hello", stride: 16, lengths: &[5], types: &[] }, None)?;
/// let mut waiting = libc::pollfd { fd: watch.as_fd().as_raw_fd(), events: libc::POLLIN, revents: 0 };
/// assert_eq!(unsafe { libc::poll(&mut waiting, 1, -1) }, 1);
/// # Ok::<(), gpumailbox::Error>(())
/// ```
pub struct Watch(Arc<Watched>);

struct Watched {
    context: Context,
    /// A watch does not keep a mailbox.
    core: Weak<Core>,
    interest: Interest,
    descriptor: OwnedFd,
    /// How many are waited for; zero while nothing is.
    count: Mutex<u32>,
}

impl Watch {
    /// Takes back what the descriptor says, and has it say so when `count` records, or room for so many, are there:
    /// at once, if they are. It is readable then until it is armed again or read. Also when the device is lost or the
    /// mailbox destroyed: then this call and the mailbox's own say so. Does not block.
    ///
    /// # Errors
    /// As for [`Mailbox::wait_readable`], without `TIMEOUT`; `INVALID_HANDLE` (the mailbox was destroyed), `SYSTEM`.
    pub fn arm(&self, count: u32) -> Result<()> {
        let it = &self.0;
        let core = it.core.upgrade().ok_or_else(destroyed)?;
        core.check_interest(it.interest, count)?;
        it.context.pulse()?;
        let mut wanted = lock(&it.count);
        it.clear();
        let watched = *wanted != 0;
        *wanted = count;
        // Looked after already, it goes on with the new count.
        if it.answer(&mut wanted, core.ready(it.interest)) || watched {
            return Ok(());
        }
        // Under the lock: who finds it wanted must find it watched, too.
        it.context.watcher().arm(it).inspect_err(|_| *wanted = 0)
    }

    /// A descriptor of the caller's own, which he closes: what he does with it does not touch this one.
    ///
    /// # Errors
    /// `SYSTEM` (no descriptor left).
    pub fn try_clone_fd(&self) -> Result<OwnedFd> {
        self.0.descriptor.try_clone().map_err(|_| system("dup"))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // Who looks just now must not tell any more: the descriptors that its owner has go on being his.
        *lock(&self.0.count) = 0;
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.descriptor.as_fd()
    }
}

impl Watched {
    fn clear(&self) {
        // Its owner may have made his descriptor a blocking one, which then all of them are: this one must not block.
        let mut waiting = libc::pollfd { fd: self.descriptor.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one entry.
        if unsafe { libc::poll(&mut waiting, 1, 0) } != 1 {
            return;
        }
        let mut value = 0u64;
        // SAFETY: eight bytes to write to. Nothing to read is no error here.
        let _ = unsafe { libc::read(self.descriptor.as_raw_fd(), (&raw mut value).cast(), size_of::<u64>()) };
    }

    fn tell(&self) {
        let value = 1u64;
        // SAFETY: eight bytes to read from. The counter cannot be full: it is cleared whenever it is armed.
        let _ =
            unsafe { libc::write(self.descriptor.as_raw_fd(), (&raw const value).cast(), size_of::<u64>()) };
    }

    /// Tells what is wanted, if it is there; true when nothing is wanted any more.
    fn answer(&self, wanted: &mut u32, ready: Result<u64>) -> bool {
        // An error wakes whoever waits: he will meet it at the next call.
        if *wanted != 0 && ready.is_ok_and(|ready| ready < u64::from(*wanted)) {
            return false;
        }
        if std::mem::take(wanted) != 0 {
            self.tell();
        }
        true
    }
}

impl Condition for Watched {
    fn look(&self) -> bool {
        let pulse = self.context.pulse();
        let core = self.core.upgrade().ok_or_else(destroyed);
        let mut wanted = lock(&self.count);
        self.answer(&mut wanted, pulse.and(core).and_then(|core| core.ready(self.interest)))
    }
}

fn destroyed() -> Error {
    Error::new(GMB_ERROR_INVALID_HANDLE, "the mailbox was destroyed")
}

fn system(call: &str) -> Error {
    Error::new(GMB_ERROR_SYSTEM, format!("{call} failed: {}", std::io::Error::last_os_error()))
}
