// Written by scripts/python_ffi.py from include/gpumailbox.h: do not edit.

#![allow(non_camel_case_types, dead_code, missing_docs)]

use std::ffi::{c_char, c_void};

pub const GMB_PUSH_CREDITED: i32 = 8;
pub const GMB_MEETING_BYTES: i32 = 128;
pub const GMB_COORDINATOR_ONE_STREAM: i32 = 1;
pub const GMB_COORDINATOR_TIMED: i32 = 2;
pub const GMB_MAILBOX_SINGLE_STREAM: i32 = 1;
pub const GMB_MAILBOX_SHARED: i32 = 2;
pub const GMB_MAILBOX_EXPRESS: i32 = 4;
pub const GMB_PIPELINE_ONE_STREAM: i32 = 1;
pub const GMB_PIPELINE_UNTIMED: i32 = 2;
pub const GMB_VERSION_MAJOR: i32 = 0;
pub const GMB_VERSION_MINOR: i32 = 1;
pub const GMB_VERSION_PATCH: i32 = 0;
pub const GMB_TENSOR_DROP: i32 = 1;
pub const GMB_MAGIC: i64 = 3550892908024581447;
pub const GMB_LAYOUT_VERSION: i32 = 3;
pub const GMB_MAX_READERS: i32 = 16;
pub const GMB_ALIGNMENT: i32 = 16;
pub const GMB_RESULT_PARTIAL: i32 = 1;
pub const GMB_RESULT_LOST: i32 = 2;
pub const GMB_EXPRESS_BYTES: i32 = 240;
pub const GMB_MAX_DIMENSIONS: i32 = 8;
pub const GMB_ARBITER_MAGIC: i64 = 5207098233783995719;
pub const GMB_MOST_ARBITRATED: i32 = 1024;
pub const GMB_DOORBELL_MAGIC: i64 = 6000851105314131271;
pub const GMB_FIFO_MAGIC: i64 = 6003094108833467719;
pub const GMB_COMMAND_WORDS: i32 = 8;
pub const GMB_FIFO_WORDS: i32 = 4;
pub const GMB_COMMAND_PING: i32 = 1;
pub const GMB_COMMAND_COUNTS: i32 = 2;
pub const GMB_COMMAND_USER: i32 = 16;
pub const GMB_COMMAND_CANCELLED: i64 = 2147483648;
pub const GMB_QUEUE_MAGIC: i64 = 4995975594375269703;
pub const GMB_CLASS_FOCUS: i32 = 0;
pub const GMB_CLASS_PERIPHERAL: i32 = 1;
pub const GMB_BACKEND_AUTO: i32 = 0;
pub const GMB_BACKEND_CUDA: i32 = 1;
pub const GMB_BACKEND_HOST: i32 = 2;
pub const GMB_OPERATION_UPLOAD: i32 = 0;
pub const GMB_OPERATION_COMPUTE: i32 = 1;
pub const GMB_OPERATION_DOWNLOAD: i32 = 2;
pub const GMB_OPERATION_PUSH: i32 = 3;
pub const GMB_OPERATION_POP: i32 = 4;
pub const GMB_EVENT_UNTIMED: i32 = 0;
pub const GMB_EVENT_TIMED: i32 = 1;
pub const GMB_EVENT_CAPTURE: i32 = 2;
pub const GMB_CAPTURE_GLOBAL: i32 = 0;
pub const GMB_CAPTURE_THREAD_LOCAL: i32 = 1;
pub const GMB_CAPTURE_RELAXED: i32 = 2;
pub const GMB_LOG_ERROR: i32 = 1;
pub const GMB_LOG_WARNING: i32 = 2;
pub const GMB_LOG_INFO: i32 = 3;
pub const GMB_ARBITRATION_CPU: i32 = 0;
pub const GMB_ARBITRATION_DEVICE: i32 = 1;
pub const GMB_STAGE_UPLOAD: i32 = 0;
pub const GMB_STAGE_KERNEL: i32 = 1;
pub const GMB_STAGE_CALLBACK: i32 = 2;
pub const GMB_STAGE_DOWNLOAD: i32 = 3;
pub const GMB_STAGE_PUSH: i32 = 4;
pub const GMB_STAGE_POP: i32 = 5;
pub const GMB_STAGE_ARGUMENT_BYTES: i32 = -1;
pub const GMB_STAGE_ARGUMENT_ITERATION: i32 = -2;
pub const GMB_STAGE_ARGUMENT_INPUT: i32 = 0;
pub const GMB_STAGE_ARGUMENT_OUTPUT: i32 = 1024;
pub const GMB_READER_NEXT: i32 = 0;
pub const GMB_READER_OLDEST: i32 = 1;
pub const GMB_INTEREST_READABLE: i32 = 0;
pub const GMB_INTEREST_WRITABLE: i32 = 1;
pub const GMB_PRIORITY_NORMAL: i32 = 0;
pub const GMB_PRIORITY_FOCUS: i32 = 1;
pub const GMB_PRIORITY_PERIPHERAL: i32 = 2;
pub const GMB_CONSUMER_HOST: i32 = 0;
pub const GMB_CONSUMER_DEVICE: i32 = 1;
pub const GMB_STEP_UPLOAD: i32 = 0;
pub const GMB_STEP_PROCESS: i32 = 1;
pub const GMB_STEP_DOWNLOAD: i32 = 2;
pub const GMB_BUFFER_FREE: i32 = 0;
pub const GMB_BUFFER_UPLOADING: i32 = 1;
pub const GMB_BUFFER_PROCESSING: i32 = 2;
pub const GMB_BUFFER_DOWNLOADING: i32 = 3;
pub const GMB_WORKER_STATE_READY: i32 = 0;
pub const GMB_WORKER_STATE_RUNNING: i32 = 1;
pub const GMB_WORKER_STATE_PAUSED: i32 = 2;
pub const GMB_WORKER_STATE_ENDED: i32 = 3;
pub const GMB_FULL_REJECT: i32 = 0;
pub const GMB_FULL_WAIT: i32 = 1;
pub const GMB_FULL_OVERWRITE_OLDEST: i32 = 2;
pub const GMB_FULL_LATEST: i32 = 3;
pub const GMB_MODE_ORDERED: i32 = 0;
pub const GMB_MODE_SHARED: i32 = 1;
pub const GMB_MODE_EXPRESS: i32 = 2;
pub const GMB_WORKER_RUNNING: i32 = 0;
pub const GMB_WORKER_STOPPED: i32 = 1;
pub const GMB_WORKER_IDLE: i32 = 2;
pub const GMB_WORKER_ITERATIONS: i32 = 3;
pub const GMB_WORKER_WRONG_ITEMS: i32 = 4;
pub const GMB_WORKER_FAILED: i32 = 5;
pub const GMB_WORKER_SMALL_SPAWN: i32 = 6;
pub const GMB_WORKER_SPOILT_DOORBELL: i32 = 7;
pub const GMB_OK: i32 = 0;
pub const GMB_NOT_READY: i32 = 1;
pub const GMB_ERROR_INVALID_HANDLE: i32 = -1;
pub const GMB_ERROR_NULL_POINTER: i32 = -2;
pub const GMB_ERROR_INVALID_ARGUMENT: i32 = -3;
pub const GMB_ERROR_MISALIGNED: i32 = -4;
pub const GMB_ERROR_OVERLAP: i32 = -5;
pub const GMB_ERROR_OVERFLOW: i32 = -6;
pub const GMB_ERROR_STRUCT_SIZE: i32 = -7;
pub const GMB_ERROR_NOT_SUPPORTED: i32 = -8;
pub const GMB_ERROR_BUSY: i32 = -9;
pub const GMB_ERROR_TIMEOUT: i32 = -10;
pub const GMB_ERROR_BAD_LENGTH: i32 = -11;
pub const GMB_ERROR_BAD_MAGIC: i32 = -12;
pub const GMB_ERROR_BAD_VERSION: i32 = -13;
pub const GMB_ERROR_ORDER_VIOLATION: i32 = -14;
pub const GMB_ERROR_CORRUPT: i32 = -15;
pub const GMB_ERROR_OUT_OF_MEMORY: i32 = -16;
pub const GMB_ERROR_OUT_OF_HOST_MEMORY: i32 = -17;
pub const GMB_ERROR_NO_DRIVER: i32 = -18;
pub const GMB_ERROR_NO_DEVICE: i32 = -19;
pub const GMB_ERROR_STUB_DRIVER: i32 = -20;
pub const GMB_ERROR_DRIVER_TOO_OLD: i32 = -21;
pub const GMB_ERROR_NO_KERNELS: i32 = -22;
pub const GMB_ERROR_INVALID_DEVICE: i32 = -23;
pub const GMB_ERROR_INVALID_STREAM: i32 = -24;
pub const GMB_ERROR_DEVICE_LOST: i32 = -25;
pub const GMB_ERROR_DRIVER: i32 = -26;
pub const GMB_ERROR_FORKED: i32 = -27;
pub const GMB_ERROR_PANIC: i32 = -28;
pub const GMB_ERROR_ZERO_COUNT: i32 = -29;
pub const GMB_ERROR_SYSTEM: i32 = -30;
pub const GMB_ERROR_MEMORY_LIMIT: i32 = -31;
pub const GMB_ERROR_WRONG_THREAD: i32 = -32;
pub const GMB_ERROR_TRUNCATED: i32 = -33;
pub const GMB_ERROR_CAPTURE: i32 = -34;
pub const GMB_ERROR_FULL: i32 = -35;
pub const GMB_ERROR_WRONG_MODE: i32 = -36;
pub const GMB_ERROR_NOT_SERVED: i32 = -37;
pub const GMB_ERROR_CANCELLED: i32 = -38;
pub const GMB_ERROR_UNAVAILABLE: i32 = -39;
pub const GMB_ERROR_WRONG_STATE: i32 = -40;
pub const GMB_ERROR_NOT_FOUND: i32 = -41;
pub const GMB_ERROR_WRONG_TYPE: i32 = -42;
pub const GMB_ERROR_CYCLE: i32 = -43;
pub const GMB_ERROR_CALLBACK: i32 = -44;
pub const GMB_WAIT_FOREVER: u64 = u64::MAX;
pub const GMB_STREAM_CURRENT: usize = usize::MAX;

