//! Lines of pinned memory in which kernels report, one for each side of a mailbox.
//!
//! They come in chunks that live as long as the context: pinned memory is slow
//! to make, and giving it back waits for the whole device.

use std::sync::atomic::AtomicU64;
use std::sync::Mutex;

use crate::backend::Backend;
use crate::context::Context;
use crate::error::Result;
use crate::sync::lock;

const LINE_BYTES: usize = 128;
const LINES_PER_CHUNK: usize = 64;

#[derive(Default)]
struct Lines {
    chunks: Vec<u64>,
    free: Vec<u64>,
}

/// All lines of a context.
#[derive(Default)]
pub(crate) struct LinePool {
    lines: Mutex<Lines>,
}

impl LinePool {
    fn take(&self, context: &Context) -> Result<u64> {
        if let Some(line) = lock(&self.lines).free.pop() {
            return Ok(line);
        }
        // Without the lock: the driver may wait for the device.
        let chunk = context.backend().allocate_pinned(LINE_BYTES * LINES_PER_CHUNK)?;
        let mut lines = lock(&self.lines);
        lines.chunks.push(chunk);
        lines.free.extend((1..LINES_PER_CHUNK).map(|i| chunk + (i * LINE_BYTES) as u64));
        Ok(chunk)
    }

    /// Gives all memory back; only when nobody holds a line any more.
    pub(crate) fn release_all(&self, backend: &dyn Backend) {
        for chunk in lock(&self.lines).chunks.drain(..) {
            // SAFETY: the context has no user left, and the backend waits for what was enqueued.
            let _ = unsafe { backend.release_pinned(chunk) };
        }
    }
}

/// A line of pinned memory. Whoever drops it knows that no kernel writes there any more.
pub(crate) struct Line {
    context: Context,
    address: u64,
}

impl Line {
    pub(crate) fn new(context: &Context) -> Result<Self> {
        Ok(Self { context: context.clone(), address: context.lines().take(context)? })
    }

    /// Where kernels write.
    pub(crate) fn address(&self) -> u64 {
        self.address
    }

    /// One of the line's words.
    pub(crate) fn word(&self, number: usize) -> &AtomicU64 {
        // SAFETY: the line is ours while this lives, aligned, and only written in whole words.
        unsafe { AtomicU64::from_ptr((self.address as *mut u64).add(number)) }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        lock(&self.context.lines().lines).free.push(self.address);
    }
}
