//! The edge of the library: no panic crosses it, nothing is printed, and the
//! sentence of the last error stays with the thread.

use std::cell::{Cell, RefCell};
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::Once;

use crate::error::{Error, Result};
use crate::status::*;
use crate::sync::check_fork;

const LONGEST_MESSAGE: usize = 1000;

struct Message {
    bytes: [u8; LONGEST_MESSAGE],
    length: usize,
}

// Neither needs a destructor: those run after the library may be gone.
thread_local! {
    static MESSAGE: RefCell<Message> = const { RefCell::new(Message { bytes: [0; LONGEST_MESSAGE], length: 0 }) };
    static INSIDE: Cell<u32> = const { Cell::new(0) };
}

/// Runs the body of an exported function. A successful call leaves the last message as it is.
pub(super) fn boundary(body: impl FnOnce() -> Result<()>) -> gmb_status {
    boundary_status(|| body().map(|()| GMB_OK))
}

/// As [`boundary`], for functions that answer with more than success.
pub(super) fn boundary_status(body: impl FnOnce() -> Result<gmb_status>) -> gmb_status {
    silence_own_panics();
    INSIDE.with(|inside| inside.set(inside.get() + 1));
    let outcome = catch_unwind(AssertUnwindSafe(|| check_fork().and_then(|()| body())));
    INSIDE.with(|inside| inside.set(inside.get() - 1));
    match outcome {
        Ok(Ok(status)) => status,
        Ok(Err(error)) => remember(&error),
        Err(payload) => {
            let words = payload
                .downcast_ref::<&str>()
                .map(|s| (*s).to_owned())
                .or_else(|| payload.downcast_ref::<String>().cloned())
                .unwrap_or_default();
            remember(&Error::new(GMB_ERROR_PANIC, format!("a fault in the library: {words}")))
        }
    }
}

fn remember(error: &Error) -> gmb_status {
    let text = error.message();
    let mut length = text.len().min(LONGEST_MESSAGE);
    while !text.is_char_boundary(length) {
        length -= 1;
    }
    MESSAGE.with(|message| {
        // Not borrowed elsewhere: nothing below calls out.
        if let Ok(mut message) = message.try_borrow_mut() {
            message.bytes[..length].copy_from_slice(&text.as_bytes()[..length]);
            message.length = length;
        }
    });
    error.status()
}

/// Gives the thread's last message to `use_it`.
pub(super) fn last_message<T>(use_it: impl FnOnce(&[u8]) -> T) -> T {
    MESSAGE.with(|message| match message.try_borrow() {
        Ok(message) => use_it(&message.bytes[..message.length]),
        Err(_) => use_it(&[]),
    })
}

/// A panic inside a call is reported by its status, not on standard error.
/// All other panics of the process go where they went before.
fn silence_own_panics() {
    static ONCE: Once = Once::new();
    // Hooks cannot be changed while this thread unwinds; another call will do it.
    if std::thread::panicking() {
        return;
    }
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if INSIDE.with(|inside| inside.get() == 0) {
                before(info);
            }
        }));
    });
}

#[cfg(test)]
#[allow(clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_a_status_and_a_message() {
        let status = boundary(|| panic!("seven of nine"));
        assert_eq!(status, GMB_ERROR_PANIC);
        assert!(last_message(|m| String::from_utf8_lossy(m).contains("seven of nine")));
        assert_eq!(boundary(|| Ok(())), GMB_OK);
    }

    #[test]
    fn a_long_message_is_cut_at_a_character() {
        let status = boundary(|| Err(Error::argument("ü".repeat(LONGEST_MESSAGE))));
        assert_eq!(status, GMB_ERROR_INVALID_ARGUMENT);
        assert!(last_message(|m| std::str::from_utf8(m).is_ok_and(|s| s.len() <= LONGEST_MESSAGE)));
    }
}
