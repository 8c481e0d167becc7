//! The memory layout shared by Rust, C and device code.
//!
//! These structs are what lies in device memory. cbindgen writes them into
//! `include/gpumailbox.h`, the device headers include that file, and both
//! sides assert sizes and offsets. The layout is versioned by
//! [`GMB_LAYOUT_VERSION`] and not frozen before 0.1.0.

mod arbiter;
mod doorbell;
mod queue;

use std::mem::{offset_of, size_of};

pub use arbiter::*;
pub use doorbell::*;
pub use queue::*;

/// First word of every mailbox header: the bytes `GMBRING1`.
pub const GMB_MAGIC: u64 = 0x3147_4e49_5242_4d47;

/// Version of the layout of `gmb_ring_header`, `gmb_ring_side` and slots.
pub const GMB_LAYOUT_VERSION: u32 = 3;

/// Readers a mailbox can have.
pub const GMB_MAX_READERS: u32 = 16;

/// Most records in a mailbox and most records in one push or pop.
pub const GMB_MAX_RECORDS: u32 = 1 << 29;

/// Alignment in bytes of payloads, slots and strides.
pub const GMB_ALIGNMENT: u32 = 16;

/// Set in `gmb_result.flags` when fewer records moved than were asked for.
pub const GMB_RESULT_PARTIAL: u32 = 1;

/// Set in `gmb_result.flags` when `lost` is not zero.
pub const GMB_RESULT_LOST: u32 = 2;

/// What a push does when the mailbox is full: `GMB_FULL_*`.
#[allow(non_camel_case_types)]
pub type gmb_full_policy = i32;

/// Accept the first so many records that fit and report how many.
pub const GMB_FULL_REJECT: gmb_full_policy = 0;
/// All or nothing, at most the capacity: the calling thread waits, with a timeout, until pops
/// have made room or certainly will.
pub const GMB_FULL_WAIT: gmb_full_policy = 1;
/// Never fails: the oldest records make room. Readers find out how many they lost, and never
/// see a torn one.
pub const GMB_FULL_OVERWRITE_OLDEST: gmb_full_policy = 2;
/// Never fails: a pop gives the newest record, once.
pub const GMB_FULL_LATEST: gmb_full_policy = 3;

/// How operations of one side of a mailbox stand to each other: `GMB_MODE_*`.
#[allow(non_camel_case_types)]
pub type gmb_mode = i32;

/// One push, and one pop of a reader, at a time: events or the order of a stream see to that.
pub const GMB_MODE_ORDERED: gmb_mode = 0;
/// Any number of producers and consumers at once: operations that the CPU launches, and threads, warps and blocks of
/// running kernels.
pub const GMB_MODE_SHARED: gmb_mode = 1;
/// One producer and one consumer, each a thread or a warp of a running kernel: nothing is launched.
pub const GMB_MODE_EXPRESS: gmb_mode = 2;

/// Largest payload of a mailbox in express mode.
pub const GMB_EXPRESS_BYTES: u32 = 240;

/// What precedes each payload in the ring: 16 bytes, one access.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(non_camel_case_types)]
pub struct gmb_record_header {
    /// Index of the record plus one, modulo 2^64.
    pub sequence: u64,
    /// Payload bytes that carry data.
    pub length: u32,
    /// The user's message type.
    pub msg_type: u32,
}

/// Bytes of a record's header: a slot is that and the payload.
pub(crate) const HEADER_BYTES: u32 = size_of::<gmb_record_header>() as u32;

/// Outcome of one push or pop, as the kernel writes it in device memory.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(non_camel_case_types)]
pub struct gmb_result {
    /// Grows by one with every operation reported through the same token.
    pub epoch: u32,
    /// Records accepted by the push or delivered by the pop.
    pub count: u32,
    /// `GMB_OK` or the error found on the device; `count` records moved before it.
    pub status: i32,
    /// `GMB_RESULT_*` bits.
    pub flags: u32,
    /// Records that were overwritten, or replaced by newer ones, before this reader's pop came
    /// to them: those between its last record and the first of this pop. Zero for a push.
    pub lost: u64,
}

