//! `gmb_doorbell`: commands to kernels that run.

use super::boundary::boundary;
use super::context::gmb_context;
use super::readiness::gmb_watch;
use super::{
    check_pointer, optional_output, output, sized, timeout, write_info, Sized32, CONTEXTS, DOORBELLS, WATCHES,
};
use crate::error::{Error, Result};
use crate::layout::*;
use crate::status::*;
use crate::{CommandId, Doorbell};

/// Handle of a doorbell: commands from the host to a kernel that runs, and its answers. Zero is null.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct gmb_doorbell {
    /// Opaque.
    pub id: u64,
}

/// A command that was submitted to a doorbell. Zero is none.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct gmb_command_id {
    /// Opaque; a doorbell never gives one twice.
    pub id: u64,
}

/// What a doorbell is made with. Start from `GMB_DOORBELL_OPTIONS_INIT`.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct gmb_doorbell_options {
    /// `sizeof(gmb_doorbell_options)`.
    pub struct_size: u32,
    /// Must be zero.
    pub reserved: u32,
    /// Commands that are under way at once; a power of two, at most `GMB_MOST_MAPPED`.
    pub capacity: u64,
}

// SAFETY: repr(C), begins with struct_size, integers only.
unsafe impl Sized32 for gmb_doorbell_options {
    const NAME: &'static str = "gmb_doorbell_options";
    const FIRST_SIZE: usize = 16;
}

/// A doorbell's counts at one moment.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct gmb_doorbell_info {
    /// Commands that are under way at once.
    pub capacity: u64,
    /// Commands that were submitted since it was made.
    pub submitted: u64,
    /// Commands whose answers were not collected yet; of those without an id until their place is needed.
    pub outstanding: u64,
    /// The doorbell in device memory, for kernels: `gmb::device::doorbell`.
    pub doorbell: *mut gmb_doorbell_header,
    /// 1 while a worker serves it, otherwise 0.
    pub served: u32,
    /// Zero.
    pub reserved: u32,
}

fn command(command: *const gmb_command) -> Result<gmb_command> {
    check_pointer(command, "command")?;
    // SAFETY: not null and aligned; that it is a command is the caller's contract.
    Ok(unsafe { *command })
}

fn number(id: gmb_command_id) -> Result<CommandId> {
    match id.id.checked_sub(1) {
        Some(index) => Ok(CommandId(index)),
        None => Err(Error::argument("id is zero: no command")),
    }
}

/// Makes a doorbell in a context.
///
/// The caller owns it and ends it with `gmb_doorbell_destroy`. Blocks until it is ready; thread-safe.
///
/// Errors: `GMB_ERROR_INVALID_HANDLE`, `_NULL_POINTER`, `_STRUCT_SIZE`, `_INVALID_ARGUMENT` (capacity no power of two),
/// `_OVERFLOW`, `_OUT_OF_MEMORY`, `_OUT_OF_HOST_MEMORY`, `_MEMORY_LIMIT`, `_DEVICE_LOST`.
#[no_mangle]
pub extern "C" fn gmb_doorbell_create(
    context: gmb_context,
    options: *const gmb_doorbell_options,
    doorbell: *mut gmb_doorbell,
) -> gmb_status {
    boundary(|| {
        let out = output(doorbell, "doorbell")?;
        let options = sized(options, "options")?;
        if options.reserved != 0 {
            return Err(Error::argument("options.reserved is not zero"));
        }
        let made = Doorbell::new(&*CONTEXTS.get(context.id)?, options.capacity)?;
        out.write(gmb_doorbell { id: DOORBELLS.insert(made)? });
        Ok(())
    })
}

/// Ends a doorbell; commands that are under way are forgotten, and threads that wait for them get `GMB_ERROR_INVALID_HANDLE`.
/// Kernels of yours that use it must have ended before. Does not block. Safe while other threads are inside calls on it.
/// Errors: `GMB_ERROR_INVALID_HANDLE`, `_BUSY` (a worker serves it: destroy that one first; the doorbell stays).
#[no_mangle]
pub extern "C" fn gmb_doorbell_destroy(doorbell: gmb_doorbell) -> gmb_status {
    boundary(|| {
        let pinned = DOORBELLS.get(doorbell.id)?;
        pinned.check_unused()?;
        DOORBELLS.remove(doorbell.id)?;
        pinned.close();
        Ok(())
    })
}

/// A doorbell's counts. `info_size` is `sizeof(gmb_doorbell_info)`. Never blocks; thread-safe.
/// Errors: `GMB_ERROR_INVALID_HANDLE`, `_NULL_POINTER`, `_STRUCT_SIZE`.
#[no_mangle]
pub extern "C" fn gmb_doorbell_get_info(
    doorbell: gmb_doorbell,
    info: *mut gmb_doorbell_info,
    info_size: usize,
) -> gmb_status {
    boundary(|| {
        let known = DOORBELLS.get(doorbell.id)?.info();
        let value = gmb_doorbell_info {
            capacity: known.capacity,
            submitted: known.submitted,
            outstanding: known.outstanding,
            doorbell: known.doorbell as *mut gmb_doorbell_header,
            served: known.served.into(),
            reserved: 0,
        };
        write_info(info, info_size, value)
    })
}

