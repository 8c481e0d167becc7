//! What the driver's codes mean here.

use std::ffi::CStr;
use std::ptr::null;

use cudarc::driver::sys;

use crate::error::{Error, Result};
use crate::status::*;

pub(super) fn lost(cause: &str) -> Error {
    Error::new(GMB_ERROR_DEVICE_LOST, format!("the CUDA context is lost; first cause: {cause}"))
}

/// Errors after which the context does no more work.
pub(super) fn ends_context(code: i32) -> bool {
    // Deinitialized, ECC, hardware stack, illegal address, timeout, destroyed, assert, and their kin.
    matches!(code, 4 | 214 | 220 | 226 | 700 | 702 | 709 | 710 | 714..=719 | 721 | 911)
}

#[inline]
pub(super) fn check(result: sys::CUresult, call: &str) -> Result<()> {
    if result == sys::CUresult::CUDA_SUCCESS {
        return Ok(());
    }
    Err(failed(result, call))
}

#[cold]
pub(super) fn failed(result: sys::CUresult, call: &str) -> Error {
    let code = result as i32;
    let status = match code {
        1 => GMB_ERROR_INVALID_ARGUMENT,
        2 => GMB_ERROR_OUT_OF_MEMORY,
        100 => GMB_ERROR_NO_DEVICE,
        101 => GMB_ERROR_INVALID_DEVICE,
        200 | 209 | 222 => GMB_ERROR_NO_KERNELS,
        // A stream under capture, or the legacy stream beside one, cannot do this; the capture goes on.
        900 | 906 => GMB_ERROR_NOT_SUPPORTED,
        901..=905 | 907 | 908 => GMB_ERROR_CAPTURE,
        _ => GMB_ERROR_DRIVER,
    };
    let text = |get: unsafe fn(sys::CUresult, *mut *const std::ffi::c_char) -> sys::CUresult| {
        let mut words = null();
        // SAFETY: the driver writes null or a static string.
        unsafe {
            let _ = get(result, &mut words);
            if words.is_null() {
                String::new()
            } else {
                CStr::from_ptr(words).to_string_lossy().into_owned()
            }
        }
    };
    Error::new(
        status,
        format!("{call} failed: {} ({code}): {}", text(sys::cuGetErrorName), text(sys::cuGetErrorString)),
    )
}
