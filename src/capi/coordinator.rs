//! `gmb_coordinator`: operations on three streams, each as soon as what it comes after is done.

use std::ffi::c_void;

use super::boundary::boundary;
use super::context::gmb_context;
use super::mailbox::{gmb_mailbox, gmb_pop, gmb_push, pop_of, push_of};
use super::module::{gmb_kernel, gmb_launch, launch_of};
use super::stream::{gmb_priority, gmb_stream, priority_class};
use super::triple::{gmb_step, gmb_triple_buffer, step};
use super::{
    check_pointer, optional_output, output, sized, timeout, write_info, Sized32, CONTEXTS, COORDINATORS,
    KERNELS, MAILBOXES, TRIPLE_BUFFERS,
};
use crate::error::{Error, Result};
use crate::handle::Pinned;
use crate::layout::gmb_dtype;
use crate::status::*;
use crate::{
    Argument, Callback, Completion, Compute, Coordinator, CoordinatorOptions, Launch, ModuleKernel,
    OperationId, OperationKind, Place, Stream, TripleBuffer, Work,
};

/// Handle of a coordinator. Zero is null.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct gmb_coordinator {
    /// Opaque.
    pub id: u64,
}

/// An operation of a coordinator. Ids are never given out twice; zero is none. Nobody has to give one back.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct gmb_operation {
    /// Opaque; a later operation of a coordinator has a greater one.
    pub id: u64,
}

/// What an operation does: `GMB_OPERATION_*`.
#[allow(non_camel_case_types)]
pub type gmb_operation_kind = i32;

/// Copies from host memory to the device.
pub const GMB_OPERATION_UPLOAD: gmb_operation_kind = 0;
/// Runs a kernel, or what a callback enqueues.
pub const GMB_OPERATION_COMPUTE: gmb_operation_kind = 1;
/// Copies from the device to host memory.
pub const GMB_OPERATION_DOWNLOAD: gmb_operation_kind = 2;
/// Pushes records into a mailbox.
pub const GMB_OPERATION_PUSH: gmb_operation_kind = 3;
/// Pops records from a mailbox.
pub const GMB_OPERATION_POP: gmb_operation_kind = 4;

/// What a coordinator is made with. Start from `GMB_COORDINATOR_OPTIONS_INIT`.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct gmb_coordinator_options {
    /// `sizeof(gmb_coordinator_options)`.
    pub struct_size: u32,
    /// Operations from the oldest that is not done to the newest, at most, and as many are remembered after they were done;
    /// 0 for 4,096, at most 2^20.
    pub max_operations: u32,
    /// Of its streams: `GMB_PRIORITY_*`.
    pub priority: gmb_priority,
    /// `GMB_COORDINATOR_*`, or zero.
    pub flags: u32,
}

/// In `gmb_coordinator_options.flags`: one stream for all steps, so that operations run in the order in which they are queued.
pub const GMB_COORDINATOR_ONE_STREAM: u32 = 1;
/// In `gmb_coordinator_options.flags`: completions tell when operations ran. Costs an event more for each.
pub const GMB_COORDINATOR_TIMED: u32 = 2;

// SAFETY: repr(C), begins with struct_size, integers only.
unsafe impl Sized32 for gmb_coordinator_options {
    const NAME: &'static str = "gmb_coordinator_options";
    const FIRST_SIZE: usize = 16;
}

/// A coordinator's counts at one moment.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct gmb_coordinator_info {
    /// Operations that were queued so far; refused ones may count.
    pub queued: u64,
    /// Of them, those that are not known to be done.
    pub in_flight: u64,
    /// Most from the oldest that was not done to the newest, at once.
    pub high_water: u64,
    /// Events that it holds; it takes more only when all of them are in use.
    pub events: u64,
    /// Operations from the oldest that is not done to the newest, at most.
    pub max_operations: u32,
    /// Zero.
    pub reserved: u32,
}

