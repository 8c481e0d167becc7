//! Work queues and workers as they must be: what lies in which queue, and what a worker makes of it.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;

use gpumailbox::capi::token::gmb_token;

use crate::model::VERIFIED;
use crate::world::Table;

/// An item, the bytes above its own zero.
pub type Item = u128;

/// Where a pop left items, which are looked at when it is done.
pub struct Popped {
    pub address: u64,
    pub items: Vec<Item>,
}

pub struct Queue {
    pub context: usize,
    pub item_bytes: u64,
    pub capacity: u64,
    pub address: u64,
    pub bytes: u64,
    /// What lies in it once all that was launched is done; none where launches, or workers, ran beside each other.
    pub items: Option<VecDeque<Item>>,
    /// Streams whose launches may be under way.
    pub streams: Vec<u64>,
    pub popped: Vec<Popped>,
    /// Workers that use it.
    pub workers: Vec<usize>,
    /// For the fuzzer's own pops, also when the context's handle is gone.
    pub token: gmb_token,
}

impl Queue {
    /// Whether launches on other streams may be under way.
    pub fn is_beside(&self, stream: u64) -> bool {
        self.streams.iter().any(|&other| other != stream)
    }

    pub fn launched(&mut self, stream: u64) {
        if self.is_beside(stream) {
            self.items = None;
            self.popped.clear();
        }
        self.streams.push(stream);
    }

    /// Enters a push: how many were accepted, where that is certain.
    pub fn push(&mut self, new: &[Item]) -> Option<u64> {
        let room = self.capacity as usize - self.items.as_ref()?.len();
        let accepted = room.min(new.len());
        self.items.as_mut()?.extend(&new[..accepted]);
        Some(accepted as u64)
    }

    /// Enters a pop: what it gave, where that is certain.
    pub fn pop(&mut self, max: u64) -> Option<Vec<Item>> {
        let items = self.items.as_mut()?;
        let count = items.len().min(max as usize);
        Some(items.drain(..count).collect())
    }

    /// All that was launched is done: pops left what they should.
    pub fn settle(&mut self) {
        self.streams.clear();
        for popped in std::mem::take(&mut self.popped) {
            // SAFETY: a piece of the arena that was given to this pop, which is done.
            let found = unsafe { read(popped.address, popped.items.len(), self.item_bytes) };
            assert_eq!(found, popped.items, "items of {} bytes that were popped", self.item_bytes);
            VERIFIED.fetch_add(found.len() as u64, Ordering::Relaxed);
        }
    }
}

/// Items as they lie in memory.
pub fn items_of(bytes: &[u8], item_bytes: u64) -> Vec<Item> {
    let item = |bytes: &[u8]| bytes.iter().rev().fold(0, |item, &byte| item << 8 | Item::from(byte));
    bytes.chunks_exact(item_bytes as usize).map(item).collect()
}

/// # Safety
/// So many items lie there, and nobody writes them.
pub unsafe fn read(address: u64, count: usize, item_bytes: u64) -> Vec<Item> {
    // SAFETY: the caller's.
    items_of(
        unsafe { std::slice::from_raw_parts(address as *const u8, count * item_bytes as usize) },
        item_bytes,
    )
}

/// As the library's own functor: the upper half of 16 bytes stays.
fn counted_up(item: Item, increment: u64, item_bytes: u64) -> Item {
    let mask = if item_bytes == 4 { Item::from(u32::MAX) } else { Item::from(u64::MAX) };
    (item & !mask) | (item.wrapping_add(increment.into()) & mask)
}

/// From a start until it is known to have ended.
pub struct Run {
    /// Nobody else takes from `active`, and nothing is launched on a queue of it: what must come is certain.
    pub exact: bool,
    /// It was started again before anybody knew that it had ended: its counts are of the last run alone.
    pub again: bool,
    /// Number of the first item it can take.
    pub first: u64,
    /// What lay in its queues and was pushed there since, and what was popped: active, finished, spawn.
    pub items: [Vec<Item>; 3],
    pub popped: [Vec<Item>; 3],
    pub paused: bool,
    pub stopped: bool,
}

pub struct Worker {
    pub context: usize,
    /// Active, finished, spawn.
    pub queues: [Option<usize>; 3],
    pub increment: u64,
    pub interval: u64,
    pub idle_threshold: u64,
    pub max_iterations: u64,
    pub blocks: u32,
    pub started: bool,
    pub run: Option<Run>,
}

impl Worker {
    /// Holds what lies in the queues after an exact run against what lay there before: `taken` items were taken.
    pub fn check(&self, run: Run, taken: u64, left: [Vec<Item>; 3], item_bytes: u64) {
        let Run { first, items: [active, finished, spawn], popped, .. } = run;
        let taken = taken as usize;
        assert!(taken <= active.len(), "{taken} items were taken of {}", active.len());
        let mut expected = [finished, spawn];
        for (at, &item) in active.iter().enumerate().take(taken) {
            let ticket = first.wrapping_add(at as u64).wrapping_add(1);
            let spawned = self.interval != 0 && ticket % self.interval == 0;
            expected[usize::from(spawned)].push(counted_up(item, self.increment, item_bytes));
        }
        let [still, finished, spawn] = left;
        assert_eq!(still, active[taken..], "what a worker left in its queue");
        let [_, before_finished, before_spawn] = popped;
        for (which, mut seen, before) in [(0, finished, before_finished), (1, spawn, before_spawn)] {
            if self.queues[which + 1].is_none() {
                continue;
            }
            seen.extend(before);
            seen.sort_unstable();
            expected[which].sort_unstable();
            assert_eq!(seen, expected[which], "{} of {taken} items", ["finished", "spawned"][which]);
        }
        VERIFIED.fetch_add(taken as u64, Ordering::Relaxed);
    }
}

/// All queues and workers of a sequence.
pub struct Queues {
    pub queues: Table<Queue>,
    pub workers: Table<Worker>,
}

impl Queues {
    pub fn new() -> Self {
        Self { queues: Table(Vec::new()), workers: Table(Vec::new()) }
    }

    pub fn settle(&mut self) {
        for queue in &mut self.queues.0 {
            queue.it.settle();
        }
    }

    /// A run on a queue, and the queue's part in it.
    pub fn runs_on(&self, queue: usize) -> Vec<(usize, usize)> {
        let part = |at: usize| self.workers.0[at].it.queues.iter().position(|&q| q == Some(queue));
        let runs = self.workers.live().filter(|&at| self.workers.0[at].it.run.is_some());
        runs.filter_map(|at| Some((at, part(at)?))).collect()
    }

    /// What the runs on a queue must give is no longer certain.
    pub fn confuse(&mut self, queue: usize) {
        for (at, _) in self.runs_on(queue) {
            if let Some(run) = &mut self.workers.0[at].it.run {
                run.exact = false;
            }
        }
    }

    /// Items that a host pushed to a queue while a worker runs on it, or popped from it.
    pub fn moved(&mut self, queue: usize, pushed: bool, items: &[Item]) {
        for (at, part) in self.runs_on(queue) {
            let Some(run) = &mut self.workers.0[at].it.run else { continue };
            // Who takes from the first queue takes numbers of the worker's.
            run.exact &= pushed || part != 0 || items.is_empty();
            let lists = if pushed { &mut run.items } else { &mut run.popped };
            lists[part].extend(items);
        }
    }

    pub fn clear(&mut self) {
        self.queues.0.clear();
        self.workers.0.clear();
    }
}
