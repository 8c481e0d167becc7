//! Rings in pinned memory between the host and kernels that run. Each word of a slot holds four bytes and its turn, another one in
//! each round: so a slot is whole once all of its words have theirs, in whatever order they come.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::context::Context;
use crate::error::{Error, Result};
use crate::lines::Line;
use crate::status::GMB_ERROR_CORRUPT;

/// Slots of `WORDS` words.
pub(crate) struct MappedRing<const WORDS: usize> {
    line: Line,
    mask: u64,
    shift: u32,
}

impl<const WORDS: usize> MappedRing<WORDS> {
    /// An empty one; the number of slots is a power of two.
    pub(crate) fn new(context: &Context, slots: u64) -> Result<Self> {
        let line = Line::of(context, slots as usize * WORDS)?;
        let ring = Self { line, mask: slots - 1, shift: slots.trailing_zeros() };
        for n in 0..slots as usize * WORDS {
            ring.line.word(n).store(0, Ordering::Relaxed);
        }
        Ok(ring)
    }

    /// Where kernels find it.
    pub(crate) fn address(&self) -> u64 {
        self.line.address()
    }

    pub(crate) fn slots(&self) -> u64 {
        self.mask + 1
    }

    fn turn(&self, index: u64) -> u32 {
        ((index >> self.shift) as u32).wrapping_add(1)
    }

    fn word(&self, index: u64, n: usize) -> &AtomicU64 {
        self.line.word((index & self.mask) as usize * WORDS + n)
    }

    /// Fills the slot of an index; nobody else does.
    pub(crate) fn write(&self, index: u64, bits: [u32; WORDS]) {
        for (n, bits) in bits.into_iter().enumerate() {
            self.write_one(index, n, bits);
        }
    }

    /// One word of it alone.
    pub(crate) fn write_one(&self, index: u64, n: usize, bits: u32) {
        self.word(index, n).store(u64::from(self.turn(index)) << 32 | u64::from(bits), Ordering::Release);
    }

    /// Whether nothing is to be seen yet of what comes into the slot of an index.
    #[inline]
    pub(crate) fn is_as_before(&self, index: u64) -> bool {
        (self.word(index, WORDS - 1).load(Ordering::Acquire) >> 32) as u32 == self.turn(index).wrapping_sub(1)
    }

    /// What is in the slot of an index, once it is whole.
    #[inline]
    pub(crate) fn read(&self, index: u64) -> Result<Option<[u32; WORDS]>> {
        let turn = self.turn(index);
        let mut bits = [0; WORDS];
        let mut whole = true;
        for (n, bits) in bits.iter_mut().enumerate() {
            let word = self.word(index, n).load(Ordering::Acquire);
            let found = (word >> 32) as u32;
            if found != turn {
                if found != turn.wrapping_sub(1) {
                    return Err(spoilt(index));
                }
                whole = false;
            }
            *bits = word as u32;
        }
        Ok(whole.then_some(bits))
    }
}

#[cold]
fn spoilt(index: u64) -> Error {
    Error::new(
        GMB_ERROR_CORRUPT,
        format!("something else wrote into the slot of number {index}: destroy it, and make another one"),
    )
}