/// An operation that is done, or failed.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct gmb_completion {
    /// Which.
    pub operation: gmb_operation,
    /// The operation that failed first: itself, or one that it came after. Zero for success.
    pub cause: gmb_operation,
    /// What it did: `GMB_OPERATION_*`.
    pub kind: gmb_operation_kind,
    /// `GMB_OK`, or why it failed: by itself, or what it came after.
    pub status: gmb_status,
    /// Records pushed or popped.
    pub count: u32,
    /// 1 where the two below are known, else 0.
    pub timed: u32,
    /// When it began to run, by the device's clock: microseconds since the coordinator's first operation began. What its stream
    /// waited for is not in it.
    pub begin_us: f64,
    /// When it had run.
    pub end_us: f64,
}

/// Enqueues work on the stream that it is given; `address` is that of the triple buffer's buffer, or null. A negative status
/// ends the operation with that status. It must not call the coordinator, wait for the device, or throw.
#[allow(non_camel_case_types)]
pub type gmb_enqueue_function =
    Option<extern "C" fn(stream: gmb_stream, address: *mut c_void, user: *mut c_void) -> gmb_status>;

/// What computes: a kernel, or a callback. Start from `GMB_COMPUTE_INIT`.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct gmb_compute {
    /// `sizeof(gmb_compute)`.
    pub struct_size: u32,
    /// Must be zero.
    pub reserved: u32,
    /// The kernel, or zero for a callback.
    pub kernel: gmb_kernel,
    /// Its shape and arguments, which are copied. With a triple buffer the address of the buffer comes before them.
    pub launch: *const gmb_launch,
    /// Called at once, by the calling thread; null with a kernel.
    pub callback: gmb_enqueue_function,
    /// What the callback gets.
    pub user: *mut c_void,
    /// The triple buffer whose next buffer to process it works on; zero for none.
    pub triple: gmb_triple_buffer,
}

// SAFETY: repr(C), begins with struct_size, integers and pointers only.
unsafe impl Sized32 for gmb_compute {
    const NAME: &'static str = "gmb_compute";
    const FIRST_SIZE: usize = 48;
}

fn kind_value(kind: OperationKind) -> gmb_operation_kind {
    match kind {
        OperationKind::Upload => GMB_OPERATION_UPLOAD,
        OperationKind::Compute => GMB_OPERATION_COMPUTE,
        OperationKind::Download => GMB_OPERATION_DOWNLOAD,
        OperationKind::Push => GMB_OPERATION_PUSH,
        OperationKind::Pop => GMB_OPERATION_POP,
    }
}

fn completion_of(done: &Completion) -> gmb_completion {
    gmb_completion {
        operation: gmb_operation { id: done.operation.raw() },
        cause: gmb_operation { id: done.cause.map_or(0, OperationId::raw) },
        kind: kind_value(done.kind),
        status: done.status,
        count: done.count,
        timed: done.span.is_some().into(),
        begin_us: done.span.map_or(0.0, |span| span.begin_us),
        end_us: done.span.map_or(0.0, |span| span.end_us),
    }
}

/// More operations than these are never remembered.
pub(super) const MOST_AFTER: u32 = 1 << 21;

/// What an operation is to come after.
fn after_of(after: *const gmb_operation, count: u32) -> Result<Vec<OperationId>> {
    if count == 0 {
        return Ok(Vec::new());
    }
    check_pointer(after, "after")?;
    if count > MOST_AFTER {
        return Err(Error::argument(format!("after_count {count}: there are {MOST_AFTER} at most")));
    }
    // SAFETY: the caller has so many there.
    let after = unsafe { std::slice::from_raw_parts(after, count as usize) };
    Ok(after.iter().map(|operation| OperationId::from_raw(operation.id)).collect())
}

