//! Memory of the first context that all sequences use: what is pushed, the arrays beside it, and where pops go.

use std::ffi::c_void;

use gpumailbox::capi::context::gmb_context;
use gpumailbox::*;

use crate::blob::{allow, forbid};
use crate::calls::call;

/// Bytes of the source, which is written once.
pub const SOURCE: u64 = 1 << 16;
const WORDS: u64 = 1 << 15;
const OUTPUT: u64 = 1 << 18;

/// A piece of memory after another. What was not given out must not be touched.
pub struct Arena {
    start: u64,
    bytes: u64,
    used: u64,
}

impl Arena {
    fn new(start: u64, bytes: u64) -> Self {
        forbid(start, bytes as usize);
        Self { start, bytes, used: 0 }
    }

    pub fn take(&mut self, bytes: u64) -> Option<u64> {
        // A forbidden gap after each piece.
        let whole = bytes.checked_next_multiple_of(16)?.checked_add(32)?;
        if whole > self.bytes - self.used {
            return None;
        }
        let at = self.start + self.used;
        self.used += whole;
        allow(at, bytes as usize);
        Some(at)
    }

    fn reset(&mut self) {
        forbid(self.start, self.used as usize);
        self.used = 0;
    }
}

pub struct Arenas {
    pub source: u64,
    pub words: Arena,
    pub output: Arena,
}

/// The source's byte at an offset.
pub fn pattern(offset: u64) -> u8 {
    (offset.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u8
}

impl Arenas {
    pub fn new(context: gmb_context) -> Self {
        let pinned = |bytes: u64| {
            let mut memory = std::ptr::null_mut();
            assert_eq!(call!(memory::gmb_pinned_allocate(context, bytes, &mut memory)), GMB_OK);
            memory as u64
        };
        let source = pinned(SOURCE);
        for offset in 0..SOURCE {
            // SAFETY: pinned memory of that size, and nobody else knows of it yet.
            unsafe { ((source + offset) as *mut u8).write(pattern(offset)) };
        }
        let mut output = std::ptr::null_mut();
        assert_eq!(call!(memory::gmb_memory_allocate(context, OUTPUT, &mut output)), GMB_OK);
        let words = Arena::new(pinned(WORDS), WORDS);
        Self { source, words, output: Arena::new(output as u64, OUTPUT) }
    }

    /// Writes an array that kernels read.
    pub fn words(&mut self, values: impl ExactSizeIterator<Item = u32>) -> Option<u64> {
        let at = self.words.take(4 * values.len() as u64)?;
        for (i, value) in values.enumerate() {
            // SAFETY: pinned memory of that size, which no operation uses yet.
            unsafe { (at as *mut u32).add(i).write(value) };
        }
        Some(at)
    }

    pub fn free(self, context: gmb_context) {
        for (start, bytes) in [(self.words.start, WORDS), (self.output.start, OUTPUT)] {
            allow(start, bytes as usize);
        }
        for pinned in [self.source, self.words.start] {
            assert_eq!(call!(memory::gmb_pinned_free(context, pinned as *mut c_void)), GMB_OK);
        }
        assert_eq!(call!(memory::gmb_memory_free(context, self.output.start as *mut c_void)), GMB_OK);
    }

    pub fn reset(&mut self) {
        self.words.reset();
        self.output.reset();
    }

    pub fn holds(&self, address: u64) -> bool {
        let within = |start: u64, bytes: u64| (start..start + bytes).contains(&address);
        within(self.source, SOURCE) || within(self.words.start, WORDS) || within(self.output.start, OUTPUT)
    }
}
