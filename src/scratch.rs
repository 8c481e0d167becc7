//! Device memory that the library's own blocking calls copy through. It comes and goes in stream order: other memory goes when
//! the device is idle, and a kernel that stays may be there for ever.

use crate::context::Context;
use crate::error::Result;

pub(crate) struct Scratch {
    context: Context,
    address: u64,
    bytes: usize,
}

impl Scratch {
    /// For any stream.
    pub(crate) fn new(context: &Context, bytes: usize) -> Result<Self> {
        let scratch = Self { context: context.clone(), address: context.allocate_ring(bytes)?, bytes };
        context.backend().stream_synchronize(context.service())?;
        Ok(scratch)
    }

    pub(crate) fn address(&self) -> u64 {
        self.address
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // SAFETY: whoever used it has waited for that.
        let _ = unsafe { self.context.free_ring(self.address) };
    }
}
