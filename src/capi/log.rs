//! The log function.

use std::ffi::{c_char, c_void, CString};

use super::boundary::boundary;
use crate::error::Error;
use crate::log::{set_log, LogLevel};
use crate::status::*;

/// How much a message matters: `GMB_LOG_*`.
#[allow(non_camel_case_types)]
pub type gmb_log_level = i32;

/// Something is broken from now on.
pub const GMB_LOG_ERROR: gmb_log_level = 1;
/// Works, but not as well as it could.
pub const GMB_LOG_WARNING: gmb_log_level = 2;
/// What was chosen, and why.
pub const GMB_LOG_INFO: gmb_log_level = 3;

/// A function that takes messages; `message` is NUL-terminated and valid during the call. It may be called
/// from any thread, from several at once, and must not throw or call into the library.
#[allow(non_camel_case_types)]
pub type gmb_log_function =
    Option<extern "C" fn(level: gmb_log_level, message: *const c_char, argument: *mut c_void)>;

/// Sends the library's messages of this level (`GMB_LOG_*`) and of graver ones to a function, for the
/// whole process; it replaces the one before, and null is silence, the default. Blocks until the function
/// before is no longer running: its argument may go. Thread-safe.
/// Errors: `GMB_ERROR_INVALID_ARGUMENT`, `_BUSY` (called from within the function).
#[no_mangle]
pub extern "C" fn gmb_set_log_function(
    level: gmb_log_level,
    function: gmb_log_function,
    argument: *mut c_void,
) -> gmb_status {
    boundary(|| {
        let level = match level {
            GMB_LOG_ERROR => LogLevel::Error,
            GMB_LOG_WARNING => LogLevel::Warning,
            GMB_LOG_INFO => LogLevel::Info,
            _ => return Err(Error::argument(format!("level {level} is none of GMB_LOG_*"))),
        };
        let Some(function) = function else { return set_log(level, None) };
        let argument = argument as usize;
        set_log(
            level,
            Some(Box::new(move |level, message| {
                let text = CString::new(message).unwrap_or_default();
                function(level as gmb_log_level, text.as_ptr(), argument as *mut c_void);
            })),
        )
    })
}