/// Makes a coordinator, with three streams of its own: to upload, compute and download.
///
/// The caller owns it and ends it with `gmb_coordinator_destroy`. Does not wait for the device; thread-safe.
///
/// Errors: `GMB_ERROR_INVALID_HANDLE`, `_NULL_POINTER`, `_STRUCT_SIZE`, `_INVALID_ARGUMENT`, `_OUT_OF_HOST_MEMORY`, `_DEVICE_LOST`,
/// `_DRIVER`, `_SYSTEM`.
#[no_mangle]
pub extern "C" fn gmb_coordinator_create(
    context: gmb_context,
    options: *const gmb_coordinator_options,
    coordinator: *mut gmb_coordinator,
) -> gmb_status {
    boundary(|| {
        let out = output(coordinator, "coordinator")?;
        let options = sized(options, "options")?;
        if options.flags & !(GMB_COORDINATOR_ONE_STREAM | GMB_COORDINATOR_TIMED) != 0 {
            return Err(Error::argument(format!("options.flags {:#x}: unknown bits are set", options.flags)));
        }
        let wanted = CoordinatorOptions {
            max_operations: options.max_operations,
            priority: priority_class(options.priority)?,
            one_stream: options.flags & GMB_COORDINATOR_ONE_STREAM != 0,
            timed: options.flags & GMB_COORDINATOR_TIMED != 0,
        };
        let context = CONTEXTS.get(context.id)?;
        out.write(gmb_coordinator { id: COORDINATORS.insert(Coordinator::new(&context, &wanted)?)? });
        Ok(())
    })
}

/// Ends a coordinator. Blocks until what was queued is done; completions that nobody polled for are dropped. Safe while other
/// threads are inside calls on it. Errors: `GMB_ERROR_INVALID_HANDLE`.
#[no_mangle]
pub extern "C" fn gmb_coordinator_destroy(coordinator: gmb_coordinator) -> gmb_status {
    boundary(|| COORDINATORS.remove(coordinator.id))
}

/// A coordinator's counts. `info_size` is `sizeof(gmb_coordinator_info)`. Never blocks for the device; thread-safe.
/// Errors: `GMB_ERROR_INVALID_HANDLE`, `_NULL_POINTER`, `_STRUCT_SIZE`.
#[no_mangle]
pub extern "C" fn gmb_coordinator_get_info(
    coordinator: gmb_coordinator,
    info: *mut gmb_coordinator_info,
    info_size: usize,
) -> gmb_status {
    boundary(|| {
        let known = COORDINATORS.get(coordinator.id)?.info();
        let value = gmb_coordinator_info {
            queued: known.queued,
            in_flight: known.in_flight,
            high_water: known.high_water,
            events: known.events,
            max_operations: known.max_operations,
            reserved: 0,
        };
        write_info(info, info_size, value)
    })
}

/// The coordinator's stream of a step (`GMB_STEP_*`), for work of one's own and for events: it is in order with the
/// coordinator's operations there. It is the coordinator's, and ends with it. Never blocks; thread-safe.
/// Errors: `GMB_ERROR_INVALID_HANDLE`, `_NULL_POINTER`, `_INVALID_ARGUMENT`.
#[no_mangle]
pub extern "C" fn gmb_coordinator_get_stream(
    coordinator: gmb_coordinator,
    step: gmb_step,
    stream: *mut gmb_stream,
) -> gmb_status {
    boundary(|| {
        let out = output(stream, "stream")?;
        let coordinator = COORDINATORS.get(coordinator.id)?;
        out.write(coordinator.stream(self::step(step)?).raw().cast());
        Ok(())
    })
}

/// Queues work, and writes the operation's id.
fn queue(
    coordinator: gmb_coordinator,
    after: (*const gmb_operation, u32),
    operation: *mut gmb_operation,
    work: impl FnOnce(&Coordinator, &[OperationId]) -> Result<OperationId>,
) -> Result<()> {
    let out = output(operation, "operation")?;
    let after = after_of(after.0, after.1)?;
    let id = work(&*COORDINATORS.get(coordinator.id)?, &after)?;
    out.write(gmb_operation { id: id.raw() });
    Ok(())
}

