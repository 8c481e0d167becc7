//! Doorbells and FIFOs: rings in pinned memory between the host and running kernels.

use std::mem::{offset_of, size_of};

/// First word of every doorbell's header: the bytes `GMBRINGS`.
pub const GMB_DOORBELL_MAGIC: u64 = 0x5347_4e49_5242_4d47;
/// First word of every FIFO's header: the bytes `GMBFIFOS`.
pub const GMB_FIFO_MAGIC: u64 = 0x534f_4649_4642_4d47;

/// Words of a slot for a command or an answer: each holds four bytes of it, and its turn.
pub const GMB_COMMAND_WORDS: u32 = 8;
/// Words of a slot for a record of a FIFO.
pub const GMB_FIFO_WORDS: u32 = 4;

/// Most commands that are under way on a doorbell at once, and records that a FIFO holds.
pub const GMB_MOST_MAPPED: u64 = 1 << 20;

/// A command for a running kernel.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(non_camel_case_types)]
pub struct gmb_command {
    /// What is to be done: `GMB_COMMAND_*`, or the user's own from `GMB_COMMAND_USER` on.
    pub code: u32,
    /// Zero; a kernel finds `GMB_COMMAND_CANCELLED` here.
    pub flags: u32,
    /// What with.
    pub argument: [u64; 3],
}

/// What a kernel answers.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(non_camel_case_types)]
pub struct gmb_answer {
    /// `GMB_OK`, or why the command was not done.
    pub status: i32,
    /// Zero, or the user's.
    pub flags: u32,
    /// What came of it.
    pub value: [u64; 3],
}

/// A record of a FIFO.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(non_camel_case_types)]
pub struct gmb_fifo_record {
    /// The user's.
    pub word: [u64; 2],
}

/// To be answered with its arguments.
pub const GMB_COMMAND_PING: u32 = 1;
/// What a worker has done in this run, to within a tenth of a millisecond: processed, finished, spawned.
pub const GMB_COMMAND_COUNTS: u32 = 2;
/// The first code of the user's own.
pub const GMB_COMMAND_USER: u32 = 16;
/// In `gmb_command.flags`, as a kernel finds them: it is not wanted any more.
pub const GMB_COMMAND_CANCELLED: u32 = 0x8000_0000;

/// The header of a doorbell in device memory; its rings lie in pinned memory.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[allow(non_camel_case_types)]
pub struct gmb_doorbell_header {
    /// `GMB_DOORBELL_MAGIC`.
    pub magic: u64,
    /// `GMB_LAYOUT_VERSION`.
    pub version: u32,
    /// Commands that are under way at once; a power of two.
    pub capacity: u32,
    /// `capacity` slots of `GMB_COMMAND_WORDS`, which the host writes.
    pub commands: *const u64,
    /// As many, which kernels write.
    pub answers: *mut u64,
    /// Commands that were taken.
    pub taken: u64,
}

/// The header of a FIFO in device memory; its ring lies in pinned memory.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[allow(non_camel_case_types)]
pub struct gmb_fifo_header {
    /// `GMB_FIFO_MAGIC`.
    pub magic: u64,
    /// `GMB_LAYOUT_VERSION`.
    pub version: u32,
    /// Records it holds; a power of two.
    pub capacity: u32,
    /// `capacity` slots of `GMB_FIFO_WORDS`, which kernels write.
    pub records: *mut u64,
    /// In pinned memory: records that the host has taken.
    pub drained: *const u64,
    /// Keeps `space` away.
    pub pad0: [u64; 124],
    /// As a signed number: slots that a producer may take, as far as the device knows.
    pub space: u64,
    /// Of `drained`, what `space` has.
    pub known: u64,
    /// Keeps `space` away from `tail`.
    pub pad1: [u64; 126],
    /// Tickets that producers have taken.
    pub tail: u64,
    /// Keeps `tail` away from others.
    pub pad2: [u64; 127],
}

impl gmb_fifo_header {
    /// An empty FIFO.
    pub(crate) const fn new(capacity: u64, records: u64, drained: u64) -> Self {
        Self {
            magic: GMB_FIFO_MAGIC,
            version: super::GMB_LAYOUT_VERSION,
            capacity: capacity as u32,
            records: records as *mut u64,
            drained: drained as *const u64,
            pad0: [0; 124],
            space: capacity,
            known: 0,
            pad1: [0; 126],
            tail: 0,
            pad2: [0; 127],
        }
    }
}

// SAFETY: addresses, which only kernels follow.
unsafe impl Send for gmb_doorbell_header {}
// SAFETY: as above.
unsafe impl Send for gmb_fifo_header {}

const _: () = {
    assert!(size_of::<gmb_command>() == 4 * GMB_COMMAND_WORDS as usize);
    assert!(size_of::<gmb_answer>() == 4 * GMB_COMMAND_WORDS as usize);
    assert!(size_of::<gmb_fifo_record>() == 4 * GMB_FIFO_WORDS as usize);
    assert!(size_of::<gmb_doorbell_header>() == 40);
    assert!(size_of::<gmb_fifo_header>() == 3 * 1024);
    assert!(offset_of!(gmb_fifo_header, space) == 1024);
    assert!(offset_of!(gmb_fifo_header, tail) == 2048);
};
