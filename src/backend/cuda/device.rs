//! What the driver tells of devices and of the library's own kernels.

use std::ffi::CStr;
use std::ptr::null_mut;

use cudarc::driver::sys;

use super::errors::check;
use super::{probe, Cuda};
use crate::error::{Error, Result};
use crate::status::GMB_ERROR_NO_DEVICE;

/// The driver's toolkit major version, or 0 where kernels are missing.
pub(super) fn toolkit_major() -> u32 {
    env!("GMB_TOOLKIT_MAJOR").parse().unwrap_or(0)
}

/// How many devices the driver shows; an error names why there is none.
pub(super) fn device_count() -> Result<i32> {
    probe::driver()?;
    let mut count = 0;
    // SAFETY: the driver is initialized; the pointer is valid.
    check(unsafe { sys::cuDeviceGetCount(&mut count) }, "cuDeviceGetCount")?;
    if count == 0 {
        return Err(Error::new(GMB_ERROR_NO_DEVICE, "the CUDA driver reports zero devices"));
    }
    Ok(count)
}

pub(super) fn device_name(device: sys::CUdevice) -> Result<String> {
    let mut name = [0 as std::ffi::c_char; 128];
    // SAFETY: the buffer holds as many bytes as is said; the driver terminates it.
    check(unsafe { sys::cuDeviceGetName(name.as_mut_ptr(), name.len() as i32, device) }, "cuDeviceGetName")?;
    // SAFETY: NUL-terminated within the buffer.
    Ok(unsafe { CStr::from_ptr(name.as_ptr()) }.to_string_lossy().into_owned())
}

impl Cuda {
    /// Getting a function loads it: no kernel is loaded later, beside running ones.
    pub(super) fn function(&self, name: &CStr) -> Result<sys::CUfunction> {
        let mut function = null_mut();
        // SAFETY: the module is loaded, the name NUL-terminated.
        let result = unsafe { sys::cuModuleGetFunction(&mut function, self.module, name.as_ptr()) };
        self.check(result, "cuModuleGetFunction")?;
        Ok(function)
    }

    pub(super) fn attribute(&self, attribute: sys::CUdevice_attribute) -> Result<u32> {
        let mut value = 0;
        // SAFETY: the device is valid.
        let result = unsafe { sys::cuDeviceGetAttribute(&mut value, attribute, self.device) };
        self.check(result, "cuDeviceGetAttribute")?;
        Ok(value as u32)
    }

    pub(super) fn blocks_per_unit(&self, function: sys::CUfunction, threads: u32) -> Result<u32> {
        let mut blocks = 0;
        // SAFETY: the function is loaded; the pointer is valid.
        let result = unsafe {
            sys::cuOccupancyMaxActiveBlocksPerMultiprocessor(&mut blocks, function, threads as i32, 0)
        };
        self.check(result, "cuOccupancyMaxActiveBlocksPerMultiprocessor")?;
        Ok(blocks as u32)
    }
}
