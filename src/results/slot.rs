//! A result slot's words as the host reads them, and when a slot may be used again.
//!
//! The kernel's side is `tell` in turn.cuh: the detail words first, the first
//! word last. The models below run the host's side beside it under loom.

use std::collections::VecDeque;

use crate::layout::{gmb_result, GMB_RESULT_PARTIAL};
use crate::status::GMB_OK;
use crate::sync::spin;

/// Bits of a slot's first word, as in turn.cuh.
const PARTIAL: u64 = 1 << 62;
const DETAIL: u64 = 1 << 63;
/// Where the words of a detail carry their operation's epoch.
const EPOCH_TAG: u64 = (1 << 24) - 1;
const TAG_SHIFT: u32 = 40;

/// The three words of a slot, each read with acquire.
pub(super) trait Words {
    fn word(&self, index: usize) -> u64;

    /// Of the operation that reported last; zero before the first.
    fn epoch(&self) -> u32 {
        self.word(0) as u32
    }

    /// The words, read until they belong together.
    fn read(&self) -> gmb_result {
        loop {
            let word = self.word(0);
            let mut result = gmb_result {
                epoch: word as u32,
                count: ((word & !(PARTIAL | DETAIL)) >> 32) as u32,
                status: GMB_OK,
                flags: if word & PARTIAL != 0 { GMB_RESULT_PARTIAL } else { 0 },
                lost: 0,
            };
            if word & DETAIL == 0 {
                return result;
            }
            // Each carries the low bits of its operation's epoch: those of the next one may be there already.
            let (detail, lost) = (self.word(1), self.word(2));
            let epoch = (word & EPOCH_TAG) << TAG_SHIFT;
            if detail & EPOCH_TAG << TAG_SHIFT == epoch && lost & EPOCH_TAG << TAG_SHIFT == epoch {
                result.status = detail as u32 as i32;
                result.flags = (detail >> 32) as u32 & 0xff;
                result.lost = lost & !(EPOCH_TAG << TAG_SHIFT);
                return result;
            }
            spin();
        }
    }
}

/// Slots that no token holds.
pub(super) struct Unused<W> {
    free: Vec<W>,
    /// Released before written: the slot and the epoch it had when its operation was submitted.
    unwritten: VecDeque<(W, u32)>,
}

impl<W> Default for Unused<W> {
    fn default() -> Self {
        Self { free: Vec::new(), unwritten: VecDeque::new() }
    }
}

impl<W: Words> Unused<W> {
    /// A slot to which no operation reports any more.
    pub(super) fn take(&mut self) -> Option<W> {
        for _ in 0..self.unwritten.len() {
            if let Some((slot, before)) = self.unwritten.pop_front() {
                self.give_back(slot, Some(before));
            }
        }
        self.free.pop()
    }

    /// Takes a slot back; `under_way_since` is the epoch before an operation that may not have reported yet.
    pub(super) fn give_back(&mut self, slot: W, under_way_since: Option<u32>) {
        match under_way_since {
            Some(before) if slot.epoch() == before => self.unwritten.push_back((slot, before)),
            _ => self.free.push(slot),
        }
    }

    /// Takes in slots that were never used.
    pub(super) fn add(&mut self, slots: impl Iterator<Item = W>) {
        self.free.extend(slots);
    }
}

#[cfg(all(test, loom))]
mod models {
    use super::*;
    use loom::cell::UnsafeCell;
    use loom::sync::atomic::{AtomicU64, Ordering};
    use loom::sync::Arc;
    use loom::thread;

    /// A slot, and the memory that its kernel writes before it reports.
    struct Memory {
        words: [AtomicU64; 3],
        records: UnsafeCell<u64>,
    }

    impl Memory {
        fn new() -> Arc<Self> {
            Arc::new(Self { words: std::array::from_fn(|_| AtomicU64::new(0)), records: UnsafeCell::new(0) })
        }

        /// As turn.cuh has it.
        fn tell(&self, epoch: u32, count: u32, status: i32, lost: u64) {
            let mut word = u64::from(epoch) | u64::from(count) << 32;
            if status != GMB_OK || lost != 0 {
                word |= DETAIL;
                let tag = (u64::from(epoch) & EPOCH_TAG) << TAG_SHIFT;
                self.words[2].store(lost | tag, Ordering::Release);
                self.words[1].store(u64::from(status as u32) | tag, Ordering::Release);
            }
            self.words[0].store(word, Ordering::Release);
        }
    }

    impl Words for Arc<Memory> {
        fn word(&self, index: usize) -> u64 {
            self.words[index].load(Ordering::Acquire)
        }
    }

    /// Replays follow each other, and nobody asks in between: each result comes whole.
    #[test]
    fn results_are_read_whole() {
        loom::model(|| {
            let slot = Memory::new();
            let kernel = Arc::clone(&slot);
            let writer = thread::spawn(move || {
                kernel.tell(1, 10, -5, 100);
                kernel.tell(2, 20, -6, 200);
                kernel.tell(3, 30, GMB_OK, 0);
            });
            let seen = slot.read();
            let what = (seen.count, seen.status, seen.lost);
            let told = [(0, GMB_OK, 0), (10, -5, 100), (20, -6, 200), (30, GMB_OK, 0)];
            assert_eq!(what, told[seen.epoch as usize]);
            writer.join().unwrap();
        });
    }

    /// Whoever gets the slot of a token that went under way is alone with it.
    #[test]
    fn a_slot_is_used_again_once_written() {
        loom::model(|| {
            let slot = Memory::new();
            let kernel = Arc::clone(&slot);
            let before = slot.epoch();
            let writer = thread::spawn(move || {
                // SAFETY: the model fails when anyone else touches it at the same time.
                kernel.records.with_mut(|records| unsafe { *records = 10 });
                kernel.tell(1, 10, -5, 100);
            });
            let mut unused = Unused::default();
            unused.give_back(slot, Some(before));
            let taken = unused.take();
            if let Some(slot) = &taken {
                // SAFETY: as above.
                slot.records.with_mut(|records| unsafe { *records = 0 });
                slot.words.iter().for_each(|word| word.store(0, Ordering::Relaxed));
            }
            writer.join().unwrap();
            match taken {
                Some(slot) => assert!((0..3).all(|i| slot.word(i) == 0)),
                None => assert!(unused.take().is_some_and(|slot| slot.read().count == 10)),
            }
        });
    }
}