/// One side of a ring: the writer or a reader. 512 bytes, hot words on lines
/// of their own.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[allow(non_camel_case_types)]
pub struct gmb_ring_side {
    /// Index after the last record taken: *reserved* for the writer, *claimed* for a reader. A
    /// writer that overwrites reserves before it writes: what is older by the capacity is gone.
    pub claimed: u64,
    /// Keeps `claimed` alone on its line.
    pub pad0: [u64; 15],
    /// Index after the last record handed over: *published* for the writer, *released* for a reader.
    pub committed: u64,
    /// Keeps `committed` alone on its line.
    pub pad1: [u64; 15],
    /// Minimum over the blocks of the running operation of (records << 8 | error); all ones when idle.
    pub grant: u64,
    /// Blocks of the running operation that have arrived; zero when idle.
    pub arrivals: u64,
    /// One more than what the blocks of the running pop agreed on: the records that it skips, or those that
    /// a large one gives; zero until the first block knows.
    pub agreed: u64,
    /// Of a writer that overwrites: what is older than this index is gone.
    pub floor: u64,
    /// Tiles of records that blocks of the running operation drew; zero when idle.
    pub drawn: u64,
    /// Of a writer that keeps one record: one more than the number of its slot, or zero where its index tells that.
    pub newest: u64,
    /// In shared mode, as a signed number: slots that a producer may take, or records that this reader's consumers may;
    /// less than zero while some who found too few give back what they took.
    pub credits: u64,
    /// Of a writer in shared mode: records that were abandoned and that not all readers have passed over.
    pub abandoned: u64,
    /// Keeps the combining words on a line of their own.
    pub pad2: [u64; 8],
    /// Operations finished on this side.
    pub operations: u64,
    /// Records asked for and not moved, for want of room or of records.
    pub refused: u64,
    /// Operations that moved nothing.
    pub empty: u64,
    /// Most slots in use when an operation of this side ended, less what was released before it began.
    pub high_water: u64,
    /// Records that were overwritten before this reader came to them.
    pub lost: u64,
    /// Fills the line.
    pub pad3: [u64; 11],
}

/// Records that lie where they were pushed to: at most two runs of slots, for a ring ends and goes on at its begin.
/// Addresses are device addresses. Record `i` of a span begins `i * stride` bytes after its first; its `gmb_record_header`
/// lies 16 bytes before it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(non_camel_case_types)]
pub struct gmb_spans {
    /// Index of the first record, its header's sequence is one more; zero if there is none.
    pub first: u64,
    /// Payload of the first record of each span; null for one that is empty.
    pub records: [*const std::ffi::c_void; 2],
    /// Records of each span.
    pub count: [u32; 2],
    /// Bytes from one record to the next, a multiple of 16.
    pub stride: u32,
    /// Zero.
    pub reserved: u32,
}

// SAFETY: addresses of device memory, which nothing here follows.
unsafe impl Send for gmb_spans {}
// SAFETY: as above.
unsafe impl Sync for gmb_spans {}

/// The header of a mailbox in device memory; the slots follow at `header_bytes`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[allow(non_camel_case_types)]
pub struct gmb_ring_header {
    /// `GMB_MAGIC`.
    pub magic: u64,
    /// `GMB_LAYOUT_VERSION`.
    pub version: u32,
    /// Bytes from the start of this header to slot 0.
    pub header_bytes: u32,
    /// Slots in the ring; a power of two.
    pub capacity: u64,
    /// Bytes of all slots.
    pub capacity_bytes: u64,
    /// Bytes from one slot to the next.
    pub stride: u32,
    /// Largest payload in bytes.
    pub payload_bytes: u32,
    /// The creator's id for the producing module.
    pub producer_id: u32,
    /// The creator's id for the consuming module.
    pub consumer_id: u32,
    /// A bit for each reader in use; only these hold space.
    pub reader_mask: u32,
    /// What a push does when full: `GMB_FULL_*`.
    pub full_policy: u32,
    /// Index of the first record ever pushed.
    pub initial_index: u64,
    /// Zero, or the error that stopped this mailbox for good.
    pub fault: i32,
    /// How operations of one side stand to each other: `GMB_MODE_*`.
    pub mode: gmb_mode,
    /// Fills the line.
    pub pad: [u64; 7],
    /// The producing side.
    pub writer: gmb_ring_side,
    /// The consuming sides.
    pub reader: [gmb_ring_side; 16],
}

/// Most dimensions of a tensor that is handed over.
pub const GMB_MAX_DIMENSIONS: u32 = 8;

