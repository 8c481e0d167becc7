//! `gmb_tensor_mailbox` and `gmb_lease`.

use super::boundary::{boundary, boundary_status};
use super::context::gmb_context;
use super::mailbox::full_policy;
use super::stream::{gmb_stream, stream};
use super::{output, sized, timeout, write_info, Sized32, CONTEXTS, LEASES, TENSOR_MAILBOXES};
use crate::error::{Error, Result};
use crate::layout::*;
use crate::status::*;
use crate::{
    ArrowDeviceArray, ArrowSchema, Consumer, DLManagedTensor, DLManagedTensorVersioned, Lease, Tensor,
    TensorMailbox, TensorMailboxOptions,
};

/// Handle of a tensor mailbox: tensors handed over by pointer. Zero is null.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct gmb_tensor_mailbox {
    /// Opaque.
    pub id: u64,
}

/// Handle of a lease: the right to use a tensor that was popped. Zero is null.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct gmb_lease {
    /// Opaque.
    pub id: u64,
}

/// Who takes tensors out: `GMB_CONSUMER_*`.
#[allow(non_camel_case_types)]
pub type gmb_consumer = i32;

/// Threads of the host: no kernel is launched.
pub const GMB_CONSUMER_HOST: gmb_consumer = 0;
/// Kernels, with `gpumailbox/tensor.cuh`.
pub const GMB_CONSUMER_DEVICE: gmb_consumer = 1;

/// What a tensor mailbox is made with. Start from `GMB_TENSOR_MAILBOX_OPTIONS_INIT`.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct gmb_tensor_mailbox_options {
    /// `sizeof(gmb_tensor_mailbox_options)`.
    pub struct_size: u32,
    /// Who takes tensors out; default `GMB_CONSUMER_HOST`.
    pub consumer: gmb_consumer,
    /// Tensors it holds: a power of two, 1 to 2^20.
    pub capacity: u64,
    /// What a push does when it is full; default `GMB_FULL_REJECT`. Those that overwrite, only for consumers on the host.
    pub full_policy: gmb_full_policy,
    /// Must be zero.
    pub reserved: u32,
}

// SAFETY: repr(C), begins with struct_size, integers only.
unsafe impl Sized32 for gmb_tensor_mailbox_options {
    const NAME: &'static str = "gmb_tensor_mailbox_options";
    const FIRST_SIZE: usize = 24;
}

/// In `gmb_tensor_push.flags`: a tensor for which there is no room, or not in time, is given back to its producer once
/// what the stream holds now is done, instead of staying the caller's.
pub const GMB_TENSOR_DROP: u32 = 1;

/// How a tensor is pushed. Start from `GMB_TENSOR_PUSH_INIT`.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct gmb_tensor_push {
    /// `sizeof(gmb_tensor_push)`.
    pub struct_size: u32,
    /// `GMB_TENSOR_DROP` or 0, the default.
    pub flags: u32,
    /// A word for the consumer.
    pub tag: u64,
    /// Under `GMB_FULL_WAIT`: how long the calling thread waits for room, in nanoseconds; default `GMB_WAIT_FOREVER`.
    pub timeout_ns: u64,
}

// SAFETY: as above.
unsafe impl Sized32 for gmb_tensor_push {
    const NAME: &'static str = "gmb_tensor_push";
    const FIRST_SIZE: usize = 24;
}

/// A tensor mailbox's counts.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct gmb_tensor_mailbox_info {
    /// Tensors it holds.
    pub capacity: u64,
    /// Who takes them out.
    pub consumer: gmb_consumer,
    /// What a push does when it is full.
    pub full_policy: gmb_full_policy,
    /// Tensors pushed.
    pub pushed: u64,
    /// Tensors popped; of a device consumer, released.
    pub popped: u64,
    /// Pushes of good tensors that were not possible: no room, not in time, the mailbox had ended.
    pub refused: u64,
    /// Tensors that newer ones replaced, and those refused that were given back at once (`GMB_TENSOR_DROP`).
    pub dropped: u64,
    /// Tensors in it; of a device consumer, also those taken and not released.
    pub queued: u64,
    /// Leases that are out, those held by managed tensors and arrays included.
    pub leases: u64,
    /// Tensors that nobody needs any more and that wait for the work of their streams.
    pub retiring: u64,
    /// Tensors that were given back to their producers.
    pub released: u64,
}