/// Queues a copy of `bytes` from host memory to device memory on the upload stream, after `after_count` operations of this
/// coordinator. Pinned memory is copied directly; pageable memory goes through pinned memory of the library's, in stream order.
///
/// Both ranges must stay valid, and `from` unwritten, until the operation is done. Does not wait for the device; thread-safe.
/// `after` may be null if `after_count` is 0.
///
/// Errors, with nothing queued: `GMB_ERROR_INVALID_HANDLE` (also an id of another coordinator, or never given out), `_NULL_POINTER`, `_MISALIGNED`, `_ZERO_COUNT`, `_OVERFLOW`, `_FULL` (as many operations are in flight as may be: poll or
/// wait), `_INVALID_ARGUMENT` (not reachable, where that is checked; called by a callback of this coordinator), `_NOT_SUPPORTED`
/// (the stream is being captured; the capture goes on), `_OUT_OF_HOST_MEMORY`, `_DEVICE_LOST`, `_DRIVER`.
#[no_mangle]
pub extern "C" fn gmb_coordinator_queue_upload(
    coordinator: gmb_coordinator,
    to: *mut c_void,
    from: *const c_void,
    bytes: u64,
    after: *const gmb_operation,
    after_count: u32,
    operation: *mut gmb_operation,
) -> gmb_status {
    boundary(|| {
        queue(coordinator, (after, after_count), operation, |coordinator, after| {
            let work = Work::Upload { to: Place::Address(to as u64), from: from as u64, bytes };
            // SAFETY: that the memory stays valid is the caller's contract, here and below.
            unsafe { coordinator.queue(work, after) }
        })
    })
}

/// Queues a copy of `bytes` from device memory to host memory on the download stream. Otherwise as
/// `gmb_coordinator_queue_upload`. Errors: as there.
#[no_mangle]
pub extern "C" fn gmb_coordinator_queue_download(
    coordinator: gmb_coordinator,
    to: *mut c_void,
    from: *const c_void,
    bytes: u64,
    after: *const gmb_operation,
    after_count: u32,
    operation: *mut gmb_operation,
) -> gmb_status {
    boundary(|| {
        queue(coordinator, (after, after_count), operation, |coordinator, after| {
            let work = Work::Download { to: to as u64, from: Place::Address(from as u64), bytes };
            // SAFETY: as above.
            unsafe { coordinator.queue(work, after) }
        })
    })
}

/// Queues an upload to the next free buffer of a triple buffer, from elements of type `dtype` in host memory: `bytes` of them,
/// the buffer's at most. The stream waits for the buffer's last download. Otherwise as `gmb_coordinator_queue_upload`.
/// Errors: as there, and `GMB_ERROR_UNAVAILABLE` (all three buffers are on their way), `_WRONG_TYPE`, `_INVALID_ARGUMENT` (more
/// than a buffer has; a triple buffer of another context).
#[no_mangle]
pub extern "C" fn gmb_coordinator_queue_triple_upload(
    coordinator: gmb_coordinator,
    triple: gmb_triple_buffer,
    dtype: gmb_dtype,
    from: *const c_void,
    bytes: u64,
    after: *const gmb_operation,
    after_count: u32,
    operation: *mut gmb_operation,
) -> gmb_status {
    boundary(|| {
        queue(coordinator, (after, after_count), operation, |coordinator, after| {
            let triple = TRIPLE_BUFFERS.get(triple.id)?;
            let work = Work::Upload { to: Place::Triple(&triple, dtype), from: from as u64, bytes };
            // SAFETY: as above.
            unsafe { coordinator.queue(work, after) }
        })
    })
}

/// Queues a download from the next buffer of a triple buffer that was processed. Otherwise as
/// `gmb_coordinator_queue_triple_upload`. Errors: as there (`GMB_ERROR_UNAVAILABLE`: no buffer's processing was queued).
#[no_mangle]
pub extern "C" fn gmb_coordinator_queue_triple_download(
    coordinator: gmb_coordinator,
    triple: gmb_triple_buffer,
    dtype: gmb_dtype,
    to: *mut c_void,
    bytes: u64,
    after: *const gmb_operation,
    after_count: u32,
    operation: *mut gmb_operation,
) -> gmb_status {
    boundary(|| {
        queue(coordinator, (after, after_count), operation, |coordinator, after| {
            let triple = TRIPLE_BUFFERS.get(triple.id)?;
            let work = Work::Download { to: to as u64, from: Place::Triple(&triple, dtype), bytes };
            // SAFETY: as above.
            unsafe { coordinator.queue(work, after) }
        })
    })
}

