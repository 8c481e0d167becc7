//! `gmb_watch`, and waiting until a mailbox is ready.

use std::os::fd::IntoRawFd;

use super::boundary::boundary;
use super::mailbox::gmb_mailbox;
use super::{optional_output, output, timeout, MAILBOXES, WATCHES};
use crate::error::{Error, Result};
use crate::status::*;
use crate::Interest;

/// Handle of a watch: a file descriptor for what a mailbox has. Zero is null.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct gmb_watch {
    /// Opaque.
    pub id: u64,
}

/// What to wait for: `GMB_INTEREST_*`.
#[allow(non_camel_case_types)]
pub type gmb_interest = i32;

/// Records that a reader has not taken.
pub const GMB_INTEREST_READABLE: gmb_interest = 0;
/// Room that no reader holds.
pub const GMB_INTEREST_WRITABLE: gmb_interest = 1;

fn interest(value: gmb_interest, reader: u32) -> Result<Interest> {
    match value {
        GMB_INTEREST_READABLE => Ok(Interest::Readable { reader }),
        GMB_INTEREST_WRITABLE if reader == 0 => Ok(Interest::Writable),
        GMB_INTEREST_WRITABLE => {
            Err(Error::argument(format!("reader {reader}: room is that of all readers, pass 0")))
        }
        _ => Err(Error::argument(format!("interest {value} is none of GMB_INTEREST_READABLE, _WRITABLE"))),
    }
}

/// Blocks the calling thread until a reader has `count` unread records at least, as far as the kernels have reported,
/// and says in `ready`, which may be null, how many there are. Whoever pops next gets them: several consumers of one
/// reader compete. Pushes through another mailbox over the same memory do not count. `timeout_ns` is in nanoseconds;
/// `GMB_WAIT_FOREVER` waits without limit, 0 asks once. Spins, then yields, then sleeps. Thread-safe.
/// Errors: `GMB_ERROR_INVALID_HANDLE` (also when it is destroyed meanwhile), `_INVALID_ARGUMENT` (no such reader; more
/// than the capacity), `_ZERO_COUNT`, `_TIMEOUT` (wait again), `_NOT_SUPPORTED` (operations of a single-stream mailbox
/// were captured; express mode), `_DEVICE_LOST`.
#[no_mangle]
pub extern "C" fn gmb_mailbox_wait_readable(
    mailbox: gmb_mailbox,
    reader: u32,
    count: u32,
    timeout_ns: u64,
    ready: *mut u64,
) -> gmb_status {
    boundary(|| {
        let out = optional_output(ready, "ready")?;
        let value = MAILBOXES.get(mailbox.id)?.wait_readable(reader, count, timeout(timeout_ns))?;
        out.map(|out| out.write(value));
        Ok(())
    })
}

/// Blocks the calling thread until there is room for `count` records at least, and says in `ready`, which may be null,
/// for how many. Room that enqueued pushes may take does not count, except of a mailbox with operations in graphs; a
/// mailbox that overwrites always has room. Otherwise as `gmb_mailbox_wait_readable`.
/// Errors: as for `gmb_mailbox_wait_readable`.
#[no_mangle]
pub extern "C" fn gmb_mailbox_wait_writable(
    mailbox: gmb_mailbox,
    count: u32,
    timeout_ns: u64,
    ready: *mut u64,
) -> gmb_status {
    boundary(|| {
        let out = optional_output(ready, "ready")?;
        let value = MAILBOXES.get(mailbox.id)?.wait_writable(count, timeout(timeout_ns))?;
        out.map(|out| out.write(value));
        Ok(())
    })
}

/// Makes a watch of a mailbox for one of `GMB_INTEREST_*`; `reader` is 0 for `GMB_INTEREST_WRITABLE`. The caller owns it
/// and ends it with `gmb_watch_destroy`. It may outlive the mailbox's handle. Does not block; thread-safe.
/// Errors: `GMB_ERROR_INVALID_HANDLE`, `_NULL_POINTER`, `_INVALID_ARGUMENT`, `_NOT_SUPPORTED` (as for
/// `gmb_mailbox_wait_readable`), `_SYSTEM` (no descriptor left).
#[no_mangle]
pub extern "C" fn gmb_watch_create(
    mailbox: gmb_mailbox,
    interest: gmb_interest,
    reader: u32,
    watch: *mut gmb_watch,
) -> gmb_status {
    boundary(|| {
        let out = output(watch, "watch")?;
        let interest = self::interest(interest, reader)?;
        let made = MAILBOXES.get(mailbox.id)?.watch(interest)?;
        out.write(gmb_watch { id: WATCHES.insert(made)? });
        Ok(())
    })
}

/// Takes back what the watch's descriptors say, and has them become readable, once, when `count` records, or room for
/// so many, are there: at once, if they are. Also when the mailbox is destroyed or the device lost: then the next call
/// says so. A thread of the library looks for that; it sleeps while nothing is armed. Does not block; thread-safe.
/// Errors: `GMB_ERROR_INVALID_HANDLE` (also of a destroyed mailbox), `_INVALID_ARGUMENT`, `_ZERO_COUNT`,
/// `_NOT_SUPPORTED`, `_SYSTEM`, `_DEVICE_LOST`.
#[no_mangle]
pub extern "C" fn gmb_watch_arm(watch: gmb_watch, count: u32) -> gmb_status {
    boundary(|| WATCHES.get(watch.id)?.arm(count))
}

/// A file descriptor of the watch, for epoll, poll and event loops: the caller's own, to be closed by him. All of a
/// watch's descriptors say the same. Does not block; thread-safe.
/// Errors: `GMB_ERROR_INVALID_HANDLE`, `_NULL_POINTER`, `_SYSTEM` (no descriptor left).
#[no_mangle]
pub extern "C" fn gmb_watch_get_fd(watch: gmb_watch, descriptor: *mut i32) -> gmb_status {
    boundary(|| {
        let out = output(descriptor, "descriptor")?;
        out.write(WATCHES.get(watch.id)?.try_clone_fd()?.into_raw_fd());
        Ok(())
    })
}

/// Ends a watch. Its descriptors become readable no more; who has them closes them. Does not block, unless it is the
/// last of a mailbox whose handle is gone; thread-safe.
/// Errors: `GMB_ERROR_INVALID_HANDLE`.
#[no_mangle]
pub extern "C" fn gmb_watch_destroy(watch: gmb_watch) -> gmb_status {
    boundary(|| WATCHES.remove(watch.id))
}
