//! The life of one slot of a handle table.
//!
//! Pins are counted in stripes, a cache line each, so that threads which use
//! one object at once do not fight over one word. Each stripe's state word:
//! `generation (32) | live (1) | occupied (1) | pins (30)`. Once the object was
//! ended, whoever takes the last pin off a stripe empties that stripe, and
//! whoever empties the last stripe gets the object. The models below run it
//! under loom, which tries the interleavings.

use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::cell::UnsafeCell;

const LIVE: u64 = 1 << 31;
const OCCUPIED: u64 = 1 << 30;
const PINS: u64 = OCCUPIED - 1;
const GENERATION: u64 = 1 << 32;

/// Threads beyond this many share a stripe.
pub(super) const STRIPES: usize = if cfg!(loom) { 2 } else { 16 };

#[repr(align(64))]
struct Stripe(AtomicU64);

/// Room for one object and the words that say who may touch it, in so many stripes.
pub(super) struct Slot<T, const N: usize = STRIPES> {
    stripes: [Stripe; N],
    /// Stripes that were not emptied yet.
    left: AtomicU64,
    value: UnsafeCell<Option<T>>,
}

/// What a pin that went away leaves to do.
pub(super) enum Unpinned<T> {
    /// Nothing.
    Nothing,
    /// The object goes, and the slot can be used again unless its generations are used up.
    Emptied { value: Option<T>, reusable: bool },
}

impl<T, const N: usize> Slot<T, N> {
    /// An empty slot. Generation 1 first: an id of all zeros never names a slot.
    pub(super) fn new() -> Self {
        Self {
            stripes: std::array::from_fn(|_| Stripe(AtomicU64::new(GENERATION))),
            left: AtomicU64::new(0),
            value: UnsafeCell::new(None),
        }
    }

    /// Takes an object in and gives its generation.
    ///
    /// # Safety
    /// The slot is empty, and this thread alone was given it to fill.
    pub(super) unsafe fn fill(&self, value: T) -> u32 {
        // SAFETY: not occupied: nobody else touches the value.
        self.value.with_mut(|place| unsafe { *place = Some(value) });
        self.left.store(N as u64, Ordering::Relaxed);
        let mut before = 0;
        // The first stripe last: it is the one that an end begins with.
        for stripe in self.stripes.iter().rev() {
            // Added, not stored: stale look-ups may be pinning and unpinning meanwhile.
            before = stripe.0.fetch_add(LIVE | OCCUPIED, Ordering::AcqRel);
        }
        (before >> 32) as u32
    }

    /// Adds a pin, which the caller takes off the same stripe again in any case; true
    /// when the object is the one of that generation and stays until then.
    #[inline(always)]
    pub(super) fn pin(&self, stripe: usize, generation: u32) -> bool {
        let state = self.stripes[stripe % N].0.fetch_add(1, Ordering::AcqRel);
        state & LIVE != 0 && state >> 32 == u64::from(generation)
    }

    /// Of several destroyers one is told that it ended the object; each holds a pin.
    pub(super) fn end(&self) -> bool {
        let Some((first, others)) = self.stripes.split_first() else { return false };
        let state = first.0.fetch_and(!LIVE, Ordering::AcqRel);
        if state & LIVE == 0 {
            return false;
        }
        // The caller's own pin keeps one stripe from being emptied here, and so the object.
        let _ = self.empty(first, state & !LIVE);
        for stripe in others {
            let state = stripe.0.fetch_and(!LIVE, Ordering::AcqRel);
            let _ = self.empty(stripe, state & !LIVE);
        }
        true
    }

    /// Takes a pin off; whoever takes the last one off a dead object gets it.
    #[inline(always)]
    pub(super) fn unpin(&self, stripe: usize) -> Unpinned<T> {
        let stripe = &self.stripes[stripe % N];
        let state = stripe.0.fetch_sub(1, Ordering::AcqRel) - 1;
        self.empty(stripe, state)
    }

    #[inline(always)]
    fn empty(&self, stripe: &Stripe, state: u64) -> Unpinned<T> {
        match state & (LIVE | OCCUPIED | PINS) {
            OCCUPIED => self.empty_dead(stripe, state),
            _ => Unpinned::Nothing,
        }
    }

