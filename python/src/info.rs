//! What the library tells of its objects, and its numbers by their names.

use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::error::{argument, check};
use crate::ffi::{gmb_status, GMB_MAILBOX_EXPRESS, GMB_MAILBOX_SHARED};

pub const POLICIES: [&str; 4] = ["reject", "wait", "overwrite_oldest", "latest"];
pub const MODES: [&str; 3] = ["ordered", "shared", "express"];
/// What asks for each of them.
pub const MODE_FLAGS: [i32; 3] = [0, GMB_MAILBOX_SHARED, GMB_MAILBOX_EXPRESS];

/// The number of a name, of a table of names.
pub fn choice(what: &str, name: &str, names: &[&str]) -> PyResult<i32> {
    names
        .iter()
        .position(|known| *known == name)
        .map(|i| i as i32)
        .ok_or_else(|| argument(format!("{what} {name:?} is none of {}", names.join(", "))))
}

/// A struct of the library, which `get` writes to an address, of so many bytes.
///
/// # Safety
/// It has numbers and addresses only, and `get` writes no more than that.
pub unsafe fn info<T>(get: impl FnOnce(*mut T, usize) -> gmb_status) -> PyResult<T> {
    // SAFETY: numbers and addresses.
    let mut info = unsafe { std::mem::zeroed() };
    check(get(&mut info, size_of::<T>()))?;
    Ok(info)
}

/// A dictionary of counts.
pub fn counts<'py>(py: Python<'py>, pairs: &[(&str, u64)]) -> PyResult<Bound<'py, PyDict>> {
    let all = PyDict::new(py);
    for (name, value) in pairs {
        all.set_item(name, value)?;
    }
    Ok(all)
}

/// The same of a mailbox, with its policy's name.
pub fn counts_and_policy<'py>(
    py: Python<'py>,
    pairs: &[(&str, u64)],
    policy: i32,
) -> PyResult<Bound<'py, PyDict>> {
    let all = counts(py, pairs)?;
    all.set_item("full_policy", POLICIES.get(policy as usize).copied())?;
    Ok(all)
}
