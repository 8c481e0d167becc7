//! A result slot's words as the host reads them, and when a slot may be used again.
//!
//! The kernel's side is `tell_host` in turn.cuh, and `tell_slot` in borrow.cuh: all words are stored
//! at once, in no order. The models below run the host's side beside it under loom.

use std::collections::VecDeque;

use crate::layout::{gmb_result, GMB_RESULT_LOST, GMB_RESULT_PARTIAL};

/// Bit of a slot's first word, as in turn.cuh; below it is the count.
const PARTIAL: u64 = 1 << 62;
/// Where the other words have their operation's tag, as in turn.cuh: what lies above in a word.
const TAG_SHIFT: u32 = 48;
const STATUS_SHIFT: u32 = 40;

/// True for a word of the operation with this epoch.
fn is_of(word: u64, epoch: u32) -> bool {
    word >> TAG_SHIFT == u64::from(epoch as u16)
}

/// The words of a slot, each read with acquire. What does not belong together was not reported yet.
pub(super) trait Words {
    fn word(&self, index: usize) -> u64;

    /// The first two. Tags alone come again.
    fn words(&self) -> Option<(u64, u64)> {
        loop {
            let (count, detail) = (self.word(0), self.word(1));
            if self.word(0) == count {
                return is_of(detail, count as u32).then_some((count, detail));
            }
        }
    }

    /// Of the operation that reported last; zero before the first.
    fn epoch(&self) -> Option<u32> {
        self.words().map(|(count, _)| count as u32)
    }

    fn read(&self) -> Option<gmb_result> {
        let (count, detail) = self.words()?;
        let lost = detail & ((1 << STATUS_SHIFT) - 1);
        let partial = if count & PARTIAL != 0 { GMB_RESULT_PARTIAL } else { 0 };
        Some(gmb_result {
            epoch: count as u32,
            count: ((count & !PARTIAL) >> 32) as u32,
            status: i32::from((detail >> STATUS_SHIFT) as u8 as i8),
            flags: partial | if lost != 0 { GMB_RESULT_LOST } else { 0 },
            lost,
        })
    }

    /// The same of a borrow, with the index of its first record and the slot that has it; zeros if it took none.
    fn read_borrow(&self) -> Option<(gmb_result, (u64, u64))> {
        let result = self.read()?;
        if result.count == 0 {
            return Some((result, (0, 0)));
        }
        let (first, slot) = (self.word(2), self.word(3));
        let whole =
            is_of(first, result.epoch) && is_of(slot, result.epoch) && self.epoch() == Some(result.epoch);
        let high = slot >> 32 << TAG_SHIFT;
        let first = high | first & ((1 << TAG_SHIFT) - 1);
        whole.then_some((result, (first, slot & u64::from(u32::MAX))))
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
            Some(before) if slot.epoch().is_none_or(|epoch| epoch == before) => {
                self.unwritten.push_back((slot, before))
            }
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
    use crate::status::GMB_OK;
    use loom::cell::UnsafeCell;
    use loom::sync::atomic::{fence, AtomicU64, Ordering};
    use loom::sync::Arc;
    use loom::thread;

    /// A slot, and the memory that its kernel writes before it reports.
    struct Memory {
        words: [AtomicU64; 4],
        records: UnsafeCell<u64>,
    }

    impl Memory {
        fn new() -> Arc<Self> {
            Arc::new(Self { words: std::array::from_fn(|_| AtomicU64::new(0)), records: UnsafeCell::new(0) })
        }

        /// As turn.cuh has it; here the second word comes late.
        fn tell(&self, epoch: u32, count: u32, status: i32, lost: u64) {
            let status = u64::from(status as u8) << STATUS_SHIFT;
            fence(Ordering::Release);
            self.words[0].store(u64::from(epoch) | u64::from(count) << 32, Ordering::Relaxed);
            self.words[1].store(lost | status | u64::from(epoch as u16) << TAG_SHIFT, Ordering::Relaxed);
        }

        /// As borrow.cuh has it, with the words of the borrow late.
        fn tell_borrow(&self, epoch: u32, count: u32, first: u64, slot: u64) {
            let tag = u64::from(epoch as u16) << TAG_SHIFT;
            self.tell(epoch, count, GMB_OK, 0);
            let low = first & ((1 << TAG_SHIFT) - 1);
            self.words[2].store(low | tag, Ordering::Relaxed);
            self.words[3].store(slot | first >> TAG_SHIFT << 32 | tag, Ordering::Relaxed);
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
            let told = [(0, GMB_OK, 0), (10, -5, 100), (20, -6, 200), (30, GMB_OK, 0)];
            let check = |seen: gmb_result| {
                assert_eq!((seen.count, seen.status, seen.lost), told[seen.epoch as usize]);
            };
            slot.read().into_iter().for_each(check);
            writer.join().unwrap();
            check(slot.read().unwrap());
            assert_eq!(slot.epoch(), Some(3));
        });
    }

    /// The same of borrows.
    #[test]
    fn borrows_are_read_whole() {
        loom::model(|| {
            let slot = Memory::new();
            let kernel = Arc::clone(&slot);
            let writer = thread::spawn(move || {
                kernel.tell_borrow(1, 10, u64::MAX - 4, 3);
                kernel.tell_borrow(2, 0, 7, 7);
                kernel.tell_borrow(3, 30, 1 << 47, 5);
            });
            let told = [(0, 0, 0), (10, u64::MAX - 4, 3), (0, 0, 0), (30, 1 << 47, 5)];
            let check = |(seen, (first, slot)): (gmb_result, (u64, u64))| {
                assert_eq!((seen.count, first, slot), told[seen.epoch as usize]);
            };
            slot.read_borrow().into_iter().for_each(check);
            writer.join().unwrap();
            check(slot.read_borrow().unwrap());
        });
    }

    /// Whoever gets the slot of a token that went under way is alone with it.
    #[test]
    fn a_slot_is_used_again_once_written() {
        loom::model(|| {
            let slot = Memory::new();
            let kernel = Arc::clone(&slot);
            let before = slot.epoch().unwrap();
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
                Some(slot) => assert!((0..4).all(|i| slot.word(i) == 0)),
                None => assert!(unused.take().is_some_and(|slot| slot.read().unwrap().count == 10)),
            }
        });
    }
}
