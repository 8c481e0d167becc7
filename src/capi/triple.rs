//! `gmb_triple_buffer`: three device buffers that go round.

use std::ffi::c_void;

use super::boundary::{boundary, boundary_status};
use super::context::gmb_context;
use super::stream::{gmb_stream, stream};
use super::{check_pointer, output, sized, timeout, write_info, Sized32, CONTEXTS, TRIPLE_BUFFERS};
use crate::error::{Error, Result};
use crate::layout::gmb_dtype;
use crate::status::*;
use crate::{Buffer, BufferState, Step, TripleBuffer, TripleBufferOptions};

/// Handle of a triple buffer. Zero is null.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct gmb_triple_buffer {
    /// Opaque.
    pub id: u64,
}

/// What is done with data that comes from the host and goes back there: `GMB_STEP_*`. A coordinator has a stream for each.
#[allow(non_camel_case_types)]
pub type gmb_step = i32;

/// Data comes from the host.
pub const GMB_STEP_UPLOAD: gmb_step = 0;
/// Kernels work on it.
pub const GMB_STEP_PROCESS: gmb_step = 1;
/// Results go to the host.
pub const GMB_STEP_DOWNLOAD: gmb_step = 2;

pub(super) fn step(value: gmb_step) -> Result<Step> {
    match value {
        GMB_STEP_UPLOAD => Ok(Step::Upload),
        GMB_STEP_PROCESS => Ok(Step::Process),
        GMB_STEP_DOWNLOAD => Ok(Step::Download),
        _ => Err(Error::argument(format!("step {value} is none of GMB_STEP_UPLOAD, _PROCESS, _DOWNLOAD"))),
    }
}

fn step_value(step: Step) -> gmb_step {
    match step {
        Step::Upload => GMB_STEP_UPLOAD,
        Step::Process => GMB_STEP_PROCESS,
        Step::Download => GMB_STEP_DOWNLOAD,
    }
}

/// Where a buffer of a triple buffer stands: `GMB_BUFFER_*`.
#[allow(non_camel_case_types)]
pub type gmb_buffer_state = i32;

/// It can be asked for, to be uploaded to.
pub const GMB_BUFFER_FREE: gmb_buffer_state = 0;
/// It was asked for, and what is uploaded is not all there.
pub const GMB_BUFFER_UPLOADING: gmb_buffer_state = 1;
/// It is to be processed, or is being processed.
pub const GMB_BUFFER_PROCESSING: gmb_buffer_state = 2;
/// It is to be downloaded from, or is being.
pub const GMB_BUFFER_DOWNLOADING: gmb_buffer_state = 3;

fn state_value(state: BufferState) -> gmb_buffer_state {
    match state {
        BufferState::Free => GMB_BUFFER_FREE,
        BufferState::Uploading => GMB_BUFFER_UPLOADING,
        BufferState::Processing => GMB_BUFFER_PROCESSING,
        BufferState::Downloading => GMB_BUFFER_DOWNLOADING,
    }
}

/// What a triple buffer is made with. Start from `GMB_TRIPLE_BUFFER_OPTIONS_INIT`.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct gmb_triple_buffer_options {
    /// `sizeof(gmb_triple_buffer_options)`.
    pub struct_size: u32,
    /// The elements' type.
    pub dtype: gmb_dtype,
    /// Elements of each of the three buffers.
    pub elements: u64,
}

// SAFETY: repr(C), begins with struct_size, integers only.
unsafe impl Sized32 for gmb_triple_buffer_options {
    const NAME: &'static str = "gmb_triple_buffer_options";
    const FIRST_SIZE: usize = 16;
}

/// A triple buffer's shape, and where its buffers stand, all at one moment.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct gmb_triple_buffer_info {
    /// Elements of each buffer.
    pub elements: u64,
    /// Bytes of each buffer.
    pub bytes: u64,
    /// The buffers in device memory.
    pub addresses: [*mut c_void; 3],
    /// Where they stand: `GMB_BUFFER_*`.
    pub states: [gmb_buffer_state; 3],
    /// The elements' type.
    pub dtype: gmb_dtype,
    /// Times that a buffer became free again.
    pub completed: u64,
}

/// A buffer in the hands of whoever asked for it.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct gmb_triple_slot {
    /// The first element, in device memory.
    pub address: *mut c_void,
    /// Bytes.
    pub bytes: u64,
    /// Which turn of the triple buffer this is: what was uploaded in a turn is processed and downloaded in it.
    pub turn: u64,
    /// Which of the three buffers: 0, 1 or 2.
    pub index: u32,
    /// What it was asked for.
    pub step: gmb_step,
}

