//! The threads on which the blocks of a launch run at once.

use std::collections::VecDeque;
use std::ffi::{c_char, c_void};
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use super::Heap;
use crate::backend::{BlockFunction, ByEntry, Entry, Kernel, Resident};
use crate::error::{Error, Result};
use crate::status::{GMB_ERROR_NO_KERNELS, GMB_ERROR_SYSTEM};
use crate::sync::{lock, wait};

/// Runs one block of a launch.
pub(super) type Run = unsafe extern "C" fn(args: *const c_void, block: u32, blocks: u32);

extern "C" {
    fn gmb_host_kernel(name: *const c_char) -> Option<Run>;
}

/// The entry points. One that kernels/list.h lacks is an error here, as it is on a GPU.
fn load() -> Result<ByEntry<Run>> {
    unsafe extern "C" fn none(_: *const c_void, _: u32, _: u32) {}
    let mut loaded = ByEntry::all(none as Run);
    for &(entry, name) in Entry::ALL {
        // SAFETY: the name is NUL-terminated.
        loaded[entry] = unsafe { gmb_host_kernel(name.as_ptr()) }.ok_or_else(|| {
            Error::new(GMB_ERROR_NO_KERNELS, format!("{name:?} is not among the host's kernels"))
        })?;
    }
    Ok(loaded)
}

/// What runs one block of a launch.
enum Body {
    /// An entry point of the library's.
    Entry(Kernel, Run),
    /// A caller's function.
    Function(BlockFunction),
}

impl Body {
    fn run(&self, block: u32, blocks: u32) {
        match self {
            // SAFETY: the arguments are the entry point's own, and whoever launched the kernel keeps every
            // address in them valid until it is done.
            Self::Entry(kernel, run) => unsafe { run(kernel.args(), block, blocks) },
            // A panic in it must not end the thread.
            Self::Function(function) => {
                let _ = catch_unwind(AssertUnwindSafe(|| function(block.into())));
            }
        }
    }
}

/// A launch being worked off by several threads.
struct Job {
    body: Body,
    blocks: u32,
    /// Of its stream: less is more urgent.
    priority: i32,
    /// Blocks run in the order start, start + step, ... modulo their number.
    start: u32,
    step: u32,
    taken: AtomicU32,
    done: AtomicU32,
    gate: Mutex<()>,
    finished: Condvar,
}

impl Job {
    /// Runs blocks until none is left to take.
    fn help(&self) {
        loop {
            let ticket = self.taken.fetch_add(1, Ordering::Relaxed);
            if ticket >= self.blocks {
                return;
            }
            let block =
                (u64::from(self.start) + u64::from(ticket) * u64::from(self.step)) % u64::from(self.blocks);
            self.body.run(block as u32, self.blocks);
            if self.done.fetch_add(1, Ordering::AcqRel) + 1 == self.blocks {
                let _gate = lock(&self.gate);
                self.finished.notify_all();
            }
        }
    }
}

#[derive(Default)]
struct Offers {
    jobs: VecDeque<Arc<Job>>,
    closed: bool,
}

#[derive(Default)]
struct Shared {
    offers: Mutex<Offers>,
    offered: Condvar,
}

pub(super) struct BlockPool {
    entries: ByEntry<Run>,
    shared: Arc<Shared>,
    workers: usize,
    launches: AtomicU64,
    heap: Arc<Heap>,
}

impl BlockPool {
    pub(super) fn new(workers: usize, heap: Arc<Heap>) -> Result<Self> {
        // Dropped on a failed spawn, the pool ends the threads that did start.
        let pool =
            Self { entries: load()?, shared: Arc::default(), workers, launches: AtomicU64::new(0), heap };
        for number in 0..workers {
            let shared = Arc::clone(&pool.shared);
            std::thread::Builder::new()
                .name(format!("gmb-block-{number}"))
                .spawn(move || shared.work())
                .map_err(|e| Error::new(GMB_ERROR_SYSTEM, format!("no thread for the host backend: {e}")))?;
        }
        Ok(pool)
    }

    /// The memory that stream threads keep alive, and free in order.
    pub(super) fn heap(&self) -> &Heap {
        &self.heap
    }

