//! Handles: 64-bit ids that can be stale, foreign or garbage without harm.
//!
//! An id is `type tag (8) | generation (32) | index (24)`; zero is null. A
//! look-up is one fetch-add on a word of the slot that few threads share,
//! which pins the object; destroying marks the slot dead, and whoever drops the
//! last pin drops the object. Slots are reused first-in first-out, so that a stale id stays
//! stale as long as possible; a slot whose generations are used up is retired.

mod slot;

use std::collections::VecDeque;
use std::marker::PhantomData;
use std::ops::Deref;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::Mutex;

use crate::error::{Error, Result};
use crate::status::{GMB_ERROR_INVALID_HANDLE, GMB_ERROR_OUT_OF_HOST_MEMORY};
use crate::sync::{lock, thread_number};
use slot::{Slot, Unpinned, STRIPES};

const INDEX_BITS: u32 = 24;
const INDEX_MASK: u64 = (1 << INDEX_BITS) - 1;
/// Chunk `c` holds `FIRST << c` slots.
const FIRST: usize = 64;
const CHUNKS: usize = 18;

/// All objects of one type that C code holds. With fewer stripes an object is made and ended faster, and looked up by
/// many threads at once more slowly.
pub(crate) struct Table<T: 'static, const N: usize = STRIPES> {
    tag: u8,
    kind: &'static str,
    chunks: [AtomicPtr<Slot<T, N>>; CHUNKS],
    free: Mutex<Free>,
}

struct Free {
    indices: VecDeque<u32>,
    chunks: usize,
}

// SAFETY: values are reached by reference while pinned and moved out only by the thread that emptied the slot.
unsafe impl<T: Send + Sync, const N: usize> Sync for Table<T, N> {}

/// An object that stays alive while this exists.
pub(crate) struct Pinned<T: 'static, const N: usize = STRIPES> {
    table: &'static Table<T, N>,
    slot: &'static Slot<T, N>,
    index: u32,
    stripe: u32,
    _not_send: PhantomData<*const ()>,
}

impl<T, const N: usize> Table<T, N> {
    pub(crate) const fn new(tag: u8, kind: &'static str) -> Self {
        Self {
            tag,
            kind,
            chunks: [const { AtomicPtr::new(std::ptr::null_mut()) }; CHUNKS],
            free: Mutex::new(Free { indices: VecDeque::new(), chunks: 0 }),
        }
    }

    #[inline(always)]
    fn slot(&'static self, index: u32) -> Option<&'static Slot<T, N>> {
        let position = index as usize + FIRST;
        let chunk = (position / FIRST).ilog2() as usize;
        let slots = self.chunks.get(chunk)?.load(Ordering::Acquire);
        if slots.is_null() {
            return None;
        }
        // SAFETY: chunk c holds FIRST << c slots that are never freed, and position lies in this one.
        Some(unsafe { &*slots.add(position - (FIRST << chunk)) })
    }

    /// Takes an object in and gives its id.
    pub(crate) fn insert(&'static self, value: T) -> Result<u64> {
        let index = self.take_index()?;
        let slot = self.slot(index).ok_or_else(|| self.invalid(0))?;
        // SAFETY: the slot is empty and its index was ours alone to take.
        let generation = unsafe { slot.fill(value) };
        Ok((u64::from(self.tag) << 56) | (u64::from(generation) << INDEX_BITS) | u64::from(index))
    }

    fn take_index(&'static self) -> Result<u32> {
        let mut free = lock(&self.free);
        if free.indices.is_empty() {
            let chunk = free.chunks;
            let full = || Error::new(GMB_ERROR_OUT_OF_HOST_MEMORY, format!("too many {} handles", self.kind));
            let place = self.chunks.get(chunk).ok_or_else(full)?;
            let mut slots: Vec<Slot<T, N>> = Vec::new();
            slots.try_reserve_exact(FIRST << chunk).map_err(|_| full())?;
            slots.extend((0..FIRST << chunk).map(|_| Slot::new()));
            place.store(Box::leak(slots.into_boxed_slice()).as_mut_ptr(), Ordering::Release);
            free.chunks += 1;
            let first = (FIRST << chunk) - FIRST;
            free.indices.extend((first..first + (FIRST << chunk)).map(|i| i as u32));
        }
        free.indices.pop_front().ok_or_else(|| self.invalid(0))
    }

    /// Pins the object behind an id. All of it inline: what is handed from call to call through memory takes longer than
    /// the look-up.
    #[inline(always)]
    pub(crate) fn get(&'static self, id: u64) -> Result<Pinned<T, N>> {
        if id >> 56 == u64::from(self.tag) {
            let index = (id & INDEX_MASK) as u32;
            if let Some(slot) = self.slot(index) {
                let stripe = thread_number() as u32;
                if slot.pin(stripe as usize, (id >> INDEX_BITS) as u32) {
                    return Ok(Pinned { table: self, slot, index, stripe, _not_send: PhantomData });
                }
                self.unpin(slot, index, stripe);
            }
        }
        Err(self.invalid(id))
    }

    /// Ends an id. The object is dropped here, or by the last thread inside a call on it.
    pub(crate) fn remove(&'static self, id: u64) -> Result<()> {
        let pinned = self.get(id)?;
        match pinned.slot.end() {
            true => Ok(()),
            false => Err(self.invalid(id)),
        }
    }

    #[inline(always)]
    fn unpin(&'static self, slot: &'static Slot<T, N>, index: u32, stripe: u32) {
        if let Unpinned::Emptied { value, reusable } = slot.unpin(stripe as usize) {
            self.emptied(value, index, reusable);
        }
    }

    #[cold]
    fn emptied(&'static self, value: Option<T>, index: u32, reusable: bool) {
        if reusable {
            lock(&self.free).indices.push_back(index);
        }
        drop(value);
    }

    #[cold]
    fn invalid(&self, id: u64) -> Error {
        let why = match id {
            0 => "it is zero",
            _ if id >> 56 != u64::from(self.tag) => "it is of another type or was never given out",
            _ => "it was destroyed or never given out",
        };
        Error::new(GMB_ERROR_INVALID_HANDLE, format!("{id:#018x} is no {} handle: {why}", self.kind))
    }
}

impl<T, const N: usize> Deref for Pinned<T, N> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        // SAFETY: pinned when this was made.
        unsafe { self.slot.get() }
    }
}