pub type gmb_status = i32;
pub type gmb_class = i32;
pub type gmb_backend = i32;
pub type gmb_priority = i32;
pub type gmb_step = i32;
pub type gmb_operation_kind = i32;
pub type gmb_event_kind = i32;
pub type gmb_capture_mode = i32;
pub type gmb_log_level = i32;
pub type gmb_arbitration = i32;
pub type gmb_full_policy = i32;
pub type gmb_mode = i32;
pub type gmb_stage_kind = i32;
pub type gmb_stage_argument = i32;
pub type gmb_reader_start = i32;
pub type gmb_interest = i32;
pub type gmb_consumer = i32;
pub type gmb_buffer_state = i32;
pub type gmb_worker_reason = i32;
pub type gmb_worker_state = i32;
pub type gmb_stream = *mut c_void;

pub type gmb_enqueue_function = Option<unsafe extern "C" fn(stream: gmb_stream, address: *mut c_void, user: *mut c_void) -> gmb_status>;
pub type gmb_block_function = Option<unsafe extern "C" fn(block: *const gmb_kernel_block, arguments: *mut *const c_void)>;
pub type gmb_stage_function = Option<unsafe extern "C" fn(call: *const gmb_stage_call, user: *mut c_void) -> gmb_status>;
pub type gmb_host_function = Option<unsafe extern "C" fn(argument: *mut c_void)>;