/// What computes, as C has it, with what its handles stand for.
pub(super) struct Computing<'a> {
    kernel: Option<(Pinned<ModuleKernel>, Launch, Vec<Argument<'a>>)>,
    callback: gmb_enqueue_function,
    user: *mut c_void,
    triple: Option<Pinned<TripleBuffer>>,
}

pub(super) fn computing<'a>(compute: *const gmb_compute) -> Result<Computing<'a>> {
    let compute = sized(compute, "compute")?;
    if compute.reserved != 0 {
        return Err(Error::argument("compute.reserved is not zero"));
    }
    let kernel = match (compute.kernel.id, compute.callback) {
        (0, Some(_)) => None,
        (0, None) => return Err(Error::argument("compute has neither a kernel nor a callback")),
        (_, Some(_)) => return Err(Error::argument("compute has both a kernel and a callback: choose one")),
        (id, None) => {
            let (shape, arguments) = launch_of(compute.launch)?;
            Some((KERNELS.get(id)?, shape, arguments))
        }
    };
    let triple = match compute.triple.id {
        0 => None,
        id => Some(TRIPLE_BUFFERS.get(id)?),
    };
    Ok(Computing { kernel, callback: compute.callback, user: compute.user, triple })
}

impl Computing<'_> {
    pub(super) fn work(&self) -> Result<Work<'_>> {
        if let Some((kernel, launch, arguments)) = &self.kernel {
            let triple = self.triple.as_deref();
            return Ok(Work::Compute(Compute::Kernel { kernel, launch: *launch, arguments, triple }));
        }
        let function = self.callback.ok_or_else(|| Error::argument("compute has no callback"))?;
        let callback: Callback = Box::new(move |stream: Stream, address| {
            match function(stream.raw().cast(), address as *mut c_void, self.user) {
                status if status < 0 => {
                    Err(Error::new(status, format!("the callback answered {}", status_name(status))))
                }
                _ => Ok(()),
            }
        });
        Ok(Work::Compute(match self.triple.as_deref() {
            Some(triple) => Compute::TripleCallback(triple, callback),
            None => Compute::Callback(callback),
        }))
    }
}

/// Queues a kernel, or what a callback enqueues, on the compute stream. The kernel's arguments are copied; the callback is
/// called before this returns. A negative status of its ends the operation, not this call. Otherwise as
/// `gmb_coordinator_queue_upload`; memory that it uses must stay valid until the operation is done.
/// Errors: as there, and `GMB_ERROR_STRUCT_SIZE`, `_INVALID_ARGUMENT` (neither or both of kernel and callback; as for
/// `gmb_kernel_launch`), `_UNAVAILABLE` (no upload to a buffer of the triple buffer was queued).
#[no_mangle]
pub extern "C" fn gmb_coordinator_queue_compute(
    coordinator: gmb_coordinator,
    compute: *const gmb_compute,
    after: *const gmb_operation,
    after_count: u32,
    operation: *mut gmb_operation,
) -> gmb_status {
    boundary(|| {
        queue(coordinator, (after, after_count), operation, |coordinator, after| {
            let computing = computing(compute)?;
            let work = computing.work()?;
            // SAFETY: as above.
            unsafe { coordinator.queue(work, after) }
        })
    })
}

/// Queues a push into a mailbox on the stream of a step, as `gmb_mailbox_push` does it. What the device finds wrong is the
/// operation's status, and how many were accepted its count. Otherwise as `gmb_coordinator_queue_upload`.
/// Errors: as there, and as for `gmb_mailbox_push`; `GMB_ERROR_INVALID_ARGUMENT` (a mailbox of another context).
#[no_mangle]
pub extern "C" fn gmb_coordinator_queue_push(
    coordinator: gmb_coordinator,
    mailbox: gmb_mailbox,
    push: *const gmb_push,
    step: gmb_step,
    after: *const gmb_operation,
    after_count: u32,
    operation: *mut gmb_operation,
) -> gmb_status {
    boundary(|| {
        queue(coordinator, (after, after_count), operation, |coordinator, after| {
            let mailbox = MAILBOXES.get(mailbox.id)?;
            let work = Work::Push { mailbox: &mailbox, push: push_of(push)?, step: self::step(step)? };
            // SAFETY: as above.
            unsafe { coordinator.queue(work, after) }
        })
    })
}