/// Allocates three device buffers of one element type, which go from free to uploading, processing, downloading and back to
/// free, in their order. Their content is unspecified.
///
/// The caller owns it and ends it with `gmb_triple_buffer_destroy`. Blocks until the memory is there; thread-safe.
///
/// Errors: `GMB_ERROR_INVALID_HANDLE`, `_NULL_POINTER`, `_STRUCT_SIZE`, `_INVALID_ARGUMENT` (no element type), `_ZERO_COUNT`,
/// `_OVERFLOW`, `_OUT_OF_MEMORY`, `_MEMORY_LIMIT`, `_DEVICE_LOST`.
#[no_mangle]
pub extern "C" fn gmb_triple_buffer_create(
    context: gmb_context,
    options: *const gmb_triple_buffer_options,
    triple: *mut gmb_triple_buffer,
) -> gmb_status {
    boundary(|| {
        let out = output(triple, "triple")?;
        let options = sized(options, "options")?;
        let wanted = TripleBufferOptions { dtype: options.dtype, elements: options.elements };
        let context = CONTEXTS.get(context.id)?;
        out.write(gmb_triple_buffer { id: TRIPLE_BUFFERS.insert(TripleBuffer::new(&context, &wanted)?)? });
        Ok(())
    })
}

/// Ends a triple buffer and frees its memory. Blocks until the work that was submitted is done; buffers that are still in
/// somebody's hands are nobody's then. Safe while other threads are inside calls on it: waits end with
/// `GMB_ERROR_INVALID_HANDLE`. Errors: `GMB_ERROR_INVALID_HANDLE`.
#[no_mangle]
pub extern "C" fn gmb_triple_buffer_destroy(triple: gmb_triple_buffer) -> gmb_status {
    boundary(|| {
        let pinned = TRIPLE_BUFFERS.get(triple.id)?;
        TRIPLE_BUFFERS.remove(triple.id)?;
        pinned.close();
        Ok(())
    })
}

/// Shape and states. `info_size` is `sizeof(gmb_triple_buffer_info)`. Never blocks; thread-safe.
/// Errors: `GMB_ERROR_INVALID_HANDLE`, `_NULL_POINTER`, `_STRUCT_SIZE`.
#[no_mangle]
pub extern "C" fn gmb_triple_buffer_get_info(
    triple: gmb_triple_buffer,
    info: *mut gmb_triple_buffer_info,
    info_size: usize,
) -> gmb_status {
    boundary(|| {
        let known = TRIPLE_BUFFERS.get(triple.id)?.info();
        let value = gmb_triple_buffer_info {
            elements: known.elements,
            bytes: known.bytes,
            addresses: known.addresses.map(|address| address as *mut c_void),
            states: known.states.map(state_value),
            dtype: known.dtype,
            completed: known.completed,
        };
        write_info(info, info_size, value)
    })
}

/// The buffer is the caller's from now on.
fn given(buffer: Buffer) -> gmb_triple_slot {
    gmb_triple_slot {
        address: buffer.address() as *mut c_void,
        bytes: buffer.bytes(),
        index: buffer.index() as u32,
        step: step_value(buffer.step()),
        turn: buffer.into_turn(),
    }
}

/// Asks for the next buffer of a step (`GMB_STEP_*`), in the order in which they were uploaded to. `GMB_NOT_READY`, and `slot`
/// as it was, until the device has done the work of the step before. Any stream can use the buffer then. Enqueue the step's
/// work and hand the buffer on with `gmb_triple_buffer_submit`, or give it up. Never blocks; thread-safe.
/// Errors: `GMB_ERROR_INVALID_HANDLE`, `_NULL_POINTER`, `_INVALID_ARGUMENT`, `_DEVICE_LOST`, `_DRIVER`.
#[no_mangle]
pub extern "C" fn gmb_triple_buffer_acquire(
    triple: gmb_triple_buffer,
    step: gmb_step,
    slot: *mut gmb_triple_slot,
) -> gmb_status {
    boundary_status(|| {
        let out = output(slot, "slot")?;
        let triple = TRIPLE_BUFFERS.get(triple.id)?;
        Ok(match triple.acquire(self::step(step)?)? {
            Some(buffer) => {
                out.write(given(buffer));
                GMB_OK
            }
            None => GMB_NOT_READY,
        })
    })
}