impl<T, const N: usize> Drop for Pinned<T, N> {
    #[inline(always)]
    fn drop(&mut self) {
        self.table.unpin(self.slot, self.index, self.stripe);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;
    use std::sync::Arc;

    #[test]
    fn stale_foreign_and_garbage_ids_are_refused() {
        static NUMBERS: Table<u32> = Table::new(7, "number");
        static WORDS: Table<String> = Table::new(8, "word");
        let id = NUMBERS.insert(41).unwrap();
        assert_eq!(*NUMBERS.get(id).unwrap(), 41);
        assert!(WORDS.get(id).is_err());
        for garbage in [0, 1, u64::MAX, id ^ (1 << 30), id + 5_000_000, id & !(0xff << 56)] {
            assert!(NUMBERS.get(garbage).is_err(), "{garbage:#x}");
        }
        NUMBERS.remove(id).unwrap();
        assert!(NUMBERS.get(id).is_err());
        assert!(NUMBERS.remove(id).is_err());
        let ids: Vec<u64> = (0..1000).map(|n| NUMBERS.insert(n).unwrap()).collect();
        assert!(NUMBERS.get(id).is_err(), "a reused slot answers to an old id");
        for (n, id) in ids.into_iter().enumerate() {
            assert_eq!(*NUMBERS.get(id).unwrap() as usize, n);
            NUMBERS.remove(id).unwrap();
        }
    }

    #[test]
    fn destroy_races_with_use() {
        struct Counted(Arc<AtomicUsize>);
        impl Drop for Counted {
            fn drop(&mut self) {
                self.0.fetch_add(1, Ordering::SeqCst);
            }
        }
        static TABLE: Table<Counted> = Table::new(9, "counted");
        let drops = Arc::new(AtomicUsize::new(0));
        const ROUNDS: usize = 500;
        for round in 0..ROUNDS {
            let id = TABLE.insert(Counted(Arc::clone(&drops))).unwrap();
            let removed = AtomicUsize::new(0);
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| {
                        for _ in 0..20 {
                            if let Ok(pinned) = TABLE.get(id) {
                                assert_eq!(Arc::as_ptr(&pinned.0), Arc::as_ptr(&drops));
                            }
                        }
                        if TABLE.remove(id).is_ok() {
                            removed.fetch_add(1, Ordering::SeqCst);
                        }
                    });
                }
            });
            assert_eq!(removed.load(Ordering::SeqCst), 1);
            assert_eq!(drops.load(Ordering::SeqCst), round + 1);
        }
    }
}
