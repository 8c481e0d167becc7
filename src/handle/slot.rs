//! The life of one slot of a handle table, in one atomic word.
//!
//! State word: `generation (32) | live (1) | occupied (1) | pins (30)`. The
//! models below run it under loom, which tries the interleavings.

use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::cell::UnsafeCell;

const LIVE: u64 = 1 << 31;
const OCCUPIED: u64 = 1 << 30;
const PINS: u64 = OCCUPIED - 1;
const GENERATION: u64 = 1 << 32;

/// Room for one object and the word that says who may touch it.
pub(super) struct Slot<T> {
    state: AtomicU64,
    value: UnsafeCell<Option<T>>,
}

/// What a pin that went away leaves to do.
pub(super) enum Unpinned<T> {
    /// Nothing.
    Nothing,
    /// The object goes, and the slot can be used again unless its generations are used up.
    Emptied { value: Option<T>, reusable: bool },
}

impl<T> Slot<T> {
    /// An empty slot. Generation 1 first: an id of all zeros never names a slot.
    pub(super) fn new() -> Self {
        Self { state: AtomicU64::new(GENERATION), value: UnsafeCell::new(None) }
    }

    /// Takes an object in and gives its generation.
    ///
    /// # Safety
    /// The slot is empty, and this thread alone was given it to fill.
    pub(super) unsafe fn fill(&self, value: T) -> u32 {
        // SAFETY: not occupied: nobody else touches the value.
        self.value.with_mut(|place| unsafe { *place = Some(value) });
        // Added, not stored: stale look-ups may be pinning and unpinning meanwhile.
        (self.state.fetch_add(LIVE | OCCUPIED, Ordering::AcqRel) >> 32) as u32
    }

    /// Adds a pin, which the caller takes off again in any case; true when the object
    /// is the one of that generation and stays until then.
    pub(super) fn pin(&self, generation: u32) -> bool {
        let state = self.state.fetch_add(1, Ordering::AcqRel);
        state & LIVE != 0 && state >> 32 == u64::from(generation)
    }

    /// Of several destroyers one is told that it ended the object; each holds a pin.
    pub(super) fn end(&self) -> bool {
        self.state.fetch_and(!LIVE, Ordering::AcqRel) & LIVE != 0
    }

    /// Takes a pin off; whoever takes the last one off a dead object gets it.
    pub(super) fn unpin(&self) -> Unpinned<T> {
        let state = self.state.fetch_sub(1, Ordering::AcqRel) - 1;
        if state & (LIVE | OCCUPIED | PINS) != OCCUPIED {
            return Unpinned::Nothing;
        }
        // Dead, occupied and unpinned: whoever moves the generation on owns the value.
        let next = (state + GENERATION) & !OCCUPIED;
        if self.state.compare_exchange(state, next, Ordering::AcqRel, Ordering::Relaxed).is_err() {
            return Unpinned::Nothing;
        }
        // SAFETY: the exchange made this thread the only one that may touch the value.
        let value = self.value.with_mut(|place| unsafe { (*place).take() });
        Unpinned::Emptied { value, reusable: next >> 32 != u64::from(u32::MAX) }
    }

    /// The object.
    ///
    /// # Safety
    /// A pin of this thread said that it is there.
    pub(super) unsafe fn get(&self) -> &T {
        // SAFETY: pinned while live: the value is there and is not moved out before the pin is gone.
        match self.value.with(|place| unsafe { &*place }) {
            Some(value) => value,
            None => unreachable!("a pinned slot is occupied"),
        }
    }
}

#[cfg(all(test, loom))]
mod models {
    use super::*;
    use loom::sync::atomic::AtomicUsize;
    use loom::sync::Arc;
    use loom::thread;

    /// Counts how often it was dropped, and is read while pinned.
    struct Object {
        word: usize,
        drops: Arc<AtomicUsize>,
    }

    impl Drop for Object {
        fn drop(&mut self) {
            assert_eq!(self.word, 7);
            self.word = 0;
            self.drops.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn filled(drops: &Arc<AtomicUsize>) -> (Arc<Slot<Object>>, u32) {
        let slot = Arc::new(Slot::new());
        // SAFETY: new, and ours.
        let generation = unsafe { slot.fill(Object { word: 7, drops: Arc::clone(drops) }) };
        (slot, generation)
    }

    /// A call on the object, as the API makes it.
    fn use_it(slot: &Slot<Object>, generation: u32) -> Unpinned<Object> {
        if slot.pin(generation) {
            // SAFETY: pinned just now.
            assert_eq!(unsafe { slot.get() }.word, 7);
        }
        slot.unpin()
    }

    /// Ends it, as destroy does; true for the one that did.
    fn destroy(slot: &Slot<Object>, generation: u32) -> bool {
        let pinned = slot.pin(generation);
        let ended = pinned && slot.end();
        drop(slot.unpin());
        ended
    }

    #[test]
    fn destroy_against_use() {
        loom::model(|| {
            let drops = Arc::new(AtomicUsize::new(0));
            let (slot, generation) = filled(&drops);
            let other = Arc::clone(&slot);
            let user = thread::spawn(move || drop(use_it(&other, generation)));
            assert!(destroy(&slot, generation));
            user.join().unwrap();
            assert_eq!(drops.load(Ordering::SeqCst), 1);
            assert!(!slot.pin(generation));
            drop(slot.unpin());
        });
    }

    #[test]
    fn two_destroyers_and_a_user() {
        loom::model(|| {
            let drops = Arc::new(AtomicUsize::new(0));
            let (slot, generation) = filled(&drops);
            let (left, right) = (Arc::clone(&slot), Arc::clone(&slot));
            let one = thread::spawn(move || destroy(&left, generation));
            let two = thread::spawn(move || destroy(&right, generation));
            drop(use_it(&slot, generation));
            let ended = usize::from(one.join().unwrap()) + usize::from(two.join().unwrap());
            assert_eq!((ended, drops.load(Ordering::SeqCst)), (1, 1));
        });
    }

    /// A stale look-up beside the slot's next life finds nothing, and disturbs nothing.
    #[test]
    fn a_stale_look_up_beside_the_next_life() {
        loom::model(|| {
            let drops = Arc::new(AtomicUsize::new(0));
            let (slot, generation) = filled(&drops);
            let other = Arc::clone(&slot);
            let stale = thread::spawn(move || drop(use_it(&other, generation)));
            let pinned = slot.pin(generation);
            assert!(pinned && slot.end());
            let emptied = matches!(slot.unpin(), Unpinned::Emptied { reusable: true, .. });
            // Else the stale user holds the last pin, and empties it.
            if emptied {
                // SAFETY: emptied by this thread, which fills it again.
                let next = unsafe { slot.fill(Object { word: 7, drops: Arc::clone(&drops) }) };
                assert_eq!(next, generation + 1);
                drop(use_it(&slot, next));
                assert!(destroy(&slot, next));
            }
            stale.join().unwrap();
            assert_eq!(drops.load(Ordering::SeqCst), 1 + usize::from(emptied));
        });
    }
}