/// Queues a pop from a mailbox on the stream of a step, as `gmb_mailbox_pop` does it; the operation's count is that of the
/// records popped. Otherwise as `gmb_coordinator_queue_push`. Errors: as there.
#[no_mangle]
pub extern "C" fn gmb_coordinator_queue_pop(
    coordinator: gmb_coordinator,
    mailbox: gmb_mailbox,
    pop: *const gmb_pop,
    step: gmb_step,
    after: *const gmb_operation,
    after_count: u32,
    operation: *mut gmb_operation,
) -> gmb_status {
    boundary(|| {
        queue(coordinator, (after, after_count), operation, |coordinator, after| {
            let mailbox = MAILBOXES.get(mailbox.id)?;
            let work = Work::Pop { mailbox: &mailbox, pop: pop_of(pop)?, step: self::step(step)? };
            // SAFETY: as above.
            unsafe { coordinator.queue(work, after) }
        })
    })
}

/// Writes what is done and was not told yet, `max` at most, each once, and how many to `count`: an operation never before
/// those that it came after. Never blocks for the device, and costs as much as there is to tell. What nobody polls for is
/// dropped when twice `max_operations` later ones were queued. Thread-safe.
/// Errors: `GMB_ERROR_INVALID_HANDLE`, `_NULL_POINTER`, `_ZERO_COUNT`, `_OVERFLOW`, `_DRIVER`.
#[no_mangle]
pub extern "C" fn gmb_coordinator_poll(
    coordinator: gmb_coordinator,
    max: u32,
    completions: *mut gmb_completion,
    count: *mut u32,
) -> gmb_status {
    boundary(|| {
        let out = output(count, "count")?;
        check_pointer(completions, "completions")?;
        crate::checks::check_count("max", max)?;
        let done = COORDINATORS.get(coordinator.id)?.poll(max as usize)?;
        for (n, one) in done.iter().enumerate() {
            // SAFETY: the caller has room for `max` of them.
            unsafe { completions.add(n).write(completion_of(one)) };
        }
        out.write(done.len() as u32);
        Ok(())
    })
}

/// Blocks the calling thread until an operation is done. `timeout_ns` is in nanoseconds; `GMB_WAIT_FOREVER` waits without
/// limit, 0 asks once. `completion` may be null. Polling still tells of it. Thread-safe.
/// Errors: `GMB_ERROR_INVALID_HANDLE` (also an id of another coordinator, never given out, or forgotten), `_MISALIGNED`, `_TIMEOUT`
/// (wait again), `_INVALID_ARGUMENT` (called by a callback of this coordinator), and why the operation failed: the message
/// tells which one failed first.
#[no_mangle]
pub extern "C" fn gmb_coordinator_wait(
    coordinator: gmb_coordinator,
    operation: gmb_operation,
    timeout_ns: u64,
    completion: *mut gmb_completion,
) -> gmb_status {
    boundary(|| {
        let out = optional_output(completion, "completion")?;
        let coordinator = COORDINATORS.get(coordinator.id)?;
        let done = coordinator.wait(OperationId::from_raw(operation.id), timeout(timeout_ns))?;
        if let Some(out) = out {
            out.write(completion_of(&done));
        }
        Ok(())
    })
}

/// Blocks the calling thread until all operations are done that were queued before the call. How they ended is for polling
/// to tell. `timeout_ns` as for `gmb_coordinator_wait`. Thread-safe.
/// Errors: `GMB_ERROR_INVALID_HANDLE`, `_TIMEOUT` (wait again), `_INVALID_ARGUMENT` (called by a callback of this coordinator),
/// `_DRIVER`.
#[no_mangle]
pub extern "C" fn gmb_coordinator_synchronize(coordinator: gmb_coordinator, timeout_ns: u64) -> gmb_status {
    boundary(|| COORDINATORS.get(coordinator.id)?.synchronize(timeout(timeout_ns)))
}