/// An element type, as DLPack has it: `DLDataType`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(non_camel_case_types)]
pub struct gmb_dtype {
    /// `DLDataTypeCode`: 0 int, 1 uint, 2 float, 4 bfloat, 5 complex, 6 bool and so on.
    pub code: u8,
    /// Bits of one lane.
    pub bits: u8,
    /// Lanes of a vector; 1 for scalars.
    pub lanes: u16,
}

/// A tensor as it is handed over: where its elements lie, and how. No element moves. 176 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(non_camel_case_types)]
pub struct gmb_tensor {
    /// Address as the producer gave it; the first element lies `byte_offset` behind it.
    pub address: u64,
    /// Bytes from `address` to the first element.
    pub byte_offset: u64,
    /// The producer's word to the consumer.
    pub tag: u64,
    /// `DLDeviceType`: 2 on CUDA, 1 on the host backend.
    pub device_type: i32,
    /// The device's ordinal.
    pub device_id: i32,
    /// The elements' type.
    pub dtype: gmb_dtype,
    /// Dimensions, 0 to `GMB_MAX_DIMENSIONS`.
    pub ndim: i32,
    /// DLPack's flags: 1 for read-only, 2 for a copy, 4 for elements of less than a byte that are padded.
    pub flags: u64,
    /// Elements in each dimension; zero beyond `ndim`.
    pub shape: [i64; 8],
    /// Elements from one index to the next in each dimension, also negative; zero beyond `ndim`.
    pub strides: [i64; 8],
}

/// A slot of the ring of a tensor mailbox whose consumer is device code.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
#[allow(non_camel_case_types)]
pub struct gmb_tensor_slot {
    /// Index of the tensor plus one, once it is there.
    pub sequence: u64,
    /// Zero.
    pub reserved: u64,
    /// The tensor.
    pub tensor: gmb_tensor,
}

/// The ring of a tensor mailbox whose consumer is device code. The slots follow.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[allow(non_camel_case_types)]
pub struct gmb_tensor_ring {
    /// Index of the next tensor that nobody has taken.
    pub taken: u64,
    /// Fills the line.
    pub pad: [u64; 15],
}

/// What device code needs of a tensor mailbox; passed to kernels by value.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[allow(non_camel_case_types)]
pub struct gmb_tensor_view {
    /// In device memory.
    pub ring: *mut gmb_tensor_ring,
    /// In pinned memory: a word for each slot, in which its consumer says that it is done.
    pub released: *mut u64,
    /// Slots; a power of two.
    pub capacity: u64,
}

const _: () = {
    assert!(size_of::<gmb_dtype>() == 4);
    assert!(size_of::<gmb_tensor>() == 176);
    assert!(offset_of!(gmb_tensor, shape) == 48);
    assert!(size_of::<gmb_tensor_slot>() == 192);
    assert!(size_of::<gmb_tensor_ring>() == 128);
    assert!(size_of::<gmb_tensor_view>() == 24);
    // One access, and payloads behind it are aligned.
    assert!(HEADER_BYTES == GMB_ALIGNMENT);
    assert!(size_of::<gmb_result>() == 24);
    assert!(size_of::<gmb_ring_side>() == 512);
    assert!(offset_of!(gmb_ring_side, committed) == 128);
    assert!(offset_of!(gmb_ring_side, grant) == 256);
    assert!(offset_of!(gmb_ring_side, operations) == 384);
    assert!(offset_of!(gmb_ring_header, writer) == 128);
    assert!(offset_of!(gmb_ring_header, reader) == 640);
    assert!(size_of::<gmb_ring_header>() == 128 + 17 * 512);
};

impl gmb_tensor {
    /// No tensor.
    pub(crate) const NONE: Self = Self {
        address: 0,
        byte_offset: 0,
        tag: 0,
        device_type: 0,
        device_id: 0,
        dtype: gmb_dtype { code: 0, bits: 0, lanes: 0 },
        ndim: 0,
        flags: 0,
        shape: [0; 8],
        strides: [0; 8],
    };
}

impl gmb_ring_side {
    /// An idle side whose next record has the given index.
    pub(crate) const fn at(index: u64) -> Self {
        Self {
            claimed: index,
            pad0: [0; 15],
            committed: index,
            pad1: [0; 15],
            grant: u64::MAX,
            arrivals: 0,
            agreed: 0,
            floor: index,
            drawn: 0,
            newest: 0,
            credits: 0,
            abandoned: 0,
            pad2: [0; 8],
            operations: 0,
            refused: 0,
            empty: 0,
            high_water: 0,
            lost: 0,
            pad3: [0; 11],
        }
    }
}
