//! Waits: with limits, without the interpreter's lock, and ended by Ctrl-C.

use std::time::{Duration, Instant};

use pyo3::prelude::*;

use crate::error::{argument, check};
use crate::ffi;

/// How long a wait goes on before signals are looked at. Each slice begins with a look that costs more than the rest of it: so who
/// has waited for long is asked more seldom.
const SLICE: Duration = Duration::from_millis(50);
const LONGEST_SLICE: Duration = Duration::from_millis(500);

/// Seconds as `None` for no limit.
pub fn limit(timeout: Option<f64>) -> PyResult<Option<Duration>> {
    match timeout {
        None => Ok(None),
        Some(seconds) => Duration::try_from_secs_f64(seconds).map(Some).map_err(|_| {
            argument(format!("timeout {seconds} is no time: give seconds, or None for no limit"))
        }),
    }
}

pub fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX - 1).min(u64::MAX - 1)
}

/// Whether a call says that it was not so in time.
pub fn is_late(told: i32) -> bool {
    told == ffi::GMB_ERROR_TIMEOUT || told == ffi::GMB_NOT_READY
}

/// Calls `wait` with short limits, without the interpreter's lock, until it says something other than that time is over;
/// Ctrl-C ends it, and so does what `open` says. The status of the last call.
pub fn patiently_while(
    py: Python<'_>,
    timeout: Option<Duration>,
    open: impl Fn() -> PyResult<()>,
    wait: impl FnMut(u64) -> i32 + Send,
) -> PyResult<i32> {
    patiently_until(py, timeout, is_late, open, wait)
}

/// The same with another way to say that it was not so in time.
pub fn patiently_until(
    py: Python<'_>,
    timeout: Option<Duration>,
    is_late: fn(i32) -> bool,
    open: impl Fn() -> PyResult<()>,
    mut wait: impl FnMut(u64) -> i32 + Send,
) -> PyResult<i32> {
    let start = Instant::now();
    loop {
        let passed = start.elapsed();
        let slice = passed.clamp(SLICE, LONGEST_SLICE);
        let slice = timeout.map_or(slice, |limit| limit.saturating_sub(passed).min(slice));
        let told = py.detach(|| wait(nanoseconds(slice)));
        if !is_late(told) {
            return check(told);
        }
        py.check_signals()?;
        open()?;
        if timeout.is_some_and(|limit| start.elapsed() >= limit) {
            return check(told);
        }
    }
}

/// The same of what cannot be closed meanwhile, or tells it by itself.
pub fn patiently(
    py: Python<'_>,
    timeout: Option<Duration>,
    wait: impl FnMut(u64) -> i32 + Send,
) -> PyResult<i32> {
    patiently_while(py, timeout, || Ok(()), wait)
}

/// The same of a push, which waits under "wait" alone: at first it is asked as it is, with the interpreter's lock.
pub fn push_patiently(
    py: Python<'_>,
    timeout: Option<Duration>,
    open: impl Fn() -> PyResult<()>,
    mut push: impl FnMut(u64) -> i32 + Send,
) -> PyResult<i32> {
    match push(0) {
        ffi::GMB_ERROR_TIMEOUT => patiently_while(py, timeout, open, push),
        told => check(told),
    }
}
