//! Lines of pinned memory in which kernels report: one for each side of a mailbox, as many as it takes for what device code
//! releases.
//!
//! They come in chunks that live as long as the context: pinned memory is slow
//! to make, and giving it back waits for the whole device.

use std::collections::HashMap;
use std::sync::atomic::AtomicU64;
use std::sync::Mutex;

use crate::backend::Backend;
use crate::context::Context;
use crate::error::Result;
use crate::sync::lock;

const LINE_BYTES: usize = 128;
const LINE_WORDS: usize = LINE_BYTES / 8;
const LINES_PER_CHUNK: usize = 64;

#[derive(Default)]
struct Lines {
    chunks: Vec<u64>,
    /// By their lengths: lines that lie one behind the other.
    free: HashMap<usize, Vec<u64>>,
}

/// All lines of a context.
#[derive(Default)]
pub(crate) struct LinePool {
    lines: Mutex<Lines>,
}

impl LinePool {
    fn take(&self, context: &Context, length: usize) -> Result<u64> {
        if let Some(line) = lock(&self.lines).free.get_mut(&length).and_then(Vec::pop) {
            return Ok(line);
        }
        // Without the lock: the driver may wait for the device.
        let at_once = (LINES_PER_CHUNK / length).max(1);
        let bytes = LINE_BYTES * length;
        let chunk = context.backend().allocate_pinned(bytes * at_once)?;
        let mut lines = lock(&self.lines);
        lines.chunks.push(chunk);
        let others = (1..at_once).map(|i| chunk + (i * bytes) as u64);
        lines.free.entry(length).or_default().extend(others);
        Ok(chunk)
    }

    /// Gives all memory back; only when nobody holds a line any more.
    pub(crate) fn release_all(&self, backend: &dyn Backend) {
        for chunk in lock(&self.lines).chunks.drain(..) {
            // SAFETY: the context has no user left, and all that reported here has ended before.
            let _ = unsafe { backend.release_pinned(chunk, false) };
        }
    }
}

/// Lines of pinned memory. Whoever drops it knows that no kernel writes there any more.
pub(crate) struct Line {
    context: Context,
    address: u64,
    length: usize,
}

impl Line {
    pub(crate) fn new(context: &Context) -> Result<Self> {
        Self::of(context, LINE_WORDS)
    }

    /// As many as hold so many words.
    pub(crate) fn of(context: &Context, words: usize) -> Result<Self> {
        let length = words.div_ceil(LINE_WORDS);
        Ok(Self { context: context.clone(), address: context.lines().take(context, length)?, length })
    }

    /// Where kernels write.
    pub(crate) fn address(&self) -> u64 {
        self.address
    }

    /// One of the line's words.
    pub(crate) fn word(&self, number: usize) -> &AtomicU64 {
        debug_assert!(number < self.length * LINE_WORDS);
        // SAFETY: the lines are ours while this lives, aligned, and only written in whole words.
        unsafe { AtomicU64::from_ptr((self.address as *mut u64).add(number)) }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        lock(&self.context.lines().lines).free.entry(self.length).or_default().push(self.address);
    }
}
