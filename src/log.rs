//! What the library has to say goes to the program's own function, or nowhere.

use std::cell::Cell;
use std::sync::{PoisonError, RwLock};

use crate::error::{Error, Result};
use crate::status::GMB_ERROR_BUSY;

/// How much a message matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// Something is broken from now on.
    Error = 1,
    /// Works, but not as well as it could.
    Warning = 2,
    /// What was chosen, and why.
    Info = 3,
}

type Function = Box<dyn Fn(LogLevel, &str) + Send + Sync>;

static SINK: RwLock<Option<(LogLevel, Function)>> = RwLock::new(None);

thread_local! {
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// Sends the library's messages of this level and of graver ones to a function, which replaces
/// the one before; `None` for silence. When this returns, the function before is no
/// longer running. It may be called from any thread, and from several at once; it
/// must not call into the library.
///
/// ```
/// use gpumailbox::{set_log, LogLevel};
///
/// set_log(LogLevel::Info, Some(Box::new(|level, message| println!("{level:?}: {message}"))))?;
/// # set_log(LogLevel::Info, None)?;
/// # Ok::<(), gpumailbox::Error>(())
/// ```
///
/// # Errors
/// `BUSY`: called from within the function.
pub fn set_log(level: LogLevel, function: Option<Function>) -> Result<()> {
    if INSIDE.get() {
        return Err(Error::new(GMB_ERROR_BUSY, "the log function must not replace itself"));
    }
    let next = function.map(|function| (level, function));
    // Dropped without the lock: what the function holds may log when it goes.
    let before = std::mem::replace(&mut *SINK.write().unwrap_or_else(PoisonError::into_inner), next);
    drop(before);
    Ok(())
}

/// Says something, unless nobody listens.
pub(crate) fn log(level: LogLevel, message: impl FnOnce() -> String) {
    if INSIDE.get() {
        return;
    }
    let sink = SINK.read().unwrap_or_else(PoisonError::into_inner);
    let Some((_, function)) = sink.as_ref().filter(|(most, _)| level <= *most) else { return };
    let text = message();
    INSIDE.set(true);
    let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| function(level, &text)));
    INSIDE.set(false);
}