/// Makes a tensor mailbox. The caller owns it and ends it with `gmb_tensor_mailbox_destroy`. For consumers on the device it
/// blocks until the ring is ready; thread-safe.
/// Errors: `GMB_ERROR_INVALID_HANDLE`, `_NULL_POINTER`, `_STRUCT_SIZE`, `_INVALID_ARGUMENT` (capacity no power of two),
/// `_OVERFLOW`, `_NOT_SUPPORTED` (a consumer on the device and a policy that overwrites), `_OUT_OF_MEMORY`,
/// `_MEMORY_LIMIT`, `_OUT_OF_HOST_MEMORY`, `_DEVICE_LOST`.
#[no_mangle]
pub extern "C" fn gmb_tensor_mailbox_create(
    context: gmb_context,
    options: *const gmb_tensor_mailbox_options,
    mailbox: *mut gmb_tensor_mailbox,
) -> gmb_status {
    boundary(|| {
        let out = output(mailbox, "mailbox")?;
        let options = sized(options, "options")?;
        if options.reserved != 0 {
            return Err(Error::argument("options.reserved is not zero"));
        }
        let wanted = TensorMailboxOptions {
            capacity: options.capacity,
            consumer: match options.consumer {
                GMB_CONSUMER_HOST => Consumer::Host,
                GMB_CONSUMER_DEVICE => Consumer::Device,
                other => {
                    return Err(Error::argument(format!(
                        "consumer {other} is none of GMB_CONSUMER_HOST, _DEVICE"
                    )))
                }
            },
            full_policy: full_policy(options.full_policy)?,
        };
        let context = CONTEXTS.get(context.id)?;
        out.write(gmb_tensor_mailbox {
            id: TENSOR_MAILBOXES.insert(TensorMailbox::new(&context, &wanted)?)?,
        });
        Ok(())
    })
}

/// Ends a tensor mailbox; threads that wait in it get `GMB_ERROR_INVALID_HANDLE`. Tensors that nobody has popped are given
/// back; leases stay good. Of a consumer on the device, tensors and ring stay until what the streams of
/// `gmb_tensor_mailbox_get_view` hold now is done: these must not be destroyed before. Does not block; thread-safe.
/// Errors: `GMB_ERROR_INVALID_HANDLE`.
#[no_mangle]
pub extern "C" fn gmb_tensor_mailbox_destroy(mailbox: gmb_tensor_mailbox) -> gmb_status {
    boundary(|| {
        TENSOR_MAILBOXES.get(mailbox.id)?.close();
        TENSOR_MAILBOXES.remove(mailbox.id)
    })
}

/// Counts, read one after the other while threads go on. `info_size` is `sizeof(gmb_tensor_mailbox_info)`. Does not block; thread-safe.
/// Errors: `GMB_ERROR_INVALID_HANDLE`, `_NULL_POINTER`, `_STRUCT_SIZE`.
#[no_mangle]
pub extern "C" fn gmb_tensor_mailbox_get_info(
    mailbox: gmb_tensor_mailbox,
    info: *mut gmb_tensor_mailbox_info,
    info_size: usize,
) -> gmb_status {
    boundary(|| {
        let known = TENSOR_MAILBOXES.get(mailbox.id)?.info();
        let value = gmb_tensor_mailbox_info {
            capacity: known.capacity,
            consumer: if known.consumer == Consumer::Host { GMB_CONSUMER_HOST } else { GMB_CONSUMER_DEVICE },
            full_policy: known.full_policy.rules().value,
            pushed: known.pushed,
            popped: known.popped,
            refused: known.refused,
            dropped: known.dropped,
            queued: known.queued,
            leases: known.leases,
            retiring: known.retiring,
            released: known.released,
        };
        write_info(info, info_size, value)
    })
}

