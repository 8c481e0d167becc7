//! How operations went.

use std::time::Duration;

use pyo3::prelude::*;

use crate::context::ContextHandle;
use crate::error::{check, status};
use crate::ffi;
use crate::waiting::{limit, patiently};

pub const NO_TOKEN: ffi::gmb_token = ffi::gmb_token { id: 0 };
pub const EMPTY: ffi::gmb_result = ffi::gmb_result { epoch: 0, count: 0, status: 0, flags: 0, lost: 0 };

/// A token, and the epoch of its last operation.
pub struct Token {
    pub handle: ffi::gmb_token,
    pub epoch: u64,
}

impl Token {
    pub fn new(context: &ContextHandle) -> PyResult<Self> {
        let mut handle = NO_TOKEN;
        // SAFETY: it writes a handle.
        check(unsafe { ffi::gmb_token_create(context.handle()?, &mut handle) })?;
        Ok(Self { handle, epoch: 0 })
    }

    /// Whether its last operation is done.
    pub fn is_told(&self) -> bool {
        let mut result = EMPTY;
        // SAFETY: it writes a result.
        let told = unsafe { ffi::gmb_token_poll(self.handle, &mut result) };
        told == 0 && u64::from(result.epoch) >= self.epoch || self.epoch == 0
    }

    /// Blocks until a result of a later epoch than `after` is told, or time is over; the status.
    fn wait(&self, after: u64, nanoseconds: u64, result: &mut ffi::gmb_result) -> i32 {
        // SAFETY: it writes a result.
        unsafe { ffi::gmb_token_wait(self.handle, after, nanoseconds, result) }
    }

    /// The same of its last operation.
    pub fn wait_told(&self, nanoseconds: u64) -> i32 {
        self.wait(self.epoch.saturating_sub(1), nanoseconds, &mut { EMPTY })
    }

    /// The result of its last operation.
    pub fn told(&self, py: Python<'_>) -> PyResult<ffi::gmb_result> {
        self.told_after(py, self.epoch.saturating_sub(1), None)
    }

    fn told_after(&self, py: Python<'_>, after: u64, limit: Option<Duration>) -> PyResult<ffi::gmb_result> {
        let mut told = EMPTY;
        patiently(py, limit, |left| self.wait(after, left, &mut told))?;
        Ok(told)
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        // SAFETY: a token that is no longer needed; its operations go on.
        unsafe { ffi::gmb_token_destroy(self.handle) };
    }
}

/// How an operation went.
#[pyclass(frozen, get_all, name = "Result", module = "gpumailbox")]
#[derive(Clone, Copy)]
pub struct Result_ {
    /// Grows by one with each operation of a token.
    pub epoch: u32,
    /// Records accepted or delivered.
    pub count: u32,
    /// Whether fewer than asked for.
    pub partial: bool,
    /// Records that were overwritten before this pop came to them.
    pub lost: u64,
}

#[pymethods]
impl Result_ {
    fn __repr__(&self) -> String {
        format!("<gpumailbox.Result count={} lost={} epoch={}>", self.count, self.lost, self.epoch)
    }
}

/// Raises what went wrong on the device.
pub fn result(of: ffi::gmb_result) -> PyResult<Result_> {
    if of.status < 0 {
        return Err(status(
            of.status,
            format!("the operation ended on the device, after {} records", of.count),
        ));
    }
    let partial = of.flags & ffi::GMB_RESULT_PARTIAL as u32 != 0;
    Ok(Result_ { epoch: of.epoch, count: of.count, partial, lost: of.lost })
}

/// Where results of operations are told that nobody waits for at once: in graphs, or beside other work.
#[pyclass(frozen, name = "Token", module = "gpumailbox")]
pub struct TokenHandle {
    pub token: Token,
}

#[pymethods]
impl TokenHandle {
    /// The newest result, or None while there is none. Does not block.
    fn poll(&self) -> PyResult<Option<Result_>> {
        let mut told = EMPTY;
        // SAFETY: it writes a result.
        match unsafe { ffi::gmb_token_poll(self.token.handle, &mut told) } {
            0 => result(told).map(Some),
            // No operation has been told to it.
            ffi::GMB_ERROR_INVALID_ARGUMENT => Ok(None),
            other => check(other).map(|_| None),
        }
    }

    /// Blocks until there is a result of a later epoch than `after`; without it, until the last operation's.
    #[pyo3(signature = (after = None, timeout = None))]
    fn wait(&self, py: Python<'_>, after: Option<u64>, timeout: Option<f64>) -> PyResult<Result_> {
        let limit = limit(timeout)?;
        result(self.token.told_after(py, after.unwrap_or(u64::MAX), limit)?)
    }
}