#[repr(C)]
#[derive(Clone, Copy)]
pub struct gmb_context {
    pub id: u64,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct gmb_mailbox {
    pub id: u64,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct gmb_arbitrated {
    pub mailbox: gmb_mailbox,
    pub reader: u32,
    pub priority_class: gmb_class,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct gmb_arbiter_options {
    pub struct_size: u32,
    pub count: u32,
    pub mailboxes: *const gmb_arbitrated,
    pub slice_ns: u64,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct gmb_arbiter {
    pub id: u64,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct gmb_arbiter_header {
    pub magic: u64,
    pub version: u32,
    pub count: u32,
    pub focus: u32,
    pub reserved: u32,
    pub turns: u64,
    pub processor: u64,
    pub pad: [u64; 11],
    pub ready: [u32; 32],
    pub place: [u16; 1024],
    pub number: [u16; 1024],
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct gmb_arbiter_info {
    pub mailboxes: u32,
    pub focus: u32,
    pub slices: u64,
    pub heartbeat: u64,
    pub arbiter: *mut gmb_arbiter_header,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct gmb_borrow {
    pub id: u64,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct gmb_result {
    pub epoch: u32,
    pub count: u32,
    pub status: i32,
    pub flags: u32,
    pub lost: u64,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct gmb_spans {
    pub first: u64,
    pub records: [*const c_void; 2],
    pub count: [u32; 2],
    pub stride: u32,
    pub reserved: u32,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct gmb_context_options {
    pub struct_size: u32,
    pub backend: gmb_backend,
    pub device: u32,
    pub resident_percent: u32,
    pub memory_limit: u64,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct gmb_context_info {
    pub backend: gmb_backend,
    pub device: u32,
    pub multiprocessors: u32,
    pub driver_version: u32,
    pub name: [c_char; 128],
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct gmb_coordinator_options {
    pub struct_size: u32,
    pub max_operations: u32,
    pub priority: gmb_priority,
    pub flags: u32,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct gmb_coordinator {
    pub id: u64,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct gmb_coordinator_info {
    pub queued: u64,
    pub in_flight: u64,
    pub high_water: u64,
    pub events: u64,
    pub max_operations: u32,
    pub reserved: u32,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct gmb_operation {
    pub id: u64,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct gmb_triple_buffer {
    pub id: u64,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct gmb_dtype {
    pub code: u8,
    pub bits: u8,
    pub lanes: u16,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct gmb_kernel {
    pub id: u64,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct gmb_argument {
    pub value: *const c_void,
    pub bytes: u64,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct gmb_launch {
    pub struct_size: u32,
    pub shared_bytes: u32,
    pub grid: [u32; 3],
    pub block: [u32; 3],
    pub argument_count: u32,
    pub reserved: u32,
    pub arguments: *const gmb_argument,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct gmb_compute {
    pub struct_size: u32,
    pub reserved: u32,
    pub kernel: gmb_kernel,
    pub launch: *const gmb_launch,
    pub callback: gmb_enqueue_function,
    pub user: *mut c_void,
    pub triple: gmb_triple_buffer,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct gmb_push {
    pub struct_size: u32,
    pub count: u32,
    pub records: *const c_void,
    pub stride: u64,
    pub lengths: *const u32,
    pub types: *const u32,
    pub length: u32,
    pub msg_type: u32,
    pub timeout_ns: u64,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct gmb_record_header {
    pub sequence: u64,
    pub length: u32,
    pub msg_type: u32,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct gmb_pop {
    pub struct_size: u32,
    pub max: u32,
    pub records: *mut c_void,
    pub stride: u64,
    pub headers: *mut gmb_record_header,
    pub reader: u32,
    pub reserved: u32,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct gmb_completion {
    pub operation: gmb_operation,
    pub cause: gmb_operation,
    pub kind: gmb_operation_kind,
    pub status: gmb_status,
    pub count: u32,
    pub timed: u32,
    pub begin_us: f64,
    pub end_us: f64,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct gmb_doorbell_options {
    pub struct_size: u32,
    pub reserved: u32,
    pub capacity: u64,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct gmb_doorbell {
    pub id: u64,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct gmb_doorbell_header {
    pub magic: u64,
    pub version: u32,
    pub capacity: u32,
    pub commands: *const u64,
    pub answers: *mut u64,
    pub taken: u64,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct gmb_doorbell_info {
    pub capacity: u64,
    pub submitted: u64,
    pub outstanding: u64,
    pub doorbell: *mut gmb_doorbell_header,
    pub served: u32,
    pub reserved: u32,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct gmb_command {
    pub code: u32,
    pub flags: u32,
    pub argument: [u64; 3],
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct gmb_command_id {
    pub id: u64,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct gmb_answer {
    pub status: i32,
    pub flags: u32,
    pub value: [u64; 3],
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct gmb_watch {
    pub id: u64,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct gmb_event {
    pub id: u64,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct gmb_event_pool_info {
    pub size: u64,
    pub in_use: u64,
    pub high_water: u64,
    pub pending: u64,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct gmb_fifo_options {
    pub struct_size: u32,
    pub reserved: u32,
    pub capacity: u64,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct gmb_fifo {
    pub id: u64,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct gmb_fifo_header {
    pub magic: u64,
    pub version: u32,
    pub capacity: u32,
    pub records: *mut u64,
    pub drained: *const u64,
    pub pad0: [u64; 124],
    pub space: u64,
    pub known: u64,
    pub pad1: [u64; 126],
    pub tail: u64,
    pub pad2: [u64; 127],
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct gmb_fifo_info {
    pub capacity: u64,
    pub drained: u64,
    pub fifo: *mut gmb_fifo_header,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct gmb_fifo_record {
    pub word: [u64; 2],
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct gmb_token {
    pub id: u64,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct gmb_graph {
    pub id: u64,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct gmb_stream_guard {
    pub id: u64,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct gmb_mailbox_options {
    pub struct_size: u32,
    pub payload_bytes: u32,
    pub capacity: u64,
    pub arbitration: gmb_arbitration,
    pub full_policy: gmb_full_policy,
    pub producer_id: u32,
    pub consumer_id: u32,
    pub initial_index: u64,
    pub flags: u32,
    pub readers: u32,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct gmb_mailbox_info {
    pub capacity: u64,
    pub payload_bytes: u32,
    pub slot_stride: u32,
    pub ring: *mut c_void,
    pub ring_bytes: u64,
    pub published: u64,
    pub released: u64,
    pub rejected: u64,
    pub empty_pops: u64,
    pub high_water: u64,
    pub reader_mask: u32,
    pub full_policy: gmb_full_policy,
    pub fault: gmb_status,
    pub mode: gmb_mode,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct gmb_memory_info {
    pub limit: u64,
    pub used: u64,
    pub high_water: u64,
    pub reserved: u64,
    pub allocations: u64,
    pub pooled: u32,
    pub reserved0: u32,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct gmb_module {
    pub id: u64,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct gmb_kernel_block {
    pub grid: [u32; 3],
    pub block: [u32; 3],
    pub index: [u32; 3],
    pub shared_bytes: u32,
    pub shared: *mut c_void,
    pub user: *mut c_void,
    pub argument_bytes: *const u64,
    pub argument_count: u32,
    pub reserved: u32,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct gmb_kernel_info {
    pub most_threads: u32,
    pub most_shared_bytes: u32,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct gmb_pipeline_options {
    pub struct_size: u32,
    pub copies: u32,
    pub most_in_flight: u32,
    pub priority: gmb_priority,
    pub flags: u32,
    pub reserved: u32,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct gmb_pipeline {
    pub id: u64,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct gmb_stage_call {
    pub stream: gmb_stream,
    pub iteration: u64,
    pub inputs: *mut *const c_void,
    pub outputs: *mut *const c_void,
    pub input_count: u32,
    pub output_count: u32,
    pub captured: u32,
    pub reserved: u32,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct gmb_stage {
    pub struct_size: u32,
    pub kind: gmb_stage_kind,
    pub name: *const c_char,
    pub step: gmb_step,
    pub input_count: u32,
    pub inputs: *const u32,
    pub outputs: *const u32,
    pub output_count: u32,
    pub reserved: u32,
    pub host: *mut c_void,
    pub host_stride: u64,
    pub host_count: u64,
    pub bytes: u64,
    pub kernel: gmb_kernel,
    pub launch: *const gmb_launch,
    pub arguments: *const gmb_stage_argument,
    pub callback: gmb_stage_function,
    pub user: *mut c_void,
    pub mailbox: gmb_mailbox,
    pub push: *const gmb_push,
    pub pop: *const gmb_pop,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct gmb_pipeline_statistics {
    pub iterations: u64,
    pub mean_iteration_ms: f64,
    pub iterations_per_second: f64,
    pub utilisation: f64,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct gmb_stage_statistics {
    pub runs: u64,
    pub mean_us: f64,
    pub longest_us: f64,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct gmb_attach_options {
    pub struct_size: u32,
    pub arbitration: gmb_arbitration,
    pub flags: u32,
    pub reserved: u32,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct gmb_queue_options {
    pub struct_size: u32,
    pub item_bytes: u32,
    pub capacity: u64,
    pub block_threads: u32,
    pub max_blocks: u32,
    pub reserved: u64,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct gmb_queue {
    pub id: u64,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct gmb_queue_header {
    pub magic: u64,
    pub version: u32,
    pub item_bytes: u32,
    pub capacity: u64,
    pub pad0: [u64; 125],
    pub space: u64,
    pub pad1: [u64; 127],
    pub items: u64,
    pub pad2: [u64; 127],
    pub tail: u64,
    pub pad3: [u64; 127],
    pub head: u64,
    pub pad4: [u64; 127],
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct gmb_queue_info {
    pub capacity: u64,
    pub item_bytes: u32,
    pub workers: u32,
    pub size: u64,
    pub pushed: u64,
    pub popped: u64,
    pub queue: *mut gmb_queue_header,
    pub queue_bytes: u64,
    pub block_threads: u32,
    pub max_blocks: u32,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct gmb_queue_measurement {
    pub items: u64,
    pub seconds: f64,
    pub items_per_second: f64,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct gmb_reader_info {
    pub released: u64,
    pub unread: u64,
    pub lost: u64,
    pub empty_pops: u64,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct gmb_task_after {
    pub operation: gmb_operation,
    pub task: u32,
    pub reserved: u32,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct gmb_task {
    pub struct_size: u32,
    pub kind: gmb_operation_kind,
    pub to: *mut c_void,
    pub from: *const c_void,
    pub bytes: u64,
    pub triple: gmb_triple_buffer,
    pub dtype: gmb_dtype,
    pub step: gmb_step,
    pub compute: *const gmb_compute,
    pub mailbox: gmb_mailbox,
    pub push: *const gmb_push,
    pub pop: *const gmb_pop,
    pub after: *const gmb_task_after,
    pub after_count: u32,
    pub reserved: u32,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct gmb_tensor_mailbox_options {
    pub struct_size: u32,
    pub consumer: gmb_consumer,
    pub capacity: u64,
    pub full_policy: gmb_full_policy,
    pub reserved: u32,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct gmb_tensor_mailbox {
    pub id: u64,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct gmb_tensor_mailbox_info {
    pub capacity: u64,
    pub consumer: gmb_consumer,
    pub full_policy: gmb_full_policy,
    pub pushed: u64,
    pub popped: u64,
    pub refused: u64,
    pub dropped: u64,
    pub queued: u64,
    pub leases: u64,
    pub retiring: u64,
    pub released: u64,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct gmb_tensor_push {
    pub struct_size: u32,
    pub flags: u32,
    pub tag: u64,
    pub timeout_ns: u64,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct gmb_lease {
    pub id: u64,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct gmb_tensor {
    pub address: u64,
    pub byte_offset: u64,
    pub tag: u64,
    pub device_type: i32,
    pub device_id: i32,
    pub dtype: gmb_dtype,
    pub ndim: i32,
    pub flags: u64,
    pub shape: [i64; 8],
    pub strides: [i64; 8],
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct gmb_triple_buffer_options {
    pub struct_size: u32,
    pub dtype: gmb_dtype,
    pub elements: u64,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct gmb_triple_buffer_info {
    pub elements: u64,
    pub bytes: u64,
    pub addresses: [*mut c_void; 3],
    pub states: [gmb_buffer_state; 3],
    pub dtype: gmb_dtype,
    pub completed: u64,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct gmb_triple_slot {
    pub address: *mut c_void,
    pub bytes: u64,
    pub turn: u64,
    pub index: u32,
    pub step: gmb_step,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct gmb_worker_options {
    pub struct_size: u32,
    pub block_threads: u32,
    pub active: gmb_queue,
    pub finished: gmb_queue,
    pub spawn: gmb_queue,
    pub max_iterations: u64,
    pub idle_threshold: u64,
    pub spawn_interval: u64,
    pub increment: u64,
    pub grid_blocks: u32,
    pub reserved: u32,
    pub slice_ns: u64,
    pub watchdog_ns: u64,
    pub function: *const c_void,
    pub user: *mut c_void,
    pub doorbell: gmb_doorbell,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct gmb_worker {
    pub id: u64,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct gmb_worker_result {
    pub reason: gmb_worker_reason,
    pub reserved: u32,
    pub processed: u64,
    pub finished: u64,
    pub spawned: u64,
    pub idle_polls: u64,
    pub rejected: u64,
    pub returned: u64,
    pub iterations: u64,
    pub slices: u64,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct gmb_worker_info {
    pub state: gmb_worker_state,
    pub stalled_blocks: u32,
    pub grid_blocks: u32,
    pub block_threads: u32,
    pub most_blocks: u32,
    pub reserved: u32,
    pub heartbeat: u64,
    pub result: gmb_worker_result,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct gmb_worker_block {
    pub iterations: u64,
    pub idle: u64,
    pub processed: u64,
    pub finished: u64,
    pub spawned: u64,
    pub idle_polls: u64,
    pub rejected: u64,
    pub returned: u64,
    pub reason: gmb_worker_reason,
    pub reserved: i32,
    pub pad: [u64; 7],
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct gmb_worker_args {
    pub active: *mut gmb_queue_header,
    pub finished: *mut gmb_queue_header,
    pub spawn: *mut gmb_queue_header,
    pub blocks: *mut gmb_worker_block,
    pub command: *const u64,
    pub told: *mut u64,
    pub left: *mut u64,
    pub doorbell: *mut gmb_doorbell_header,
    pub beats: *mut u64,
    pub user: *mut c_void,
    pub max_iterations: u64,
    pub idle_threshold: u64,
    pub slice_ns: u64,
    pub increment: u64,
    pub spawn_interval: u64,
    pub item_bytes: u32,
    pub reserved: u32,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct gmb_arbiter_entry {
    pub published: *const u64,
    pub claimed: *const u64,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct gmb_arbiter_args {
    pub arbiter: *mut gmb_arbiter_header,
    pub entries: *const gmb_arbiter_entry,
    pub command: *const u64,
    pub told: *mut u64,
    pub beat: *mut u64,
    pub slice_ns: u64,
}

unsafe extern "C" {
    pub fn gmb_arbiter_create(context: gmb_context, options: *const gmb_arbiter_options, arbiter: *mut gmb_arbiter) -> gmb_status;
    pub fn gmb_arbiter_destroy(arbiter: gmb_arbiter) -> gmb_status;
    pub fn gmb_arbiter_get_info(arbiter: gmb_arbiter, info: *mut gmb_arbiter_info, info_size: usize) -> gmb_status;
    pub fn gmb_mailbox_borrow(mailbox: gmb_mailbox, reader: u32, max: u32, stream: gmb_stream, borrow: *mut gmb_borrow) -> gmb_status;
    pub fn gmb_borrow_poll(borrow: gmb_borrow, result: *mut gmb_result, spans: *mut gmb_spans) -> gmb_status;
    pub fn gmb_borrow_wait(borrow: gmb_borrow, timeout_ns: u64, result: *mut gmb_result, spans: *mut gmb_spans) -> gmb_status;
    pub fn gmb_borrow_get_device_spans(borrow: gmb_borrow, spans: *mut *const gmb_spans) -> gmb_status;
    pub fn gmb_borrow_release(borrow: gmb_borrow, stream: gmb_stream) -> gmb_status;
    pub fn gmb_context_create(options: *const gmb_context_options, context: *mut gmb_context) -> gmb_status;
    pub fn gmb_context_destroy(context: gmb_context) -> gmb_status;
    pub fn gmb_context_get_info(context: gmb_context, info: *mut gmb_context_info, info_size: usize) -> gmb_status;
    pub fn gmb_coordinator_create(context: gmb_context, options: *const gmb_coordinator_options, coordinator: *mut gmb_coordinator) -> gmb_status;
    pub fn gmb_coordinator_destroy(coordinator: gmb_coordinator) -> gmb_status;
    pub fn gmb_coordinator_get_info(coordinator: gmb_coordinator, info: *mut gmb_coordinator_info, info_size: usize) -> gmb_status;
    pub fn gmb_coordinator_get_stream(coordinator: gmb_coordinator, step: gmb_step, stream: *mut gmb_stream) -> gmb_status;
    pub fn gmb_coordinator_queue_upload(coordinator: gmb_coordinator, to: *mut c_void, from: *const c_void, bytes: u64, after: *const gmb_operation, after_count: u32, operation: *mut gmb_operation) -> gmb_status;
    pub fn gmb_coordinator_queue_download(coordinator: gmb_coordinator, to: *mut c_void, from: *const c_void, bytes: u64, after: *const gmb_operation, after_count: u32, operation: *mut gmb_operation) -> gmb_status;
    pub fn gmb_coordinator_queue_triple_upload(coordinator: gmb_coordinator, triple: gmb_triple_buffer, dtype: gmb_dtype, from: *const c_void, bytes: u64, after: *const gmb_operation, after_count: u32, operation: *mut gmb_operation) -> gmb_status;
    pub fn gmb_coordinator_queue_triple_download(coordinator: gmb_coordinator, triple: gmb_triple_buffer, dtype: gmb_dtype, to: *mut c_void, bytes: u64, after: *const gmb_operation, after_count: u32, operation: *mut gmb_operation) -> gmb_status;
    pub fn gmb_coordinator_queue_compute(coordinator: gmb_coordinator, compute: *const gmb_compute, after: *const gmb_operation, after_count: u32, operation: *mut gmb_operation) -> gmb_status;
    pub fn gmb_coordinator_queue_push(coordinator: gmb_coordinator, mailbox: gmb_mailbox, push: *const gmb_push, step: gmb_step, after: *const gmb_operation, after_count: u32, operation: *mut gmb_operation) -> gmb_status;
    pub fn gmb_coordinator_queue_pop(coordinator: gmb_coordinator, mailbox: gmb_mailbox, pop: *const gmb_pop, step: gmb_step, after: *const gmb_operation, after_count: u32, operation: *mut gmb_operation) -> gmb_status;
    pub fn gmb_coordinator_poll(coordinator: gmb_coordinator, max: u32, completions: *mut gmb_completion, count: *mut u32) -> gmb_status;
    pub fn gmb_coordinator_wait(coordinator: gmb_coordinator, operation: gmb_operation, timeout_ns: u64, completion: *mut gmb_completion) -> gmb_status;
    pub fn gmb_coordinator_synchronize(coordinator: gmb_coordinator, timeout_ns: u64) -> gmb_status;
    pub fn gmb_doorbell_create(context: gmb_context, options: *const gmb_doorbell_options, doorbell: *mut gmb_doorbell) -> gmb_status;
    pub fn gmb_doorbell_destroy(doorbell: gmb_doorbell) -> gmb_status;
    pub fn gmb_doorbell_get_info(doorbell: gmb_doorbell, info: *mut gmb_doorbell_info, info_size: usize) -> gmb_status;
    pub fn gmb_doorbell_submit(doorbell: gmb_doorbell, command: *const gmb_command, timeout_ns: u64, id: *mut gmb_command_id) -> gmb_status;
    pub fn gmb_doorbell_wait(doorbell: gmb_doorbell, id: gmb_command_id, timeout_ns: u64, answer: *mut gmb_answer) -> gmb_status;
    pub fn gmb_doorbell_call(doorbell: gmb_doorbell, command: *const gmb_command, timeout_ns: u64, answer: *mut gmb_answer) -> gmb_status;
    pub fn gmb_doorbell_cancel(doorbell: gmb_doorbell, id: gmb_command_id) -> gmb_status;
    pub fn gmb_doorbell_forget(doorbell: gmb_doorbell, id: gmb_command_id) -> gmb_status;
    pub fn gmb_doorbell_create_watch(doorbell: gmb_doorbell, watch: *mut gmb_watch) -> gmb_status;
    pub fn gmb_event_create(context: gmb_context, kind: gmb_event_kind, event: *mut gmb_event) -> gmb_status;
    pub fn gmb_event_destroy(event: gmb_event) -> gmb_status;
    pub fn gmb_event_record(event: gmb_event, stream: gmb_stream) -> gmb_status;
    pub fn gmb_event_query(event: gmb_event) -> gmb_status;
    pub fn gmb_event_synchronize(event: gmb_event, timeout_ns: u64) -> gmb_status;
    pub fn gmb_event_elapsed_ms(start: gmb_event, end: gmb_event, milliseconds: *mut f64) -> gmb_status;
    pub fn gmb_event_pool_get_info(context: gmb_context, kind: gmb_event_kind, info: *mut gmb_event_pool_info, info_size: usize) -> gmb_status;
    pub fn gmb_fifo_create(context: gmb_context, options: *const gmb_fifo_options, fifo: *mut gmb_fifo) -> gmb_status;
    pub fn gmb_fifo_destroy(fifo: gmb_fifo) -> gmb_status;
    pub fn gmb_fifo_get_info(fifo: gmb_fifo, info: *mut gmb_fifo_info, info_size: usize) -> gmb_status;
    pub fn gmb_fifo_push(fifo: gmb_fifo, records: *const gmb_fifo_record, count: u32, stream: gmb_stream, token: gmb_token) -> gmb_status;
    pub fn gmb_fifo_pop_to_host(fifo: gmb_fifo, records: *mut gmb_fifo_record, max: u32, timeout_ns: u64, popped: *mut u64) -> gmb_status;
    pub fn gmb_fifo_create_watch(fifo: gmb_fifo, watch: *mut gmb_watch) -> gmb_status;
    pub fn gmb_stream_begin_capture(context: gmb_context, stream: gmb_stream, mode: gmb_capture_mode) -> gmb_status;
    pub fn gmb_stream_is_capturing(context: gmb_context, stream: gmb_stream, capturing: *mut i32) -> gmb_status;
    pub fn gmb_stream_end_capture(context: gmb_context, stream: gmb_stream, graph: *mut gmb_graph) -> gmb_status;
    pub fn gmb_graph_launch(graph: gmb_graph, stream: gmb_stream) -> gmb_status;
    pub fn gmb_graph_destroy(graph: gmb_graph) -> gmb_status;
    pub fn gmb_stream_guard_create(context: gmb_context, stream: gmb_stream, guard: *mut gmb_stream_guard) -> gmb_status;
    pub fn gmb_stream_guard_destroy(guard: gmb_stream_guard) -> gmb_status;
    pub fn gmb_mailbox_push_from_host_blocking(mailbox: gmb_mailbox, count: u32, records: *const c_void, stride: u64, lengths: *const u32, types: *const u32, timeout_ns: u64, result: *mut gmb_result) -> gmb_status;
    pub fn gmb_mailbox_pop_to_host_blocking(mailbox: gmb_mailbox, reader: u32, max: u32, records: *mut c_void, stride: u64, headers: *mut gmb_record_header, result: *mut gmb_result) -> gmb_status;
    pub fn gmb_mailbox_create(context: gmb_context, options: *const gmb_mailbox_options, mailbox: *mut gmb_mailbox) -> gmb_status;
    pub fn gmb_mailbox_destroy(mailbox: gmb_mailbox) -> gmb_status;
    pub fn gmb_mailbox_get_info(mailbox: gmb_mailbox, info: *mut gmb_mailbox_info, info_size: usize) -> gmb_status;
    pub fn gmb_mailbox_push(mailbox: gmb_mailbox, push: *const gmb_push, stream: gmb_stream, token: gmb_token) -> gmb_status;
    pub fn gmb_mailbox_pop(mailbox: gmb_mailbox, pop: *const gmb_pop, stream: gmb_stream, token: gmb_token) -> gmb_status;
    pub fn gmb_memory_allocate(context: gmb_context, bytes: u64, memory: *mut *mut c_void) -> gmb_status;
    pub fn gmb_memory_allocate_async(context: gmb_context, bytes: u64, stream: gmb_stream, memory: *mut *mut c_void) -> gmb_status;
    pub fn gmb_memory_free_async(context: gmb_context, memory: *mut c_void, stream: gmb_stream) -> gmb_status;
    pub fn gmb_memory_free(context: gmb_context, memory: *mut c_void) -> gmb_status;
    pub fn gmb_pinned_allocate(context: gmb_context, bytes: u64, memory: *mut *mut c_void) -> gmb_status;
    pub fn gmb_pinned_free(context: gmb_context, memory: *mut c_void) -> gmb_status;
    pub fn gmb_memory_copy(context: gmb_context, to: *mut c_void, from: *const c_void, bytes: u64, stream: gmb_stream) -> gmb_status;
    pub fn gmb_memory_fill(context: gmb_context, memory: *mut c_void, value: u8, bytes: u64, stream: gmb_stream) -> gmb_status;
    pub fn gmb_memory_get_info(context: gmb_context, info: *mut gmb_memory_info, info_size: usize) -> gmb_status;
    pub fn gmb_memory_trim(context: gmb_context, keep_bytes: u64) -> gmb_status;
    pub fn gmb_module_create(context: gmb_context, image: *const c_void, image_bytes: usize, module: *mut gmb_module) -> gmb_status;
    pub fn gmb_module_load_file(context: gmb_context, path: *const c_char, module: *mut gmb_module) -> gmb_status;
    pub fn gmb_module_destroy(module: gmb_module) -> gmb_status;
    pub fn gmb_module_register(module: gmb_module, name: *const c_char, function: gmb_block_function, user: *mut c_void) -> gmb_status;
    pub fn gmb_module_get_kernel(module: gmb_module, name: *const c_char, kernel: *mut gmb_kernel) -> gmb_status;
    pub fn gmb_kernel_destroy(kernel: gmb_kernel) -> gmb_status;
    pub fn gmb_kernel_get_info(kernel: gmb_kernel, info: *mut gmb_kernel_info, info_size: usize) -> gmb_status;
    pub fn gmb_kernel_launch(kernel: gmb_kernel, launch: *const gmb_launch, stream: gmb_stream) -> gmb_status;
    pub fn gmb_pipeline_create(context: gmb_context, options: *const gmb_pipeline_options, pipeline: *mut gmb_pipeline) -> gmb_status;
    pub fn gmb_pipeline_destroy(pipeline: gmb_pipeline) -> gmb_status;
    pub fn gmb_pipeline_add_buffer(pipeline: gmb_pipeline, bytes: u64, buffer: *mut u32) -> gmb_status;
    pub fn gmb_pipeline_get_buffer(pipeline: gmb_pipeline, buffer: u32, copy: u32, address: *mut *mut c_void) -> gmb_status;
    pub fn gmb_pipeline_add_stage(pipeline: gmb_pipeline, stage: *const gmb_stage) -> gmb_status;
    pub fn gmb_pipeline_set_order(pipeline: gmb_pipeline, names: *mut *const c_char, count: u32) -> gmb_status;
    pub fn gmb_pipeline_execute(pipeline: gmb_pipeline, iterations: u64, first: *mut u64) -> gmb_status;
    pub fn gmb_pipeline_capture(pipeline: gmb_pipeline, iterations: u32) -> gmb_status;
    pub fn gmb_pipeline_wait(pipeline: gmb_pipeline, iteration: u64, timeout_ns: u64) -> gmb_status;
    pub fn gmb_pipeline_synchronize(pipeline: gmb_pipeline, timeout_ns: u64) -> gmb_status;
    pub fn gmb_pipeline_get_stream(pipeline: gmb_pipeline, step: gmb_step, stream: *mut gmb_stream) -> gmb_status;
    pub fn gmb_pipeline_get_statistics(pipeline: gmb_pipeline, info: *mut gmb_pipeline_statistics, info_size: usize) -> gmb_status;
    pub fn gmb_pipeline_get_stage_statistics(pipeline: gmb_pipeline, name: *const c_char, info: *mut gmb_stage_statistics, info_size: usize) -> gmb_status;
    pub fn gmb_pipeline_reset_statistics(pipeline: gmb_pipeline) -> gmb_status;
    pub fn gmb_pipeline_get_timeline(pipeline: gmb_pipeline, buffer: *mut c_char, buffer_size: usize, needed: *mut usize) -> gmb_status;
    pub fn gmb_mailbox_get_required_bytes(options: *const gmb_mailbox_options, bytes: *mut u64) -> gmb_status;
    pub fn gmb_mailbox_create_in(context: gmb_context, options: *const gmb_mailbox_options, memory: *mut c_void, memory_bytes: u64, mailbox: *mut gmb_mailbox) -> gmb_status;
    pub fn gmb_mailbox_attach(context: gmb_context, memory: *mut c_void, memory_bytes: u64, options: *const gmb_attach_options, mailbox: *mut gmb_mailbox) -> gmb_status;
    pub fn gmb_queue_create(context: gmb_context, options: *const gmb_queue_options, queue: *mut gmb_queue) -> gmb_status;
    pub fn gmb_queue_destroy(queue: gmb_queue) -> gmb_status;
    pub fn gmb_queue_get_info(queue: gmb_queue, info: *mut gmb_queue_info, info_size: usize) -> gmb_status;
    pub fn gmb_queue_push(queue: gmb_queue, items: *const c_void, count: u32, stream: gmb_stream, token: gmb_token) -> gmb_status;
    pub fn gmb_queue_pop(queue: gmb_queue, items: *mut c_void, max: u32, stream: gmb_stream, token: gmb_token) -> gmb_status;
    pub fn gmb_queue_push_from_host_blocking(queue: gmb_queue, items: *const c_void, count: u32, pushed: *mut u64) -> gmb_status;
    pub fn gmb_queue_pop_to_host_blocking(queue: gmb_queue, items: *mut c_void, max: u32, popped: *mut u64) -> gmb_status;
    pub fn gmb_queue_measure(queue: gmb_queue, batch: u32, iterations: u32, measurement: *mut gmb_queue_measurement) -> gmb_status;
    pub fn gmb_mailbox_add_reader(mailbox: gmb_mailbox, start: gmb_reader_start, stream: gmb_stream, reader: *mut u32) -> gmb_status;
    pub fn gmb_mailbox_remove_reader(mailbox: gmb_mailbox, reader: u32, stream: gmb_stream) -> gmb_status;
    pub fn gmb_mailbox_get_reader_info(mailbox: gmb_mailbox, reader: u32, info: *mut gmb_reader_info, info_size: usize) -> gmb_status;
    pub fn gmb_mailbox_wait_readable(mailbox: gmb_mailbox, reader: u32, count: u32, timeout_ns: u64, ready: *mut u64) -> gmb_status;
    pub fn gmb_mailbox_wait_writable(mailbox: gmb_mailbox, count: u32, timeout_ns: u64, ready: *mut u64) -> gmb_status;
    pub fn gmb_watch_create(mailbox: gmb_mailbox, interest: gmb_interest, reader: u32, watch: *mut gmb_watch) -> gmb_status;
    pub fn gmb_watch_arm(watch: gmb_watch, count: u32) -> gmb_status;
    pub fn gmb_watch_get_fd(watch: gmb_watch, descriptor: *mut i32) -> gmb_status;
    pub fn gmb_watch_destroy(watch: gmb_watch) -> gmb_status;
    pub fn gmb_version() -> u32;
    pub fn gmb_version_string() -> *const c_char;
    pub fn gmb_status_string(status: gmb_status) -> *const c_char;
    pub fn gmb_status_name(status: gmb_status) -> *const c_char;
    pub fn gmb_last_error_message(buffer: *mut c_char, size: usize, needed: *mut usize) -> gmb_status;
    pub fn gmb_stream_create(context: gmb_context, priority: gmb_priority, stream: *mut gmb_stream) -> gmb_status;
    pub fn gmb_stream_get_priority(context: gmb_context, stream: gmb_stream, priority: *mut i32) -> gmb_status;
    pub fn gmb_stream_destroy(context: gmb_context, stream: gmb_stream) -> gmb_status;
    pub fn gmb_stream_query(context: gmb_context, stream: gmb_stream) -> gmb_status;
    pub fn gmb_stream_synchronize(context: gmb_context, stream: gmb_stream) -> gmb_status;
    pub fn gmb_stream_host_function(context: gmb_context, stream: gmb_stream, function: gmb_host_function, argument: *mut c_void) -> gmb_status;
    pub fn gmb_stream_wait_event(context: gmb_context, stream: gmb_stream, event: gmb_event) -> gmb_status;
    pub fn gmb_coordinator_queue_graph(coordinator: gmb_coordinator, tasks: *const gmb_task, count: u32, operations: *mut gmb_operation) -> gmb_status;
    pub fn gmb_tensor_mailbox_create(context: gmb_context, options: *const gmb_tensor_mailbox_options, mailbox: *mut gmb_tensor_mailbox) -> gmb_status;
    pub fn gmb_tensor_mailbox_destroy(mailbox: gmb_tensor_mailbox) -> gmb_status;
    pub fn gmb_tensor_mailbox_get_info(mailbox: gmb_tensor_mailbox, info: *mut gmb_tensor_mailbox_info, info_size: usize) -> gmb_status;
    pub fn gmb_tensor_mailbox_push(mailbox: gmb_tensor_mailbox, tensor: *mut c_void, push: *const gmb_tensor_push, stream: gmb_stream) -> gmb_status;
    pub fn gmb_tensor_mailbox_push_legacy(mailbox: gmb_tensor_mailbox, tensor: *mut c_void, push: *const gmb_tensor_push, stream: gmb_stream) -> gmb_status;
    pub fn gmb_tensor_mailbox_pop(mailbox: gmb_tensor_mailbox, stream: gmb_stream, timeout_ns: u64, lease: *mut gmb_lease, tensor: *mut gmb_tensor) -> gmb_status;
    pub fn gmb_tensor_mailbox_pop_dlpack(mailbox: gmb_tensor_mailbox, stream: gmb_stream, timeout_ns: u64, tensor: *mut *mut c_void) -> gmb_status;
    pub fn gmb_lease_use(lease: gmb_lease, stream: gmb_stream) -> gmb_status;
    pub fn gmb_lease_release(lease: gmb_lease) -> gmb_status;
    pub fn gmb_lease_to_dlpack(lease: gmb_lease, tensor: *mut *mut c_void) -> gmb_status;
    pub fn gmb_lease_to_dlpack_legacy(lease: gmb_lease, tensor: *mut *mut c_void) -> gmb_status;
    pub fn gmb_token_create(context: gmb_context, token: *mut gmb_token) -> gmb_status;
    pub fn gmb_token_destroy(token: gmb_token) -> gmb_status;
    pub fn gmb_token_poll(token: gmb_token, result: *mut gmb_result) -> gmb_status;
    pub fn gmb_token_wait(token: gmb_token, after_epoch: u64, timeout_ns: u64, result: *mut gmb_result) -> gmb_status;
    pub fn gmb_token_get_device_result(token: gmb_token, result: *mut *const gmb_result) -> gmb_status;
    pub fn gmb_triple_buffer_create(context: gmb_context, options: *const gmb_triple_buffer_options, triple: *mut gmb_triple_buffer) -> gmb_status;
    pub fn gmb_triple_buffer_destroy(triple: gmb_triple_buffer) -> gmb_status;
    pub fn gmb_triple_buffer_get_info(triple: gmb_triple_buffer, info: *mut gmb_triple_buffer_info, info_size: usize) -> gmb_status;
    pub fn gmb_triple_buffer_acquire(triple: gmb_triple_buffer, step: gmb_step, slot: *mut gmb_triple_slot) -> gmb_status;
    pub fn gmb_triple_buffer_acquire_on(triple: gmb_triple_buffer, step: gmb_step, stream: gmb_stream, slot: *mut gmb_triple_slot) -> gmb_status;
    pub fn gmb_triple_buffer_wait(triple: gmb_triple_buffer, step: gmb_step, timeout_ns: u64, slot: *mut gmb_triple_slot) -> gmb_status;
    pub fn gmb_triple_buffer_submit(triple: gmb_triple_buffer, slot: *const gmb_triple_slot, stream: gmb_stream) -> gmb_status;
    pub fn gmb_triple_buffer_give_up(triple: gmb_triple_buffer, slot: *const gmb_triple_slot) -> gmb_status;
    pub fn gmb_triple_buffer_advance(triple: gmb_triple_buffer, passed: *mut u32) -> gmb_status;
    pub fn gmb_worker_create(options: *const gmb_worker_options, worker: *mut gmb_worker) -> gmb_status;
    pub fn gmb_worker_destroy(worker: gmb_worker) -> gmb_status;
    pub fn gmb_worker_start(worker: gmb_worker) -> gmb_status;
    pub fn gmb_worker_stop(worker: gmb_worker) -> gmb_status;
    pub fn gmb_worker_pause(worker: gmb_worker) -> gmb_status;
    pub fn gmb_worker_resume(worker: gmb_worker) -> gmb_status;
    pub fn gmb_worker_wait(worker: gmb_worker, timeout_ns: u64, result: *mut gmb_worker_result) -> gmb_status;
    pub fn gmb_worker_get_info(worker: gmb_worker, info: *mut gmb_worker_info, info_size: usize) -> gmb_status;
}