/// Pushes what was taken over; what is refused is the caller's again, unless it is to be dropped.
fn push(
    mailbox: &TensorMailbox,
    tensor: Tensor,
    how: &gmb_tensor_push,
    on: gmb_stream,
    undo: impl FnOnce(Tensor),
) -> Result<()> {
    let Err(refused) = mailbox.push(tensor, how.tag, stream(on), timeout(how.timeout_ns)) else {
        return Ok(());
    };
    let error = refused.error.clone();
    let no_room = [GMB_ERROR_FULL, GMB_ERROR_TIMEOUT].contains(&error.status());
    if !no_room || how.flags & GMB_TENSOR_DROP == 0 {
        undo(refused.tensor);
        return Err(error);
    }
    match mailbox.discard(refused, stream(on)) {
        Ok(()) => Err(error),
        Err((worse, tensor)) => {
            undo(tensor);
            Err(worse)
        }
    }
}

fn how_of(push: *const gmb_tensor_push) -> Result<gmb_tensor_push> {
    if push.is_null() {
        return Ok(gmb_tensor_push {
            struct_size: 0,
            flags: 0,
            tag: 0,
            timeout_ns: super::token::GMB_WAIT_FOREVER,
        });
    }
    let how = sized(push, "push")?;
    if how.flags & !GMB_TENSOR_DROP != 0 {
        return Err(Error::argument(format!("flags {:#x}: unknown bits are set", how.flags)));
    }
    Ok(how)
}

/// Hands a DLPack tensor over: later work of the consumer's stream comes after what `stream` holds now. No element moves.
/// `push` may be null for the defaults. On success the library owns `tensor` and calls its deleter when nobody needs it any
/// more: on a thread of its own, under no lock, in relaxed capture mode, with the device's context current. The deleter may
/// be null, and may call the library; it must not throw, and must not wait for another tensor to come back, which the same
/// thread gives back. On an error the tensor is still the caller's, with two exceptions: with
/// `GMB_TENSOR_DROP` when there is no room, and one of another major version, of which DLPack allows nothing but to call its
/// deleter, which is done. Strides may be null: rows one behind the other. Under `GMB_FULL_WAIT` it blocks the calling
/// thread until there is room; else it does not block. Thread-safe.
/// Errors: `GMB_ERROR_INVALID_HANDLE` (also when it is destroyed meanwhile), `_NULL_POINTER`, `_MISALIGNED`,
/// `_STRUCT_SIZE`, `_BAD_VERSION`, `_INVALID_DEVICE` (the tensor lies elsewhere), `_INVALID_ARGUMENT` (a negative size, no
/// such type; with `GMB_CHECK_POINTERS=1`: kernels cannot reach it), `_NOT_SUPPORTED` (more than eight dimensions; the
/// stream is being captured), `_OVERFLOW`, `_FULL`, `_TIMEOUT`, `_INVALID_STREAM`, `_DEVICE_LOST`, `_DRIVER`.
#[no_mangle]
pub extern "C" fn gmb_tensor_mailbox_push(
    mailbox: gmb_tensor_mailbox,
    tensor: *mut DLManagedTensorVersioned,
    push: *const gmb_tensor_push,
    stream: gmb_stream,
) -> gmb_status {
    boundary(|| {
        let how = how_of(push)?;
        let mailbox = TENSOR_MAILBOXES.get(mailbox.id)?;
        // SAFETY: that it is a managed tensor of the caller's is the contract.
        let tensor = unsafe { Tensor::from_dlpack(tensor)? };
        self::push(&mailbox, tensor, &how, stream, Tensor::forget)
    })
}

/// As `gmb_tensor_mailbox_push`, of the struct without a version.
/// Errors: as of `gmb_tensor_mailbox_push`, without `GMB_ERROR_BAD_VERSION`.
#[no_mangle]
pub extern "C" fn gmb_tensor_mailbox_push_legacy(
    mailbox: gmb_tensor_mailbox,
    tensor: *mut DLManagedTensor,
    push: *const gmb_tensor_push,
    stream: gmb_stream,
) -> gmb_status {
    boundary(|| {
        let how = how_of(push)?;
        let mailbox = TENSOR_MAILBOXES.get(mailbox.id)?;
        // SAFETY: as above.
        let tensor = unsafe { Tensor::from_dlpack_legacy(tensor)? };
        self::push(&mailbox, tensor, &how, stream, Tensor::forget)
    })
}

