//! Arbiters: what tells running kernels which mailboxes have records for them.

use std::mem::{offset_of, size_of};

/// First word of every arbiter's header: the bytes `GMBWATCH`.
pub const GMB_ARBITER_MAGIC: u64 = 0x4843_5441_5742_4d47;
/// Mailboxes that one arbiter looks at, at most.
pub const GMB_MOST_ARBITRATED: u32 = 1024;

/// The header of an arbiter in device memory; its entries follow.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[allow(non_camel_case_types)]
pub struct gmb_arbiter_header {
    /// `GMB_ARBITER_MAGIC`.
    pub magic: u64,
    /// `GMB_LAYOUT_VERSION`.
    pub version: u32,
    /// Mailboxes, those of class focus first.
    pub count: u32,
    /// How many of them are of class focus.
    pub focus: u32,
    /// Zero.
    pub reserved: u32,
    /// Times that its first warp has gone round, as of when it last told.
    pub turns: u64,
    /// Where its kernel was last: the number of a multiprocessor, of a thread on the host backend, plus one; zero before it came.
    pub processor: u64,
    /// Fills the line.
    pub pad: [u64; 11],
    /// A bit for each mailbox, by its place: whether there are records that nobody has taken.
    pub ready: [u32; 32],
    /// Places, by the numbers under which the mailboxes were given.
    pub place: [u16; 1024],
    /// Numbers, by places.
    pub number: [u16; 1024],
}

/// What an arbiter looks at of one mailbox, in device memory.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[allow(non_camel_case_types)]
pub struct gmb_arbiter_entry {
    /// Index after the last record published.
    pub published: *const u64,
    /// Index after the last record that the reader has taken.
    pub claimed: *const u64,
}

/// The argument of an arbiter's kernel.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[allow(non_camel_case_types)]
pub struct gmb_arbiter_args {
    /// What it tells.
    pub arbiter: *mut gmb_arbiter_header,
    /// What it looks at, by places.
    pub entries: *const gmb_arbiter_entry,
    /// In pinned memory: not zero when it shall leave.
    pub command: *const u64,
    /// In device memory: not zero once that was seen.
    pub told: *mut u64,
    /// In pinned memory: when it last went round; zero while it is away.
    pub beat: *mut u64,
    /// Nanoseconds after which it leaves, to come again.
    pub slice_ns: u64,
}

impl gmb_arbiter_header {
    pub(crate) const fn new(count: u32) -> Self {
        Self {
            magic: GMB_ARBITER_MAGIC,
            version: super::GMB_LAYOUT_VERSION,
            count,
            focus: 0,
            reserved: 0,
            turns: 0,
            processor: 0,
            pad: [0; 11],
            ready: [0; 32],
            place: [0; 1024],
            number: [0; 1024],
        }
    }

    /// Puts a mailbox into a place.
    pub(crate) fn set(&mut self, place: usize, number: usize) {
        if let (Some(at), Some(of)) = (self.place.get_mut(number), self.number.get_mut(place)) {
            (*at, *of) = (place as u16, number as u16);
        }
    }
}

// SAFETY: addresses of device memory, which only its kernel follows.
unsafe impl Send for gmb_arbiter_args {}
// SAFETY: as above.
unsafe impl Sync for gmb_arbiter_args {}

const _: () = {
    assert!(offset_of!(gmb_arbiter_header, ready) == 128);
    assert!(offset_of!(gmb_arbiter_header, place) == 256);
    assert!(size_of::<gmb_arbiter_header>() == 256 + 4096);
    assert!(size_of::<gmb_arbiter_entry>() == 16);
};
