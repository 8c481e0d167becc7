//! Arguments of the kernel entry points, passed by value.
//!
//! cbindgen writes these into `kernels/args.h`; they are no part of the
//! public ABI. Addresses are 64-bit device addresses.

/// Threads of a block.
pub const GMB_BLOCK_THREADS: u32 = 256;
/// The same where blocks draw their tiles, which are as large as a block moves at once: larger ones lie closer together.
pub const GMB_DRAWING_THREADS: u32 = 512;
/// The same of kernels for one block, at most, besides the leader's warp: a block of few threads is launched sooner.
pub const GMB_ALONE_THREADS: u32 = 512;
/// Threads of a block where the caller chooses, at most.
pub const GMB_MOST_THREADS: u32 = 1024;
/// Units that a thread moves at once.
pub const GMB_UNITS_IN_FLIGHT: u32 = 2;
/// Blocks of a launch, at most.
pub const GMB_MOST_BLOCKS: u32 = (1 << 16) - 1;

/// In `gmb_push_args.flags`: all records or none.
pub const GMB_PUSH_WHOLE: u32 = 1;
/// In `gmb_push_args.flags` and `gmb_pop_args.flags`: blocks draw their tiles.
pub const GMB_DRAW_TILES: u32 = 2;
/// In both: all operations of the mailbox run one after the other.
pub const GMB_ORDERED: u32 = 4;
/// In `gmb_push_args.flags`, of a mailbox in shared mode: room was taken before, by `gmb_kernel_credit`.
pub const GMB_PUSH_CREDITED: u32 = 8;

/// In `gmb_reader_args.action`: let the reader in at the next record.
pub const GMB_READER_ADD_NEXT: u32 = 0;
/// In `gmb_reader_args.action`: let the reader in at the oldest record held.
pub const GMB_READER_ADD_OLDEST: u32 = 1;
/// In `gmb_reader_args.action`: let the reader out.
pub const GMB_READER_REMOVE: u32 = 2;

use crate::layout::gmb_tensor;

/// Where an operation reports: any address may be zero.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
#[allow(non_camel_case_types)]
pub struct gmb_report_args {
    /// `gmb_result` in device memory.
    pub device_result: u64,
    /// Host slot, written by the kernel: {epoch, count, partial}, {lost, status, tag}; of a borrow also {first, tag}, {slot, tag}.
    pub host_slot: u64,
    /// Host word of the side: index << 24 | operations & 0xffffff.
    pub host_progress: u64,
    /// Number of the operation on its side, by which its blocks know each other.
    pub operation: u32,
    /// Epoch of the result, or zero for one more than what the device's result has.
    pub epoch: u32,
}

/// Words of the ring's header that never change: a kernel need not read them.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
#[allow(non_camel_case_types)]
pub struct gmb_geometry_args {
    /// Slots in the ring.
    pub capacity: u64,
    /// Bytes from the header to slot 0.
    pub header_bytes: u32,
    /// Bytes from one slot to the next.
    pub stride: u32,
    /// Largest payload in bytes.
    pub payload_bytes: u32,
    /// Zero.
    pub reserved: u32,
}

/// Bytes of the words at `meeting`, on a line of their own.
pub const GMB_MEETING_BYTES: u32 = 128;

/// Arguments of `gmb_kernel_push`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
#[allow(non_camel_case_types)]
pub struct gmb_push_args {
    /// `gmb_ring_header` in device memory.
    pub ring: u64,
    /// First source record, 16-byte aligned.
    pub records: u64,
    /// Bytes from one source record to the next, a multiple of 16.
    pub stride: u64,
    /// `uint32_t` per record, or zero for `length`.
    pub lengths: u64,
    /// `uint32_t` per record, or zero for `msg_type`.
    pub types: u64,
    /// Records to push.
    pub count: u32,
    /// Length of every record when `lengths` is zero.
    pub length: u32,
    /// Type of every record when `types` is zero.
    pub msg_type: u32,
    /// log2 of the threads that copy one record together.
    pub lanes_log2: u32,
    /// Lengths above this are refused: the payload size, or the stride if that is less.
    pub max_length: u32,
    /// `GMB_PUSH_WHOLE`, `GMB_DRAW_TILES`, `GMB_ORDERED`, `GMB_PUSH_CREDITED`.
    pub flags: u32,
    /// A bit for each reader that is probably in use.
    pub readers: u32,
    /// Records of a tile, a power of two, or zero for as many as a block moves at once.
    pub tile: u32,
    /// Tables of what readers have borrowed, or zero while nothing is.
    pub borrowed: u64,
    /// In shared mode: words by which the blocks of the operation know each other, zero between operations.
    pub meeting: u64,
    /// Where the slots lie.
    pub geometry: gmb_geometry_args,
    /// Where the outcome goes.
    pub report: gmb_report_args,
}