    /// Empties a stripe that is dead, occupied and unpinned, and with the last one the slot.
    #[cold]
    fn empty_dead(&self, stripe: &Stripe, state: u64) -> Unpinned<T> {
        let next = (state + GENERATION) & !OCCUPIED;
        if stripe.0.compare_exchange(state, next, Ordering::AcqRel, Ordering::Relaxed).is_err() {
            return Unpinned::Nothing;
        }
        if self.left.fetch_sub(1, Ordering::AcqRel) != 1 {
            return Unpinned::Nothing;
        }
        // SAFETY: no stripe has a pin, nor will before the slot is filled again: this thread alone may touch the value.
        let value = self.value.with_mut(|place| unsafe { (*place).take() });
        Unpinned::Emptied { value, reusable: next >> 32 != u64::from(u32::MAX) }
    }

    /// The object.
    ///
    /// # Safety
    /// A pin of this thread said that it is there.
    #[inline(always)]
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
    fn use_it(slot: &Slot<Object>, stripe: usize, generation: u32) -> Unpinned<Object> {
        if slot.pin(stripe, generation) {
            // SAFETY: pinned just now.
            assert_eq!(unsafe { slot.get() }.word, 7);
        }
        slot.unpin(stripe)
    }

    /// Ends it, as destroy does; true for the one that did.
    fn destroy(slot: &Slot<Object>, stripe: usize, generation: u32) -> bool {
        let pinned = slot.pin(stripe, generation);
        let ended = pinned && slot.end();
        drop(slot.unpin(stripe));
        ended
    }

    #[test]
    fn destroy_against_use() {
        for stripe in 0..STRIPES {
            loom::model(move || {
                let drops = Arc::new(AtomicUsize::new(0));
                let (slot, generation) = filled(&drops);
                let other = Arc::clone(&slot);
                let user = thread::spawn(move || drop(use_it(&other, stripe, generation)));
                assert!(destroy(&slot, 0, generation));
                user.join().unwrap();
                assert_eq!(drops.load(Ordering::SeqCst), 1);
                for stripe in 0..STRIPES {
                    assert!(!slot.pin(stripe, generation));
                    drop(slot.unpin(stripe));
                }
            });
        }
    }

    #[test]
    fn two_destroyers_and_a_user() {
        loom::model(|| {
            let drops = Arc::new(AtomicUsize::new(0));
            let (slot, generation) = filled(&drops);
            let (left, right) = (Arc::clone(&slot), Arc::clone(&slot));
            let one = thread::spawn(move || destroy(&left, 0, generation));
            let two = thread::spawn(move || destroy(&right, 1, generation));
            drop(use_it(&slot, 1, generation));
            let ended = usize::from(one.join().unwrap()) + usize::from(two.join().unwrap());
            assert_eq!((ended, drops.load(Ordering::SeqCst)), (1, 1));
        });
    }

    /// A stale look-up beside the slot's next life finds nothing, and disturbs nothing.
    #[test]
    fn a_stale_look_up_beside_the_next_life() {
        for stripe in 0..STRIPES {
            loom::model(move || {
                let drops = Arc::new(AtomicUsize::new(0));
                let (slot, generation) = filled(&drops);
                let other = Arc::clone(&slot);
                let stale = thread::spawn(move || drop(use_it(&other, stripe, generation)));
                let pinned = slot.pin(0, generation);
                assert!(pinned && slot.end());
                let emptied = matches!(slot.unpin(0), Unpinned::Emptied { reusable: true, .. });
                // Else the stale user holds the last pin, and empties it.
                if emptied {
                    // SAFETY: emptied by this thread, which fills it again.
                    let next = unsafe { slot.fill(Object { word: 7, drops: Arc::clone(&drops) }) };
                    assert_eq!(next, generation + 1);
                    drop(use_it(&slot, 1, next));
                    assert!(destroy(&slot, 0, next));
                }
                stale.join().unwrap();
                assert_eq!(drops.load(Ordering::SeqCst), 1 + usize::from(emptied));
            });
        }
    }

    /// An id that was guessed before its object is complete finds all of it, or nothing.
    #[test]
    fn a_guessed_id_beside_the_filling() {
        for stripe in 0..STRIPES {
            loom::model(move || {
                let drops = Arc::new(AtomicUsize::new(0));
                let slot = Arc::new(Slot::new());
                let other = Arc::clone(&slot);
                let guesser = thread::spawn(move || destroy(&other, stripe, 1));
                // SAFETY: new, and ours.
                let generation = unsafe { slot.fill(Object { word: 7, drops: Arc::clone(&drops) }) };
                assert_eq!(generation, 1);
                let ended = guesser.join().unwrap();
                assert_eq!(drops.load(Ordering::SeqCst), usize::from(ended));
                assert_eq!(destroy(&slot, 1 - stripe, generation), !ended);
            });
        }
    }
}
