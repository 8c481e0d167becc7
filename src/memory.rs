//! Device and pinned memory, and copies between them.

use crate::context::Context;
use crate::error::{Error, Result};
use crate::status::*;
use crate::stream::Stream;

/// Bytes of device memory, at least 256-byte aligned. Freed when dropped,
/// which waits for the work of the device that was enqueued before.
#[derive(Debug)]
pub struct DeviceBuffer {
    context: Context,
    address: u64,
    bytes: usize,
}

/// Bytes of zeroed host memory that kernels reach at the same address.
#[derive(Debug)]
pub struct PinnedBuffer {
    context: Context,
    address: u64,
    bytes: usize,
}

impl DeviceBuffer {
    /// Device address of the first byte.
    pub fn address(&self) -> u64 {
        self.address
    }

    /// Size in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl PinnedBuffer {
    /// Address of the first byte, for the CPU and for kernels.
    pub fn address(&self) -> u64 {
        self.address
    }

    /// Size in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for DeviceBuffer {
    fn drop(&mut self) {
        // SAFETY: the owner is gone, and the backend waits for what was enqueued before.
        let _ = unsafe { self.context.free(self.address) };
    }
}

impl Drop for PinnedBuffer {
    fn drop(&mut self) {
        // SAFETY: as for DeviceBuffer.
        let _ = unsafe { self.context.free_pinned(self.address) };
    }
}

impl Context {
    /// Allocates device memory; its content is unspecified.
    ///
    /// # Errors
    /// `ZERO_COUNT`, `OUT_OF_MEMORY`.
    pub fn device_buffer(&self, bytes: usize) -> Result<DeviceBuffer> {
        Ok(DeviceBuffer { context: self.clone(), address: self.allocate(bytes)?, bytes })
    }

    /// Allocates pinned host memory.
    ///
    /// # Errors
    /// `ZERO_COUNT`, `OUT_OF_HOST_MEMORY`.
    pub fn pinned_buffer(&self, bytes: usize) -> Result<PinnedBuffer> {
        Ok(PinnedBuffer { context: self.clone(), address: self.allocate_pinned(bytes)?, bytes })
    }

    pub(crate) fn allocate(&self, bytes: usize) -> Result<u64> {
        self.backend().allocate(sized(bytes, GMB_ERROR_OUT_OF_MEMORY)?)
    }

    pub(crate) fn allocate_pinned(&self, bytes: usize) -> Result<u64> {
        self.backend().allocate_pinned(sized(bytes, GMB_ERROR_OUT_OF_HOST_MEMORY)?)
    }

    /// # Safety
    /// Nothing enqueued later may use the memory.
    pub(crate) unsafe fn free(&self, address: u64) -> Result<()> {
        // SAFETY: as promised by the caller.
        unsafe { self.backend().release(address) }
    }

    /// # Safety
    /// As for `free`.
    pub(crate) unsafe fn free_pinned(&self, address: u64) -> Result<()> {
        // SAFETY: as promised by the caller.
        unsafe { self.backend().release_pinned(address) }
    }

    /// Copies bytes between any two of device, pinned and pageable memory, in
    /// stream order. With pageable memory the call may block.
    ///
    /// # Safety
    /// Both ranges must be valid until the copy is done.
    pub unsafe fn copy(&self, to: u64, from: u64, bytes: usize, stream: Stream) -> Result<()> {
        self.backend().stream_id(stream.raw())?;
        // SAFETY: as promised by the caller.
        unsafe { self.backend().copy(to, from, bytes, stream.raw()) }
    }

    /// Fills device memory with one byte value, in stream order.
    ///
    /// # Safety
    /// The range must be valid until the fill is done.
    pub unsafe fn fill(&self, to: u64, value: u8, bytes: usize, stream: Stream) -> Result<()> {
        self.backend().stream_id(stream.raw())?;
        // SAFETY: as promised by the caller.
        unsafe { self.backend().fill(to, value, bytes, stream.raw()) }
    }
}

fn sized(bytes: usize, too_much: gmb_status) -> Result<usize> {
    match bytes {
        0 => Err(Error::new(GMB_ERROR_ZERO_COUNT, "an allocation of zero bytes")),
        _ if bytes > isize::MAX as usize => {
            Err(Error::new(too_much, format!("{bytes} bytes exceed any memory")))
        }
        _ => Ok(bytes),
    }
}
