//! File descriptors for event loops.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::{Arc, Mutex};

use crate::context::Context;
use crate::error::{Error, Result};
use crate::status::GMB_ERROR_SYSTEM;
use crate::sync::lock;
use crate::watcher::Condition;

/// A file descriptor that becomes readable, once for each [`Watch::arm`], when a mailbox is, a doorbell has answers, or a FIFO
/// records: for epoll, libuv, asyncio or tokio. A thread of the context looks for that, and sleeps while nothing is armed.
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

/// What is watched. It does not keep what it looks at.
pub(crate) trait Source: Send + Sync {
    /// Refuses what can never be.
    fn check(&self, count: u32) -> Result<()>;
    /// How much is there; who finds enough may stop counting.
    fn ready(&self, enough: u32) -> Result<u64>;
}

struct Watched {
    context: Context,
    source: Box<dyn Source>,
    descriptor: OwnedFd,
    /// How many are waited for; zero while nothing is.
    count: Mutex<u32>,
}

impl Watch {
    pub(crate) fn new(context: &Context, source: impl Source + 'static) -> Result<Self> {
        // SAFETY: a call without pointers.
        let raw = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if raw < 0 {
            return Err(system("eventfd"));
        }
        // SAFETY: it was made just now, and nobody else has it.
        let descriptor = unsafe { OwnedFd::from_raw_fd(raw) };
        let (context, source) = (context.clone(), Box::new(source));
        Ok(Self(Arc::new(Watched { context, source, descriptor, count: Mutex::new(0) })))
    }

    /// Takes back what the descriptor says, and has it say so when `count` records, or room for so many, are there:
    /// at once, if they are. It is readable then until it is armed again or read. Also when the device is lost or what is
    /// watched destroyed: then this call and its own say so. Does not block.
    ///
    /// # Errors
    /// As for [`crate::Mailbox::wait_readable`], without `TIMEOUT`; `INVALID_HANDLE` (it was destroyed), `SYSTEM`.
    pub fn arm(&self, count: u32) -> Result<()> {
        let it = &self.0;
        it.source.check(count)?;
        it.context.pulse()?;
        let mut wanted = lock(&it.count);
        it.clear();
        let watched = *wanted != 0;
        *wanted = count;
        // Looked after already, it goes on with the new count.
        if it.answer(&mut wanted, it.source.ready(count)) || watched {
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
        let mut wanted = lock(&self.count);
        let ready = pulse.and_then(|()| self.source.ready(*wanted));
        self.answer(&mut wanted, ready)
    }
}

fn system(call: &str) -> Error {
    Error::new(GMB_ERROR_SYSTEM, format!("{call} failed: {}", std::io::Error::last_os_error()))
}
