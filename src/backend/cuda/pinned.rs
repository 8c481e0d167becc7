//! Host memory that kernels reach: ours, and registered with the driver where it can be.
//!
//! Memory of the driver's own would go when somebody resets the device, and whoever polls
//! it would crash. What is registered stays readable: its words just never change again.

use std::alloc::{alloc_zeroed, dealloc, Layout};
use std::collections::HashMap;
use std::ffi::c_void;
use std::ptr::null_mut;
use std::sync::Mutex;

use cudarc::driver::sys;

use super::capture::Relaxed;
use super::Cuda;
use crate::error::{Error, Result};
use crate::status::*;
use crate::sync::lock;

const PAGE: usize = 4096;

/// Registered memory by address; what is not here is the driver's own.
#[derive(Default)]
pub(super) struct Registered(Mutex<HashMap<u64, Layout>>);

fn full(bytes: usize) -> Error {
    Error::new(GMB_ERROR_OUT_OF_HOST_MEMORY, format!("no room for {bytes} bytes of pinned memory"))
}

impl Cuda {
    /// Whether kernels reach registered memory, and at its own address.
    fn registers(&self) -> Result<bool> {
        let can = sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_HOST_REGISTER_SUPPORTED;
        let same = sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_CAN_USE_HOST_POINTER_FOR_REGISTERED_MEM;
        Ok(self.attribute(can)? != 0 && self.attribute(same)? != 0)
    }

    pub(super) fn allocate_host(&self, bytes: usize) -> Result<u64> {
        let _relaxed = Relaxed::new();
        let _current = self.enter()?;
        if !self.registers()? {
            return self.allocate_drivers(bytes.max(1));
        }
        let rounded = bytes.max(1).checked_next_multiple_of(PAGE).ok_or_else(|| full(bytes))?;
        let layout = Layout::from_size_align(rounded, PAGE).map_err(|_| full(bytes))?;
        // SAFETY: the layout has a size of at least a page.
        let address = unsafe { alloc_zeroed(layout) };
        if address.is_null() {
            return Err(full(bytes));
        }
        let flags = sys::CU_MEMHOSTREGISTER_PORTABLE | sys::CU_MEMHOSTREGISTER_DEVICEMAP;
        // SAFETY: the memory is ours and has this size.
        let result = unsafe { sys::cuMemHostRegister_v2(address.cast(), rounded, flags) };
        if let Err(error) = self.check(result, "cuMemHostRegister") {
            // SAFETY: just allocated with this layout, and not registered.
            unsafe { dealloc(address, layout) };
            return Err(match error.status() {
                GMB_ERROR_OUT_OF_MEMORY => Error::new(GMB_ERROR_OUT_OF_HOST_MEMORY, error.message()),
                _ => error,
            });
        }
        lock(&self.registered.0).insert(address as u64, layout);
        Ok(address as u64)
    }

    fn allocate_drivers(&self, bytes: usize) -> Result<u64> {
        let mut address = null_mut();
        let flags = sys::CU_MEMHOSTALLOC_PORTABLE | sys::CU_MEMHOSTALLOC_DEVICEMAP;
        // SAFETY: the pointer is valid.
        self.check(unsafe { sys::cuMemHostAlloc(&mut address, bytes, flags) }, "cuMemHostAlloc").map_err(
            |e| match e.status() {
                GMB_ERROR_OUT_OF_MEMORY => Error::new(GMB_ERROR_OUT_OF_HOST_MEMORY, e.message()),
                _ => e,
            },
        )?;
        // SAFETY: the driver gave so many bytes.
        unsafe { std::ptr::write_bytes(address.cast::<u8>(), 0, bytes) };
        Ok(address as u64)
    }

    /// Gives memory back, of that is `in_use` once the device's work enqueued before is done. What is registered goes when it no longer is, or
    /// when the device is lost, which does no more work.
    pub(super) fn release_host(&self, address: u64, in_use: bool) -> Result<()> {
        let _relaxed = Relaxed::new();
        let layout = lock(&self.registered.0).remove(&address);
        let unregistered = self.enter().and_then(|_current| {
            let pointer = address as *mut c_void;
            if layout.is_none() {
                // SAFETY: the driver gave it.
                return self.check(unsafe { sys::cuMemFreeHost(pointer) }, "cuMemFreeHost");
            }
            if in_use {
                // SAFETY: the context is current.
                self.check(unsafe { sys::cuCtxSynchronize() }, "cuCtxSynchronize")?;
            }
            // SAFETY: registered when it was allocated.
            self.check(unsafe { sys::cuMemHostUnregister(pointer) }, "cuMemHostUnregister")
        });
        let Some(layout) = layout else { return unregistered };
        if unregistered.as_ref().is_err_and(|error| error.status() != GMB_ERROR_DEVICE_LOST) {
            // Kernels may still write there.
            lock(&self.registered.0).insert(address, layout);
            return unregistered;
        }
        // SAFETY: allocated with this layout, and taken from the map above.
        unsafe { dealloc(address as *mut u8, layout) };
        unregistered
    }
}