/// As `gmb_tensor_mailbox_push`, of an Arrow array on a device: numbers, or lists of them of a fixed size, without nulls.
/// `stream` waits for the array's `sync_event` first. On success both are moved, as the specification has it: marked as
/// released where they were. On an error they are still the caller's, but with `GMB_TENSOR_DROP` for want of room.
/// Errors: as of `gmb_tensor_mailbox_push`; `GMB_ERROR_INVALID_ARGUMENT` also when one was released or moved before, or the
/// lengths do not fit, `_NOT_SUPPORTED` for other types, nulls and dictionaries.
#[no_mangle]
pub extern "C" fn gmb_tensor_mailbox_push_arrow(
    mailbox: gmb_tensor_mailbox,
    array: *mut ArrowDeviceArray,
    schema: *mut ArrowSchema,
    push: *const gmb_tensor_push,
    stream: gmb_stream,
) -> gmb_status {
    boundary(|| {
        let how = how_of(push)?;
        let mailbox = TENSOR_MAILBOXES.get(mailbox.id)?;
        // SAFETY: that they are what the specification says is the contract.
        let tensor = unsafe { Tensor::from_arrow(array, schema)? };
        // SAFETY: as above; they were not null.
        let pushed = self::push(&mailbox, tensor, &how, stream, |tensor| unsafe { tensor.undo_arrow(array) });
        // SAFETY: as above; where the array was taken, also to be dropped, its type is, too.
        unsafe { Tensor::end_schema_of(array, schema) };
        pushed
    })
}

/// Takes the next tensor out: later work of `stream` comes after what the producer's stream held at the push. `GMB_OK`, or
/// `GMB_NOT_READY` when none came within `timeout_ns` nanoseconds, and then nothing is written; 0 asks once,
/// `GMB_WAIT_FOREVER` waits without limit. The caller owns the lease and ends it with `gmb_lease_release`; `tensor`, which
/// may be null, says where the elements lie. With a timeout it blocks the calling thread; it never blocks for the device.
/// Thread-safe.
/// Errors: `GMB_ERROR_INVALID_HANDLE` (also when it is destroyed meanwhile), `_NULL_POINTER`, `_NOT_SUPPORTED` (a consumer
/// on the device; the stream is being captured), `_INVALID_STREAM`, `_OUT_OF_HOST_MEMORY` (too many leases: then the
/// tensor goes back to its producer), `_DEVICE_LOST`, `_DRIVER`.
#[no_mangle]
pub extern "C" fn gmb_tensor_mailbox_pop(
    mailbox: gmb_tensor_mailbox,
    stream: gmb_stream,
    timeout_ns: u64,
    lease: *mut gmb_lease,
    tensor: *mut gmb_tensor,
) -> gmb_status {
    boundary_status(|| {
        let out = output(lease, "lease")?;
        let record = super::optional_output(tensor, "tensor")?;
        let mailbox = TENSOR_MAILBOXES.get(mailbox.id)?;
        let Some(popped) = mailbox.pop_within(self::stream(stream), timeout(timeout_ns))? else {
            return Ok(GMB_NOT_READY);
        };
        let taken = *popped.record();
        out.write(gmb_lease { id: LEASES.insert(popped)? });
        record.map(|record| record.write(taken));
        Ok(GMB_OK)
    })
}

/// As `gmb_tensor_mailbox_pop`, as a DLPack tensor. The caller owns it and ends it with its deleter, on any thread; what
/// `stream` holds then is waited for. For more than one stream pop a lease.
/// Errors: as of `gmb_tensor_mailbox_pop`.
#[no_mangle]
pub extern "C" fn gmb_tensor_mailbox_pop_dlpack(
    mailbox: gmb_tensor_mailbox,
    stream: gmb_stream,
    timeout_ns: u64,
    tensor: *mut *mut DLManagedTensorVersioned,
) -> gmb_status {
    boundary_status(|| {
        let out = output(tensor, "tensor")?;
        let mailbox = TENSOR_MAILBOXES.get(mailbox.id)?;
        let Some(popped) = mailbox.pop_within(self::stream(stream), timeout(timeout_ns))? else {
            return Ok(GMB_NOT_READY);
        };
        out.write(popped.to_dlpack());
        Ok(GMB_OK)
    })
}

