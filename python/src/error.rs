//! Statuses of the library as exceptions of the package.

use std::ffi::{c_char, CStr};

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

use crate::ffi;

/// A function of the caller's failed.
pub const CALLBACK: i32 = -44;

static MAKE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

/// The exception of a status, with a sentence.
pub fn status(status: i32, message: impl AsRef<str>) -> PyErr {
    Python::attach(|py| {
        let make =
            MAKE.get_or_try_init(py, || py.import("gpumailbox._errors")?.getattr("make").map(Bound::unbind));
        match make.and_then(|make| make.call1(py, (status, message.as_ref()))) {
            Ok(made) => PyErr::from_value(made.into_bound(py)),
            Err(error) => error,
        }
    })
}

/// Something that was given cannot be.
pub fn argument(message: impl AsRef<str>) -> PyErr {
    status(ffi::GMB_ERROR_INVALID_ARGUMENT, message)
}

/// Something was closed, or given back.
pub fn closed(message: &str) -> PyErr {
    status(ffi::GMB_ERROR_INVALID_HANDLE, message)
}

/// What the calling thread's last call of the library said.
pub fn message() -> String {
    let mut text = vec![0u8; 1024];
    let mut needed = 0usize;
    // SAFETY: the buffer has that size.
    unsafe { ffi::gmb_last_error_message(text.as_mut_ptr().cast::<c_char>(), text.len(), &mut needed) };
    let end = text.iter().position(|&c| c == 0).unwrap_or(0);
    String::from_utf8_lossy(&text[..end]).into_owned()
}

/// Raises what a call said; a status that is no error comes back.
pub fn check(told: i32) -> PyResult<i32> {
    if told < 0 {
        let mut said = message();
        if said.is_empty() {
            // SAFETY: a constant text.
            said = unsafe { CStr::from_ptr(ffi::gmb_status_string(told)) }.to_string_lossy().into_owned();
        }
        return Err(status(told, said));
    }
    Ok(told)
}
