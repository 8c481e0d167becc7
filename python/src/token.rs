//! How operations went.

use pyo3::prelude::*;

use crate::context::{limit, patiently, Inner, Token, EMPTY};
use crate::error::{self, check};
use crate::ffi;

pub const NO_TOKEN: ffi::gmb_token = ffi::gmb_token { id: 0 };

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
        return Err(error::of(
            of.status,
            &format!("the operation ended on the device, after {} records", of.count),
        ));
    }
    let partial = i64::from(of.flags) & ffi::GMB_RESULT_PARTIAL != 0;
    Ok(Result_ { epoch: of.epoch, count: of.count, partial, lost: of.lost })
}

/// Blocks until the operation of this epoch is told.
pub fn told(py: Python<'_>, token: &Token, timeout: Option<f64>) -> PyResult<ffi::gmb_result> {
    let mut told = EMPTY;
    let (handle, after) = (token.handle, token.epoch.saturating_sub(1));
    let limit = limit(timeout)?;
    // SAFETY: it writes a result.
    patiently(py, limit, |left| unsafe { ffi::gmb_token_wait(handle, after, left, &mut told) })?;
    Ok(told)
}

/// Where results of operations are told that nobody waits for at once: in graphs, or beside other work.
#[pyclass(frozen, name = "Token", module = "gpumailbox")]
pub struct TokenHandle {
    pub token: ffi::gmb_token,
}

impl TokenHandle {
    pub fn new(context: &Inner) -> PyResult<Self> {
        let mut token = NO_TOKEN;
        // SAFETY: it writes a handle.
        check(unsafe { ffi::gmb_token_create(context.handle()?, &mut token) })?;
        Ok(Self { token })
    }
}

#[pymethods]
impl TokenHandle {
    /// The newest result, or None while there is none. Does not block.
    fn poll(&self) -> PyResult<Option<Result_>> {
        let mut told = EMPTY;
        // SAFETY: it writes a result.
        match unsafe { ffi::gmb_token_poll(self.token, &mut told) } {
            0 => result(told).map(Some),
            // No operation has been told to it.
            unused if unused == ffi::GMB_ERROR_INVALID_ARGUMENT as i32 => Ok(None),
            other => check(other).map(|_| None),
        }
    }

    /// Blocks until there is a result of a later epoch than `after`; without it, until the last operation's.
    #[pyo3(signature = (after = None, timeout = None))]
    fn wait(&self, py: Python<'_>, after: Option<u64>, timeout: Option<f64>) -> PyResult<Result_> {
        let mut told = EMPTY;
        let (token, after) = (self.token, after.unwrap_or(u64::MAX));
        let limit = limit(timeout)?;
        // SAFETY: it writes a result.
        patiently(py, limit, |left| unsafe { ffi::gmb_token_wait(token, after, left, &mut told) })?;
        result(told)
    }
}

impl Drop for TokenHandle {
    fn drop(&mut self) {
        // SAFETY: nobody has it any more.
        unsafe { ffi::gmb_token_destroy(self.token) };
    }
}
