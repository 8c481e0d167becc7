//! Statuses of the library as exceptions of the package.

use std::ffi::{c_char, CStr};

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyDict;

use crate::ffi;

static MAKE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

/// The exception of a status, with a sentence.
pub fn of(status: i32, message: &str) -> PyErr {
    Python::attach(|py| {
        let make =
            MAKE.get_or_try_init(py, || py.import("gpumailbox._errors")?.getattr("make").map(Bound::unbind));
        match make.and_then(|make| make.call1(py, (status, message))) {
            Ok(made) => PyErr::from_value(made.into_bound(py)),
            Err(error) => error,
        }
    })
}

/// What the calling thread's last call of the library said.
fn message() -> String {
    let mut text = vec![0u8; 1024];
    let mut needed = 0usize;
    // SAFETY: the buffer has that size.
    unsafe { ffi::gmb_last_error_message(text.as_mut_ptr().cast::<c_char>(), text.len(), &mut needed) };
    let end = text.iter().position(|&c| c == 0).unwrap_or(0);
    String::from_utf8_lossy(&text[..end]).into_owned()
}

/// Raises what a call said; a status that is no error comes back.
pub fn check(status: i32) -> PyResult<i32> {
    if status < 0 {
        let mut said = message();
        if said.is_empty() {
            // SAFETY: a constant text.
            said = unsafe { CStr::from_ptr(ffi::gmb_status_string(status)) }.to_string_lossy().into_owned();
        }
        return Err(of(status, &said));
    }
    Ok(status)
}

/// `INVALID_ARGUMENT`, of what the package itself found wrong.
pub fn argument(message: impl AsRef<str>) -> PyErr {
    of(ffi::GMB_ERROR_INVALID_ARGUMENT as i32, message.as_ref())
}

/// Any status, of what the package itself found wrong.
pub fn status(status: i64, message: impl AsRef<str>) -> PyErr {
    of(status as i32, message.as_ref())
}

/// The number of a name, of a table of names.
pub fn choice(what: &str, name: &str, names: &[&str]) -> PyResult<i32> {
    names
        .iter()
        .position(|known| *known == name)
        .map(|i| i as i32)
        .ok_or_else(|| argument(format!("{what} {name:?} is none of {}", names.join(", "))))
}

/// A dictionary of counts.
pub fn dictionary<'py>(py: Python<'py>, pairs: &[(&str, u64)]) -> PyResult<Bound<'py, PyDict>> {
    let all = PyDict::new(py);
    for (name, value) in pairs {
        all.set_item(name, value)?;
    }
    Ok(all)
}
