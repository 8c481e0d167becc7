//! Versions, statuses and messages.

use std::ffi::{c_char, CStr};

use super::boundary::{boundary, last_message};
use super::output;
use crate::error::Error;
use crate::status::*;

/// Major version of this header.
pub const GMB_VERSION_MAJOR: u32 = 0;
/// Minor version of this header.
pub const GMB_VERSION_MINOR: u32 = 1;
/// Patch version of this header.
pub const GMB_VERSION_PATCH: u32 = 0;

const VERSION: &CStr = c"0.1.0";

/// Version of the library in use: major << 16 | minor << 8 | patch.
/// Never fails, never blocks; thread-safe.
#[no_mangle]
pub extern "C" fn gmb_version() -> u32 {
    (GMB_VERSION_MAJOR << 16) | (GMB_VERSION_MINOR << 8) | GMB_VERSION_PATCH
}

/// Version of the library in use as text, such as "0.1.0".
/// The string is static. Never fails, never blocks; thread-safe.
#[no_mangle]
pub extern "C" fn gmb_version_string() -> *const c_char {
    VERSION.as_ptr()
}

/// A sentence for a status; for an unknown one, too.
/// The string is static. Never fails, never blocks; thread-safe.
#[no_mangle]
pub extern "C" fn gmb_status_string(status: gmb_status) -> *const c_char {
    status_text(status).as_ptr()
}

/// The name of a status constant, such as "GMB_ERROR_BUSY"; "GMB_ERROR_UNKNOWN" for an unknown one.
/// The string is static. Never fails, never blocks; thread-safe.
#[no_mangle]
pub extern "C" fn gmb_status_name(status: gmb_status) -> *const c_char {
    status_name_c(status).as_ptr()
}

/// Copies the message of this thread's last failed call, NUL-terminated and cut to `size` bytes.
///
/// `needed`, if not null, receives the bytes that the whole message takes with its NUL.
/// `buffer` may be null when `size` is 0. A successful call leaves the message as it was.
/// Never blocks; thread-safe. Errors: `GMB_ERROR_NULL_POINTER`, `_MISALIGNED`, `_FORKED` (in a forked child).
#[no_mangle]
pub extern "C" fn gmb_last_error_message(buffer: *mut c_char, size: usize, needed: *mut usize) -> gmb_status {
    boundary(|| {
        let needed = if needed.is_null() { None } else { Some(output(needed, "needed")?) };
        if buffer.is_null() && size > 0 {
            return Err(Error::new(GMB_ERROR_NULL_POINTER, "buffer is null and size is not 0"));
        }
        let whole = last_message(|message| {
            if size > 0 {
                let cut = message.len().min(size - 1);
                // SAFETY: the caller's buffer has `size` bytes, and cut + 1 is no more.
                unsafe {
                    std::ptr::copy_nonoverlapping(message.as_ptr(), buffer.cast(), cut);
                    *buffer.add(cut) = 0;
                }
            }
            message.len() + 1
        });
        if let Some(needed) = needed {
            needed.write(whole);
        }
        Ok(())
    })
}