/// Submits a command, whose flags are zero, to the kernel that serves the doorbell, or will. Commands are taken in the order in
/// which they were submitted. `id`, under which the answer is collected, may be null: then nobody will ask for it.
///
/// Blocks while as many commands are under way as the doorbell takes, for `timeout_ns` nanoseconds at most;
/// `GMB_WAIT_FOREVER` waits without limit, 0 tries once. Thread-safe.
///
/// Errors, with nothing submitted: `GMB_ERROR_INVALID_HANDLE` (also when it is destroyed meanwhile), `_NULL_POINTER`,
/// `_MISALIGNED`, `_INVALID_ARGUMENT` (flags), `_FULL` (for all that time), `_CORRUPT` (something else wrote there),
/// `_DEVICE_LOST`.
#[no_mangle]
pub extern "C" fn gmb_doorbell_submit(
    doorbell: gmb_doorbell,
    command: *const gmb_command,
    timeout_ns: u64,
    id: *mut gmb_command_id,
) -> gmb_status {
    boundary(|| {
        let out = optional_output(id, "id")?;
        let command = self::command(command)?;
        let bell = DOORBELLS.get(doorbell.id)?;
        match out {
            None => bell.post(&command, timeout(timeout_ns)),
            Some(out) => {
                out.write(gmb_command_id { id: bell.submit(&command, timeout(timeout_ns))?.0 + 1 });
                Ok(())
            }
        }
    })
}

/// Collects the answer to a command: blocks until it is there, for `timeout_ns` nanoseconds at most; `GMB_WAIT_FOREVER` waits
/// without limit, 0 asks once. Spins, then yields, then sleeps. `answer->status` is the kernel's own word, or
/// `GMB_ERROR_CANCELLED`, or `GMB_ERROR_NOT_SERVED` when the worker has ended first. Thread-safe.
/// Errors: `GMB_ERROR_INVALID_HANDLE` (also when it is destroyed meanwhile), `_NULL_POINTER`, `_INVALID_ARGUMENT` (no such
/// command; collected already), `_TIMEOUT` (wait again, nothing is lost), `_CORRUPT` (something else wrote there),
/// `_DEVICE_LOST`.
#[no_mangle]
pub extern "C" fn gmb_doorbell_wait(
    doorbell: gmb_doorbell,
    id: gmb_command_id,
    timeout_ns: u64,
    answer: *mut gmb_answer,
) -> gmb_status {
    boundary(|| {
        let out = output(answer, "answer")?;
        out.write(DOORBELLS.get(doorbell.id)?.wait(number(id)?, timeout(timeout_ns))?);
        Ok(())
    })
}

/// Submits a command and collects its answer: blocks until that is there, for `timeout_ns` nanoseconds at most. When time is up
/// in between, the command is cancelled and its answer dropped. Thread-safe.
/// Errors: as of `gmb_doorbell_submit` and `gmb_doorbell_wait`.
#[no_mangle]
pub extern "C" fn gmb_doorbell_call(
    doorbell: gmb_doorbell,
    command: *const gmb_command,
    timeout_ns: u64,
    answer: *mut gmb_answer,
) -> gmb_status {
    boundary(|| {
        let out = output(answer, "answer")?;
        let command = self::command(command)?;
        out.write(DOORBELLS.get(doorbell.id)?.call(&command, timeout(timeout_ns))?);
        Ok(())
    })
}

/// Asks for a command not to be done. One that was not taken yet is answered by `GMB_ERROR_CANCELLED`; of one that was, the
/// kernel may look whether it is still wanted. Either way there is an answer, to be collected. Does not block; thread-safe.
/// Errors: `GMB_ERROR_INVALID_HANDLE`, `_INVALID_ARGUMENT` (no such command; collected already), `_CORRUPT`.
#[no_mangle]
pub extern "C" fn gmb_doorbell_cancel(doorbell: gmb_doorbell, id: gmb_command_id) -> gmb_status {
    boundary(|| DOORBELLS.get(doorbell.id)?.cancel(number(id)?))
}

/// Says that nobody will collect the answer to a command: it makes room when it has come. The command is done nevertheless.
/// Does not block; thread-safe. Errors: `GMB_ERROR_INVALID_HANDLE`, `_INVALID_ARGUMENT` (no such command; collected already).
#[no_mangle]
pub extern "C" fn gmb_doorbell_forget(doorbell: gmb_doorbell, id: gmb_command_id) -> gmb_status {
    boundary(|| DOORBELLS.get(doorbell.id)?.forget(number(id)?))
}

/// Makes a watch whose descriptor says when answers are there to be collected: `gmb_watch_arm(watch, count)` for so many. The
/// caller owns it and ends it with `gmb_watch_destroy`. Does not block; thread-safe.
/// Errors: `GMB_ERROR_INVALID_HANDLE`, `_NULL_POINTER`, `_SYSTEM` (no descriptor left).
#[no_mangle]
pub extern "C" fn gmb_doorbell_create_watch(doorbell: gmb_doorbell, watch: *mut gmb_watch) -> gmb_status {
    boundary(|| {
        let out = output(watch, "watch")?;
        let made = DOORBELLS.get(doorbell.id)?.watch()?;
        out.write(gmb_watch { id: WATCHES.insert(made)? });
        Ok(())
    })
}