/// What kernels of `stream` take tensors with (`gpumailbox/tensor.cuh`), to be passed to them by value. It is good until the
/// mailbox ends, for kernels that were launched before then also afterwards. Does not block; thread-safe.
/// Errors: `GMB_ERROR_INVALID_HANDLE`, `_NULL_POINTER`, `_NOT_SUPPORTED` (consumers on the host; the stream is being
/// captured), `_INVALID_STREAM`.
#[no_mangle]
pub extern "C" fn gmb_tensor_mailbox_get_view(
    mailbox: gmb_tensor_mailbox,
    stream: gmb_stream,
    view: *mut gmb_tensor_view,
) -> gmb_status {
    boundary(|| {
        let out = output(view, "view")?;
        out.write(TENSOR_MAILBOXES.get(mailbox.id)?.view(self::stream(stream))?);
        Ok(())
    })
}

/// Another stream uses the tensor, too: its later work comes after what the producer's stream held at the push, and what it
/// holds when the lease ends is waited for. The stream must not be destroyed before. Does not block; thread-safe.
/// Errors: `GMB_ERROR_INVALID_HANDLE`, `_NOT_SUPPORTED` (the stream is being captured), `_INVALID_STREAM`, `_DEVICE_LOST`,
/// `_DRIVER`.
#[no_mangle]
pub extern "C" fn gmb_lease_use(lease: gmb_lease, stream: gmb_stream) -> gmb_status {
    boundary(|| LEASES.get(lease.id)?.use_on(self::stream(stream)))
}

/// Ends a lease. When every managed tensor and array made of it has ended, too, what its streams hold then is waited for, on
/// a thread of the library, and the tensor goes back to its producer. Does not block; thread-safe.
/// Errors: `GMB_ERROR_INVALID_HANDLE` (released already).
#[no_mangle]
pub extern "C" fn gmb_lease_release(lease: gmb_lease) -> gmb_status {
    boundary(|| LEASES.remove(lease.id))
}

/// The tensor as DLPack has it, any number of times. The caller owns each and ends it with its deleter, on any thread; the
/// lease stays the caller's, too. Does not block; thread-safe.
/// Errors: `GMB_ERROR_INVALID_HANDLE`, `_NULL_POINTER`.
#[no_mangle]
pub extern "C" fn gmb_lease_to_dlpack(
    lease: gmb_lease,
    tensor: *mut *mut DLManagedTensorVersioned,
) -> gmb_status {
    boundary(|| {
        let out = output(tensor, "tensor")?;
        out.write(LEASES.get(lease.id)?.to_dlpack());
        Ok(())
    })
}

/// As `gmb_lease_to_dlpack`, as the struct without a version.
/// Errors: as of `gmb_lease_to_dlpack`, and `GMB_ERROR_NOT_SUPPORTED`: it is read-only, or of padded
/// elements of less than a byte, which that struct cannot say.
#[no_mangle]
pub extern "C" fn gmb_lease_to_dlpack_legacy(
    lease: gmb_lease,
    tensor: *mut *mut DLManagedTensor,
) -> gmb_status {
    boundary(|| {
        let out = output(tensor, "tensor")?;
        out.write(LEASES.get(lease.id)?.to_dlpack_legacy()?);
        Ok(())
    })
}

/// The tensor as an Arrow array with its type; of more than one dimension, lists of a fixed size. The caller owns both and
/// releases each; the lease stays the caller's, too. The array's `sync_event` is what the lease's first stream holds now. On
/// the host backend there is none: then this blocks until the producer's work is done. Else it does not block; thread-safe.
/// Errors: `GMB_ERROR_INVALID_HANDLE`, `_NULL_POINTER`, `_NOT_SUPPORTED` (gaps between the elements; a type that Arrow does
/// not have; that stream is being captured), `_DEVICE_LOST`, `_DRIVER`.
#[no_mangle]
pub extern "C" fn gmb_lease_to_arrow(
    lease: gmb_lease,
    array: *mut ArrowDeviceArray,
    schema: *mut ArrowSchema,
) -> gmb_status {
    boundary(|| {
        let (array_out, schema_out) = (output(array, "array")?, output(schema, "schema")?);
        let lease: Lease = LEASES.get(lease.id)?.clone();
        let (array, schema) = lease.to_arrow()?;
        array_out.write(array);
        schema_out.write(schema);
        Ok(())
    })
}