/// Arguments of `gmb_kernel_pop`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
#[allow(non_camel_case_types)]
pub struct gmb_pop_args {
    /// `gmb_ring_header` in device memory.
    pub ring: u64,
    /// First output record, 16-byte aligned.
    pub records: u64,
    /// Bytes from one output record to the next, a multiple of 16.
    pub stride: u64,
    /// `gmb_record_header` per record, or zero.
    pub headers: u64,
    /// Most records to pop.
    pub max: u32,
    /// Which reader pops.
    pub reader: u32,
    /// log2 of the threads that copy one record together.
    pub lanes_log2: u32,
    /// `GMB_DRAW_TILES`, `GMB_ORDERED`.
    pub flags: u32,
    /// Records of a tile, a power of two, or zero for as many as a block moves at once.
    pub tile: u32,
    /// Zero.
    pub reserved: u32,
    /// As for a push.
    pub meeting: u64,
    /// Where the slots lie.
    pub geometry: gmb_geometry_args,
    /// Where the outcome goes.
    pub report: gmb_report_args,
}

/// Arguments of `gmb_kernel_borrow` and `gmb_kernel_release`: one block.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
#[allow(non_camel_case_types)]
pub struct gmb_borrow_args {
    /// `gmb_ring_header` in device memory.
    pub ring: u64,
    /// Table of what the reader has borrowed.
    pub table: u64,
    /// `gmb_spans` in device memory.
    pub device_spans: u64,
    /// Which reader.
    pub reader: u32,
    /// Place in the table.
    pub place: u32,
    /// Most records to borrow.
    pub max: u32,
    /// Zero.
    pub reserved: u32,
    /// Where the slots lie.
    pub geometry: gmb_geometry_args,
    /// Where the outcome goes.
    pub report: gmb_report_args,
}

/// Arguments of `gmb_kernel_reader`: one thread that lets a reader in or out.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
#[allow(non_camel_case_types)]
pub struct gmb_reader_args {
    /// `gmb_ring_header` in device memory.
    pub ring: u64,
    /// Which reader.
    pub reader: u32,
    /// `GMB_READER_ADD_*` or `_REMOVE`.
    pub action: u32,
    /// Progress word of the writer.
    pub writer_progress: u64,
    /// Progress word of the reader.
    pub reader_progress: u64,
    /// Where the slots lie.
    pub geometry: gmb_geometry_args,
}

/// Arguments of `gmb_kernel_tensor`: one block that puts a tensor into its slot.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
#[allow(non_camel_case_types)]
pub struct gmb_tensor_args {
    /// `gmb_tensor_ring` in device memory.
    pub ring: u64,
    /// Slots of the ring.
    pub capacity: u64,
    /// Index of the tensor.
    pub index: u64,
    /// The tensor.
    pub tensor: gmb_tensor,
}

/// Arguments of `gmb_kernel_queue_push` and `gmb_kernel_queue_pop`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
#[allow(non_camel_case_types)]
pub struct gmb_queue_args {
    /// `gmb_queue_header` in device memory.
    pub queue: u64,
    /// The items, dense, aligned to their size.
    pub items: u64,
    /// Items to push, or most items to pop.
    pub count: u32,
    /// Bytes of an item.
    pub item_bytes: u32,
    /// Threads of a block.
    pub threads: u32,
    /// Items of a tile.
    pub tile: u32,
    /// Words by which the blocks of the operation know each other, zero between operations.
    pub meeting: u64,
    /// Where the outcome goes.
    pub report: gmb_report_args,
}