/// As `gmb_triple_buffer_acquire`, for work of one stream, which is made to wait for the step before: `GMB_NOT_READY` only
/// until that step's work is submitted. Never blocks; thread-safe.
/// Errors: as there, and `GMB_ERROR_INVALID_STREAM`, `_NOT_SUPPORTED` (the stream is being captured; the capture goes on).
#[no_mangle]
pub extern "C" fn gmb_triple_buffer_acquire_on(
    triple: gmb_triple_buffer,
    step: gmb_step,
    stream: gmb_stream,
    slot: *mut gmb_triple_slot,
) -> gmb_status {
    boundary_status(|| {
        let out = output(slot, "slot")?;
        let triple = TRIPLE_BUFFERS.get(triple.id)?;
        Ok(match triple.acquire_on(self::step(step)?, self::stream(stream))? {
            Some(buffer) => {
                out.write(given(buffer));
                GMB_OK
            }
            None => GMB_NOT_READY,
        })
    })
}

/// As `gmb_triple_buffer_acquire`, and blocks the calling thread until there is one. `timeout_ns` is in nanoseconds;
/// `GMB_WAIT_FOREVER` waits without limit, 0 asks once. Thread-safe.
/// Errors: as there, and `GMB_ERROR_TIMEOUT` (nobody submitted the step before, or its work is not done: wait again).
#[no_mangle]
pub extern "C" fn gmb_triple_buffer_wait(
    triple: gmb_triple_buffer,
    step: gmb_step,
    timeout_ns: u64,
    slot: *mut gmb_triple_slot,
) -> gmb_status {
    boundary(|| {
        let out = output(slot, "slot")?;
        let triple = TRIPLE_BUFFERS.get(triple.id)?;
        out.write(given(triple.wait(self::step(step)?, timeout(timeout_ns))?));
        Ok(())
    })
}

fn slot_of(slot: *const gmb_triple_slot) -> Result<(Step, u64)> {
    check_pointer(slot, "slot")?;
    // SAFETY: not null and aligned; that it is readable is the caller's contract.
    let slot = unsafe { slot.read() };
    Ok((step(slot.step)?, slot.turn))
}

/// The step's work on a buffer is enqueued: what the stream holds now. The next step gets the buffer once that is done. Does
/// not block; thread-safe.
/// Errors, with the buffer still in the caller's hands: `GMB_ERROR_INVALID_HANDLE`, `_NULL_POINTER`, `_INVALID_ARGUMENT`,
/// `_WRONG_STATE` (it is not with this caller: submitted or given up before, or never asked for), `_INVALID_STREAM`,
/// `_NOT_SUPPORTED` (the stream is being captured; the capture goes on), `_DEVICE_LOST`, `_DRIVER`.
#[no_mangle]
pub extern "C" fn gmb_triple_buffer_submit(
    triple: gmb_triple_buffer,
    slot: *const gmb_triple_slot,
    stream: gmb_stream,
) -> gmb_status {
    boundary(|| {
        let (step, turn) = slot_of(slot)?;
        TRIPLE_BUFFERS.get(triple.id)?.submit(step, turn, self::stream(stream), true)
    })
}

/// Gives a buffer up: it becomes free again, in its turn, without its further steps. Nothing that uses it may have been
/// enqueued since it was asked for. Never blocks; thread-safe.
/// Errors: `GMB_ERROR_INVALID_HANDLE`, `_NULL_POINTER`, `_INVALID_ARGUMENT`, `_WRONG_STATE`.
#[no_mangle]
pub extern "C" fn gmb_triple_buffer_give_up(
    triple: gmb_triple_buffer,
    slot: *const gmb_triple_slot,
) -> gmb_status {
    boundary(|| {
        let (step, turn) = slot_of(slot)?;
        TRIPLE_BUFFERS.get(triple.id)?.give_up(step, turn)
    })
}

/// Passes each buffer on whose step is done, to what comes next. `passed`, which may be null, gets how many were. Asking for a
/// buffer does the same as far as that takes. Never blocks; thread-safe.
/// Errors: `GMB_ERROR_INVALID_HANDLE`, `_DEVICE_LOST`, `_DRIVER`.
#[no_mangle]
pub extern "C" fn gmb_triple_buffer_advance(triple: gmb_triple_buffer, passed: *mut u32) -> gmb_status {
    boundary(|| {
        let out = super::optional_output(passed, "passed")?;
        let count = TRIPLE_BUFFERS.get(triple.id)?.advance()?;
        if let Some(out) = out {
            out.write(count);
        }
        Ok(())
    })
}
