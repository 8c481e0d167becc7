//! Waiting until records or room are there: a thread with a timeout, or a file descriptor for an event loop.
//!
//! What is there is known from the words in which the kernels report how far their side has come.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::core::Core;
use super::side::ahead;
use super::Mailbox;
use crate::backend::wait_until;
use crate::error::{Error, Result};
use crate::profiler::Range;
use crate::status::*;
use crate::watch::{Source, Watch};

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
        Watch::new(&self.context, Watched { core: Arc::downgrade(&self.core), interest })
    }
}

struct Watched {
    /// A watch does not keep a mailbox.
    core: Weak<Core>,
    interest: Interest,
}

impl Watched {
    fn core(&self) -> Result<Arc<Core>> {
        self.core.upgrade().ok_or_else(destroyed)
    }
}

impl Source for Watched {
    fn check(&self, count: u32) -> Result<()> {
        self.core()?.check_interest(self.interest, count)
    }

    fn ready(&self, _enough: u32) -> Result<u64> {
        self.core()?.ready(self.interest)
    }
}

fn destroyed() -> Error {
    Error::new(GMB_ERROR_INVALID_HANDLE, "the mailbox was destroyed")
}
