//! Queues and workers in device memory.

use std::ffi::c_void;
use std::mem::{offset_of, size_of};

/// First word of every queue: the bytes `GMBQUEUE`.
pub const GMB_QUEUE_MAGIC: u64 = 0x4555_4555_5142_4d47;

/// The header of a queue in device memory; the slots follow: of items of 4 bytes 8 each, of 8 bytes 16, of 16 bytes 32.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[allow(non_camel_case_types)]
pub struct gmb_queue_header {
    /// `GMB_QUEUE_MAGIC`.
    pub magic: u64,
    /// `GMB_LAYOUT_VERSION`.
    pub version: u32,
    /// Bytes of an item: 4, 8 or 16.
    pub item_bytes: u32,
    /// Items it holds; a power of two.
    pub capacity: u64,
    /// Keeps `space` away: lines that lie closer together are often in one slice of the cache, which does their additions one
    /// after the other.
    pub pad0: [u64; 125],
    /// As a signed number: slots that a producer may take; less than zero while some who found too few give them back.
    pub space: u64,
    /// Keeps `space` away from the others.
    pub pad1: [u64; 127],
    /// The same of items for consumers.
    pub items: u64,
    /// Keeps `items` away from the others.
    pub pad2: [u64; 127],
    /// Tickets that producers have taken.
    pub tail: u64,
    /// Keeps `tail` away from the others.
    pub pad3: [u64; 127],
    /// Tickets that consumers have taken.
    pub head: u64,
    /// Keeps `head` away from the others.
    pub pad4: [u64; 127],
}

impl gmb_queue_header {
    /// An empty queue.
    pub(crate) const fn new(capacity: u64, item_bytes: u32) -> Self {
        Self {
            magic: GMB_QUEUE_MAGIC,
            version: super::GMB_LAYOUT_VERSION,
            item_bytes,
            capacity,
            pad0: [0; 125],
            space: capacity,
            pad1: [0; 127],
            items: 0,
            pad2: [0; 127],
            tail: 0,
            pad3: [0; 127],
            head: 0,
            pad4: [0; 127],
        }
    }
}

/// Why a worker has ended, or that it has not: `GMB_WORKER_*`.
#[allow(non_camel_case_types)]
pub type gmb_worker_reason = i32;

/// It has not ended.
pub const GMB_WORKER_RUNNING: gmb_worker_reason = 0;
/// It was stopped, or destroyed.
pub const GMB_WORKER_STOPPED: gmb_worker_reason = 1;
/// It found nothing to do as many times in a row as its idle threshold says.
pub const GMB_WORKER_IDLE: gmb_worker_reason = 2;
/// It has gone round as many times as it should.
pub const GMB_WORKER_ITERATIONS: gmb_worker_reason = 3;
/// Of a block: its functor is for items of another size.
pub const GMB_WORKER_WRONG_ITEMS: gmb_worker_reason = 4;
/// By an error, which `gmb_worker_wait` gives.
pub const GMB_WORKER_FAILED: gmb_worker_reason = 5;
/// Of a block: the queue `spawn` has less room in all than one item may need.
pub const GMB_WORKER_SMALL_SPAWN: gmb_worker_reason = 6;
/// Of the block that serves a doorbell: something else wrote there.
pub const GMB_WORKER_SPOILT_DOORBELL: gmb_worker_reason = 7;

/// What a block of a worker keeps while its kernel is away; in device memory.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
#[allow(non_camel_case_types)]
pub struct gmb_worker_block {
    /// Times that it went round.
    pub iterations: u64,
    /// Times in a row that it found nothing to do.
    pub idle: u64,
    /// Items that it took and that did not go back.
    pub processed: u64,
    /// Items that it gave to `finished`.
    pub finished: u64,
    /// Items that it gave to `spawn`.
    pub spawned: u64,
    /// Times that it found nothing to do.
    pub idle_polls: u64,
    /// Times that it took nothing because an output was full.
    pub rejected: u64,
    /// Items that its functor sent back to the end of `active`.
    pub returned: u64,
    /// Why it has ended.
    pub reason: gmb_worker_reason,
    /// Zero.
    pub reserved: i32,
    /// Fills the line.
    pub pad: [u64; 7],
}

/// The argument of a worker's kernel.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[allow(non_camel_case_types)]
pub struct gmb_worker_args {
    /// Where items come from.
    pub active: *mut gmb_queue_header,
    /// Where finished ones go; null: nowhere.
    pub finished: *mut gmb_queue_header,
    /// Where new ones go; null where there are none.
    pub spawn: *mut gmb_queue_header,
    /// One for each block, in device memory.
    pub blocks: *mut gmb_worker_block,
    /// In pinned memory: not zero when all blocks shall leave.
    pub command: *const u64,
    /// In device memory: not zero once one of them has seen that.
    pub told: *mut u64,
    /// In device memory: blocks that have left; for the one that serves the doorbell.
    pub left: *mut u64,
    /// What the last block serves, which then takes no items; null: there is no such block.
    pub doorbell: *mut super::gmb_doorbell_header,
    /// In pinned memory: a word for each block, in which it tells when it last went round; zero while it is away.
    pub beats: *mut u64,
    /// The user's.
    pub user: *mut c_void,
    /// Times that a block goes round, or 0 for no limit.
    pub max_iterations: u64,
    /// Times in a row that a block finds nothing to do before it ends, or 0 for no limit.
    pub idle_threshold: u64,
    /// Nanoseconds after which a block leaves, to come again.
    pub slice_ns: u64,
    /// What is added to an item.
    pub increment: u64,
    /// Each so many-th item goes to `spawn`; 0: none.
    pub spawn_interval: u64,
    /// Bytes of an item.
    pub item_bytes: u32,
    /// Zero.
    pub reserved: u32,
}

// SAFETY: addresses of device memory, which only its kernel follows.
unsafe impl Send for gmb_worker_args {}
// SAFETY: as above.
unsafe impl Sync for gmb_worker_args {}

const _: () = {
    assert!(size_of::<gmb_queue_header>() == 5 * 1024);
    assert!(offset_of!(gmb_queue_header, space) == 1024);
    assert!(offset_of!(gmb_queue_header, head) == 4096);
    assert!(size_of::<gmb_worker_block>() == 128);
    assert!(size_of::<gmb_worker_args>() == 128);
};