    /// What runs a block of a worker: the caller's function, or the library's own.
    pub(super) fn resident(&self, function: usize, own: Entry) -> Run {
        match function {
            0 => self.entries[own],
            // SAFETY: whoever made the worker vouches for it.
            own => unsafe { std::mem::transmute::<usize, Run>(own) },
        }
    }

    /// Runs all blocks of a launch and returns when all are done.
    pub(super) fn run(&self, kernel: Kernel, blocks: u32, priority: i32) {
        self.run_body(Body::Entry(kernel, self.entries[kernel.entry(blocks)]), blocks, priority);
    }

    /// The same of a caller's function.
    pub(super) fn run_function(&self, function: BlockFunction, blocks: u32, priority: i32) {
        self.run_body(Body::Function(function), blocks, priority);
    }

    fn run_body(&self, body: Body, blocks: u32, priority: i32) {
        if blocks <= 1 {
            body.run(0, 1);
            return;
        }
        let seed = mix(self.launches.fetch_add(1, Ordering::Relaxed));
        let job = Arc::new(Job {
            body,
            blocks,
            priority,
            start: (seed >> 32) as u32 % blocks,
            step: step_through(blocks, seed as u32),
            taken: AtomicU32::new(0),
            done: AtomicU32::new(0),
            gate: Mutex::default(),
            finished: Condvar::new(),
        });
        {
            let mut offers = lock(&self.shared.offers);
            // Behind what is as urgent, before what is less so.
            let place = offers.jobs.partition_point(|other| other.priority <= priority);
            for _ in 0..self.workers.min(blocks as usize - 1) {
                offers.jobs.insert(place, Arc::clone(&job));
            }
        }
        self.shared.offered.notify_all();
        job.help();
        let mut gate = lock(&job.gate);
        while job.done.load(Ordering::Acquire) < blocks {
            gate = wait(&job.finished, gate);
        }
    }
}

/// Runs all blocks of a worker at once, each on a thread of its own, and returns when all have left. A block that there is no
/// thread for comes again with the next slice.
pub(super) fn run_resident(resident: &Resident, run: Run) {
    let block = move |n| {
        // Whole, so that what goes to a thread is what may.
        let resident: &Resident = resident;
        // SAFETY: the arguments are the entry point's own, and the worker keeps every address in them valid.
        unsafe { run(resident.kernel.args(), n, resident.blocks) };
    };
    std::thread::scope(|scope| {
        for n in 1..resident.blocks {
            let _ = std::thread::Builder::new()
                .name(format!("gmb-worker-{n}"))
                .spawn_scoped(scope, move || block(n));
        }
        block(0);
    });
}

impl Drop for BlockPool {
    fn drop(&mut self) {
        lock(&self.shared.offers).closed = true;
        self.shared.offered.notify_all();
    }
}

impl Shared {
    fn work(&self) {
        let mut offers = lock(&self.offers);
        loop {
            if let Some(job) = offers.jobs.pop_front() {
                drop(offers);
                job.help();
                drop(job);
                offers = lock(&self.offers);
            } else if offers.closed {
                return;
            } else {
                offers = wait(&self.offered, offers);
            }
        }
    }
}

/// A step below `blocks` that visits every block once.
fn step_through(blocks: u32, seed: u32) -> u32 {
    fn gcd(a: u32, b: u32) -> u32 {
        if b == 0 {
            a
        } else {
            gcd(b, a % b)
        }
    }
    let wish = 1 + seed % blocks;
    (wish..wish + blocks).find(|&step| gcd(step, blocks) == 1).unwrap_or(1)
}

/// SplitMix64's finalizer.
fn mix(n: u64) -> u64 {
    let mut x = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_visits_every_block_once() {
        for blocks in 2..40 {
            for seed in 0..50 {
                let step = u64::from(step_through(blocks, seed));
                let seen: std::collections::HashSet<u64> =
                    (0..u64::from(blocks)).map(|t| (7 + t * step) % u64::from(blocks)).collect();
                assert_eq!(seen.len(), blocks as usize, "blocks {blocks} step {step}");
            }
        }
    }
}
